"""A put over a file that the same host has open: what Linux's NFS client makes of it.

Its rename(2) is two calls to the server then (fs/nfs/dir.c, nfs_rename): the open file is put aside
under a name ".nfs…" (nfs_sillyrename), and only then is the new one renamed to the key's name. In
between the key is absent for every host. No program on a client can make it one.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from lab.laboratory import Lab

pytestmark = pytest.mark.nfs(version=("3", "4.2"))
RTT_MS = 200  # whoever watches is rarely kept from looking for as long


class Gap(NamedTuple):
    """For how long a name was missing, in s: by looks that can be late."""

    at_least: float
    """between looks that missed it; 0 if none did"""
    at_most: float
    """between the looks that still had it and that had it again"""


def replaced(lab: Lab, d) -> tuple[Gap, dict[str, int]]:
    """For how long the key's name was missing on the server while it was replaced, and the calls
    that this took."""
    [path] = lab.server.glob("store/*/*.pkl")
    done = threading.Event()
    looks: list[tuple[bool, float, float]] = []

    def look() -> None:
        begun = time.monotonic()
        looks.append((path.exists(), begun, time.monotonic()))

    def watch() -> None:
        while not done.is_set():
            look()
            time.sleep(0.001)

    look()
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with lab.rpcs("a") as rpcs:
            d["key"] = "new"
    finally:
        done.set()
        watcher.join()
    look()
    missed = [place for place, (there, _, _) in enumerate(looks) if not there]
    if not missed:
        return Gap(0, 0), rpcs
    first, last = missed[0], missed[-1]
    at_least = max(0, looks[last][1] - looks[first][2])
    return Gap(at_least, looks[last + 1][2] - looks[first - 1][1]), rpcs


def held(lab: Lab) -> Path:
    [path] = lab.a.glob("store/*/*.pkl")
    return path


def test_a_put_is_one_rename(lab: Lab, a) -> None:
    d = a(lazy=True)
    d["key"] = "old"
    lab.delay(RTT_MS)
    gap, rpcs = replaced(lab, d)
    assert rpcs["RENAME"] == 1
    assert gap.at_most == 0


def test_a_put_over_an_open_file_is_two_with_a_gap_of_one_call(lab: Lab, a, b) -> None:
    d = a(lazy=True)
    d["key"] = "old"
    lab.delay(RTT_MS)
    with held(lab).open("rb"):
        gap, rpcs = replaced(lab, d)
        assert rpcs["RENAME"] == 2
        assert gap.at_most > RTT_MS / 2000
        assert gap.at_least < RTT_MS / 200
        [aside] = lab.server.glob("store/*/.nfs*")
        assert b"old" in aside.read_bytes()
    # Neither before nor after that is anything missing.
    assert b().get("key", fresh=True) == a().get("key", fresh=True) == "new"


def test_a_put_over_a_file_that_another_host_has_open_leaves_none(lab: Lab, a, b) -> None:
    d = a(lazy=True)
    d["key"] = "old"
    assert b()["key"] == "old"
    [path] = lab.b.glob("store/*/*.pkl")
    with path.open("rb"):
        lab.delay(RTT_MS)
        gap, _ = replaced(lab, d)  # v4 asks again where that host has to return a delegation
    assert gap.at_most == 0
