"""Two changes of a directory in one tick of the server's clock, between which another process of
the host looks: its client can't tell the second one, for any process of the host."""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import pytest

from lab.laboratory import Lab
from support.settling import SETTLED

READS: dict[str, Callable] = {
    "[]": lambda d, key: d[key],
    "get": lambda d, key: d.get(key),
    "in": lambda d, key: key in d and f"value of {key}",
    "fresh": lambda d, key: d.get(key, fresh=True),
}


class Neighbour:
    """Another process of A's host, which looks up names between two changes in one tick.

    ``here`` is at work meanwhile, so that it knows the server's time. It has looked at none.
    """

    def __init__(self, package, lab: Lab, here) -> None:
        self._digest = importlib.import_module("nfsdict.core").digest
        self._lab = lab
        self._here = here
        self._there = package.NfsDict("store", lab.server, durable=False)

    def path(self, key: str, client: str = "server") -> Path:
        name = self._digest(key)
        return getattr(self._lab, client) / "store" / name[:2] / f"{name}.pkl"

    def looks_at(self, groups: list[list[str]], change: Callable[[Path], object]) -> list[str]:
        """The keys of those groups, each of one shard, whose files were changed in the tick in
        which it looked. Nothing changes in their shards afterwards."""
        looked = []
        for keys in groups:
            shard = self.path(keys[0]).parent
            (shard / "file").touch()
            tick = shard.stat().st_ctime_ns
            os.close(os.open(self.path(keys[0], "a").parent, os.O_RDONLY))  # asks for its times
            for key in keys:
                with suppress(FileNotFoundError):
                    self.path(key, "a").lstat()
            for key in keys:
                change(self.path(key))
            if shard.stat().st_ctime_ns == tick:
                looked += keys
        self._there["late"] = 1
        assert self._here.get("late", fresh=True) == 1
        time.sleep(0.3)
        assert len(looked) > len(groups) / 10
        return looked


def by_shard(keys: Iterable[str]) -> list[list[str]]:
    """The keys by shard, those of the shard of "late" left out."""
    digest = importlib.import_module("nfsdict.core").digest
    groups: dict[str, list[str]] = {}
    for key in keys:
        groups.setdefault(digest(key)[:2], []).append(key)
    groups.pop(digest("late")[:2], None)
    return list(groups.values())


@pytest.mark.parametrize("read", READS.values(), ids=READS)
@pytest.mark.nfs(version="3")
def test_a_key_that_another_process_missed_in_one_tick_is_found(lab: Lab, package, a, read) -> None:
    """The client goes on believing that miss, for all processes of the host."""
    values = {str(number): f"value of {number}" for number in range(100)}
    aside = lab.server / "aside"
    aside.mkdir()
    here = a(lazy=True)
    package.NfsDict("store", lab.server, durable=False).update(values)
    neighbour = Neighbour(package, lab, here)
    for key in values:
        neighbour.path(key).rename(aside / key)

    def put(path: Path) -> None:
        (aside / names[path]).rename(path)

    names = {neighbour.path(key): key for key in values}
    looked = neighbour.looks_at(by_shard(values), put)
    assert [key for key in looked if read(here, key) != values[key]] == []


LOOKS: dict[str, Callable] = {
    "in": lambda d, key: key in d,
    "add": lambda d, key: not d.add(key, 2),
    "refresh": lambda d, key: key in d,
}


@pytest.mark.parametrize("how", LOOKS)
@pytest.mark.nfs(version="3")
def test_a_key_that_another_process_saw_in_one_tick_is_gone_after_its_removal(
    lab: Lab, package, a, how
) -> None:
    """The client goes on believing that the file is there, for all processes of the host."""
    keys = list(map(str, range(200)))
    package.NfsDict("store", lab.server, durable=False).update(dict.fromkeys(keys, 1))
    time.sleep(SETTLED)
    here = a(lazy=how == "in")
    if how != "in":
        assert len(here) == len(keys)
    looked = Neighbour(package, lab, here).looks_at(by_shard(keys), Path.unlink)
    if how == "refresh":
        assert set(looked) <= here.refresh()
    assert [key for key in looked if LOOKS[how](here, key)] == []


@pytest.mark.nfs(version="3")
def test_a_store_that_another_process_looked_at_while_it_was_replaced_is_found(
    lab: Lab, package, a
) -> None:
    """It looked between the two renames."""
    here = a(lazy=True)
    package.NfsDict("new", lab.server, durable=False)["new"] = 1
    for _ in range(100):
        time.sleep(0.05)
        (lab.server / "store").rename(lab.server / "old")
        tick = lab.server.stat().st_ctime_ns
        os.close(os.open(lab.a, os.O_RDONLY))
        with suppress(FileNotFoundError):
            (lab.a / "store").lstat()
        (lab.server / "new").rename(lab.server / "store")
        if lab.server.stat().st_ctime_ns == tick:
            break
        (lab.server / "store").rename(lab.server / "new")
        (lab.server / "old").rename(lab.server / "store")
    else:
        pytest.fail("no two renames met in one tick")
    time.sleep(0.3)
    here._scanner._storage.rules.clock.observe(tick)
    time.sleep(0.3)
    here.refresh()
    assert dict(here) == {"new": 1}
