"""Scan: bring cache and index up to date with the store, shard by shard.

A scan has three steps: plan which shards to look at, look at them (list each, and read the files
that aren't known), and apply what was found. Several threads may scan at once. No lock is held
while directories are listed, files read and values decoded. Each shard is applied by itself. If
several looks at a shard overlap, a look that began earlier is never applied after a later one.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Any

from .entries import Entries
from .in_flight import Scan
from .index import memory
from .index.shard import ShardIndex
from .index.stack import PackStack
from .index.writer import IndexWriter
from .kinds import Kinds
from .layout import SHARDS, Stamp
from .loads import Loads
from .locks import is_decoding
from .logs import Operation
from .parallel import in_parallel
from .progress import Progress
from .shard_scan import ReadPolicy, ShardScan, read
from .state import StoreState
from .storage import Storage

log = logging.getLogger("nfsdict")

# The stamps of this many shard directories are read in one call of the core.
_STAMPS = 4
# For so few shards it costs no more to ask each for its stamp than to list the root.
_FEW = 2


class Plan:
    """Which shards a scan looks at."""

    def __init__(self, stamps: dict[str, Stamp], clean: set[str], present: int) -> None:
        self.stamps = stamps
        """of each shard, as the index has it"""
        self.clean = clean
        """shards that still have the stamp in the index"""
        self.present = present
        """number of shards that exist"""
        self.unpacked: dict[str, dict[str, Any]] = {}
        """values from the packs, by shard, of those clean shards that also have values to be read
        from files"""
        self.todo: list[str] = []
        """shards to look at, in order"""
        self.unpacks = False
        """whether the packs that the opening has loaded have values for shards that are listed"""
        self.reopened: PackStack | None = None
        """packs with values for files that are read again, if their signatures are the same"""

    def packed_size(self, shard: str, writer: IndexWriter) -> int:
        """Bytes that are read from packs when this shard is listed."""
        if self.reopened is not None:
            return self.reopened.size(shard)
        return writer.packed_size(shard) if self.unpacks and shard not in self.clean else 0

    def packed_values(
        self, shard: str, before: ShardIndex, writer: IndexWriter
    ) -> dict[str, bytes]:
        """The bytes of the shard's files as the packs have them, by key, for those that had the
        same signature ``before``."""
        if self.reopened is not None:
            return self.reopened.proven_values(shard, before.proven())
        return writer.packed_values(shard) if self.unpacks else {}


class Scanner:
    """Scans of one dictionary.

    ``may_probe_clock``: whether a probe file may be created to read the server's clock; without it
    no new stamp can be trusted later.
    """

    def __init__(
        self,
        state: StoreState,
        writer: IndexWriter,
        storage: Storage,
        entries: Entries,
        kinds: Kinds,
        progress: Progress,
        loads: Loads,
        *,
        may_probe_clock: bool,
        workers: int,
    ) -> None:
        self._state = state
        self._writer = writer
        self._storage = storage
        self._entries = entries
        self._locks = state.locks
        self._kinds = kinds
        self._progress = progress
        self._loads = loads
        self._may_probe_clock = may_probe_clock
        self._workers = workers

    def scan(self, reread: bool = False, relist: bool = False, telling: bool = True) -> None:
        """Bring cache and index up to date.

        ``relist``: list every shard, whatever its stamp. ``reread``: also read files whatever their
        signatures, see ``ReadPolicy``. With ``telling`` the next ``refresh`` tells what others
        changed; watches always do.

        Does nothing if the calling thread may not scan (``barred``).
        """
        if self.barred:
            return
        first = not self._state.index.listed
        with Operation(self._storage, "scan") as operation:
            plan = self._scan_all(first, reread, relist, telling)
            operation.outcome = f"{len(plan.todo)} of {plan.present} shards looked at"

    def _scan_all(self, first: bool, reread: bool, relist: bool, telling: bool) -> Plan:
        scan = Scan(set(self._state.cached_keys()) if first else None, reread)
        if self._state.lazy or not first:  # else the opening has just found it
            self._storage.shards.find_root(whole_path=relist or reread)
        with self._locks.guard:
            self._state.begin_scan(self._storage.shards.root, scan)
        try:
            if first:
                self._writer.load_index()
            try:
                operation = "loading" if first else "sync" if reread else "pack" if relist else ""
                plan = self._scan(scan, first, relist or reread, operation)
                scan.telling = telling
                return plan
            finally:
                if first:
                    self._writer.close_packs()
        finally:
            with self._locks.guard:
                self._state.end_scan(scan)

    @property
    def barred(self) -> bool:
        """Whether the calling thread is decoding a value of this dictionary, or has interrupted
        another call of it: such a call must do with what is known."""
        return is_decoding(self._storage.directory) or self._locks.interrupted

    def known_keys(self) -> list[str]:
        """The keys known here. If the store was never listed, a scan lists it first."""
        if not self._state.index.listed:
            self.scan()
        if not self._locks.interrupted:
            with self._locks.guard:
                self._state.materialize_keys()
        return self._state.cached_keys()

    def _scan(self, scan: Scan, first: bool, relist: bool, operation: str) -> Plan:
        """``operation``: under this name its progress is shown, if there is one."""
        plan = self._plan(scan, first, relist)
        try:
            self._carry_out(plan, scan, first, operation)
            return plan
        finally:
            if plan.reopened is not None:
                plan.reopened.close_packs()

    def _carry_out(self, plan: Plan, scan: Scan, first: bool, operation: str) -> None:
        policy = self._state.read_policy(scan.reread)
        # A scan that reads all files again finds those that were changed in place. The index is
        # then written even for few changes, as else openings go on serving the old values.
        with self._writer.updating(even_little=scan.reread) as update:
            looks: Iterable[ShardScan] = self._look(plan, policy)
            if operation:
                looks = self._progress.over(
                    looks, len(plan.todo), operation, size=lambda found: found.read
                )
            for found in looks:
                if found.missing:
                    self._storage.shards.check_root()  # or else all is missing
                if found.changed or found.gone:
                    # What this process is just writing there is no news, once that is recorded.
                    with self._locks.guard, self._locks.shard(found.shard):
                        pass
                with self._locks.guard:
                    if not scan.reread:
                        racy = memory.racy_since(scan.server_time_ns)
                        found.data.update(self._loads.take(found, racy))
                    replaced = self._state.apply(found, scan)
                    update.add_shard(found.shard, found.data)
                del replaced  # may run the values' own code
            if first:
                # Checked before an index is written into another serializer's store.
                with self._locks.guard:
                    any_known = self._state.count() > 0
                self._kinds.check_serializer(any_known)
            self._state.index.listed = True

    # --- plan ----------------------------------------------------------------------------------

    def _plan(self, scan: Scan, first: bool, relist: bool) -> Plan:
        """Find out which shards exist or were known, and which of them may have changed."""
        with self._locks.guard:
            stamps = self._state.stamps()
            known_of = self._state.shards()
        found = None
        if not relist and sum(map(bool, stamps.values())) > _FEW:
            found = self._storage.shards.present_with_stamps()
        present = set(self._storage.shards.present() if found is None else found)
        believed = [] if relist else [name for name in SHARDS if name in present and stamps[name]]
        now = dict(self._stamps(believed)) if found is None else found
        clean = {name for name in believed if now[name] == stamps[name]}
        # Asked before anything is listed: every later change bears this time or a later one.
        scan.server_time_ns = None if clean == present else self._server_time_ns()
        plan = Plan(stamps, clean, len(present))
        # A clean shard has no new keys, but it may have values that aren't in the cache yet.
        if first and self._state.lazy:
            with self._locks.guard:
                self._state.leave_unmaterialized(clean)
        elif first:
            plan.unpacks = True
            plan.unpacked = self._unpack(clean)
        elif (
            scan.reread and not self._state.lazy and self._storage.rules.mounted.lists_signatures()
        ):
            plan.reopened = PackStack(self._storage.index)
            plan.reopened.load_manifest()
        plan.todo = sorted(present - clean | plan.unpacked.keys() | known_of - present)
        return plan

    def _stamps(self, shards: list[str]) -> Iterator[tuple[str, Stamp | None]]:
        pieces = [shards[start : start + _STAMPS] for start in range(0, len(shards), _STAMPS)]
        answers = in_parallel(self._storage.shards.stamps, pieces, self._workers)
        for piece, stamps in zip(pieces, answers):
            yield from zip(piece, stamps)

    def _unpack(self, shards: set[str]) -> dict[str, dict[str, Any]]:
        """Put the values of these clean shards from the packs into the cache.

        Returns, by shard, the values of those shards for which the packs don't have all.
        """
        partly: dict[str, dict[str, Any]] = {}
        for shard in self._progress.over(
            sorted(shards), len(shards), "loading", size=self._writer.packed_size
        ):
            room = self._state.room()
            if room is not None and room <= 0:
                with self._locks.guard:
                    self._state.leave_unmaterialized({shard})
                continue
            values = self._entries.unpack(self._writer.packed_values(shard))
            with self._locks.guard:
                if not self._state.hold_unpacked(shard, values):
                    partly[shard] = values
        return partly

    def _server_time_ns(self) -> int | None:
        """The server's time in ns, from a probe file if one may be made.

        Else a lower bound from times seen on files. By that, changes just before the latest of
        those times aren't proven yet. Where hosts set times by their own clocks, see
        ``file_systems.Stamps``: as far ahead as if all times were past, or None.
        """
        if not self._storage.rules.mounted.one_clock:
            return self._storage.rules.mounted.unclocked
        if self._may_probe_clock:
            try:
                return self._storage.files.probe_clock()
            except OSError as error:
                log.info("can't learn the server's time: %s", error)
        return self._storage.rules.clock.lower_bound()

    # --- look ----------------------------------------------------------------------------------

    def _look(self, plan: Plan, policy: ReadPolicy) -> Iterator[ShardScan]:
        """List and read the planned shards, several at a time; yields them in order."""
        scans = in_parallel(
            lambda shard: self._list_shard(shard, plan, policy),
            plan.todo,
            self._workers,
            # The core compares without the GIL. Values are decoded with it.
            without_gil=not plan.unpacks and plan.reopened is None,
            size=lambda shard: plan.packed_size(shard, self._writer),
        )
        readings = in_parallel(
            lambda batch: (batch, read(self._entries, batch, policy)),
            (batch for scan in scans for batch in scan.batches()),
            self._workers,
            size=lambda batch: batch.size,
        )
        for batch, found in readings:
            for hexdigest, one in zip(batch.hexdigests, found):
                batch.scan.add_reading(hexdigest, one)
            if batch.last:
                batch.scan.finish()
                yield batch.scan

    def _list_shard(self, shard: str, plan: Plan, policy: ReadPolicy) -> ShardScan:
        with self._locks.guard:
            scan = ShardScan(shard, *self._state.begin_look(shard))
        if shard in plan.clean:
            scan.trust_index(plan.stamps[shard], plan.unpacked[shard], policy)
        else:
            packed = plan.packed_values(shard, scan.before, self._writer)
            scan.list_files(self._storage.shards, self._entries.unpack(packed), policy)
        return scan
