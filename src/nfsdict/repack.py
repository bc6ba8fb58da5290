"""Repack: write all that is known, and all small values, into one pack, for ``NfsDict.pack``."""

from __future__ import annotations

import errno
import threading
import time
from typing import NamedTuple

from .batches import batches
from .entries import Entries, Entry
from .index import pack
from .index.memory import RACY_WINDOW_NS, Index
from .index.pack import Packed
from .index.shard import IndexEntry
from .index.stack import PackStack, until_unclaimed
from .index.writer import IndexWriter
from .layout import SHARDS
from .loads import Loads
from .parallel import in_parallel
from .progress import Progress
from .scan import Scanner
from .state import StoreState
from .storage import Storage

_WITHIN = "pack() is called by what another pack() of this dictionary calls"


class PackReport(NamedTuple):
    """What ``NfsDict.pack`` did."""

    packed: int
    """number of values that are in the pack now"""
    unpacked: int
    """number of values that aren't: larger than 32 KiB, unreadable, changed within the last
    seconds, or beyond the 16 MiB of values that a pack takes of one shard"""
    racy: int
    """how many of the unpacked values were changed within the last seconds"""


Packing = PackReport  # the name that it had first


class Repack:
    """Packs the store of one dictionary."""

    def __init__(
        self,
        scanner: Scanner,
        state: StoreState,
        writer: IndexWriter,
        storage: Storage,
        entries: Entries,
        loads: Loads,
        progress: Progress,
        workers: int,
    ) -> None:
        self._loads = loads
        self._progress = progress
        self._state = state
        self._scanner = scanner
        self._writer = writer
        self._files = storage.index
        self._rules = storage.rules
        self._entries = entries
        self._locks = state.locks
        self._workers = workers

    def __call__(self) -> PackReport:
        """See ``NfsDict.pack``. OSError if it can't be written; EBUSY if others go on writing."""
        wait = self._loads.wait()
        if wait:
            time.sleep(wait)  # else the shards were listed now and then
        self._scanner.scan(relist=True)  # only a file's ctime shows that it was written in place
        report = self._write()
        if (report.racy and self._rules.mounted.one_clock) or not self._settled():
            time.sleep(RACY_WINDOW_NS / 1e9)
            self._scanner.scan()
            report = self._write()
        return report

    def _settled(self) -> bool:
        if not self._rules.mounted.proves_stamps:
            return True  # as far as it ever will be
        with self._locks.guard:
            return self._state.settled()

    def _write(self) -> PackReport:
        packs, report = until_unclaimed(self._files.directory, self._attempt)
        self._writer.adopt(packs)
        packs.sweep()
        return report

    def _attempt(self) -> tuple[PackStack, PackReport] | None:
        """The new stack and the report; None if another process is writing the index, or another
        thread packs. OSError if the index can't be read, or the pack can't be written."""
        other = self._writer.current
        if other is not None and other.by_pack:
            if self._scanner.barred or other.thread == threading.get_ident():
                raise OSError(errno.EBUSY, _WITHIN, self._files.directory)
            return None
        packs = PackStack(self._files)
        packs.load_manifest()
        if packs.unreadable is not None:
            raise packs.unreadable
        try:
            report = self._append_rest(packs)
        finally:
            packs.close_packs()
        return None if report is None else (packs, report)

    def _append_rest(self, packs: PackStack) -> PackReport | None:
        """Put what these packs lack into one more, and merge all into one. See ``_attempt``."""
        index, guard = self._state.index, self._locks.guard
        with guard, self._locks.state:
            for shard in SHARDS:
                index.recompute_dirty(shard, packs.shards(shard))
        update = self._writer.begin(packs, writes=True, by_pack=True)
        if not update.open:
            return None
        total = PackReport(0, 0, 0)
        try:
            shards = in_parallel(
                lambda shard: self._loose(index, packs, shard),
                SHARDS,
                self._workers,
                size=packs.size,
            )
            waiting = ((one, digests, size) for one in shards for digests, size in one.batches())
            readings = in_parallel(
                lambda item: (item[0], self._read(item[0], item[1])),
                waiting,
                self._workers,
                size=lambda item: item[2],
            )
            for one, values in self._progress.over(
                readings,
                len(SHARDS),
                "pack",
                count=lambda found: found[0].done,
                size=lambda found: sum(len(value.data) for value in found[1].values()),
            ):
                if one.add_values(values):
                    with guard, self._locks.state:
                        index.mark_dirty(one.shard, one.values)
                    total = PackReport(*map(sum, zip(total, one.report())))
                    with guard:
                        update.add_shard(one.shard, one.values)
            with guard:
                if update.changes:
                    done = update.commit()
                else:
                    done = not packs.empty or not len(index)
                    update.roll_back()
        except BaseException:
            with guard:
                update.roll_back()
            raise
        if update.failure is not None and update.failure.errno != errno.EBUSY:
            raise update.failure
        return total if done and packs.compact() else None

    def _loose(self, index: Index, packs: PackStack, shard: str) -> Loose:
        with self._locks.guard, self._locks.state:
            entries = index.shard(shard).entries()
            replaced = set(index.shard(shard).dirty_keys)  # their packed bytes are outdated
        return Loose(shard, entries, packs.packed_values(shard).keys() - replaced)

    def _read(self, loose: Loose, hexdigests: list[str]) -> dict[str, Packed]:
        """What was read, by key, of those files that still have the signature that is known."""
        values = {}

        def keep(name: str, entry: Entry | Exception | None) -> None:
            if isinstance(entry, Entry) and entry.signature == loose.entries[name].signature:
                values[entry.key] = Packed(bytes(entry.data), entry.signature)

        # Decoded as entries, as openings trust packed bytes to be whole.
        self._entries.read_entries(hexdigests, keep)
        return values


class Loose:
    """The small files of one shard whose bytes no pack has yet, while they are read for one."""

    def __init__(self, shard: str, entries: dict[str, IndexEntry], packed: set[str]) -> None:
        self.shard = shard
        self.entries = entries
        self.values: dict[str, Packed] = {}
        """what was read, by key, as many as a pack takes of one shard"""
        self._packed = packed
        files = [
            (name, known.size)
            for name, known in entries.items()
            if known.proven and known.size <= pack.PACKED and known.key not in packed
        ]
        self._room = pack.SECTION
        self._left = list(batches(files))

    def batches(self) -> list[tuple[list[str], int]]:
        """The files to read, in lists of (digests, their total size); at least one list."""
        return list(self._left)

    def add_values(self, values: dict[str, Packed]) -> bool:
        """Add what was read of the next list. Whether that was the last: see ``done``."""
        self._left.pop()
        for key, one in values.items():
            if len(one.data) <= self._room:
                self._room -= len(one.data)
                self.values[key] = one
        return self.done

    @property
    def done(self) -> bool:
        """Whether all lists were read."""
        return not self._left

    def report(self) -> PackReport:
        """The report for this shard."""
        known = self.entries.values()
        held = sum(one.key in self._packed or one.key in self.values for one in known)
        return PackReport(held, len(known) - held, sum(not one.proven for one in known))
