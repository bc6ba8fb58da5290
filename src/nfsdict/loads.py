"""Loads: the values that ``update`` has written many at a time, kept aside for a pack.

A writer's signatures are racy, so it can't write a pack. Until they aren't, the values wait in a
spool, which costs one sequential write. A scan that then lists their shards sees which of the files
are still as they were written (``LoadedEntry``), and puts their values into its pack: no file is
read again. A spool that is lost costs time alone.
"""

from __future__ import annotations

import logging
import threading
import time
import zlib
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import NamedTuple

from .content import Content, size_of, whole
from .index.memory import RACY_WINDOW_NS
from .index.pack import PACKED, SECTION
from .index.shard import IndexEntry, LoadedEntry
from .storage.spool import Spool

log = logging.getLogger("nfsdict")

# Seconds that the server's clock may lag behind, in a tick of 10 ms and on its way here.
_LAG = 0.05
# Seconds to wait for the spool while another thread uses it.
_PATIENCE = 1.0


Loaded = tuple[str, LoadedEntry, Content]
"""A file that was written: digest, what is known of it, content."""


class _Extent(NamedTuple):
    """Values of one shard that lie one after another in the spool."""

    offset: int
    size: int
    checksum: int
    """their CRC-32"""
    entries: list[LoadedEntry]
    """of each, in order"""


def _shard(one: Loaded) -> str:
    return one[0][:2]


class Loads:
    """The values of one dictionary that wait for a pack. Safe for threads; callers have entered
    their thread's guard."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._spool: Spool | None = None
        self._extents: dict[str, list[_Extent]] = {}
        self._began = self._ended = 0.0

    def add(self, loaded: Sequence[Loaded], began: float) -> None:
        """Add these files, those of a shard one after another. The load began at this time
        (``time.monotonic``)."""
        if not self._lock.acquire(timeout=_PATIENCE):
            return
        try:
            if self._spool is None or self._spool.inherited:
                self._spool, self._extents, self._began = Spool(self._directory), {}, began
            for shard, run in groupby(loaded, _shard):
                self._append(self._spool, shard, run)
            self._ended = time.monotonic()
        except OSError as error:
            log.info("what was written is not packed: %s", error)
            self._clear()
        finally:
            self._lock.release()

    def _append(self, spool: Spool, shard: str, run: Iterable[Loaded]) -> None:
        entries, parts = [], []
        for _, entry, content in run:
            if size_of(content) <= PACKED:
                entries.append(entry)
                parts.append(whole(content))
        data = b"".join(parts)
        extents = self._extents.setdefault(shard, [])
        if entries and sum(extent.size for extent in extents) + len(data) <= SECTION:
            extents.append(_Extent(spool.append(data), len(data), zlib.crc32(data), entries))

    def take(self, shard: str, known: dict[str, IndexEntry], racy: int) -> dict[str, bytes]:
        """The values, by key, of those files of this shard that are as they were written; each
        once. ``known``: what a listing has found, by digest. Times before ``racy`` are proven."""
        if not self._extents.get(shard) or not self._lock.acquire(timeout=_PATIENCE):
            return {}
        try:
            if self._spool is None or self._spool.inherited:
                return {}
            signatures = {one.key: one.signature for one in known.values()}
            values: dict[str, bytes] = {}
            left = []
            for extent in self._extents[shard]:
                if extent.entries[0].load.named_by >= racy:
                    left.append(extent)
                else:
                    values.update(_values(self._spool, extent, signatures))
            self._extents[shard] = left
            if not any(self._extents.values()):
                self._clear()
            return values
        except OSError as error:
            log.info("what was written is not packed: %s", error)
            self._clear()
            return {}
        finally:
            self._lock.release()

    def _clear(self) -> None:
        if self._spool is not None:
            self._spool.remove()
        self._spool, self._extents = None, {}

    @property
    def seconds(self) -> float:
        """How long the load took."""
        return self._ended - self._began

    def wait(self) -> float | None:
        """Seconds until what was loaded is proven; None if nothing waits for a pack."""
        if self._spool is None or self._spool.inherited:
            return None
        return max(0.0, self._ended + RACY_WINDOW_NS / 1e9 + _LAG - time.monotonic())


def _values(spool: Spool, extent: _Extent, signatures: dict[str, bytes]) -> dict[str, bytes]:
    data = spool.read_at(extent.offset, extent.size)
    if zlib.crc32(data) != extent.checksum:
        log.info("what was written is not packed: the spool is damaged")
        return {}
    values = {}
    at = 0
    for entry in extent.entries:
        signature = signatures.get(entry.key)
        if signature is not None and entry.proves(signature):
            values[entry.key] = data[at : at + entry.size]
        at += entry.size
    return values
