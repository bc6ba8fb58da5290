"""Loads: the values that ``update`` has written many at a time, kept aside for a pack.

A writer's signatures are racy, so it can't write a pack. Until they aren't, the values wait in a
spool, which costs one sequential write. A scan that then lists their shards sees which of the files
are still as they were written (``LoadedEntry``), and puts their values into its pack: no file is
read again. A spool that is lost costs time alone.
"""

from __future__ import annotations

import logging
import time
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Callable, NamedTuple

from .content import Content, size_of, whole
from .index.memory import RACY_WINDOW_NS
from .index.pack import PACKED, SECTION, Packed
from .index.shard import LoadedEntry
from .layout import latest_of
from .locks import Locks
from .shard_scan import ShardScan
from .state import StoreState
from .storage.spool import Spool

log = logging.getLogger("nfsdict")

# Seconds that the server's clock may lag behind, in a tick of 10 ms and on its way here.
_LAG = 0.05
# A spool is begun anew when it has so many bytes more than twice those that still wait in it.
_WASTE = 64 << 20
# ``close`` waits for what took so many seconds to load: that it takes 3 s more doesn't show.
_LONG = 30.0

Loaded = tuple[str, LoadedEntry, Content]
"""A file that was written: digest, what is known of it, content."""


class _Extent(NamedTuple):
    """Values of one shard that lie one after another in the spool."""

    offset: int
    size: int
    checksum: int
    """their CRC-32"""


class _Waiting(NamedTuple):
    """A value in the spool."""

    entry: LoadedEntry
    extent: _Extent
    start: int
    """where it begins in the extent"""
    size: int


def _shard(one: Loaded) -> str:
    return one[0][:2]


class Loads:
    """The values of one dictionary that wait for a pack: of each key the last one that was loaded.
    Safe for threads; callers have entered their thread's guard."""

    def __init__(self, directory: str, locks: Locks) -> None:
        self._directory = directory
        self._locks = locks
        self._spool: Spool | None = None
        # By shard and key; those of one extent follow one another.
        self._waiting: dict[str, dict[str, _Waiting]] = {}
        self._sizes: Counter[str] = Counter()  # of all that waits, by shard
        self._began = self._ended = 0.0

    def add(self, loaded: Sequence[Loaded], began: float) -> None:
        """Add these files, those of a shard one after another. The load began at this time
        (``time.monotonic``)."""
        with self._locks.loads:
            try:
                spool = self._spool
                if spool is None or spool.inherited or self._wastes(spool):
                    self._clear()
                    self._spool = spool = Spool(self._directory)
                    self._began = began
                for shard, run in groupby(loaded, _shard):
                    self._append(spool, shard, run)
                self._ended = time.monotonic()
            except OSError as error:
                self._give_up(error)

    def _wastes(self, spool: Spool) -> bool:
        """Whether most of the spool was packed, or replaced by later loads."""
        return spool.size > 2 * sum(self._sizes.values()) + _WASTE

    def _append(self, spool: Spool, shard: str, run: Iterable[Loaded]) -> None:
        waiting = self._waiting.setdefault(shard, {})
        entries, parts = [], []
        for _, entry, content in run:
            if entry.key in waiting:
                self._sizes[shard] -= waiting.pop(entry.key).size
            if size_of(content) <= PACKED:
                entries.append(entry)
                parts.append(whole(content))
        data = b"".join(parts)
        if not data or self._sizes[shard] + len(data) > SECTION:
            return
        extent = _Extent(spool.append(data), len(data), zlib.crc32(data))
        self._sizes[shard] += len(data)
        start = 0
        for entry, part in zip(entries, parts):
            waiting[entry.key] = _Waiting(entry, extent, start, len(part))
            start += len(part)

    def take(self, found: ShardScan, racy: int) -> dict[str, Packed]:
        """The values, by key, of those files of a shard that are as they were written, as a look
        has found them; each once. Times before ``racy`` are proven: younger files wait on."""
        if not self._waiting.get(found.shard):
            return {}
        with self._locks.loads:
            try:
                if self._spool is None or self._spool.inherited:
                    return {}
                values = self._take(self._spool, found, racy)
                if not any(self._waiting.values()):
                    self._clear()
                return values
            except OSError as error:
                self._give_up(error)
                return {}

    def _take(self, spool: Spool, found: ShardScan, racy: int) -> dict[str, Packed]:
        signatures = found.signatures()
        ready: list[_Waiting] = []
        young: dict[str, _Waiting] = {}
        for key, one in self._waiting.pop(found.shard, {}).items():
            signature = signatures.get(key)
            if signature is None or not one.entry.proves(signature):
                continue  # it was removed or replaced since
            if latest_of(signature) < racy:
                ready.append(one)
            else:
                young[key] = one
        self._waiting[found.shard] = young
        self._sizes[found.shard] = sum(one.size for one in young.values())
        values: dict[str, Packed] = {}
        for extent, group in groupby(ready, lambda one: one.extent):
            data = spool.read_at(extent.offset, extent.size)
            if zlib.crc32(data) != extent.checksum:
                log.info("what was written is not packed: the spool is damaged")
                continue
            for entry, _, start, size in group:
                values[entry.key] = Packed(data[start : start + size], signatures[entry.key])
        return values

    def _give_up(self, error: OSError) -> None:
        log.info("what was written is not packed: %s", error)
        self._clear()

    def _clear(self) -> None:
        if self._spool is not None:
            self._spool.remove()
        self._spool, self._waiting, self._sizes = None, {}, Counter()

    @property
    def seconds(self) -> float:
        """How long the load took."""
        return self._ended - self._began

    def wait(self) -> float | None:
        """Seconds until what was loaded is proven; None if nothing waits for a pack."""
        if self._spool is None or self._spool.inherited:
            return None
        return max(0.0, self._ended + RACY_WINDOW_NS / 1e9 + _LAG - time.monotonic())

    def pack(self, scan: Callable[[], None], state: StoreState) -> None:
        """At ``close``, have a scan put into a pack what was loaded, if it is proven or has taken
        long.

        A dictionary that has listed nothing yet isn't listed for it. Never raises OSError.
        """
        if state.locks.interrupted or not state.index.listed:
            return
        wait = self.wait()
        if wait is None or (wait and self.seconds < _LONG):
            return
        try:
            time.sleep(wait)
            scan()
        except OSError as error:
            log.info("what was written is not packed: %s", error)
