"""Index writer: reads what the packs on disk say of a store, and writes what isn't there yet.

A reader has bytes and signatures at no extra cost, so readers write packs. A writer's signatures
are still racy, so writers leave packs to readers.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

from ..layout import NO_STAMP, SHARDS
from ..locks import Locks
from ..logs import emit
from ..storage.index_files import IndexFiles
from ..undoing import insist
from .memory import Index, ShardUpdate
from .pack import Packed
from .stack import PackStack, until_unclaimed

log = logging.getLogger("nfsdict")

# Each change that the index has saves every opener three or four calls to the server, and writing
# a pack takes about 25. So a pack pays from this many changes on; the first one always does.
_PAYS = 8


class IndexUpdate:
    """A new pack in the making: begun for each shard, then committed as a whole or rolled back.

    Callers have entered their thread's guard.
    """

    def __init__(
        self, index: Index, locks: Locks, packs: PackStack, writes: bool, by_pack: bool
    ) -> None:
        self._index = index
        self._locks = locks
        self._packs = packs
        self._writer = packs.writer() if writes else None
        self._cancelled = False
        self.by_pack = by_pack
        """whether it is that of ``NfsDict.pack``, and not of a scan"""
        self.thread = threading.get_ident()
        self.begun: list[ShardUpdate] = []
        """of which the index counts as written: it is committed, or noted again as it was"""
        self.changes = 0
        """keys and stamps that the packs on disk don't have yet"""
        self.failure: OSError | None = None
        """why the pack couldn't be written"""

    @property
    def open(self) -> bool:
        """Whether it can still be committed."""
        return self._writer is not None and not self._cancelled

    def cancel(self) -> None:
        """Have it come to nothing, whatever its thread is doing. The caller holds ``state``.

        If that is just committing it, it may get there: then the caller's own commit fails, as the
        manifest is another one.
        """
        self._cancelled = True
        self._note_again()

    def add_shard(self, shard: str, values: dict[str, Packed]) -> None:
        """Add what the packs on disk don't have of this shard. Shards come in ascending order.

        ``values``: by key, what was read of files. Never raises OSError: if the
        pack can't be written, the next opening only takes longer.
        """
        if self._writer is None:
            return
        with self._locks.state:
            if self._cancelled:
                return
            update = self._index.begin_update(shard, values, self.begun)
        if update is None:
            return
        self.changes += len(update.keys) + (update.stamp not in (NO_STAMP, update.persisted_stamp))
        try:
            self._writer.write_shard(shard, update.stamp, update.records)
        except OSError as error:
            log.info("index not written: %s", error)
            self.failure = error
            self.roll_back()

    def commit(self) -> bool:
        """Put the pack into the index on disk. Whether it is there; else it is rolled back.

        False if another process or thread writes the index. OSError if the pack can't be written.
        """
        if self._writer is None or self._cancelled:
            self.roll_back()
            return False
        done = False
        # Not waited for: its holder does the same work, and may be this thread, interrupted.
        mine = self._locks.index.acquire(blocking=False)
        try:
            done = mine and self._packs.append(self._writer)
        finally:
            if mine:
                self._locks.index.release()
            if done:
                self.begun.clear()
                self._writer = None
            else:
                self.roll_back()
        return done

    def roll_back(self) -> None:
        """Remove the new pack, and note again that its changes aren't on disk.

        What isn't noted would be missing from later packs, which yet have the shard's new stamp:
        openings would take what older packs say for true.
        """
        try:
            insist(self._roll_back)
        finally:
            insist(self._roll_back)

    def _roll_back(self) -> None:
        if self._writer is not None:
            self._writer.abandon()
            self._writer = None
        with self._locks.state:
            self._note_again()

    def _note_again(self) -> None:
        while self.begun:
            self._index.rollback(self.begun[-1])
            self.begun.pop()


class IndexWriter:
    """Keeps the index in memory and the packs on disk in step. Without ``writes`` it only reads.

    It refers to no dictionary, so that it can outlive its own. A forked child leaves the index to
    its parent.
    """

    def __init__(self, index: Index, files: IndexFiles, locks: Locks, writes: bool) -> None:
        self._index = index
        self._files = files
        self._locks = locks
        self._writes = writes
        self._packs = PackStack(files)
        self._loaded = False
        self._keys_changed = False
        # The last update that hadn't to give way, if it lives, and what it has begun.
        self._update: weakref.ref[IndexUpdate] | None = None
        self._begun: list[ShardUpdate] = []
        # Whether one had to give way or was cancelled that would have been written although it is
        # little, as far as is known.
        self._owed = False
        _all.add(self)

    def _forked(self) -> None:
        self._writes = False  # the parent writes it
        self._update = None  # that of another thread never ends here
        self._keys_changed = False  # this process hasn't changed any

    # --- reading -------------------------------------------------------------------------------

    def load_index(self) -> None:
        """Take over the index on disk, once. The caller holds no lock, and later calls
        ``close_packs``."""
        packs = PackStack(self._files)
        packs.load_manifest()
        with self._locks.guard, self._locks.state:
            if self._loaded:
                packs.close_packs()
                return
            self._packs = packs
            for shard in SHARDS:
                self._index.load_shard(shard, packs.shards(shard))
            self._loaded = True

    def close_packs(self) -> None:
        """Close the packs, when their values are no longer needed."""
        self._packs.close_packs()

    def packed_size(self, shard: str) -> int:
        """Bytes that ``packed_values`` reads for this shard."""
        return self._packs.size(shard)

    def packed_values(self, shard: str) -> dict[str, bytes]:
        """The bytes of this shard's files in the packs that were loaded, by key."""
        return self._packs.packed_values(shard)

    # --- writing -------------------------------------------------------------------------------

    def begin(self, packs: PackStack, writes: bool, by_pack: bool = False) -> IndexUpdate:
        """A new update of these packs. It isn't ``open`` while another one is, as of a scan in
        another thread: then a later one tells what it would have told. One that is begun
        ``by_pack`` cancels that of a scan, as it tells all.

        Of two at once the later one would write a shard's newer stamp without what the earlier one
        has begun, and openings would believe that, for good if the earlier one comes to nothing. No
        thread waits for the other's end, as user code may run before that.
        """
        with self._locks.guard, self._locks.state:
            other = self.current
            if other is not None and by_pack and not other.by_pack:
                other.cancel()
                self._owed = True
            free = self.current is None
            update = IndexUpdate(self._index, self._locks, packs, writes and free, by_pack)
            if free:
                # One that exceptions have ended before it was rolled back is rolled back now.
                for one in self._begun:
                    self._index.rollback(one)
                self._update, self._begun = weakref.ref(update), update.begun
        return update

    @property
    def current(self) -> IndexUpdate | None:
        """The update that is open, if one is."""
        update = None if self._update is None else self._update()
        return update if update is not None and update.open else None

    @contextmanager
    def updating(self, even_little: bool = False) -> Iterator[IndexUpdate]:
        """An update that is committed at the end of the block, if that pays; else rolled back.

        ``even_little``: also if it doesn't pay. Errors in writing are logged, not raised.
        """
        guard = self._locks.guard
        update = self.begin(self._packs, self._writes)
        self._owed |= even_little and not update.open and self.current is not None
        try:
            yield update
        except BaseException:
            with guard:
                update.roll_back()
            raise
        with guard:
            if update.changes and (even_little or self._pays(update.changes)):
                try:
                    update.commit()
                except OSError as error:
                    log.info("index not written: %s", error)
            else:
                update.roll_back()
        if self._owed and self.current is None:
            self._owed = False
            self._write_all()

    def _write_all(self) -> None:
        """Write all changes of the index to disk."""
        with self.updating(even_little=True) as update:
            for shard in SHARDS:
                with self._locks.guard:
                    update.add_shard(shard, {})

    def _pays(self, changes: int) -> bool:
        return self._packs.empty or changes >= _PAYS

    def flush(self) -> None:
        """Write changes of the index to disk, if that pays. At close and interpreter exit.

        Never raises OSError: if they aren't written, the next opening only takes longer.
        """
        try:
            self._flush()
        finally:
            emit()  # what was logged meanwhile: nobody else may come

    def _flush(self) -> None:
        if self._keys_changed:
            self._remove_legacy_index()
            self._keys_changed = False
        if not (self._writes and self._index.listed) or self._locks.interrupted:
            return
        with self._locks.guard, self._locks.state:
            changes = self._index.changes()
        if changes and self._pays(changes):
            self._write_all()

    def adopt(self, packs: PackStack) -> None:
        """Use this stack from now on. The caller has just written all into it."""
        self._packs = packs
        self._owed = False

    def discard_index(self) -> None:
        """Remove the index from disk; the caller writes a new one. EBUSY while others write it."""
        packs = PackStack(self._files)
        until_unclaimed(self._files.directory, packs.remove_index)
        with self._locks.guard, self._locks.state:
            self._packs = packs
            for shard in SHARDS:
                self._index.recompute_dirty(shard, [])

    # --- the index of release 0.2.1 ------------------------------------------------------------

    def invalidate_legacy_index(self) -> None:
        """Remove the index of release 0.2.1, as the set of keys is about to change.

        That release trusts its index, and would miss the change; without the index it scans. The
        index is removed before this process's first change, and once more at the end, as a process
        of that release may have written it meanwhile.
        """
        if not self._keys_changed:
            self._keys_changed = True  # first: a log handler may write to the dictionary
            self._remove_legacy_index()

    def _remove_legacy_index(self) -> None:
        try:
            self._files.remove_legacy_index()
        except OSError as error:
            if error.errno == errno.EROFS:
                return  # nothing is about to change
            log.warning(
                "can't remove release 0.2.1's index, which will hide changes from that release: "
                "%s; remove it",
                error,
            )


_all: weakref.WeakSet[IndexWriter] = weakref.WeakSet()


def _forked_all() -> None:
    for writer in list(_all):
        writer._forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked_all)
