"""Index writer: reads what the packs on disk say of a store, and writes what isn't there yet.

A reader has bytes and signatures at no extra cost, so readers write packs. A writer's signatures
are still racy, and so writers leave it to readers.
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Callable, NamedTuple, TypeVar

from ..batches import batches
from ..entries import Entries, Entry
from ..locks import Locks
from ..parallel import in_parallel
from ..storage.nfs import failure
from ..storage.store import NO_STAMP, SHARDS, Stamp, Store
from .memory import Index, IndexEntry
from .pack import SECTION
from .stack import PackStack

log = logging.getLogger("nfsdict")

T = TypeVar("T")

# Larger values are left to their files: reading them takes longer than finding them, from about
# here on (benchmarks/pack_limit.py).
PACKED = 32 << 10
# A change that is noted spares each opener three or four calls to the server, noting takes about
# 25. The first note pays sooner.
_PAYS = 8
# So often, and after so many seconds, ``pack`` and ``repair`` try again while others write the
# index: for longer than a claim counts that a crash has left.
_PATIENCE = 160, 0.5


class Packing(NamedTuple):
    """What ``pack`` did."""

    packed: int
    """values that are in the pack now"""
    left: int
    """values that aren't: larger than 32 KiB, unreadable, changed within the last seconds, or
    beyond the 16 MiB that a pack takes of one shard"""
    fresh: int
    """how many of these were changed within the last seconds"""


class IndexUpdate:
    """A new pack in the making. Callers have entered their thread's guard."""

    def __init__(self, index: Index, locks: Locks, packs: PackStack, writes: bool) -> None:
        self._index = index
        self._locks = locks
        self._packs = packs
        self._writer = packs.writer() if writes else None
        self._said: list[tuple[str, set[str], Stamp]] = []
        self.changes = 0

    def add(self, shard: str, values: dict[str, bytes]) -> None:
        """What isn't on disk yet, with the bytes of files that were just read; in order.

        Never raises OSError: what is lost is the next opener's time.
        """
        if self._writer is None:
            return
        with self._locks.state:
            said = self._index.begin_update(shard, values)
        if said is None:
            return
        self._said.append((shard, said.keys, said.persisted_stamp))
        self.changes += len(said.keys) + (said.stamp not in (NO_STAMP, said.persisted_stamp))
        try:
            self._writer.add(shard, said.stamp, said.statements)
        except OSError as error:
            log.info("index not written: %s", error)
            self.undo()

    def finish(self) -> bool:
        """Bring it to disk. Whether it is there; OSError if that can't be done."""
        if self._writer is None:
            return False
        done = False
        # Not waited for: who holds it does the same, and may be in a handler of log records.
        mine = self._locks.index.acquire(blocking=False)
        try:
            done = mine and self._packs.push(self._writer)
        finally:
            if mine:
                self._locks.index.release()
            if done:
                self._said, self._writer = [], None
            else:
                self.undo()
        return done

    def undo(self) -> None:
        """Leave nothing of it."""
        if self._writer is not None:
            self._writer.drop()
            self._writer = None
        with self._locks.state:
            for said in self._said:
                self._index.rollback(*said)
        self._said = []


class IndexWriter:
    """Index and packs, kept together. ``writes``: or else only read."""

    def __init__(
        self, index: Index, store: Store, entries: Entries, locks: Locks, writes: bool
    ) -> None:
        self._index = index
        self._store = store
        self._entries = entries
        self._locks = locks
        self.writes = writes
        self._packs = PackStack(store)
        self._loaded = False

    def load(self) -> None:
        """Take over what is on disk, once. To be ended by ``loaded``. No lock is held."""
        packs = PackStack(self._store)
        packs.load()
        with self._locks.guard, self._locks.state:
            if self._loaded:
                packs.close()
                return
            self._packs = packs
            for name in SHARDS:
                self._index.load(name, packs.shards(name))
            self._loaded = True

    def loaded(self) -> None:
        """The packs' values are no longer needed."""
        self._packs.close()

    def size(self, name: str) -> int:
        """Bytes that ``values`` reads for this shard."""
        return self._packs.size(name)

    def values(self, name: str) -> dict[str, bytes]:
        """The bytes of this shard's files in the packs that were loaded, by key."""
        return self._packs.values(name)

    @contextmanager
    def adding(self, even_little: bool = False) -> Iterator[IndexUpdate]:
        """An addition that is brought to disk in the end, if that pays. No OSError then."""
        guard = self._locks.guard
        addition = IndexUpdate(self._index, self._locks, self._packs, self.writes)
        try:
            yield addition
        except BaseException:
            with guard:
                addition.undo()
            raise
        with guard:
            if addition.changes and (even_little or self._pays(addition.changes)):
                try:
                    addition.finish()
                except OSError as error:
                    log.info("index not written: %s", error)
            else:
                addition.undo()

    def _pays(self, changes: int) -> bool:
        return self._packs.empty or changes >= _PAYS

    def flush(self) -> None:
        """Bring what isn't on disk there, if that pays."""
        if not (self.writes and self._index.listed) or self._locks.interrupted:
            return
        guard = self._locks.guard
        with guard, self._locks.state:
            changes = self._index.changes()
        if changes and self._pays(changes):
            with self.adding() as addition:
                for name in SHARDS:
                    with guard:
                        addition.add(name, {})

    def remove(self) -> None:
        """Leave no index on disk, for one that is written next. EBUSY while others write it."""
        packs = PackStack(self._store)
        self._unless_claimed(packs.remove)
        with self._locks.guard, self._locks.state:
            self._packs = packs
            for name in SHARDS:
                self._index.recompute_dirty(name, [])

    def pack(self, workers: int) -> Packing:
        """Write everything that is known, and all small values, into one pack.

        OSError if that can't be done: EBUSY if others go on writing the index.
        """
        self._packs, packing = self._unless_claimed(lambda: self._packed(workers))
        self._packs.sweep()
        return packing

    def _unless_claimed(self, attempt: Callable[[], T | None]) -> T:
        """What the attempt gives. Repeated while it gives nothing, as others write the index."""
        tries, pause = _PATIENCE
        for _ in range(tries):
            result = attempt()
            if result:
                return result
            time.sleep(pause)
        raise failure(errno.EBUSY, self._store.directory)

    def _packed(self, workers: int) -> tuple[PackStack, Packing] | None:
        packs = PackStack(self._store)
        packs.load()
        try:
            packing = self._pack_rest(packs, workers)
        finally:
            packs.close()
        return packing and (packs, packing)

    def _pack_rest(self, packs: PackStack, workers: int) -> Packing | None:
        """None: somebody else is writing the index."""
        guard = self._locks.guard
        with guard, self._locks.state:
            for name in SHARDS:
                self._index.recompute_dirty(name, packs.shards(name))
        addition = IndexUpdate(self._index, self._locks, packs, writes=True)
        total = Packing(0, 0, 0)
        try:
            shards = in_parallel(
                lambda name: self._loose(packs, name), SHARDS, workers, size=packs.size
            )
            waiting = ((one, digests, size) for one in shards for digests, size in one.batches())
            readings = in_parallel(
                lambda item: (item[0], self._read(item[0], item[1])),
                waiting,
                workers,
                size=lambda item: item[2],
            )
            for one, values in readings:
                if one.take(values):
                    with guard, self._locks.state:
                        self._index.mark_dirty(one.shard, one.values)
                    total = Packing(*map(sum, zip(total, one.packing())))
                    with guard:
                        addition.add(one.shard, one.values)
        except BaseException:
            with guard:
                addition.undo()
            raise
        with guard:
            if addition.changes:
                done = addition.finish()
            else:
                done = not packs.empty or not len(self._index)
                addition.undo()
        return total if done and packs.merge() else None

    def _loose(self, packs: PackStack, name: str) -> Loose:
        with self._locks.guard, self._locks.state:
            entries = self._index.shard(name).entries()
            replaced = set(self._index.shard(name).dirty_keys)  # the packs have other files' bytes
        return Loose(name, entries, packs.values(name).keys() - replaced)

    def _read(self, loose: Loose, digests: list[str]) -> dict[str, bytes]:
        """The bytes of those files that are still what is known of them, by key."""
        values = {}
        # As entries: what is packed is taken for whole later.
        for name, entry in zip(digests, self._entries.read(digests)):
            if isinstance(entry, Entry) and entry.signature == loose.entries[name].signature:
                values[entry.key] = entry.data
        return values


class Loose:
    """The small files of one shard whose bytes no pack holds yet, as they are read for one."""

    def __init__(self, shard: str, entries: dict[str, IndexEntry], packed: set[str]) -> None:
        self.shard = shard
        self.entries = entries
        self.values: dict[str, bytes] = {}
        """what was read, as much as a pack takes of one shard"""
        self._packed = packed
        files = [
            (name, known.size)
            for name, known in entries.items()
            if known.proven and known.size <= PACKED and known.key not in packed
        ]
        self._room = SECTION
        self._left = list(batches(files))

    def batches(self) -> list[tuple[list[str], int]]:
        """What is to be read, in lists; at least one."""
        return list(self._left)

    def take(self, values: dict[str, bytes]) -> bool:
        """What was read of the next list. Whether it was the last."""
        self._left.pop()
        for key, data in values.items():
            if len(data) <= self._room:
                self._room -= len(data)
                self.values[key] = data
        return not self._left

    def packing(self) -> Packing:
        """What comes of it."""
        known = self.entries.values()
        held = sum(one.key in self._packed or one.key in self.values for one in known)
        return Packing(held, len(known) - held, sum(not one.proven for one in known))
