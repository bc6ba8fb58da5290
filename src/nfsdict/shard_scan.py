"""Shard scan: one shard listed, and what isn't known of it read. Knows no cache and no lock.

Files are read in batches of few bytes, so that a large shard takes no more memory than a small one.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .batches import batches
from .core import MISSING
from .entries import Entries, Entry
from .errors import CorruptValueError, described
from .index import pack
from .index.memory import UNREAD, IndexEntry
from .layout import NO_STAMP, UNKNOWN, Stamp, file_size
from .storage.shards import Shards

log = logging.getLogger("nfsdict")

_NOT_KEPT = object()


class ReadPolicy:
    """Which files one scan reads, and whose values it keeps: as many as the cache has room for.

    ``lazy`` leaves the values of known names unread. ``reread``: every file is read. ``room``: so
    many bytes of values are kept; None is all.
    """

    def __init__(
        self, cache: Mapping[str, Any], lazy: bool, reread: bool, room: int | None
    ) -> None:
        self._cache = cache
        self._lazy = lazy
        self._reread = reread
        self._to_read = self._room = room

    def wants(self, entry: IndexEntry, proven: bool, size: int) -> bool:
        """Whether to read the file of this known entry, which has so many bytes.

        ``proven``: its signature shows that it is the file that was read before.
        """
        if not self._reread and self._cache.get(entry.key, MISSING) is not MISSING:
            return not proven
        if self._lazy:
            return False
        if self._to_read is not None:
            self._to_read -= size
        return self._to_read is None or self._to_read >= 0

    def keeps(self, key: str, size: int) -> bool:
        """Whether the value that was read for this key is kept."""
        if self._cache.get(key, MISSING) is not MISSING:
            return not (self._lazy and self._reread)
        if self._lazy:
            return False  # it reads an unknown file for its key alone
        if self._room is not None:
            self._room -= size
        return self._room is None or self._room >= 0


class Reading(NamedTuple):
    """What is kept of an entry that was read."""

    entry: IndexEntry
    value: Any
    data: bytes | None


class Batch(NamedTuple):
    """Files to be read at once."""

    scan: ShardScan
    hexdigests: list[str]
    size: int
    """bytes of all of them"""
    last: bool
    """whether it is the last of its shard"""


@dataclass
class ShardScan:
    """One shard, as a scan finds it.

    Call ``list_files`` or ``trust_index``, read each of ``batches`` and ``add_reading``, and
    ``finish``.
    """

    shard: str
    number: int
    """of the look: they are numbered in the order in which they begin"""
    known: dict[str, IndexEntry]
    """what was known of it, by digest"""
    clean: bool = False
    """whether its stamp shows that it is as the index says, so that it isn't listed"""
    stamp: Stamp = NO_STAMP
    """NO_STAMP too if not all that is there could be read: the next scan lists it again"""
    entries: dict[str, IndexEntry] = field(default_factory=dict)
    """what is there, by digest"""
    values: dict[str, Any] = field(default_factory=dict)
    """what was read and is kept, by key"""
    data: dict[str, bytes] = field(default_factory=dict)
    """the bytes of small files that were read, by key, as many as a pack takes of one shard"""
    changed: set[str] = field(default_factory=set)
    """keys that were added or replaced, as far as signatures or contents show it"""
    gone: set[str] = field(default_factory=set)
    """keys that were known and are no longer there"""
    unread: set[str] = field(default_factory=set)
    """known keys whose files are there and could not be read"""
    _to_read: list[tuple[str, int]] = field(default_factory=list)
    _packed: int = 0
    _complete: bool = True

    def trust_index(self, stamp: Stamp, unpacked: dict[str, Any], policy: ReadPolicy) -> None:
        """The shard directory was just seen to have this stamp: it is clean."""
        self.clean, self.stamp = True, stamp
        signatures = {hexdigest: old.signature for hexdigest, old in self.known.items()}
        self._compare(signatures, unpacked, policy)

    def list_files(self, shards: Shards, unpacked: dict[str, Any], policy: ReadPolicy) -> None:
        """List the shard. ``unpacked``: values by key that were packed, of files proven to be the
        same."""
        listing = shards.list(self.shard)
        self.stamp = listing.stamp
        self._compare(listing.signatures, unpacked, policy)

    def _compare(
        self, signatures: dict[str, bytes], unpacked: dict[str, Any], policy: ReadPolicy
    ) -> None:
        """Each file is to be read that has an unknown name or is wanted."""
        for hexdigest, signature in signatures.items():
            old = self.known.get(hexdigest)
            if old is None:
                self._to_read.append((hexdigest, file_size(signature)))
                continue
            proven = old.proven and old.signature == signature
            if proven and old.key in unpacked:
                self.values[old.key] = unpacked[old.key]
            elif policy.wants(old, proven, file_size(signature)):
                self._to_read.append((hexdigest, file_size(signature)))
                continue
            self.entries[hexdigest] = IndexEntry(old.key, signature, None)
            if signature != UNKNOWN and old.differs(signature):
                self.changed.add(old.key)

    def batches(self) -> Iterator[Batch]:
        """What is to be read, in order; at least one."""
        parts = list(batches(self._to_read))
        for number, (hexdigests, size) in enumerate(parts, 1):
            yield Batch(self, hexdigests, size, number == len(parts))

    def add_reading(self, hexdigest: str, found: Reading | Exception | None) -> None:
        """What was read of the file of this digest: None if it is gone."""
        old = self.known.get(hexdigest)
        if isinstance(found, Reading):
            key = found.entry.key
            self.entries[hexdigest] = found.entry
            if found.value is not _NOT_KEPT:
                self.values[key] = found.value
            if found.data is not None and self._packed + len(found.data) <= pack.SECTION:
                self._packed += len(found.data)
                self.data[key] = found.data
            if old is None or _replaced(old, found.entry):
                self.changed.add(key)
            return
        self._complete = self._complete and found is None
        if found is None or isinstance(found, CorruptValueError):
            return  # removed meanwhile, or one key lost and reported
        if old is not None:
            self.entries[hexdigest] = old  # so that the next look tells of a change
            self.unread.add(old.key)

    def finish(self) -> None:
        """All was taken."""
        known = self.known.items()
        self.gone.update(old.key for hexdigest, old in known if hexdigest not in self.entries)
        if not self._complete:
            self.stamp = NO_STAMP


def read(entries: Entries, batch: Batch, policy: ReadPolicy) -> list[Reading | Exception | None]:
    """The files of this batch. Values are let go of here unless the policy keeps them."""
    found: list[Reading | Exception | None] = []
    for hexdigest, entry in zip(batch.hexdigests, entries.read_entries(batch.hexdigests)):
        if not isinstance(entry, Entry):
            if entry is not None and not isinstance(entry, CorruptValueError):  # those were told
                log.warning("can't read %s: %s", entries.path_of(hexdigest), described(entry))
            found.append(entry)
            continue
        size = len(entry.data)
        value = entry.value if policy.keeps(entry.key, size) else _NOT_KEPT
        known = IndexEntry(entry.key, entry.signature, entry.fingerprint)
        found.append(Reading(known, value, entry.data if size <= pack.PACKED else None))
    return found


def _replaced(old: IndexEntry, new: IndexEntry) -> bool:
    if old.fingerprint not in (None, UNREAD):
        return old.fingerprint != new.fingerprint
    return old.differs(new.signature)
