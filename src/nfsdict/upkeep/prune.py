"""Prune: remove the entries that were written first, until a store is within its limits.

It goes by listings alone, shard by shard. One pass over all shards, or for more entries than
``oldest`` has bins two, finds the rank up to which entries are to be removed; another pass removes
them, in groups. Before each group the shard is listed, and leases are looked at.
"""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from functools import partial
from typing import Any, NamedTuple

from ..coordination.leases import Lease, LeaseInfo, Leases
from ..coordination.live import LiveLeases
from ..index.writer import IndexWriter
from ..layout import UNKNOWN, file_size, mtime_of
from ..parallel import in_parallel
from ..progress import Progress
from ..state import StoreState
from ..storage import Storage
from ..storage.clock import ServerClock
from ..storage.processes import host_name
from ..storage.removal import Fate, Fates
from ..undoing import insist
from .limits import Limits, PruneReport
from .oldest import Amount, Histogram, first_rank, rank, time_of
from .prefixed import Prefixed

log = logging.getLogger("nfsdict")

LEASE = "nfsdict: prune"
"""the name whose lease the process holds that prunes"""
_LEASE_SECONDS = 60.0
# So many files at most have private names at a time, and keep writers of their shard waiting here.
_GROUP = 256
# So many of the files that couldn't be removed are named.
_NAMED = 100
_PAUSE = 0.01
# Lower than the rank of any entry.
_NOTHING = first_rank(-1 << 64)


class _Survey(NamedTuple):
    """One shard in a pass that decides."""

    shard: str
    all: Amount
    """what the limits are about"""
    ranks: list[tuple[int, int]]
    """rank and size of each entry that may be removed"""
    lowest: int | None
    """the lowest rank here, leased ones included"""
    end: int
    """all ranks here are lower, those of leased ones too"""
    unknown: list[str]
    """digests of files whose attributes couldn't be told"""


class _Cut(NamedTuple):
    """Entries with ranks below this one are removed: so many."""

    rank: int
    amount: Amount


class _Tally(NamedTuple):
    """What became of one group."""

    reached: int
    """how many entries of those that were planned to be removed this is about"""
    removed: Amount
    off: Amount
    """removed by this call or by others"""
    leased: int
    replaced: int
    failed: list[tuple[str, OSError]]


class Prune:
    """One call of ``prune``. ``run`` once; ``report`` tells also what an exception has ended."""

    def __init__(
        self,
        limits: Limits,
        dry_run: bool,
        state: StoreState,
        writer: IndexWriter,
        storage: Storage,
        prefixed: Prefixed,
        leases: Leases,
        progress: Progress,
        workers: int,
    ) -> None:
        self._limits = limits
        self._state = state
        self._writer = writer
        self._storage = storage
        self._prefixed = prefixed
        self._leases = leases
        self._progress = progress
        self._workers = workers
        self.report = PruneReport(dry_run=dry_run)
        limit = limits.time_limit
        self._end = None if limit is None else time.monotonic() + limit
        self._now = 0
        self.decided = False
        """whether it is known what is to be removed, and so what is left"""
        # The rank up to which a shard is done; in the beginning the lowest one there.
        self._from: dict[str, int] = {}
        # Leased when it was decided what goes: others go in their places, so these stay.
        self._spared: set[str] = set()
        self._cut_short = False
        self._tallies: list[_Tally] = []

    def run(self) -> PruneReport:
        """See ``NfsDict.prune``."""
        self._storage.shards.find_root(whole_path=True)
        if self.report.dry_run:
            self._prune(None)
        else:
            lease = self._only_one()
            try:
                self._prune(lease)
            finally:
                with suppress(OSError):  # it runs out by itself
                    lease.release()
        return self.report

    def _only_one(self) -> Lease:
        """The lease of those who prune. OSError with EBUSY if another process has it.

        One that has run out by the server's clock is waited for: to be taken over from another
        host, it has to be watched for its whole duration.
        """
        who: list[LeaseInfo] = []
        for timeout in (0, 2 * _LEASE_SECONDS):
            try:
                lease = self._leases.acquire(LEASE, _LEASE_SECONDS, timeout)
                assert lease is not None
                return lease
            except TimeoutError:
                who = [one for one in self._leases.held() if one.key == LEASE]
                if who:
                    break
            except PermissionError:
                raise
            except OSError as error:
                raise _without_leases(error) from error
        text = "another process prunes this store"
        if who:
            if (who[0].host, who[0].process) == (host_name(), os.getpid()):
                text = "another call of this process prunes this store, or was just interrupted"
            text += f": process {who[0].process} on {who[0].host}"
        raise OSError(errno.EBUSY, text, self._storage.directory)

    def _prune(self, lease: Lease | None) -> None:
        shards = self._storage.shards.present()
        if not self._storage.files.may_change:
            self._storage.shards.stamps(shards)  # the latest change tells something of the time
        self._now = self._storage.files.server_time_ns()
        try:
            self._live = LiveLeases(self._storage)
        except OSError as error:
            raise _without_leases(error) from error
        cut = self._plan(shards)
        planned = self.report.left = cut.amount.items
        self.decided = True
        todo = [shard for shard in shards if self._from.get(shard, cut.rank) < cut.rank]
        if lease is not None and todo:
            self._await_later(time_of(cut.rank))
            self._writer.invalidate_legacy_index()
        try:
            for _ in self._progress.over(self._removed(todo, cut, lease), len(todo), "prune"):
                pass
            if not self._cut_short:
                planned = 0  # what others have removed or replaced by then isn't left
        finally:
            self._sum_up(planned)

    # --- what to remove --------------------------------------------------------------------------

    def _plan(self, shards: list[str]) -> _Cut:
        """Up to which rank entries are to be removed."""
        age = self._limits.max_age
        aged = first_rank(self._now - int(age * 1e9)) if age is not None else None
        everything = old = Amount()
        histogram = Histogram()
        end = _NOTHING
        for survey in self._progress.over(self._survey(shards), len(shards), "looking"):
            everything = everything.plus(*survey.all)
            for place, size in survey.ranks:
                histogram.add(place, size)
                if aged is not None and place < aged:
                    old = old.plus(1, size)
            if survey.lowest is not None:
                self._from[survey.shard] = survey.lowest
            end = max(end, survey.end)
            for name in survey.unknown:
                self._note_failure(name, "neither its age nor its size can be told")
        self.report.kept, self.report.kept_bytes = everything
        wanted = self._wanted(everything)
        if old.reaches(wanted):
            return _Cut(_NOTHING if aged is None else aged, old)
        before = Amount()
        while True:
            # If all that may go isn't enough, those that are leased are counted up to the last one.
            found = histogram.bin_reaching(wanted.minus(before), end)
            before = before.plus(*found.before)
            if found.inside.items <= 1:
                return _Cut(found.end, before.plus(*found.inside))
            histogram, end = Histogram(), found.end
            for survey in self._survey(shards, found.first, end):
                for place, size in survey.ranks:
                    histogram.add(place, size)

    def _wanted(self, everything: Amount) -> Amount:
        """How much the limits want removed at least."""
        items = size = 0
        if self._limits.max_items is not None:
            items = everything.items - self._limits.max_items
        if self._limits.max_bytes is not None:
            size = everything.size - self._limits.max_bytes
        if self._limits.min_free_inodes is not None:
            free = self._storage.files.free_inodes()
            if free is None:
                log.info("%s: the file system counts no inodes", self._storage.directory)
            else:
                items = max(items, self._limits.min_free_inodes - free)
        return Amount(max(items, 0), max(size, 0))

    def _survey(
        self, shards: list[str], first: int | None = None, end: int | None = None
    ) -> Iterator[_Survey]:
        """Each shard listed, with the entries that may be removed; of these ranks, if any."""
        leased = self._live.digests()
        self._spared |= leased

        def look(shard: str) -> _Survey:
            found = self._listed(shard)
            past = {name: rank(name, one) for name, one in found.items() if self._is_past(one)}
            lowest = min(past.values(), default=None)
            last = max(past.values(), default=_NOTHING)
            ranks = [
                (place, file_size(found[name]))
                for name, place in past.items()
                if name not in leased
            ]
            if first is not None and end is not None:
                ranks = [(place, size) for place, size in ranks if first <= place < end]
            unknown = [name for name, one in found.items() if one == UNKNOWN]
            size = sum(map(file_size, found.values()))
            everything = Amount(len(found) - len(unknown), size)
            return _Survey(shard, everything, ranks, lowest, last + 1, unknown)

        with closing(in_parallel(look, shards, self._workers)) as surveys:
            yield from surveys

    def _listed(self, shard: str) -> dict[str, bytes]:
        """The signatures of the shard's entries that the limits are about, by digest."""
        return self._prefixed.among(shard, self._storage.shards.list(shard).signatures)

    def _is_past(self, signature: bytes) -> bool:
        """Whether the time in the signature is known, and isn't one that is yet to come."""
        return signature != UNKNOWN and mtime_of(signature) <= self._now

    # --- removing --------------------------------------------------------------------------------

    def _await_later(self, time_ns: int) -> None:
        """Wait until whatever is written bears a later time than this: 3.3 s at most.

        So a signature tells what was looked at from what was put there since.
        """
        rules = self._storage.rules
        if rules.mounted.one_clock:
            coarse = min(time_ns, self._now) // 1000 * 1000
            while not ServerClock.is_past(coarse, rules.clock.lower_bound()):
                time.sleep(_PAUSE)

    def _removed(self, shards: list[str], cut: _Cut, lease: Lease | None) -> Iterator[None]:
        """Remove what is below the cut; yields when a shard is done."""
        remove = partial(self._remove_group, cut=cut, lease=lease)
        while shards:
            again = []
            with closing(in_parallel(remove, shards, self._workers)) as done:
                for shard, more in zip(shards, done):
                    if more:
                        again.append(shard)
                    else:
                        yield
            shards = again

    def _remove_group(self, shard: str, cut: _Cut, lease: Lease | None) -> bool:
        """Remove the next entries of this shard. Whether there are more."""
        if self._end is not None and time.monotonic() >= self._end:
            self._cut_short = True
            return False
        start = self._from[shard]
        found = self._listed(shard)
        ranks = ((rank(name, one), name) for name, one in found.items() if self._is_past(one))
        todo = sorted(one for one in ranks if start <= one[0] < cut.rank)
        group = todo if lease is None else todo[:_GROUP]
        leased = self._live.digests() | self._spared
        victims = {name: found[name] for _, name in group if name not in leased}
        fates: Fates = {}
        try:
            if lease is None:
                fates.update(dict.fromkeys(victims, Fate.REMOVED))
            elif victims:
                lease.check()
                self._remove(shard, victims, fates)
        finally:
            spared = sum(name in self._spared for _, name in group)
            self._tallies.append(_tally(len(group) - len(victims), spared, victims, fates))
        if group:
            self._from[shard] = group[-1][0] + 1
        return len(group) < len(todo)

    def _sum_up(self, planned: int) -> None:
        """Put into the report what became of all groups."""
        report = self.report
        for one in self._tallies:
            planned -= one.reached
            report.removed += one.removed.items
            report.bytes += one.removed.size
            report.kept -= one.off.items
            report.kept_bytes -= one.off.size
            report.leased += one.leased
            report.replaced += one.replaced
            for name, error in one.failed:
                self._note_failure(name, str(error))
        report.left = max(0, planned)

    def _note_failure(self, name: str, why: str) -> None:
        self.report.failures += 1
        if len(self.report.failed) < _NAMED:
            self.report.failed[self._storage.values.path_of(name)] = why

    def _remove(self, shard: str, victims: dict[str, bytes], fates: Fates) -> None:
        """Remove these files, with cache and index in step.

        They are listed once more under the shard's lock: what this process has put there since they
        were chosen keeps its name, and who looks it up here finds it.
        """
        replaced: list[Any] = []  # dropped after all locks are released
        with self._state.locks.guard, self._state.locks.shard(shard):
            now = self._storage.shards.list(shard).signatures
            same = {name: one for name, one in victims.items() if now.get(name) in (one, UNKNOWN)}
            for name in victims.keys() - same.keys():
                fates[name] = Fate.REPLACED if name in now else Fate.GONE
            keys = self._state.names(shard)
            known = {name: keys[name] for name in same if name in keys}
            forget = partial(self._state.invalidate_all, list(known.items()), replaced)
            try:
                self._storage.removal.remove_unchanged(shard, same, fates)
                for name, key in known.items():
                    if fates.get(name) is Fate.REMOVED:
                        replaced.append(self._state.record_delete(name, key))
                    elif isinstance(fates.get(name), OSError):
                        replaced.append(self._state.invalidate(name, key))
            except BaseException:
                try:
                    insist(forget)
                finally:
                    insist(forget)
                raise


def _without_leases(error: OSError) -> OSError:
    text = f"nothing is pruned without leases: {error.strerror}"
    return OSError(error.errno, text, error.filename)


def _tally(leased: int, spared: int, victims: dict[str, bytes], fates: Fates) -> _Tally:
    sizes: dict[object, list[int]] = {}
    failed = []
    for name, fate in fates.items():
        if isinstance(fate, OSError):
            failed.append((name, fate))
        sizes.setdefault(fate, []).append(file_size(victims[name]))
    removed, gone = sizes.get(Fate.REMOVED, []), sizes.get(Fate.GONE, [])
    return _Tally(
        leased - spared + len(fates),
        Amount(len(removed), sum(removed)),
        Amount(len(removed) + len(gone), sum(removed) + sum(gone)),
        leased,
        len(sizes.get(Fate.REPLACED, [])),
        failed,
    )
