"""Infos: where an entry is, how large, since when, and whether a pack has it."""

from __future__ import annotations

import importlib
import os
import threading
import time
from datetime import datetime, timedelta, timezone

import pytest

from support.aging import age
from support.forks import forking, in_child
from support.index_layout import TWINS, WANTED, open_, plain_write
from support.layout import digest, value_file
from support.planted import Ran, evil

LARGE = "x" * 40_000  # more than a pack takes
STORED = {**WANTED, "large": LARGE}


@pytest.fixture
def store(nfsdict, tmp_path):
    """Packed, but for what is too large."""
    for key, value in STORED.items():
        plain_write(tmp_path, key, value)
    age(tmp_path)
    with open_(nfsdict, tmp_path) as d:
        assert d.pack() == (3, 1, 0)
    return tmp_path


def expected(base, key, packed):
    """What the system tells of the file."""
    path = value_file(base, key)
    status = path.stat()
    moment = datetime.fromtimestamp(status.st_mtime_ns // 10**9, timezone.utc)
    moment += timedelta(microseconds=status.st_mtime_ns % 10**9 // 1000)
    return key, path, status.st_size, moment, packed


def told(info):
    return info.key, info.path, info.size, info.modified, info.packed


@pytest.mark.parametrize("lazy", [False, True])
def test_info(nfsdict, store, lazy, reads):
    d = open_(nfsdict, store, lazy=lazy)
    del reads[:]
    assert told(d.info("a")) == expected(store, "a", packed=True)
    assert told(d.info("large")) == expected(store, "large", packed=False)
    assert isinstance(d.info("a"), nfsdict.EntryInfo)
    assert reads == []


@pytest.mark.parametrize("lazy", [False, True])
def test_infos(nfsdict, store, lazy, reads):
    d = open_(nfsdict, store, lazy=lazy, workers=4)
    del reads[:]
    found = {info.key: told(info) for info in d.infos()}
    assert found == {key: expected(store, key, key != "large") for key in STORED}
    assert reads == []


def test_infos_agree_with_info(nfsdict, store):
    d = open_(nfsdict, store)
    d.update({f"new {number}": number for number in range(20)})
    infos = {info.key: info for info in d.infos()}
    assert infos == {key: d.info(key) for key in d}
    assert {info.path for info in infos.values()} == {d.path_of(key) for key in d}


def test_prefix(nfsdict, store):
    d = open_(nfsdict, store)
    d.update({"run/1": 1, "run/2": 2, "runs": 3})
    assert {info.key for info in d.infos("run/")} == {"run/1", "run/2"}
    assert list(d.infos("absent")) == []


def test_what_others_changed(nfsdict, store):
    """By the server's word, whatever this dictionary knows."""
    d = open_(nfsdict, store)
    other = open_(nfsdict, store)
    other["a"] = "longer than before"
    other["new"] = 1
    del other["b"]
    assert told(d.info("a")) == expected(store, "a", packed=False)
    assert told(d.info("new")) == expected(store, "new", packed=False)
    with pytest.raises(KeyError):
        d.info("b")
    assert sorted(info.key for info in d.infos()) == ["a", "c", "large", "new"]
    assert {told(info) for info in d.infos("a")} == {expected(store, "a", packed=False)}
    age(store)
    other.pack()
    assert d.info("a").packed and d.info("new").packed
    assert all(info.packed for info in d.infos() if info.key != "large")


def test_absent(nfsdict, tmp_path):
    d = open_(nfsdict, tmp_path)
    for key in ("a", 5, None):
        with pytest.raises(KeyError) as raised:
            d.info(key)
        assert raised.value.args == (key,)
    assert list(d.infos()) == []


def test_what_is_no_key(nfsdict, tmp_path):
    d = open_(nfsdict, tmp_path)
    for call in (
        lambda: d.info([]),
        lambda: d.infos(5),
        lambda: d.infos(b"a"),
        lambda: d.path_of(5),
    ):
        with pytest.raises(TypeError):
            call()


def test_a_missing_store(nfsdict, tmp_path):
    d = open_(nfsdict, tmp_path)
    os.rmdir(tmp_path / "store")
    with pytest.raises(FileNotFoundError):
        list(d.infos())


def test_another_serializer(nfsdict, store):
    d = open_(nfsdict, store, serializer="json", lazy=True)
    with pytest.raises(nfsdict.WrongSerializerError):
        d.infos()
    with pytest.raises(nfsdict.WrongSerializerError):
        d.info("a")


def test_without_an_index_files_are_read_for_their_keys(nfsdict, store, reads):
    for path in store.glob("store/_*"):
        path.unlink()
    d = open_(nfsdict, store, lazy=True)
    assert {told(info) for info in d.infos()} == {expected(store, key, False) for key in STORED}
    assert len(reads) == len(STORED)
    assert dict.__len__(d._cache) == 0  # nothing that was read stays in memory


def test_a_listed_dictionary_knows_the_keys(nfsdict, store, reads):
    d = open_(nfsdict, store)
    for path in store.glob("store/_*"):
        path.unlink()
    del reads[:]
    assert {info.key for info in d.infos()} == STORED.keys()
    assert reads == []


def test_damage(nfsdict, store, caplog):
    """What is known has an info, damaged or not; what isn't is left out."""
    value_file(store, "a").write_bytes(b"damaged")
    plain_write(store, "new", 1)
    value_file(store, "new").write_bytes(b"damaged")
    d = open_(nfsdict, store, lazy=True)
    assert {info.key for info in d.infos()} == STORED.keys()
    assert d.info("a").size == d.info("new").size == len(b"damaged")
    assert "damaged value file" in caplog.text


def test_no_value_runs_its_code(nfsdict, store):
    """Of a key that is known."""
    value_file(store, "a").write_bytes(evil("a"))
    d = open_(nfsdict, store, lazy=True)
    assert d.info("a").size == len(evil("a"))
    assert {info.key for info in d.infos()} == STORED.keys()
    value_file(store, "new").parent.mkdir()
    value_file(store, "new").write_bytes(evil("new"))
    with pytest.raises(Ran):
        list(d.infos())


def test_neighbours_are_no_entries(nfsdict, store):
    shard = value_file(store, "a").parent
    (shard / f"{digest('a')}.json").write_text("[]")
    (shard / ".nfsdict-0123").write_text("")
    (shard / f"{shard.name}{'0' * 62}.pkl").mkdir()
    d = open_(nfsdict, store, lazy=True)
    assert {info.key for info in d.infos()} == STORED.keys()


def test_times_far_away(nfsdict, store):
    for seconds in (-(2**31), 0, 2**33):
        os.utime(value_file(store, "a"), (seconds, seconds))
        d = open_(nfsdict, store, lazy=True)
        assert d.info("a").modified == datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(
            seconds=seconds
        )
        assert [info.modified for info in d.infos("a")] == [d.info("a").modified]


def test_paths_ask_nobody(nfsdict, store, monkeypatch):
    d = open_(nfsdict, store, lazy=True)
    for name in ("look", "find"):
        monkeypatch.delattr(f"nfsdict.storage.reading.ValueReader.{name}")
    assert d.path_of("a") == value_file(store, "a")
    assert d.path_of("absent") == value_file(store, "absent")


def test_shard_by_shard(nfsdict, tmp_path, lists):
    """The first info comes before the rest of the store is listed."""
    d = open_(nfsdict, tmp_path)
    d.update(dict.fromkeys(map(str, range(2000)), 0))
    del lists[:]
    infos = d.infos()
    assert lists == []
    next(infos)
    assert len(lists) <= 10
    infos.close()


def test_a_loop_left_early_ends_its_threads(nfsdict, tmp_path, monkeypatch):
    shards = importlib.import_module("nfsdict.storage.shards").Shards
    original = shards.list
    d = open_(nfsdict, tmp_path, workers=4)
    d.update(dict.fromkeys(map(str, range(500)), 0))
    monkeypatch.setattr(shards, "list", lambda *args: time.sleep(0.003) or original(*args))
    before = set(threading.enumerate())  # some may end
    infos = d.infos()
    for _ in range(20):
        next(infos)
    assert set(threading.enumerate()) - before
    infos.close()
    assert set(threading.enumerate()) <= before


def test_many_in_one_shard(nfsdict, tmp_path, reads):
    """More than one batch is read of it."""
    for key in TWINS:
        plain_write(tmp_path, key, "x" * 50_000)
    d = open_(nfsdict, tmp_path, lazy=True)
    assert sorted(info.key for info in d.infos()) == sorted(TWINS)
    assert len(reads) == len(TWINS)


def test_many_infos_read_the_index_once(nfsdict, store, monkeypatch):
    stack = importlib.import_module("nfsdict.index.stack")
    opened = []
    original = stack.Pack.__init__
    monkeypatch.setattr(
        stack.Pack, "__init__", lambda *args: opened.append(args) or original(*args)
    )
    d = open_(nfsdict, store, lazy=True)
    for _ in range(3):
        assert [d.info(key).packed for key in STORED] == [True, True, True, False]
    assert len(opened) == 1


@forking
def test_within_another_call(nfsdict, store, monkeypatch):
    """In a signal handler that has interrupted a call which holds locks; or the child's alarm ends
    it. Threads list the shards, as they wait."""
    shards = importlib.import_module("nfsdict.storage.shards").Shards
    original = shards.list
    monkeypatch.setattr(shards, "list", lambda *args: time.sleep(0.003) or original(*args))
    d = open_(nfsdict, store, workers=4)

    def ask():
        with d._locks.guard, d._locks.state:
            assert {info.key for info in d.infos()} == STORED.keys()
            assert d.info("a").packed

    assert in_child(ask) == 0
