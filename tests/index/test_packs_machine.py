"""The index against the value files: who opens the store, and when, finds what lies there."""

from __future__ import annotations

import errno
import hashlib
import importlib
import os
import pickle
import tempfile
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from support.aging import age, within_one_tick

SECOND = 1_000_000_000
# 1 and 12 are of one shard, the others of one each.
KEYS = ["", "a", "b", "é\0", "k\ud800", "1", "12"]
ABSENT = object()

keys = st.sampled_from(KEYS)
# Letter and length: small ones, those that make a pack larger than a table, those that no pack
# takes. Values of one length are told apart by their files' other attributes.
values = st.tuples(st.sampled_from("xyz"), st.sampled_from([1, 12_000, 40_000]))
several = st.dictionaries(keys, values, max_size=5)
either = st.sampled_from([0, 1])
DAMAGE = {
    "delete": None,
    "cut": lambda data, at: data[:at],
    "flip": lambda data, at: data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :],
    "zeros": lambda data, at: data[:at] + bytes(len(data) - at),
    "longer": lambda data, at: data + data[at:],
}


def made(value):
    letter, length = value
    return letter * length


def digest(key):
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


class IndexAndFiles(RuleBasedStateMachine):
    """``lists``: the shards that were listed; ``reads``: the value files that were read."""

    def __init__(self, nfsdict, lists, reads):
        super().__init__()
        self.nfsdict = nfsdict
        self.lists = lists
        self.reads = reads
        self.modules = {
            name: importlib.import_module(f"nfsdict.{name}")
            for name in (
                "bulk",
                "storage.index_files",
                "index.pack",
                "index.stack",
                "index.writer",
                "read_ahead",
                "loads",
                "repack",
            )
        }
        self.packed = self.modules["index.pack"].PACKED

    @initialize(
        contents=several,
        lazy=st.tuples(st.booleans(), st.booleans()),
        workers=st.sampled_from([1, 3]),
        ratio=st.sampled_from([0, 1.3, 4]),
        pays=st.sampled_from([1, 1, 8]),
        full=st.booleans(),
        load=st.sampled_from([1, 1, 2000]),
        long=st.sampled_from([0.0, 30.0]),
    )
    def start(self, contents, lazy, workers, ratio, pays, full, load, long):
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name, "store")
        self.path.mkdir()
        self.workers = workers
        self.saved = {}
        self.littered = self.claimed = False
        self.patch = pytest.MonkeyPatch()
        within_one_tick(self.patch, Path(self.folder.name))
        # After how long a claim is one that a crash has left.
        self.patch.setattr(self.modules["storage.index_files"], "INDEX_CLAIM_NS", 600 * SECOND)
        # How many packs lie on one another until they are merged.
        self.patch.setattr(self.modules["index.stack"], "_RATIO", ratio)
        # From how many changes on a pack is written.
        self.patch.setattr(self.modules["index.writer"], "_PAYS", pays)
        self.pays = pays
        # From how many values on an update keeps them for a pack, and after how long a load a
        # close waits for it.
        self.patch.setattr(self.modules["bulk"], "_LOAD", load)
        self.patch.setattr(self.modules["loads"], "_LONG", long)
        # From how many lookups on a loop reads the packs.
        self.patch.setattr(self.modules["read_ahead"], "_PAYS", pays - 1)
        # Who waits until a change is old enough finds it so at once.
        for module in ("loads", "repack"):
            passing = lambda _: self.time_passes()  # noqa: E731
            clock = SimpleNamespace(sleep=passing, monotonic=time.monotonic)
            self.patch.setattr(self.modules[module], "time", clock)
        self.patch.setattr(
            self.modules["index.stack"], "time", SimpleNamespace(sleep=lambda _: None)
        )
        if full:
            contents = {**dict.fromkeys(KEYS, ("x", 12_000)), **contents}
        for key, value in contents.items():
            self.plain_write(key, value)
        self.time_passes()
        self.ones = [self.opened(lazy=one) for one in lazy]
        self.watcher = self.opened(read_only=True)

    def teardown(self):
        for one in getattr(self, "ones", ()):
            one.close()
        if hasattr(self, "patch"):
            self.patch.undo()
            self.folder.cleanup()

    def opened(self, **options):
        options = {"durable": False, "workers": self.workers, **options}
        return self.nfsdict.NfsDict("store", self.folder.name, **options)

    # --- what lies there -----------------------------------------------------------------------

    def file(self, key):
        return self.path / digest(key)[:2] / f"{digest(key)}.pkl"

    def truth(self):
        """Of the value files alone."""
        return dict(pickle.loads(file.read_bytes()) for file in self.path.glob("??/*.pkl"))

    def index_files(self):
        return sorted(self.path.glob("_*"))

    @property
    def claim(self):
        return self.path / ".nfsdict-claim-index-pkl"

    def whole(self, one):
        """Everything in it, by each way to ask."""
        contents = dict(one.items())
        assert len(one) == len(contents) and set(one) == set(contents)
        assert all(one[key] == value for key, value in contents.items())
        return contents

    # --- writers -------------------------------------------------------------------------------

    @rule(key=keys, value=values)
    def plain_write(self, key, value):
        """As any program may write an entry."""
        file = self.file(key)
        file.parent.mkdir(exist_ok=True)
        temporary = file.with_name("tmpabcdefgh")
        temporary.write_bytes(pickle.dumps((key, made(value))))
        os.replace(temporary, file)

    @rule(key=keys, whole=st.booleans())
    def plain_delete(self, key, whole):
        """As any program, and release 0.2.1, may; with the shard if nothing else is in it."""
        file = self.file(key)
        file.unlink(missing_ok=True)
        if whole and file.parent.is_dir() and not os.listdir(file.parent):
            file.parent.rmdir()

    @rule(key=keys, value=values)
    def write_in_place(self, key, value):
        """A file that was made since time passed has the same inode and times then, and its
        shard shows nothing. Before that, its directory shows it."""
        file = self.file(key)
        if not file.exists():
            return
        file.write_bytes(pickle.dumps((key, made(value))))
        os.utime(file.parent)

    @rule(number=either, key=keys, value=values)
    def put(self, number, key, value):
        self.ones[number][key] = made(value)
        assert self.truth()[key] == made(value)

    @rule(number=either, changes=several)
    def update(self, number, changes):
        changes = {key: made(value) for key, value in changes.items()}
        self.ones[number].update(changes)
        assert self.truth().items() >= changes.items()

    @rule(number=either, key=keys)
    def delete(self, number, key):
        one = self.ones[number]
        if self.file(key).exists():
            del one[key]
        else:
            one.pop(key, None)
        assert key not in self.truth() and key not in one

    @rule(number=either, key=keys)
    def pop(self, number, key):
        expected = self.truth().get(key, ABSENT)
        assert self.ones[number].pop(key, ABSENT) == expected
        assert key not in self.truth()

    # --- readers -------------------------------------------------------------------------------

    @rule(number=either, key=keys)
    def read(self, number, key):
        """Past the cache; what it reads is noted."""
        expected = self.truth().get(key, ABSENT)
        assert self.ones[number].get(key, ABSENT, fresh=True) == expected

    @rule(number=either)
    def refresh(self, number):
        one = self.ones[number]
        before = {key: one._cache[key] for key in one} if not one._arguments[3] else {}
        changed = one.refresh()
        after = self.whole(one)
        assert after == self.truth()
        for key, value in before.items():
            assert after.get(key, ABSENT) == value or key in changed

    @rule(number=either)
    def sync(self, number):
        self.ones[number].sync()
        assert self.whole(self.ones[number]) == self.truth()

    @rule(number=either)
    def close(self, number):
        self.ones[number].close()

    @rule(number=either, lazy=st.booleans(), read=st.booleans())
    def reopen(self, number, lazy, read):
        self.ones[number].close()
        self.ones[number] = self.opened(lazy=lazy)
        if read:
            assert self.whole(self.ones[number]) == self.truth()

    @rule(lazy=st.booleans())
    def open_and_close(self, lazy):
        with self.opened(lazy=lazy) as one:
            assert len(one) == len(self.truth())

    # --- the index -----------------------------------------------------------------------------

    @rule(number=either)
    def pack(self, number):
        if self.claim.exists() and self.modules["storage.index_files"].INDEX_CLAIM_NS > 0:
            with pytest.raises(OSError) as caught:
                self.ones[number].pack()
            assert caught.value.errno == errno.EBUSY
            return
        packing = self.ones[number].pack()
        files = [self.file(key) for key in self.truth()]
        small = [file for file in files if file.stat().st_size <= self.packed]
        assert packing == (len(small), len(files) - len(small), 0)
        if files and not self.littered:
            assert len(self.index_files()) == 2
        self.reads.clear()
        with self.opened(read_only=True) as one:
            assert dict(one) == self.truth()
        assert sorted(self.reads) == sorted(map(str, set(files) - set(small)))

    @rule()
    def time_passes(self):
        """What was changed since the last time is old, and younger than what was old before."""
        age(Path(self.folder.name))

    @precondition(lambda self: self.pays == 1)
    @rule(lazy=st.booleans(), key=keys, value=st.none() | values)
    def settles(self, lazy, key, value):
        """What was changed is old, and somebody has looked: there is no more to list or read,
        but what is too large."""
        self.claim.unlink(missing_ok=True)
        self.claimed = False
        if value is None:
            self.plain_delete(key, whole=False)
        else:
            self.plain_write(key, value)
        self.time_passes()
        self.opened(lazy=lazy).refresh()
        self.opened().close()
        before = {path: path.stat().st_ino for path in self.index_files()}
        self.lists.clear()
        self.reads.clear()
        with self.opened() as one:
            assert dict(one) == self.truth()
        # Where nothing is known, there may be entries of another serializer.
        assert len(self.lists) <= (0 if self.truth() else len(KEYS))
        assert all(Path(path).stat().st_size > self.packed for path in self.reads)
        assert {path: path.stat().st_ino for path in self.index_files()} == before

    @precondition(lambda self: self.index_files())
    @rule(
        kind=st.sampled_from(sorted(DAMAGE)),
        which=st.integers(0, 9),
        where=st.floats(0, 1, exclude_max=True),
    )
    def damage(self, kind, which, where):
        files = self.index_files()
        file = files[which % len(files)]
        data = file.read_bytes()
        self.littered = True  # a head may no longer name its packs
        if kind == "delete" or not data:
            file.unlink()
        else:
            file.write_bytes(DAMAGE[kind](data, int(where * len(data))))

    @rule()
    def save(self):
        self.saved = {path: path.read_bytes() for path in self.index_files()}

    @rule(others=st.booleans())
    def restore(self, others):
        """The index is that of an earlier day."""
        self.littered = True
        for path in self.index_files() if others else ():
            path.unlink()
        for path, data in self.saved.items():
            path.write_bytes(data)

    @rule(old=st.booleans())
    def claim_or_not(self, old):
        """Somebody else is writing the index; or has crashed then, or ends."""
        self.claimed = not self.claim.exists()
        if not self.claimed:
            self.claim.unlink()
            return
        self.claim.touch()
        self.modules["storage.index_files"].INDEX_CLAIM_NS = (-600 if old else 600) * SECOND

    # --- always --------------------------------------------------------------------------------

    @invariant()
    def who_opens_it_finds_what_is_there(self):
        if hasattr(self, "ones"):
            truth = self.truth()
            for lazy in (False, True):
                assert self.whole(self.opened(read_only=True, lazy=lazy)) == truth
            self.watcher.refresh()
            assert self.whole(self.watcher) == truth

    @invariant()
    def nothing_is_left_behind(self):
        if hasattr(self, "ones"):
            left = set(self.path.glob(".*")) | set(self.path.glob("??/.*"))
            assert left <= ({self.claim} if self.claimed else set())
            self.claimed = self.claim in left
            packs = [path for path in self.index_files() if "_pack" in path.name]
            if not self.littered:
                head = self.path / "_index.nfsdict-pkl"
                data = head.read_bytes() if head.exists() else b""
                assert all(bytes.fromhex(path.name[-24:]) in data for path in packs)


def test_index_and_files(nfsdict, monkeypatch):
    lists, reads = [], []
    Shards = importlib.import_module("nfsdict.storage.shards").Shards
    Files = importlib.import_module("nfsdict.storage.files").Files
    list_, read = Shards.list, Files.read_paths
    monkeypatch.setattr(
        Shards,
        "list",
        lambda self, shard, *known: lists.append(shard) or list_(self, shard, *known),
    )

    def read_(self, paths):
        reads.extend(path for path in paths if path.endswith(".pkl"))
        return read(self, paths)

    monkeypatch.setattr(Files, "read_paths", read_)
    run_state_machine_as_test(
        partial(IndexAndFiles, nfsdict, lists, reads),
        settings=settings(max_examples=40, stateful_step_count=25, deadline=None),
    )
