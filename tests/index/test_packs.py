"""Stores whose values are read from packs, and changed since."""

from __future__ import annotations

import importlib
import os
import random

import pytest

from support.aging import age
from support.index_layout import (
    UNKNOWN,
    left_behind,
    open_,
    pickled,
    plain_delete,
    plain_write,
    scan,
    signature,
    stack,
)
from support.layout import value_file


@pytest.fixture
def limit(nfsdict):
    """Values of more bytes are left to their files."""
    return importlib.import_module("nfsdict.index.pack").PACKED


@pytest.mark.parametrize("serializer", ["pickle", "json", "bytes"])
def test_a_settled_store_is_opened_from_its_packs(nfsdict, tmp_path, lists, reads, serializer):
    values = {f"key {number}": b"value" if serializer == "bytes" else number for number in range(9)}
    open_(nfsdict, tmp_path, serializer=serializer).update(values)
    age(tmp_path)
    open_(nfsdict, tmp_path, serializer=serializer).close()
    assert len(reads) == 9
    del lists[:], reads[:]
    with open_(nfsdict, tmp_path, serializer=serializer) as d:
        assert dict(d) == values
    assert reads == [] and lists == []


def test_a_sync_takes_from_the_packs_what_is_the_same(nfsdict, tmp_path, lists, reads):
    values = {f"key {number}": [number] for number in range(9)}
    open_(nfsdict, tmp_path).update(values)
    age(tmp_path)
    d = open_(nfsdict, tmp_path)
    d["key 1"].append("changed in memory alone")
    plain_write(tmp_path, "key 2", ["new"])
    age(tmp_path)
    # The packs have the old value of one, and then the new one.
    for read in ([value_file(tmp_path, "key 2").name], []):
        del lists[:], reads[:]
        d.sync()
        assert dict(d) == {**values, "key 2": ["new"]}
        assert len(lists) == len({value_file(tmp_path, key).parent for key in values})
        assert reads == read


def test_a_sync_takes_no_value_that_was_packed_since_as_it_was_before(nfsdict, tmp_path):
    """Another process's packs say what the files were earlier, or are later."""
    open_(nfsdict, tmp_path).update(a=1, b=1)
    age(tmp_path)
    d = open_(nfsdict, tmp_path)
    plain_write(tmp_path, "a", 2)
    age(tmp_path)
    d.refresh()
    open_(nfsdict, tmp_path, lazy=True).pack()
    plain_write(tmp_path, "a", 3)
    plain_write(tmp_path, "b", 3)
    age(tmp_path)
    d.refresh()
    d.sync()
    assert dict(d) == {"a": 3, "b": 3}


@pytest.mark.parametrize("value", ["same", "x" * 40_000], ids=["packed", "too large for a pack"])
def test_a_sync_within_a_bound_keeps_to_it(nfsdict, tmp_path, value):
    open_(nfsdict, tmp_path).update({f"key {number}": value for number in range(10, 30)})
    age(tmp_path)
    open_(nfsdict, tmp_path)
    size = value_file(tmp_path, "key 10").stat().st_size
    d = open_(nfsdict, tmp_path, cache_bytes=5 * size)
    missing = importlib.import_module("nfsdict.core").MISSING
    for _ in range(2):
        d.sync()
        assert sum(one is not missing for one in d._cache.values()) == 5
        assert len(d) == 20


def test_surrogates_and_other_awkward_keys_are_settled_too(nfsdict, tmp_path, lists, reads):
    values = dict.fromkeys(["", "k" * 5000, "\udcff", "\u65e5\U0001f600", "nul\0nul", "/"], "x")
    open_(nfsdict, tmp_path).update(values)
    age(tmp_path)
    open_(nfsdict, tmp_path)
    del lists[:], reads[:]
    assert dict(open_(nfsdict, tmp_path)) == values
    assert reads == [] and lists == []


def test_large_values_are_read_from_their_files(nfsdict, tmp_path, lists, reads, limit):
    plain_write(tmp_path, "a", "x" * limit)
    plain_write(tmp_path, "b", "small")
    age(tmp_path)
    open_(nfsdict, tmp_path)
    for value in ("x" * limit, "y" * limit):
        if value[0] == "y":
            plain_write(tmp_path, "a", value)
            age(tmp_path)
            os.utime(value_file(tmp_path, "a").parent)  # which is listed again
        for _ in range(2):
            del reads[:]
            assert dict(open_(nfsdict, tmp_path)) == {"a": value, "b": "small"}
            assert reads == [value_file(tmp_path, "a").name]
    assert [said.value for _, [said] in stack(tmp_path)[0].values()] == [
        pickled("b", "small"),
        None,
    ]


def test_a_small_value_that_grows_large_and_shrinks(nfsdict, tmp_path, limit):
    for value in ("small", "x" * limit, "less", "y" * limit, "least"):
        plain_write(tmp_path, "a", value)
        age(tmp_path)
        for _ in range(2):
            assert dict(open_(nfsdict, tmp_path)) == {"a": value}


def test_racy_files_are_not_packed(nfsdict, tmp_path, reads):
    """What was written just now could be written again with the same signature."""
    plain_write(tmp_path, "a", 1)
    for value in (1, 2, 3):
        file = value_file(tmp_path, "a")
        mtime = file.stat().st_mtime_ns
        file.write_bytes(pickled("a", value))
        os.utime(file, ns=(mtime, mtime))
        assert dict(open_(nfsdict, tmp_path)) == {"a": value}
        assert reads == [file.name]
        [said] = stack(tmp_path)[0]["ca"][1]
        assert said == ("a", UNKNOWN, None)
        reads.clear()


def test_a_file_replaced_by_one_of_the_same_size_and_mtime(nfsdict, tmp_path):
    """It has another inode."""
    for key in "abc":
        plain_write(tmp_path, key, 1)
    age(tmp_path)
    open_(nfsdict, tmp_path)
    before = signature(tmp_path, "a")
    kept = value_file(tmp_path, "a").with_name("kept")
    os.link(value_file(tmp_path, "a"), kept)  # or its number could be given again
    plain_write(tmp_path, "a", 2)
    mtime = kept.stat().st_mtime_ns
    os.utime(value_file(tmp_path, "a"), ns=(mtime, mtime))
    after = signature(tmp_path, "a")
    assert after[:8] != before[:8] and after[8:24] == before[8:24]
    for lazy in (False, True):
        with open_(nfsdict, tmp_path, lazy=lazy) as d:
            assert dict(d) == {"a": 2, "b": 1, "c": 1}


def test_a_file_replaced_by_one_of_the_same_inode(nfsdict, tmp_path):
    """Numbers are given again; it has another mtime. Its directory shows that it changed."""
    for key in "abc":
        plain_write(tmp_path, key, 1)
    age(tmp_path)
    open_(nfsdict, tmp_path)
    before = signature(tmp_path, "a")
    file = value_file(tmp_path, "a")
    file.write_bytes(pickled("a", 2))
    file.with_name("other").touch()
    after = signature(tmp_path, "a")
    assert after[:16] == before[:16] and after[16:24] != before[16:24]
    for lazy in (False, True):
        with open_(nfsdict, tmp_path, lazy=lazy) as d:
            assert dict(d) == {"a": 2, "b": 1, "c": 1}


@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
def test_plain_writers_and_deletions_between_openings(nfsdict, tmp_path, lazy):
    """Many at a time, so that packs are written, and old ones among them by the clock."""
    generator = random.Random(7)
    keys = [f"key {number}" for number in range(60)]
    heights = set()
    for turn in range(25):
        for key in generator.sample(keys, generator.choice([2, 12, 30])):
            if value_file(tmp_path, key).exists() and generator.random() < 0.4:
                plain_delete(tmp_path, key)
            else:
                plain_write(tmp_path, key, f"{turn} {generator.randbytes(200).hex()}")
        if generator.random() < 0.7:
            age(tmp_path)
        with open_(nfsdict, tmp_path, lazy=lazy) as d:
            assert len(d) == len(scan(tmp_path)) and dict(d) == scan(tmp_path)
        heights.add(len(stack(tmp_path)))
        assert dict(open_(nfsdict, tmp_path)) == scan(tmp_path)
    assert left_behind(tmp_path) == []


def test_a_value_that_was_damaged_since_is_not_packed(nfsdict, tmp_path):
    """By decay, that no signature shows. What is packed is taken for whole later."""
    with open_(nfsdict, tmp_path) as d:
        d["a"] = "value"
        d["b"] = "value"
    age(tmp_path)
    lazy = open_(nfsdict, tmp_path, lazy=True)
    assert len(lazy) == 2
    file = value_file(tmp_path, "a")
    mtime = file.stat().st_mtime_ns
    file.write_bytes(file.read_bytes().replace(b"value", b"vague"))
    os.utime(file, ns=(mtime, mtime))
    packing = lazy.pack()
    assert (packing.packed, packing.unpacked) == (1, 1)
    assert open_(nfsdict, tmp_path)["b"] == "value"
    with pytest.raises(nfsdict.CorruptValueError):
        open_(nfsdict, tmp_path)["a"]
