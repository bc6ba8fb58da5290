"""Mounted with ``nocto`` the client asks nothing when a file or a directory is opened."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from lab.laboratory import Lab
from support.settling import SETTLED, settle

OLD = {f"key {number}": "old" for number in range(30)}
READS: dict[str, Callable] = {
    "[]": lambda d, key: d[key],
    "get": lambda d, key: d.get(key),
    "in": lambda d, key: key in d and "new",
    "fresh": lambda d, key: d.get(key, fresh=True),
    "setdefault": lambda d, key: d.setdefault(key, "lost"),
}


@pytest.mark.parametrize("pause", [0, 0.5], ids=["at once", "later"])
@pytest.mark.parametrize("read", READS.values(), ids=READS)
@pytest.mark.nfs(version=("3", "4.2"), export="ext4", options="nocto")
def test_a_key_that_was_missed_is_found(lab: Lab, a, b, read, pause) -> None:
    here, there = a(lazy=True), b(lazy=True)
    for number in range(5 if pause else 20):
        key = f"key {number}"
        assert key not in here
        assert here.get(key) is None
        time.sleep(pause)
        there[key] = "new"
        assert read(here, key) == "new"


@pytest.mark.parametrize("pause", [0, 0.5], ids=["at once", "later"])
@pytest.mark.nfs(version=("3", "4.2"), export="ext4", options="nocto")
def test_a_fresh_get_sees_what_became_of_a_key(lab: Lab, a, b, pause) -> None:
    here, there = a(), b()
    for number in range(5 if pause else 20):
        key = f"key {number}"
        there[key] = "old"
        assert here[key] == "old"
        time.sleep(pause)
        there[key] = "new"
        assert here.get(key, fresh=True) == "new"
        time.sleep(pause)
        del there[key]
        assert here.get(key, "none", fresh=True) == "none"
        assert key not in here


@pytest.mark.parametrize("keys", [2, len(OLD)], ids=["few", "many"])
@pytest.mark.nfs(version=("3", "4.2"), export="ext4", options="nocto")
def test_a_settled_store_is_as_the_server_has_it(lab: Lab, a, b, keys) -> None:
    old = dict(list(OLD.items())[:keys])
    settle(a, b, old)
    there = b()
    refreshed, synced, lazy = a(), a(), a(lazy=True)
    assert len(lazy) == keys
    for turn in range(4):
        there[f"new {turn}"] = turn
        there["key 0"] = ("replaced", turn)
        changed = {f"new {turn}", "key 0"}
        if turn:
            del there[f"new {turn - 1}"]
            changed.add(f"new {turn - 1}")
        assert refreshed.refresh() == changed
        assert refreshed.refresh() == set()
        assert lazy.refresh() == changed
        synced.sync()
        wanted = {**old, "key 0": ("replaced", turn), f"new {turn}": turn}
        assert dict(refreshed) == dict(synced) == dict(lazy) == dict(a()) == wanted
        assert dict(a(lazy=True)) == wanted
        time.sleep((0, SETTLED, 0, 0)[turn])


@pytest.mark.nfs(version=("3", "4.2"), options="nocto")
def test_one_wins(lab: Lab, a, b) -> None:
    here, there = a(), b()
    for number in range(30):
        key = f"key {number}"
        first, second = (here, there) if number % 2 else (there, here)
        assert key not in second
        assert first.add(key, 1) is True
        assert second.add(key, 2) is False
        assert second.pop(key) == 1
        assert first.pop(key, None) is None
