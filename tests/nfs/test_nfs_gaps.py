"""A put over a file that the same host has open: what Linux's NFS client makes of it.

Its rename(2) is two calls to the server then (fs/nfs/dir.c, nfs_rename): the open file is put aside
under a name ".nfs…" (nfs_sillyrename), and only then is the new one renamed to the key's name. In
between the key is absent for every host. No program on a client can make it one.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from lab.laboratory import Lab

pytestmark = pytest.mark.nfs(version=("3", "4.2"))
RTT_MS = 40


def replaced(lab: Lab, d) -> tuple[float, dict[str, int]]:
    """For how long the key's name was missing on the server while it was replaced, in s, and the
    calls that this took."""
    [path] = lab.server.glob("store/*/*.pkl")
    done = threading.Event()
    missing: list[float] = []

    def watch() -> None:
        while not done.is_set():
            if not path.exists():
                missing.append(time.monotonic())
            time.sleep(0.001)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with lab.rpcs("a") as rpcs:
            d["key"] = "new"
    finally:
        done.set()
        watcher.join()
    return (missing[-1] - missing[0] if missing else 0.0), rpcs


def held(lab: Lab) -> Path:
    [path] = lab.a.glob("store/*/*.pkl")
    return path


def test_a_put_is_one_rename(lab: Lab, a) -> None:
    d = a(lazy=True)
    d["key"] = "old"
    lab.delay(RTT_MS)
    missing, rpcs = replaced(lab, d)
    assert rpcs["RENAME"] == 1
    assert missing == 0


def test_a_put_over_an_open_file_is_two_with_a_gap_of_one_call(lab: Lab, a, b) -> None:
    d = a(lazy=True)
    d["key"] = "old"
    lab.delay(RTT_MS)
    with held(lab).open("rb"):
        missing, rpcs = replaced(lab, d)
        assert rpcs["RENAME"] == 2
        assert RTT_MS / 2000 < missing < RTT_MS / 200
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
        missing, _ = replaced(lab, d)  # v4 asks again where that host has to return a delegation
    assert missing == 0
