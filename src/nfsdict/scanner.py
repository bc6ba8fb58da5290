"""Scanner: brings what is known up to date with the store, shard by shard.

Several threads may scan at once. Nothing is locked while directories are listed, files read and
values decoded; each shard is taken over for itself, in the order in which the looks began.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any

from .core import MISSING
from .entries import Entries
from .index.memory import RACY_WINDOW_NS, IndexEntry
from .index.writer import IndexWriter, Packing
from .kinds import Kinds
from .locks import Locks
from .parallel import in_parallel
from .progress import Progress
from .state import Scan, StoreState
from .storage.store import SHARDS, Stamp, Store
from .survey import Plan, ShardScan, plan, read

log = logging.getLogger("nfsdict")

# So many shard directories are asked for their stamps in one call of the core.
_STAMPS = 4


class Scanner:
    """Whole-store operations of one dictionary.

    ``lazy`` leaves the values of known names unread. ``may_probe_clock``: whether a probe file may
    be created to read the server's clock; without it no new stamp can be trusted later.
    """

    def __init__(
        self,
        known: StoreState,
        notes: IndexWriter,
        cache: dict[str, Any],
        store: Store,
        kinds: Kinds,
        entries: Entries,
        locks: Locks,
        progress: Progress,
        *,
        lazy: bool,
        may_probe_clock: bool,
        workers: int,
    ) -> None:
        self._known = known
        self._notes = notes
        self._cache = cache
        self._store = store
        self._kinds = kinds
        self._entries = entries
        self._locks = locks
        self._progress = progress
        self._lazy = lazy
        self._may_probe_clock = may_probe_clock
        self._workers = workers

    def scan(self, reread: bool = False, relist: bool = False, telling: bool = True) -> None:
        """Bring cache and index up to date; ``StoreState.take_changes`` tells what others changed.

        ``relist``: list every shard, whatever its stamp; ``reread``: and read every file. Without
        ``telling`` what is found is no news afterwards.

        Nothing is done where the calling thread is decoding a value of this dictionary, or has
        interrupted another call of it: what is known has to do there.
        """
        if self._locks.decoding.locked() or self._locks.interrupted:
            return
        guard = self._locks.guard
        first = not self._known.index.listed
        before = set(self._cache) if first else None
        if self._lazy or not first:  # else it was found just now, at opening
            self._store.find_root(whole_path=relist or reread)
        with guard:
            scan = self._known.begin_scan(self._store.root, before)
        try:
            if first:
                self._notes.load()
            try:
                self._look_at_shards(reread, relist or reread, first, scan)
                if not telling:
                    with guard:
                        self._known.drop_changes(scan)
            finally:
                if first:
                    self._notes.loaded()
        finally:
            with guard:
                self._known.end_scan(scan)

    def pack(self) -> Packing:
        """Bring all that is known and all small values into one pack; see ``NfsDict.pack``."""
        self.scan(relist=True)  # what was written in place shows in its file's ctime alone
        packing = self._notes.pack(self._workers)
        if packing.fresh or not self._settled():
            time.sleep(RACY_WINDOW_NS / 1e9)
            self.scan()
            packing = self._notes.pack(self._workers)
        return packing

    def _settled(self) -> bool:
        with self._locks.guard:
            return self._known.settled()

    def _look_at_shards(
        self,
        reread: bool,
        relist: bool,
        first: bool,
        scan: Scan,
    ) -> None:
        guard, known = self._locks.guard, self._known
        present = set(self._store.shards())
        with guard:
            stamps = known.stamps()
            kept_shards = known.shards() - present
        believed = [] if relist else [name for name in SHARDS if name in present and stamps[name]]
        clean = {name for name, stamp in self._stamps(believed) if stamp == stamps[name]}
        # Asked before anything is listed: what changes from here on bears this time or a later one.
        server_time_ns = None if clean == present else self._clock()
        # A clean shard has nothing new; it may have values that nobody has read yet.
        unpacked: dict[str, dict[str, Any]] = {}
        if first and self._lazy:
            with guard:
                known.leave_unfilled(clean)
        elif first:
            unpacked = self._unpack(clean)
        room = to_read = known.room(reread)

        def wanted(entry: IndexEntry, proven: bool, size: int) -> bool:
            nonlocal to_read
            if not reread and self._cache.get(entry.key, MISSING) is not MISSING:
                return not proven
            if self._lazy:
                return False
            if to_read is not None:
                to_read -= size
            return to_read is None or to_read >= 0

        def kept(key: str, size: int) -> bool:
            nonlocal room
            if self._cache.get(key, MISSING) is not MISSING:
                return not (self._lazy and reread)
            if self._lazy:
                return False  # it reads an unknown file for its key alone
            if room is not None:
                room -= size
            return room is None or room >= 0

        def look_at(name: str) -> Plan:
            with self._locks.guard:
                number, entries = known.begin_look(name)
            stamp, values = None, {}
            if name in clean:
                stamp, values = stamps[name], unpacked[name]
            elif first and not self._lazy:
                values = self._entries.unpack(self._notes.values(name))
            return plan(self._store, name, number, stamp, entries, values, wanted)

        def packed(name: str) -> int:
            """Bytes that a look takes from the packs."""
            return self._notes.size(name) if first and not self._lazy and name not in clean else 0

        def views() -> Iterator[ShardScan]:
            plans = in_parallel(look_at, todo, self._workers, size=packed)
            waiting = (batch for one in plans for batch in one.batches())
            readings = in_parallel(
                lambda batch: (batch, read(self._entries, batch, kept)),
                waiting,
                self._workers,
                size=lambda batch: batch.size,
            )
            for batch, found in readings:
                for name, one in zip(batch.digests, found):
                    batch.plan.take(name, one)
                if batch.last:
                    yield batch.plan.view()

        todo = sorted(present - clean | unpacked.keys() | kept_shards)
        # Reading all again finds files that were changed in place, which nothing else shows.
        with self._notes.adding(even_little=reread) as notes:
            for view in self._progress.over(views(), len(todo)):
                with guard:
                    replaced = known.apply(view, server_time_ns, reread, view.shard in clean, scan)
                    notes.add(view.shard, view.data)
                del replaced  # may run the values' own code
            if first:
                # Before anything is written about a store of another serializer.
                with guard:
                    any_known = known.count() > 0
                self._kinds.check(any_known)
            self._known.index.listed = True

    def _stamps(self, shards: list[str]) -> Iterator[tuple[str, Stamp | None]]:
        pieces = [shards[start : start + _STAMPS] for start in range(0, len(shards), _STAMPS)]
        for piece, stamps in zip(pieces, in_parallel(self._store.stamps, pieces, self._workers)):
            yield from zip(piece, stamps)

    def _unpack(self, shards: set[str]) -> dict[str, dict[str, Any]]:
        """Take the values of these clean shards from the packs. What they gave of the others."""
        partly: dict[str, dict[str, Any]] = {}
        for name in self._progress.over(sorted(shards), len(shards)):
            room = self._known.room()
            if room is not None and room <= 0:
                with self._locks.guard:
                    self._known.leave_unfilled({name})
                continue
            values = self._entries.unpack(self._notes.values(name))
            with self._locks.guard:
                if not self._known.hold_unpacked(name, values):
                    partly[name] = values
        return partly

    def _clock(self) -> int:
        """The server's time. Where no file may be made, it is at least what its stamps showed, and
        what was changed just before the last of them isn't proven yet."""
        if self._may_probe_clock:
            try:
                return self._store.clock()
            except OSError as error:
                log.info("can't learn the server's time: %s", error)
        return self._store.times.lower_bound()
