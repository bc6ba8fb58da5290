"""Notes: what one process knows of its store, taken from the packs on disk and brought there.

Who has read files has their bytes and signatures together for nothing, so readers write packs.
Writers have no proof of what they wrote, and leave it to them.
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from .directories import failure
from .entries import Entries, Entry
from .index import Index
from .locks import Locks
from .packs import Packs
from .parallel import in_parallel
from .store import NO_STAMP, SHARDS, Stamp, Store

log = logging.getLogger("nfsdict")

# Larger values are left to their files: reading them takes longer than finding them, from about
# here on (benchmarks/pack_limit.py).
PACKED = 32 << 10
# A change that is noted spares each opener three or four calls to the server, noting takes about
# 25. The first note pays sooner.
_PAYS = 8
# So often, and after so many seconds, ``pack`` tries again while others write the index.
_PATIENCE = 20, 0.5


class Packing(NamedTuple):
    """What ``pack`` did."""

    packed: int
    """values that are in the pack now"""
    left: int
    """values that aren't: larger than 32 KiB, unreadable, or changed within the last seconds"""
    fresh: int
    """how many of these were changed within the last seconds"""


class Addition:
    """A new pack in the making. Callers have entered their thread's guard."""

    def __init__(self, index: Index, locks: Locks, packs: Packs, writes: bool) -> None:
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
            said = self._index.say(shard, values)
        if said is None:
            return
        self._said.append((shard, said.keys, said.told))
        self.changes += len(said.keys) + (said.stamp not in (NO_STAMP, said.told))
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
        try:
            with self._locks.index:
                done = self._packs.push(self._writer)
        finally:
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
                self._index.unsay(*said)
        self._said = []


class Notes:
    """Index and packs, kept together. ``writes``: or else only read."""

    def __init__(
        self, index: Index, store: Store, entries: Entries, locks: Locks, writes: bool
    ) -> None:
        self._index = index
        self._store = store
        self._entries = entries
        self._locks = locks
        self.writes = writes
        self._packs = Packs(store)
        self._loaded = False

    def load(self) -> None:
        """Take over what is on disk, once. To be ended by ``loaded``. The guard is entered."""
        with self._locks.index:
            if self._loaded:
                return
            self._packs.load()
            with self._locks.state:
                for name in SHARDS:
                    self._index.load(name, self._packs.shards(name))
            self._loaded = True

    def loaded(self) -> None:
        """The packs' values are no longer needed. The guard is entered."""
        with self._locks.index:
            self._packs.close()

    def values(self, name: str) -> dict[str, bytes]:
        """The bytes of this shard's files in the packs that were loaded, by key."""
        return self._packs.values(name)

    @contextmanager
    def adding(self, even_little: bool = False) -> Iterator[Addition]:
        """An addition that is brought to disk in the end, if that pays. No OSError then."""
        guard = self._locks.guard
        addition = Addition(self._index, self._locks, self._packs, self.writes)
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
        """Leave no index on disk."""
        with self._locks.guard, self._locks.index:
            self._packs.remove()
            with self._locks.state:
                for name in SHARDS:
                    self._index.compare(name, [])

    def pack(self, workers: int) -> Packing:
        """Write everything that is known, and all small values, into one pack.

        OSError if that can't be done: EBUSY if others go on writing the index.
        """
        tries, pause = _PATIENCE
        for _ in range(tries):
            packs = Packs(self._store)
            packs.load()
            try:
                packing = self._pack_rest(packs, workers)
            finally:
                packs.close()
            if packing is not None:
                with self._locks.guard, self._locks.index:
                    self._packs = packs
                packs.sweep()
                return packing
            time.sleep(pause)
        raise failure(errno.EBUSY, self._store.directory)

    def _pack_rest(self, packs: Packs, workers: int) -> Packing | None:
        """None: somebody else is writing the index."""
        guard = self._locks.guard
        with guard, self._locks.state:
            for name in SHARDS:
                self._index.compare(name, packs.shards(name))
        addition = Addition(self._index, self._locks, packs, writes=True)
        total = Packing(0, 0, 0)
        try:
            shards = in_parallel(lambda name: self._loose(packs, name), SHARDS, workers)
            for name, (packing, values) in zip(SHARDS, shards):
                total = Packing(*map(sum, zip(total, packing)))
                with guard:
                    addition.add(name, values)
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

    def _loose(self, packs: Packs, name: str) -> tuple[Packing, dict[str, bytes]]:
        """The bytes of this shard's small files that no pack holds yet, and what is held then."""
        with self._locks.guard, self._locks.state:
            entries = self._index.shard(name).entries()
            replaced = set(self._index.shard(name).unsaid)  # the packs have other files' bytes
        packed = packs.values(name).keys() - replaced
        loose = [
            (digits, known)
            for digits, known in entries.items()
            if known.proven and known.size <= PACKED and known.key not in packed
        ]
        values = {}
        # As entries: what is packed is taken for whole later.
        found = self._entries.read([digits for digits, _ in loose])
        for (_, known), entry in zip(loose, found):
            if isinstance(entry, Entry) and entry.signature == known.signature:
                values[known.key] = entry.data
        with self._locks.guard, self._locks.state:
            self._index.repeat(name, values)
        held = sum(known.key in packed or known.key in values for known in entries.values())
        fresh = sum(not known.proven for known in entries.values())
        return Packing(held, len(entries) - held, fresh), values
