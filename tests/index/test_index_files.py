"""The index of a store with files, written by this dictionary and by anybody."""

from __future__ import annotations

import errno
import importlib
import json
import os
import pickle
import random
from pathlib import Path

import pytest

from support.aging import age, within_one_tick
from support.index_layout import TWINS, open_, plain_write
from support.layout import digest, value_file


def index_files(store):
    """Those of the index, and the inode of each: none is ever changed in place."""
    return {path.name: path.stat().st_ino for path in store.glob("_*")}


@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
def test_clean_shards_are_not_listed_again(nfsdict, tmp_path, lists, lazy):
    wanted = {f"key {number}": number for number in range(50)}
    for key, value in wanted.items():
        plain_write(tmp_path, key, value)
    shards = {digest(key)[:2] for key in wanted}
    age(tmp_path)

    with open_(nfsdict, tmp_path, lazy=lazy) as d:
        assert dict(d) == wanted
    assert sorted(lists) == sorted(shards)
    lists.clear()

    with open_(nfsdict, tmp_path, lazy=lazy) as d:
        assert len(d) == len(wanted) and dict(d) == wanted
    assert lists == []

    plain_write(tmp_path, "key 3", "other")
    plain_write(tmp_path, "new", "value")
    value_file(tmp_path, "key 4").unlink()
    wanted.update({"key 3": "other", "new": "value"})
    del wanted["key 4"]
    with open_(nfsdict, tmp_path, lazy=lazy) as d:
        assert len(d) == len(wanted) and dict(d) == wanted
    assert sorted(lists) == sorted({digest(key)[:2] for key in ("key 3", "new", "key 4")})


def test_a_shard_that_vanished(nfsdict, tmp_path):
    for key in "abc":
        plain_write(tmp_path, key, 1)
    age(tmp_path)
    with open_(nfsdict, tmp_path) as d:
        assert len(d) == 3
    value_file(tmp_path, "a").unlink()
    value_file(tmp_path, "a").parent.rmdir()
    with open_(nfsdict, tmp_path) as d:
        assert set(d) == {"b", "c"}
    with open_(nfsdict, tmp_path, lazy=True) as d:
        assert set(d) == {"b", "c"}


@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
def test_a_shard_that_vanishes_while_a_dictionary_is_open(nfsdict, tmp_path, lazy):
    for key in "abc":
        plain_write(tmp_path, key, 1)
    age(tmp_path)
    with open_(nfsdict, tmp_path, lazy=lazy) as d:
        assert len(d) == 3
        value_file(tmp_path, "a").unlink()
        value_file(tmp_path, "a").parent.rmdir()
        assert d.refresh() == {"a"}
        assert set(d) == {"b", "c"} and dict(d) == {"b": 1, "c": 1}


@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
def test_a_racy_file_is_read_again(nfsdict, tmp_path, monkeypatch, lazy):
    """Written anew within one tick it may look the same: inode, size and times."""
    within_one_tick(monkeypatch, tmp_path)
    plain_write(tmp_path, "a", 1)
    d = open_(nfsdict, tmp_path, lazy=lazy)
    assert d["a"] == 1 and len(d) == 1
    d.close()
    value_file(tmp_path, "a").write_bytes(pickle.dumps(("a", 2)))
    assert dict(open_(nfsdict, tmp_path, lazy=lazy)) == {"a": 2}
    d.refresh()
    assert dict(d) == {"a": 2}


def test_a_survey_that_failed(nfsdict, tmp_path, monkeypatch):
    """The next one knows what that had found, and misses what has gone since."""
    shards = sorted({digest(key)[:2]: key for key in "abc"}.items())
    for _, key in shards:
        plain_write(tmp_path, key, 1)
    age(tmp_path)
    Shards = importlib.import_module("nfsdict.storage.shards").Shards
    original = Shards.list

    def list_(self, shard, *known):
        if shard == shards[-1][0]:
            raise OSError(errno.EIO, "the server is gone")
        return original(self, shard, *known)

    d = nfsdict.NfsDict("store", tmp_path, lazy=True, workers=1)
    with monkeypatch.context() as patch:
        patch.setattr(Shards, "list", list_)
        with pytest.raises(OSError, match="the server is gone"):
            len(d)
    value_file(tmp_path, shards[0][1]).unlink()
    assert sorted(d) == sorted(key for _, key in shards[1:])
    assert dict(d) == {key: 1 for _, key in shards[1:]}


@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
def test_a_change_within_one_tick_of_the_stamp(nfsdict, tmp_path, monkeypatch, lazy):
    within_one_tick(monkeypatch, tmp_path)
    with open_(nfsdict, tmp_path) as d:
        d["a"] = 1
    with open_(nfsdict, tmp_path) as d:  # has listed it
        assert set(d) == {"a"}
    same_shard = next(key for key in map(str, range(10_000)) if digest(key)[:2] == digest("a")[:2])
    plain_write(tmp_path, same_shard, 2)
    with open_(nfsdict, tmp_path, lazy=lazy) as d:
        assert dict(d) == {"a": 1, same_shard: 2}


@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
def test_a_new_open_lists_what_the_store_holds_whoever_wrote_it(nfsdict, tmp_path, lazy):
    """Writers of both kinds in turn, with and without an index, aged or not."""
    store = tmp_path / "store"
    index = store / "_index.nfsdict-pkl"
    generator = random.Random(5)
    wanted = {}
    keys = [f"key {number}" for number in range(40)]
    for turn in range(30):
        key = generator.choice(keys)
        plain_write(tmp_path, key, turn)
        wanted[key] = turn
        key = generator.choice(keys)
        if wanted.pop(key, None) is not None:
            value_file(tmp_path, key).unlink()
        if generator.random() < 0.5:
            age(tmp_path)
        if generator.random() < 0.2 and index.exists():
            index.unlink()
        with open_(nfsdict, tmp_path, lazy=lazy) as d:
            assert set(d) == set(wanted)
            assert dict(d) == wanted
            key = generator.choice(keys)
            d[key] = wanted[key] = -turn
            if generator.random() < 0.3:
                key, value = d.popitem()
                assert wanted.pop(key) == value
            assert dict(d) == wanted
            if generator.random() < 0.2:
                index.unlink(missing_ok=True)


def test_the_index_can_go_at_any_time(nfsdict, tmp_path):
    index = tmp_path / "store" / "_index.nfsdict-pkl"
    with open_(nfsdict, tmp_path) as d:
        d["a"] = 1
    first = open_(nfsdict, tmp_path, lazy=True)
    index.unlink()
    assert dict(first) == {"a": 1}
    first["b"] = 2
    first.close()
    assert index.exists()
    index.unlink()
    assert dict(open_(nfsdict, tmp_path)) == {"a": 1, "b": 2}


def test_stores_of_different_serializers_have_indexes_of_their_own(nfsdict, tmp_path):
    dictionaries = {s: open_(nfsdict, tmp_path, serializer=s) for s in ("pickle", "json", "bytes")}
    for serializer, value in (("pickle", 1), ("json", 2), ("bytes", b"3")):
        with dictionaries[serializer] as d:
            d["k"] = value
            assert dict(d) == {"k": value}
    names = sorted(path.name for path in Path(tmp_path, "store").iterdir() if path.is_file())
    kinds = ("bin", "json", "pkl")
    assert names[:3] == [f"_index.nfsdict-{kind}" for kind in kinds]
    assert [name[:-24] for name in names[3:]] == [f"_pack.nfsdict-{kind}-" for kind in kinds]
    assert json.loads(next(Path(tmp_path, "store").glob("*/*.json")).read_text()) == ["k", 2]


def test_nothing_changed_nothing_written(nfsdict, tmp_path):
    store = tmp_path / "store"
    plain_write(tmp_path, "a", 1)
    age(tmp_path)
    with open_(nfsdict, tmp_path) as d:
        assert dict(d) == {"a": 1}
    before = index_files(store)
    assert len(before) == 2
    for lazy in (False, True):
        with open_(nfsdict, tmp_path, lazy=lazy) as d:
            assert len(d) == 1 and dict(d) == {"a": 1}
        assert index_files(store) == before


def test_an_index_of_several_packs_is_settled_too(nfsdict, tmp_path, lists):
    """Also where values are too large for packs, and are read from their files each time."""
    store = tmp_path / "store"
    wanted = {key: "x" * (40_000 if key == TWINS[0] else 500) for key in TWINS}
    for key, value in wanted.items():
        plain_write(tmp_path, key, value)
    age(tmp_path)
    open_(nfsdict, tmp_path).close()
    for key in TWINS[:9]:
        wanted[key] = "y"
        plain_write(tmp_path, key, "y")
    large = TWINS[9]
    wanted[large] = "z" * 40_000
    plain_write(tmp_path, large, wanted[large])
    age(tmp_path)
    open_(nfsdict, tmp_path).close()
    before = index_files(store)
    assert len(before) == 3
    lists.clear()
    for lazy in (False, True, False):
        with open_(nfsdict, tmp_path, lazy=lazy) as d:
            assert len(d) == len(wanted) and dict(d) == wanted
        assert lists == [] and index_files(store) == before


@pytest.fixture
def replaced(nfsdict, tmp_path):
    """A settled store of 100 keys, some of which were replaced since, not just now."""

    def replaced(keys):
        wanted = {f"key {number}": number for number in range(100)}
        for key, value in wanted.items():
            plain_write(tmp_path, key, value)
        age(tmp_path)
        open_(nfsdict, tmp_path).close()
        for key in keys:
            wanted[key] = "other"
            plain_write(tmp_path, key, "other")
        age(tmp_path)
        return wanted

    return replaced


def test_pack_takes_the_values_that_were_replaced(nfsdict, tmp_path, replaced, reads):
    """Of these the packs before hold other bytes."""
    wanted = replaced(["key 7"])
    with open_(nfsdict, tmp_path) as d:
        assert d.pack() == (100, 0, 0)
    reads.clear()
    assert dict(open_(nfsdict, tmp_path)) == wanted and reads == []


def test_who_reads_values_that_no_pack_has_packs_them(nfsdict, tmp_path, replaced, reads):
    """A lazy dictionary has noted the new files, and read none."""
    wanted = replaced([f"key {number}" for number in range(20)])
    reads.clear()
    with open_(nfsdict, tmp_path, lazy=True) as d:
        assert len(d) == 100 and reads == []
    with open_(nfsdict, tmp_path) as d:
        assert dict(d) == wanted and len(reads) == 20
    reads.clear()
    assert dict(open_(nfsdict, tmp_path)) == wanted and reads == []


@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
@pytest.mark.parametrize("looks", [False, True], ids=["", "verified"])
def test_another_store_in_its_place(nfsdict, tmp_path, monkeypatch, lists, lazy, looks):
    """Its directories may have the same times: both stores were written within one tick."""
    within_one_tick(monkeypatch, tmp_path)
    for name in ("store", "other"):
        with nfsdict.NfsDict(name, tmp_path, durable=False, workers=1) as d:
            d.update({"a": name, "b": name, f"only {name}": name})
    age(tmp_path)
    for name in ("store", "other"):
        nfsdict.NfsDict(name, tmp_path).close()
    d = open_(nfsdict, tmp_path, lazy=lazy)
    assert dict(d) == {"a": "store", "b": "store", "only store": "store"}
    os.rename(tmp_path / "store", tmp_path / "away")
    os.rename(tmp_path / "other", tmp_path / "store")
    if looks:
        assert d.verify().entries == 3
    assert d.refresh() == {"a", "b", "only store", "only other"}
    assert dict(d) == {"a": "other", "b": "other", "only other": "other"}
    lists.clear()
    assert d.refresh() == set() and lists == []
