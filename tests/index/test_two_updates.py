"""Two scans of one dictionary at once, which both would write the index.

What the one has begun isn't on disk yet, and the other one's pack would have the shard's newer
stamp without it.
"""

from __future__ import annotations

import errno
import importlib
import os
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import ClassVar

import pytest

from support.aging import age
from support.layout import digest

SHARD = "00"
LAST = "ff"


def keys_of(shard, count):
    keys = (key for key in map(str, range(100_000)) if digest(key)[:2] == shard)
    return list(islice(keys, count))


OLD, NEW = keys_of(SHARD, 20), keys_of(SHARD, 40)[20:]


class Held:
    """A ``sync`` in a thread of its own that has begun the first shard, until it is let go."""

    def __init__(self, fails=False):
        self._fails = fails
        self._reached, self._go = threading.Event(), threading.Event()
        self._thread = None
        self.error = None

    def __call__(self, now):
        first = threading.current_thread() is self._thread and not self._reached.is_set()
        if first and now.operation == "sync" and now.done:
            self._reached.set()
            assert self._go.wait(60)
            if self._fails:
                raise ValueError("as a signal's handler may")

    def start(self, d):
        def sync():
            try:
                d.sync()
            except ValueError as error:
                self.error = error

        self._thread = threading.Thread(target=sync, daemon=True)
        self._thread.start()
        assert self._reached.wait(60)

    def end(self):
        self._go.set()
        self._thread.join(60)
        assert not self._thread.is_alive()


@pytest.fixture
def other(opened):
    """Another process, for all that this one knows."""
    return lambda **pairs: opened(lazy=True).update(pairs)


def check(opened, expected):
    for lazy in (False, True):
        with opened(lazy=lazy, read_only=True) as d:
            assert dict(d.items()) == expected


def test_one_that_began_earlier_does_not_write_on_top_of_a_later_one(opened, other, tmp_path):
    expected = dict.fromkeys([*OLD, *keys_of(LAST, 3)], "first")
    other(**expected)
    age(tmp_path)
    held = Held()
    d = opened(progress_bar=held)
    expected.update(dict.fromkeys(OLD[:10], "second"))
    other(**dict.fromkeys(OLD[:10], "second"))
    age(tmp_path)
    held.start(d)
    expected.update(dict.fromkeys(OLD[:10], "third"))
    other(**dict.fromkeys(OLD[:10], "third"))
    age(tmp_path)
    assert d.refresh() == set(OLD[:10])
    held.end()
    check(opened, expected)
    expected.update(dict.fromkeys(OLD[10:], "fourth"))
    other(**dict.fromkeys(OLD[10:], "fourth"))
    age(tmp_path)
    assert d.refresh() == set(OLD[10:])
    check(opened, expected)


@pytest.mark.parametrize("count", [5, 20])
def test_what_one_had_begun_that_failed_is_told_by_others(opened, other, tmp_path, count):
    expected = dict.fromkeys([*OLD, *keys_of(LAST, 3)], "first")
    other(**expected)
    age(tmp_path)
    held = Held(fails=True)
    d = opened(progress_bar=held)
    expected.update(dict.fromkeys(NEW[:count], "new"))
    other(**dict.fromkeys(NEW[:count], "new"))
    age(tmp_path)
    held.start(d)
    expected.update(dict.fromkeys(OLD[:10], "second"))
    other(**dict.fromkeys(OLD[:10], "second"))
    age(tmp_path)
    d.refresh()
    held.end()
    assert held.error is not None
    check(opened, expected)
    d.close()
    check(opened, expected)


@pytest.mark.parametrize("fails", [False, True])
def test_pack_waits_for_no_scan(opened, other, tmp_path, fails):
    """It tells all, and the scan's update comes to nothing."""
    expected = dict.fromkeys([*OLD, *keys_of(LAST, 3)], "first")
    other(**expected)
    age(tmp_path)
    held = Held(fails)
    d = opened(progress_bar=held)
    expected.update(dict.fromkeys(NEW, "new"))
    other(**dict.fromkeys(NEW, "new"))
    age(tmp_path)
    held.start(d)
    expected.update(dict.fromkeys(OLD[:10], "second"))
    other(**dict.fromkeys(OLD[:10], "second"))
    age(tmp_path)
    begin = time.monotonic()
    assert d.pack().packed == len(expected)
    assert time.monotonic() < begin + 20
    check(opened, expected)
    held.end()
    check(opened, expected)
    expected.update(dict.fromkeys(OLD[10:], "third"))
    other(**dict.fromkeys(OLD[10:], "third"))
    age(tmp_path)
    d.refresh()
    check(opened, expected)
    assert list(d.path.glob(".nfsdict-*")) == []


@pytest.mark.parametrize("outer", ["sync", "pack"])
def test_a_progress_function_that_packs(opened, tmp_path, outer):
    """Within a scan it may; within another ``pack`` it is told so, and doesn't wait for itself."""
    results = []

    def packs(now):
        packing = d._writer.current is not None and d._writer.current.by_pack
        if now.operation == outer and packing == (outer == "pack") and not results:
            results.append(None)
            try:
                results.append(d.pack().packed)
            except OSError as error:
                results.append(error.errno)

    expected = dict.fromkeys([*OLD, *NEW, *keys_of(LAST, 3)], 1)
    opened(lazy=True).update(expected)
    age(tmp_path)
    d = opened(lazy=True, progress_bar=packs)
    len(d)
    begin = time.monotonic()
    getattr(d, outer)()
    assert results[1:] == [len(expected) if outer == "sync" else errno.EBUSY]
    assert time.monotonic() < begin + 20
    check(opened, expected)


class Packs:
    """A value that packs its dictionary when it is unpickled."""

    d = None
    results: ClassVar[list] = []

    def __reduce__(self):
        return Packs.made, ()

    @classmethod
    def made(cls):
        if cls.d is not None and not cls.results:
            cls.results.append(None)
            try:
                cls.results.append(cls.d.pack().packed)
            except OSError as error:
                cls.results.append(error.errno)
        return cls()


@pytest.mark.parametrize("outer", ["sync", "pack"])
@pytest.mark.parametrize("workers", [1, 4])
def test_a_value_that_packs(opened, tmp_path, monkeypatch, outer, workers):
    monkeypatch.setattr(importlib.import_module("nfsdict.parallel"), "_WAITED", -1.0)
    monkeypatch.setattr(Packs, "results", [])
    monkeypatch.setattr(Packs, "d", None)
    opened(lazy=True).update({**dict.fromkeys(OLD, 1), "value": Packs()})
    age(tmp_path)
    d = Packs.d = opened(lazy=True, workers=workers)
    begin = time.monotonic()
    getattr(d, outer)()
    dict(d.items())
    assert Packs.results
    assert time.monotonic() < begin + 20
    monkeypatch.setattr(Packs, "d", None)
    assert len(dict(opened(lazy=False).items())) == len(OLD) + 1


def test_two_packs_of_two_threads(opened, tmp_path):
    d = opened()
    d.update(dict.fromkeys([*OLD, *NEW], 1))
    age(tmp_path)
    with ThreadPoolExecutor(4) as pool:
        reports = list(pool.map(lambda _: d.pack(), range(4)))
    assert {report.packed for report in reports} == {len(OLD) + len(NEW)}
    check(opened, dict.fromkeys([*OLD, *NEW], 1))


def test_what_a_sync_found_is_told_though_another_one_was_writing(opened, other, tmp_path):
    """A value that was edited in place: no directory shows it, and packs have the old one."""
    expected = dict.fromkeys([*OLD, *keys_of(LAST, 3)], "first")
    other(**expected)
    age(tmp_path)
    with opened() as first:
        first.pack()
    held = Held()
    d = opened(progress_bar=held)
    held.start(d)
    path = d.path_of(OLD[0])
    with open(path, "r+b") as file:
        file.write(pickle.dumps((OLD[0], "FIRST")))
        file.truncate()
    os.utime(path, (1, 1))
    age(tmp_path)
    d.sync()
    assert d[OLD[0]] == "FIRST"
    held.end()
    assert digest(OLD[0])[:2] == SHARD
    expected[OLD[0]] = "FIRST"
    check(opened, expected)


def test_an_update_that_nobody_ended_is_rolled_back_by_the_next(opened, tmp_path):
    """As exceptions may leave it that come one after another."""
    d = opened(workers=1)
    writer = d._writer
    d.update(dict.fromkeys(OLD, 1))
    age(tmp_path)
    d.refresh()
    update = writer.begin(writer._packs, writes=True)
    d.update(dict.fromkeys(NEW, 1))
    age(tmp_path)
    d.refresh()
    with d._state.locks.guard:
        update.add_shard(SHARD, {})
    assert update.begun
    del update
    d[keys_of(SHARD, 41)[-1]] = 1
    age(tmp_path)
    d.refresh()
    d.close()
    check(opened, dict.fromkeys(keys_of(SHARD, 41), 1))


def test_pack_says_at_once_that_the_disk_is_full(opened, tmp_path, monkeypatch):
    d = opened(workers=1)
    d.update({f"key {number}": os.urandom(30_000) for number in range(200)})
    age(tmp_path)
    module = importlib.import_module("nfsdict.storage.index_files")

    def full(self):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module.PackFileWriter, "_spill", full)
    begin = time.monotonic()
    with pytest.raises(OSError) as caught:
        d.pack()
    assert caught.value.errno == errno.ENOSPC
    assert time.monotonic() < begin + 30
