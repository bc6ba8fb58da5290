"""Packs that many processes read and write at once: nobody waits, and nobody's harm another's."""

from __future__ import annotations

import errno
import gc
import importlib
import os
import threading
import time

import pytest

from support.aging import age
from support.index_layout import (
    SECOND,
    WANTED,
    described,
    head_file,
    left_behind,
    open_,
    pack_file,
    pickled,
    plain_delete,
    plain_write,
    scan,
    stack,
    write_stack,
)
from support.layout import digest

MANY = {f"key {number}": number for number in range(100)}


@pytest.fixture(autouse=True)
def no_others():
    """Dictionaries of earlier tests write their index now (on PyPy), not within a test here."""
    gc.collect()


@pytest.fixture
def settled(nfsdict, tmp_path):
    """A store whose index is on disk."""
    open_(nfsdict, tmp_path).update(MANY)
    age(tmp_path)
    open_(nfsdict, tmp_path).close()
    return tmp_path


@pytest.fixture
def hints(nfsdict):
    return importlib.import_module("nfsdict.storage.index_files")


def replaced_meanwhile(hints, monkeypatch, act):
    """Have this done between the next reading of a head and the opening of its packs."""
    original = hints.IndexFiles.open_pack
    todo = [act]

    def open_pack(self, name):
        if todo:
            todo.pop()()
        return original(self, name)

    monkeypatch.setattr(hints.IndexFiles, "open_pack", open_pack)


def written(base):
    """The files of the index, each with its inode and size."""
    return {path.name: (path.stat().st_ino, path.stat().st_size) for path in base.glob("store/_*")}


# --- under a reader --------------------------------------------------------------------------


def test_a_pack_that_is_removed_before_it_is_opened(
    nfsdict, hints, settled, lists, reads, monkeypatch
):
    """Who removed it has written another head, which is read then."""
    packs = stack(settled)
    replaced_meanwhile(hints, monkeypatch, lambda: write_stack(settled, packs))
    del lists[:], reads[:]
    assert dict(open_(nfsdict, settled)) == MANY
    assert lists == reads == []


def test_packs_that_are_removed_each_time(nfsdict, hints, settled, monkeypatch):
    """After a few tries the directories are read."""
    tries = []

    def missing(self, name):
        tries.append(name)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)

    monkeypatch.setattr(hints.IndexFiles, "open_pack", missing)
    assert dict(open_(nfsdict, settled)) == MANY
    assert 1 < len(tries) < 10


def test_a_pack_that_is_unlinked_while_it_is_read(nfsdict, hints, settled, lists, monkeypatch):
    """Here the reader goes on; over NFS it meets ESTALE, which is the next test."""
    original = hints.PackFileReader.read_at

    def read(self, offset, size):
        for path in settled.glob("store/_pack*"):
            path.unlink()
        return original(self, offset, size)

    monkeypatch.setattr(hints.PackFileReader, "read_at", read)
    del lists[:]
    assert dict(open_(nfsdict, settled)) == MANY
    assert not list(settled.glob("store/_pack*")) or lists == []


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO])
@pytest.mark.parametrize("good", [0, 1, 5])
def test_a_pack_that_can_no_longer_be_read(nfsdict, hints, settled, monkeypatch, number, good):
    """Values come from their files."""
    original = hints.PackFileReader.read_at
    calls = []

    def read(self, offset, size):
        calls.append(offset)
        if len(calls) > good:
            raise OSError(number, os.strerror(number))
        return original(self, offset, size)

    before = written(settled)
    monkeypatch.setattr(hints.PackFileReader, "read_at", read)
    d = open_(nfsdict, settled)
    assert dict(d) == MANY
    assert dict(open_(nfsdict, settled, lazy=True)) == MANY
    d.close()
    assert len(calls) > good
    monkeypatch.undo()
    assert dict(open_(nfsdict, settled)) == MANY
    assert written(settled).keys() == before.keys() or left_behind(settled) == []


@pytest.mark.parametrize("method", ["read_manifest", "open_pack"])
def test_an_index_that_cannot_be_read_now_is_not_overwritten(
    nfsdict, hints, settled, monkeypatch, method
):
    """It may be good, and cost its writers hours of reading."""
    original = getattr(hints.IndexFiles, method)
    fails = [OSError(errno.EIO, os.strerror(errno.EIO))]

    def failing(*arguments):
        if fails:
            raise fails.pop()
        return original(*arguments)

    before = written(settled)
    monkeypatch.setattr(hints.IndexFiles, method, failing)
    with open_(nfsdict, settled) as d:
        assert dict(d) == MANY
        for key in MANY:
            plain_write(settled, key, "changed")
        age(settled)
        assert d.refresh() == MANY.keys()
        d.sync()
    assert written(settled) == before and fails == []
    open_(nfsdict, settled).close()
    assert written(settled) != before


def test_a_value_that_is_not_of_its_key(nfsdict, tmp_path, reads):
    """Whatever a pack says, a value is given out for the key that was written with it."""
    for key, value in WANTED.items():
        plain_write(tmp_path, key, value)
    age(tmp_path)
    wrong = {key: pickled(key, value) for key, value in WANTED.items()}
    wrong["a"] = pickled("b", "of b")
    write_stack(tmp_path, [described(tmp_path, wrong)])
    assert dict(open_(nfsdict, tmp_path)) == WANTED
    assert len(reads) == 1


# --- among writers ---------------------------------------------------------------------------


def test_twenty_openers_write_one_pack(nfsdict, settled):
    """They have read the same head, and found the same changes."""
    for key in list(MANY)[:40]:
        plain_write(settled, key, "changed")
    age(settled)
    openers = [open_(nfsdict, settled, lazy=True) for _ in range(20)]
    inodes = set()
    PackStack = importlib.import_module("nfsdict.index.stack").PackStack
    original = PackStack.append
    appended = []

    def append(self, writer):
        appended.append(original(self, writer))
        return appended[-1]

    with pytest.MonkeyPatch.context() as patch:
        # Each has read the head before any has written.
        loads = [one._writer.load_index for one in openers]
        for load in loads:
            load()
        for one in openers:
            patch.setattr(one._writer, "load_index", lambda: None)
        patch.setattr(PackStack, "append", append)
        for one in openers:
            assert len(one) == len(MANY)
            one.close()
            inodes.add(head_file(settled).stat().st_ino)
    assert len(appended) == 20 and appended.count(True) == 1
    assert len(inodes) == 1 and left_behind(settled) == []
    assert dict(open_(nfsdict, settled)) == scan(settled)


def claim(base):
    return base / "store" / ".nfsdict-claim-index-pkl"


def test_while_somebody_writes_the_index_nobody_else_does(nfsdict, settled):
    before = written(settled)
    for key in MANY:
        plain_write(settled, key, "changed")
    age(settled)
    claim(settled).touch()
    with open_(nfsdict, settled) as d:
        assert dict(d) == scan(settled)
    assert written(settled) == before
    assert left_behind(settled) == [claim(settled).name]


def test_a_claim_that_a_crash_has_left(nfsdict, settled, monkeypatch):
    """The next one removes it, the one after that writes."""
    for key in MANY:
        plain_write(settled, key, "changed")
    age(settled)
    claim(settled).touch()
    # A server may have left a number for its mtime, which no time would make old.
    os.utime(claim(settled), (2**31, 2**31))
    monkeypatch.setattr(
        importlib.import_module("nfsdict.storage.index_files"), "INDEX_CLAIM_NS", -SECOND
    )
    before = written(settled)
    open_(nfsdict, settled).close()
    monkeypatch.undo()
    open_(nfsdict, settled).close()
    assert left_behind(settled) == []
    assert written(settled) != before
    d = open_(nfsdict, settled)
    assert dict(d) == scan(settled)


@pytest.mark.parametrize("step", ["write", "replace", "head"])
def test_a_full_disk_costs_the_index_only(nfsdict, hints, tmp_path, monkeypatch, step):
    for key, value in MANY.items():
        plain_write(tmp_path, key, value)
    age(tmp_path)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if step == "head":
        monkeypatch.setattr(hints.IndexFiles, "write_manifest", full)
    else:
        monkeypatch.setattr(hints.os, step, full)
    with open_(nfsdict, tmp_path) as d:
        assert dict(d) == MANY
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            d.pack()
    monkeypatch.undo()
    assert left_behind(tmp_path) == [] and not list(tmp_path.glob("store/_*"))
    d.close()
    assert left_behind(tmp_path) == [] and len(stack(tmp_path)) == 1


def test_a_merge_that_fails_keeps_what_there_is(nfsdict, settled, monkeypatch):
    packs = importlib.import_module("nfsdict.index.stack")

    def failing(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    for key in MANY:
        plain_write(settled, key, "changed")
    age(settled)
    monkeypatch.setattr(packs, "merged", failing)
    open_(nfsdict, settled).close()
    assert len(stack(settled)) == 2 and left_behind(settled) == []
    monkeypatch.undo()
    assert dict(open_(nfsdict, settled)) == scan(settled)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_leaves_the_index_to_its_parent(nfsdict, settled):
    for key in MANY:
        plain_write(settled, key, "changed")
    age(settled)
    d = open_(nfsdict, settled, lazy=True)
    before = written(settled)
    child = os.fork()
    if not child:
        good = len(d) == len(MANY) and dict(d) == scan(settled)
        d.close()
        os._exit(not good)
    assert os.waitpid(child, 0)[1] == 0
    assert written(settled) == before
    assert len(d) == len(MANY)
    assert written(settled) != before


# --- large packs -----------------------------------------------------------------------------

LARGE = {f"key {number}": f"{number:5000d}" for number in range(300)}


def pack_claim(base):
    return base / "store" / ".nfsdict-claim-pack-pkl"


@pytest.fixture
def unread(nfsdict, tmp_path):
    """A store without index, whose pack takes more than is held in memory."""
    for key, value in LARGE.items():
        plain_write(tmp_path, key, value)
    age(tmp_path)
    return tmp_path


def test_while_somebody_writes_a_large_pack_nobody_else_does(nfsdict, unread, hints, monkeypatch):
    pack_claim(unread).touch()
    spilled = []
    monkeypatch.setattr(hints.PackFileWriter, "_spill", lambda self: spilled.append(self))
    with open_(nfsdict, unread) as d:
        assert dict(d) == LARGE
    assert written(unread) == {} and spilled == []
    assert left_behind(unread) == [pack_claim(unread).name]
    monkeypatch.undo()
    pack_claim(unread).unlink()
    open_(nfsdict, unread).close()
    assert len(stack(unread)) == 1 and left_behind(unread) == []


def test_a_large_pack_that_another_one_has_written_meanwhile(nfsdict, unread, hints, monkeypatch):
    """Its claim is free again, and the manifest tells."""
    original = hints.PackClaim.take
    first = []

    def take(self):
        if not first:
            first.append(True)
            monkeypatch.undo()
            assert dict(open_(nfsdict, unread)) == LARGE
            first.append(written(unread))
            monkeypatch.setattr(hints.PackFileWriter, "_spill", spilled.append)
        return original(self)

    spilled = []
    monkeypatch.setattr(hints.PackClaim, "take", take)
    with open_(nfsdict, unread) as d:
        assert dict(d) == LARGE
    assert first[1] and written(unread) == first[1] and left_behind(unread) == []
    assert spilled == []


def test_nobody_begins_a_large_pack_before_the_manifest_names_the_first(
    nfsdict, unread, hints, monkeypatch
):
    original = hints.IndexFiles.write_manifest
    spilled = []

    def write_manifest(self, *arguments):
        monkeypatch.undo()
        with monkeypatch.context() as patch:
            patch.setattr(hints.PackFileWriter, "_spill", spilled.append)
            assert dict(open_(nfsdict, unread)) == LARGE
        return original(self, *arguments)

    monkeypatch.setattr(hints.IndexFiles, "write_manifest", write_manifest)
    with open_(nfsdict, unread) as d:
        assert dict(d) == LARGE
    assert spilled == [] and len(stack(unread)) == 1 and left_behind(unread) == []


def test_a_claim_for_large_packs_that_a_crash_has_left(nfsdict, unread, hints, monkeypatch):
    """The next one removes it, the one after that writes."""
    pack_claim(unread).touch()
    monkeypatch.setattr(hints, "INDEX_CLAIM_NS", -SECOND)
    open_(nfsdict, unread).close()
    monkeypatch.undo()
    assert written(unread) == {} and left_behind(unread) == []
    open_(nfsdict, unread).close()
    assert len(stack(unread)) == 1


def test_a_small_pack_needs_no_claim_for_large_ones(nfsdict, settled):
    pack_claim(settled).touch()
    before = written(settled)
    for key in MANY:
        plain_write(settled, key, "changed")
    age(settled)
    open_(nfsdict, settled).close()
    assert written(settled) != before


def test_losers_leave_the_root_alone(nfsdict, settled, hints, monkeypatch):
    """A claim would be a change of it, after which clients ask anew what they know."""
    for key in MANY:
        plain_write(settled, key, "changed")
    age(settled)
    late = open_(nfsdict, settled, lazy=True)
    late._writer.load_index()
    open_(nfsdict, settled).close()
    claims = []
    original = hints.IndexFiles.claimed_manifest
    monkeypatch.setattr(
        hints.IndexFiles, "claimed_manifest", lambda self: claims.append(self) or original(self)
    )
    monkeypatch.setattr(late._writer, "load_index", lambda: None)
    assert dict(late) == scan(settled)
    late.close()
    assert claims == []


# --- what it costs ---------------------------------------------------------------------------


@pytest.fixture
def large(nfsdict, tmp_path):
    """A settled store of 3,000 keys."""
    open_(nfsdict, tmp_path, lazy=True).update((str(number), number) for number in range(3000))
    age(tmp_path)
    open_(nfsdict, tmp_path).close()
    return tmp_path


def test_closing_after_one_put_writes_next_to_nothing(nfsdict, large):
    """And the opener after that only what has changed."""
    before = written(large)
    with open_(nfsdict, large) as d:
        d["17"] = "changed"
    new = dict(written(large).items() - before.items())
    assert sum(size for _, size in new.values()) < 4096
    changed = [str(number) for number in range(20)]
    for key in changed:
        plain_write(large, key, "changed")
    age(large)
    before = written(large)
    open_(nfsdict, large).close()
    new = dict(written(large).items() - before.items())
    assert new and sum(size for _, size in new.values()) < 16_384


def test_each_byte_is_written_a_few_times(nfsdict, tmp_path):
    """However many openers find a few changes each."""
    total, count = 0, 0
    for number in range(100):
        keys = [str(count + new) for new in range(20)]
        count += 20
        for key in keys:
            plain_write(tmp_path, key, "x" * 200)
        age(tmp_path)
        before = written(tmp_path)
        open_(nfsdict, tmp_path).close()
        new = dict(written(tmp_path).items() - before.items())
        total += sum(size for _, size in new.values())
        assert len(written(tmp_path)) < 12, number
    store = sum(size for _, size in written(tmp_path).values())
    assert total < 12 * store
    assert dict(open_(nfsdict, tmp_path)) == scan(tmp_path)


# --- pack() ----------------------------------------------------------------------------------


@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
def test_pack_makes_one_of_all(nfsdict, settled, lists, reads, lazy):
    plain_write(settled, "new", "value")
    plain_write(settled, "large", "x" * 100_000)
    plain_delete(settled, "key 1")
    age(settled)
    packing = open_(nfsdict, settled, lazy=lazy).pack()
    assert packing == (100, 1, 0)
    [pack] = stack(settled)
    assert {one.key for _, said in pack.values() for one in said if one.value} == (
        MANY.keys() - {"key 1"} | {"new"}
    )
    del lists[:], reads[:]
    assert dict(open_(nfsdict, settled)) == scan(settled)
    assert lists == [] and len(reads) == 1


def test_pack_removes_what_crashes_left(nfsdict, settled):
    """But not what somebody may be about to name in the head."""
    for name, hours in (("aa" * 12, 2), ("bb" * 12, 0)):
        path = pack_file(settled, name)
        path.write_bytes(b"half a pa")
        moment = time.time_ns() - hours * 3600 * SECOND
        os.utime(path, ns=(moment, moment))
    open_(nfsdict, settled).pack()
    assert left_behind(settled) == [pack_file(settled, "bb" * 12).name]


def test_pack_gives_up_where_others_go_on_writing(nfsdict, settled, monkeypatch):
    stack = importlib.import_module("nfsdict.index.stack")
    monkeypatch.setattr(stack.time, "sleep", lambda seconds: None)
    claim(settled).touch()
    plain_write(settled, "new", "value")
    age(settled)
    with pytest.raises(OSError, match=os.strerror(errno.EBUSY)):
        open_(nfsdict, settled).pack()
    claim(settled).unlink()
    assert open_(nfsdict, settled).pack().packed == 101


def test_read_only_packs_nothing(nfsdict, settled):
    plain_write(settled, "new", "value")
    age(settled)
    before = written(settled)
    with open_(nfsdict, settled, read_only=True) as d:
        with pytest.raises(nfsdict.ReadOnlyError):
            d.pack()
        d.sync()
    assert written(settled) == before and left_behind(settled) == []


def test_repair_rebuilds_the_index(nfsdict, settled):
    before = written(settled)
    open_(nfsdict, settled).repair()
    after = written(settled)
    assert before.keys() != after.keys()
    assert dict(open_(nfsdict, settled)) == MANY


# --- scans that overlap ----------------------------------------------------------------------


def test_a_slow_scan_puts_no_value_under_a_later_signature(nfsdict, settled, monkeypatch):
    """It has read a file that was replaced since, and another scan has seen that."""
    StoreState = importlib.import_module("nfsdict.state").StoreState
    original = StoreState.apply
    [*early, late] = sorted(MANY, key=digest)
    d = open_(nfsdict, settled)

    def apply(self, found, scan_):
        if found.shard == digest(late)[:2]:
            monkeypatch.setattr(StoreState, "apply", original)
            plain_write(settled, late, "newer")
            age(settled)
            thread = threading.Thread(target=d.refresh)
            thread.start()
            thread.join(30)
        return original(self, found, scan_)

    for key in [*early[:20], late]:
        plain_write(settled, key, "new")
    age(settled)
    monkeypatch.setattr(StoreState, "apply", apply)
    d.refresh()
    assert d.get(late, fresh=True) == "newer"
    assert dict(open_(nfsdict, settled)) == scan(settled)


def test_packing_puts_no_value_under_a_later_signature(nfsdict, settled, monkeypatch):
    """A scan comes in after the files of a directory were read, and before they are packed."""
    Repack = importlib.import_module("nfsdict.repack").Repack
    original = Repack._read
    for key in MANY:
        plain_write(settled, key, "new")
    age(settled)
    d = open_(nfsdict, settled, lazy=True)  # whose scans leave it the files to read
    changed = []

    def read(self, loose, hexdigests):
        values = original(self, loose, hexdigests)
        for key in list(values)[:1]:
            changed.append(key)
            plain_write(settled, key, "newer")
            age(settled)
            d.refresh()
        return values

    monkeypatch.setattr(Repack, "_read", read)
    d.pack()
    assert changed
    assert dict(open_(nfsdict, settled)) == scan(settled)
