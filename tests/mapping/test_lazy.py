"""A lazy dictionary of a settled store: its keys are in the index, and go into the cache late."""

from __future__ import annotations

import importlib
import os
import threading

import pytest

from support.aging import age
from support.index_layout import open_, plain_delete, plain_write, scan
from support.layout import value_file

MANY = {f"key {number}": number for number in range(100)}


@pytest.fixture
def lazy(nfsdict, tmp_path, lists):
    """Opened, and its keys counted."""
    for key, value in MANY.items():
        plain_write(tmp_path, key, value)
    age(tmp_path)
    open_(nfsdict, tmp_path).close()
    del lists[:]
    d = open_(nfsdict, tmp_path, lazy=True)
    assert len(d) == 100 and lists == []
    return d


def test_counting_reads_nothing(lazy, reads):
    assert len(lazy) == 100 and bool(lazy)
    assert reads == []
    assert repr(lazy).endswith(" 100 keys>")


def test_counting_among_lookups(lazy):
    """Each key is counted once, whether it was looked up or not."""
    for number in range(100):
        assert lazy[f"key {number}"] == number
        assert len(lazy) == 100
    assert dict(lazy) == MANY


OPERATIONS = {
    "put": (lambda d: d.update({"key 1": "x"}), {"key 1": "x"}),
    "set": (lambda d: d.__setitem__("key 1", "x"), {"key 1": "x"}),
    "new": (lambda d: d.__setitem__("new", "x"), {"new": "x"}),
    "update": (lambda d: d.update(new=1, other=2), {"new": 1, "other": 2}),
    "delete": (lambda d: d.__delitem__("key 1"), {"key 1": None}),
    "pop": (lambda d: d.pop("key 1"), {"key 1": None}),
    "add": (lambda d: d.add("new", "x"), {"new": "x"}),
    "lost": (lambda d: d.add("key 1", "x"), {}),
    "default": (lambda d: d.setdefault("key 1", "x"), {}),
    "in": (lambda d: "key 1" in d, {}),
    "not in": (lambda d: "new" in d, {}),
    "get": (lambda d: d.get("new"), {}),
    "fresh": (lambda d: d.get("key 1", fresh=True), {}),
    "refresh": (lambda d: d.refresh(), {}),
    "sync": (lambda d: d.sync(), {}),
}


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("after", ["count", "keys"])
def test_each_operation_on_what_is_only_listed(nfsdict, tmp_path, lazy, operation, after):
    act, changes = OPERATIONS[operation]
    act(lazy)
    wanted = {key: value for key, value in (MANY | changes).items() if value is not None}
    if after == "count":
        assert len(lazy) == len(wanted)
    assert set(lazy) == wanted.keys() and len(lazy) == len(wanted)
    assert dict(lazy) == wanted == scan(tmp_path)


def test_what_was_read_is_kept(lazy, reads):
    assert lazy["key 1"] == 1 and len(reads) == 1
    assert len(set(lazy)) == 100
    assert lazy["key 1"] == 1 and len(reads) == 1


def test_deleting_a_listed_key_that_is_gone(tmp_path, lazy):
    """No KeyError: it was there, and is deleted."""
    plain_delete(tmp_path, "key 2")
    del lazy["key 2"]
    assert len(lazy) == 99


def test_popping_a_listed_key_that_is_gone(tmp_path, lazy):
    plain_delete(tmp_path, "key 2")
    with pytest.raises(KeyError):
        lazy.pop("key 2")
    assert len(lazy) == 99


def test_adding_a_listed_key_writes_no_file(nfsdict, lazy, monkeypatch):
    monkeypatch.setattr(importlib.import_module("nfsdict.storage.exclusive").Exclusive, "add", None)
    assert not lazy.add("key 4", "x")


def test_in_asks_nobody_for_a_listed_key(tmp_path, lazy, monkeypatch):
    ValueFiles = importlib.import_module("nfsdict.storage.values").ValueFiles
    monkeypatch.setattr(ValueFiles, "look", None)
    assert all(key in lazy for key in MANY)


def test_popitem_and_clear(tmp_path, lazy):
    key, value = lazy.popitem()
    assert MANY[key] == value and len(lazy) == 99
    lazy.clear()
    assert len(lazy) == 0 and dict(lazy) == scan(tmp_path) == {}


def test_what_others_change_before_the_cache_is_filled(tmp_path, lazy):
    plain_write(tmp_path, "new", "x")
    plain_write(tmp_path, "key 1", "x")
    plain_delete(tmp_path, "key 2")
    age(tmp_path)
    for key in ("new", "key 1"):
        os.utime(value_file(tmp_path, key))  # younger than the directory
    assert lazy.refresh() == {"new", "key 1", "key 2"}
    assert len(lazy) == 100
    assert dict(lazy) == scan(tmp_path)


def test_a_missing_key_is_no_longer_counted(tmp_path, lazy):
    """Somebody has deleted it, which a lookup has found."""
    plain_delete(tmp_path, "key 2")
    with pytest.raises(KeyError):
        lazy["key 2"]
    assert len(lazy) == 99 and "key 2" not in set(lazy)


def test_threads_that_count_look_up_and_delete(tmp_path, lazy):
    problems = []

    def each(act):
        def run():
            try:
                for number in range(100):
                    act(number)
            except BaseException as error:
                problems.append(error)

        return threading.Thread(target=run)

    counts = []
    threads = [
        each(lambda number: counts.append(len(lazy))),
        each(lambda number: lazy.get(f"key {number}")),
        each(lambda number: lazy.pop(f"key {99 - number}")),
        each(lambda number: lazy.__setitem__(f"new {number}", number)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == [] and all(0 <= count <= 200 for count in counts)
    assert dict(lazy) == scan(tmp_path) == {f"new {number}": number for number in range(100)}


@pytest.mark.parametrize("operation", ["miss", "read", "put", "add", "delete", "pop"])
def test_a_key_is_hashed_once(nfsdict, opened, monkeypatch, operation):
    """Below the dictionary a key goes by its digest."""
    opened().update(there=1, **{f"key {number}": number for number in range(20)})
    hashed = []
    for name in ("entries", "index.memory", "mapping", "one_key", "state", "taking"):
        module = importlib.import_module(f"nfsdict.{name}")
        original = module.digest
        monkeypatch.setattr(
            module, "digest", lambda key, original=original: hashed.append(key) or original(key)
        )
    d = opened(lazy=True)
    {
        "miss": lambda: d.get("none"),
        "read": lambda: d["there"],
        "put": lambda: d.__setitem__("new", 1),
        "add": lambda: d.add("new", 1),
        "delete": lambda: d.__delitem__("there"),
        "pop": lambda: d.pop("there"),
    }[operation]()
    assert len(hashed) == 1
