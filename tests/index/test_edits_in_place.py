"""Value files that something has written in place, which nothing in their directories shows."""

from __future__ import annotations

import os
import random

import pytest

from support.aging import age
from support.index_layout import open_, plain_write, scan
from support.layout import digest, value_file

KEYS = [f"key {number}" for number in range(20)]
OLD = dict.fromkeys(KEYS, "old")
EDITED = KEYS[:3]
NEW = {**OLD, **dict.fromkeys(EDITED, "new")}


def edit(base, keys, before, after):
    """Keep size and mtime."""
    for key in keys:
        file = value_file(base, key)
        mtime = file.stat().st_mtime_ns
        file.write_bytes(file.read_bytes().replace(before.encode(), after.encode()))
        os.utime(file, ns=(mtime, mtime))
    age(base)


@pytest.fixture
def edited(nfsdict, tmp_path):
    """A settled store whose index has old values of some keys. Gives where it is."""
    for key, value in OLD.items():
        plain_write(tmp_path, key, value)
    age(tmp_path)
    open_(nfsdict, tmp_path).close()
    edit(tmp_path, EDITED, "old", "new")
    assert scan(tmp_path) == NEW
    assert dict(open_(nfsdict, tmp_path, read_only=True)) == OLD
    return tmp_path


def paths(base):
    return {str(value_file(base, key)) for key in EDITED}


@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
@pytest.mark.parametrize("read_only", [False, True], ids=["", "read-only"])
def test_verify_tells_of_each(nfsdict, edited, lazy, read_only):
    d = open_(nfsdict, edited, lazy=lazy, read_only=read_only)
    report = d.verify()
    assert report.contradicted.keys() == paths(edited) and not report.ok
    assert all(repr(key) in " ".join(report.contradicted.values()) for key in EDITED)
    assert (report.entries, report.damaged, report.unreadable) == (20, {}, {})
    d.refresh()
    assert dict(d) == NEW


@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
@pytest.mark.parametrize("after", ["opening", "verify", "refresh", "verify and refresh", "sync"])
def test_pack_takes_what_the_files_hold(nfsdict, edited, reads, lazy, after):
    d = open_(nfsdict, edited, lazy=lazy)
    if "verify" in after:
        d.verify()
    if "refresh" in after:
        d.refresh()
    if after == "sync":
        d.sync()
    assert d.pack() == (20, 0, 0)
    assert dict(d) == NEW
    reads.clear()
    assert dict(open_(nfsdict, edited, read_only=True)) == NEW
    assert reads == []
    assert open_(nfsdict, edited, lazy=True).verify().ok


@pytest.mark.parametrize("call", ["sync", "repair"])
@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
def test_after_sync_and_repair_openings_have_what_the_files_hold(nfsdict, edited, call, lazy):
    with open_(nfsdict, edited, lazy=lazy) as d:
        done = getattr(d, call)()
        assert dict(d) == NEW
    if call == "repair":
        assert done.report.contradicted.keys() == paths(edited)
        assert done.quarantined == done.failed == {}
    assert dict(open_(nfsdict, edited, read_only=True)) == NEW
    assert open_(nfsdict, edited, lazy=True).verify().ok


def test_what_only_looks_contradictory_is_not_told(nfsdict, tmp_path):
    """Files that were replaced, removed and added since the index was written, and not just now."""
    generator = random.Random(4)
    for key, value in OLD.items():
        plain_write(tmp_path, key, value)
    age(tmp_path)
    open_(nfsdict, tmp_path).close()
    d = open_(nfsdict, tmp_path, lazy=True)
    for turn in range(10):
        for key in generator.sample(KEYS, 5):
            value_file(tmp_path, key).unlink(missing_ok=True)
        for key in generator.sample(KEYS, 5):
            plain_write(tmp_path, key, f"{turn}")
        assert d.verify().ok
        if turn % 3 == 0:
            age(tmp_path)
        assert d.verify().ok
        if turn % 2:
            open_(nfsdict, tmp_path).close()
        assert d.verify().ok


def test_a_file_that_is_replaced_while_it_is_verified(nfsdict, tmp_path, monkeypatch):
    """Between the listing of its directory, which is as the index says, and its reading."""
    for key, value in OLD.items():
        plain_write(tmp_path, key, value)
    age(tmp_path)
    open_(nfsdict, tmp_path).close()
    d = open_(nfsdict, tmp_path, lazy=True)
    original = d._storage.shards.list

    def list_(shard):
        listing = original(shard)
        for key in KEYS:
            if digest(key)[:2] == shard:
                plain_write(tmp_path, key, "new")
        return listing

    monkeypatch.setattr(d._storage.shards, "list", list_)
    report = d.verify()
    assert report.ok and report.entries == 20
    assert scan(tmp_path) == dict.fromkeys(KEYS, "new")
