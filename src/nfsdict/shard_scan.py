"""Shard scan: list one shard, and read those of its files that aren't known. It takes no locks.

Files are read in batches of few bytes, so that a large shard takes no more memory than a small one.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from .batches import batches
from .core import MISSING, digest
from .entries import Entries, Entry
from .errors import CorruptValueError, described
from .index import pack
from .index.shard import IndexEntry, ShardIndex
from .layout import NO_STAMP, UNKNOWN, Stamp, file_size, signature_at, split_signatures
from .storage.shards import Shards

log = logging.getLogger("nfsdict")

_NOT_KEPT = object()


class ReadPolicy:
    """Decides which files one scan reads, and which values it keeps.

    A file with an unknown name is always read, for its key. Known files whose values are cached are
    read again unless their signatures prove them the same. Other known files are read too unless
    ``lazy``, up to ``room`` bytes, which the cache has room for; None sets no limit. With
    ``reread`` all known files count as such others.

    Threads count the room down without a lock: of two that do so at once, one may go uncounted.
    What is read too much then, the cache doesn't keep.
    """

    def __init__(
        self, cache: Mapping[str, Any], lazy: bool, reread: bool, room: int | None
    ) -> None:
        self._cache = cache
        self._lazy = lazy
        self._reread = reread
        self._to_read = self._room = room

    @property
    def keeps_all(self) -> bool:
        """Whether all values are kept, whatever their sizes."""
        return self._room is None and not self._lazy

    def unsettled(self, keys: Sequence[str]) -> Iterable[int]:
        """The positions of those keys whose values may have to be read, or let go of, though their
        files are the same as before."""
        if self._reread:
            return range(len(keys))
        if self._lazy:
            return ()
        cached = self._cache.get
        return [at for at, key in enumerate(keys) if cached(key, MISSING) is MISSING]

    def wants(self, key: str, proven: bool, size: int) -> bool:
        """Whether to read the file of this known key, which has ``size`` bytes.

        ``proven``: its signature shows that it is the file that was read before.
        """
        if not self._reread and self._cache.get(key, MISSING) is not MISSING:
            return not proven
        if self._lazy:
            return False
        if self._to_read is not None:
            self._to_read -= size
        return self._to_read is None or self._to_read >= 0

    def keeps(self, key: str, size: int) -> bool:
        """Whether to keep the value that was read for this key."""
        if self._cache.get(key, MISSING) is not MISSING:
            return not (self._lazy and self._reread)
        if self._lazy:
            return False  # an unknown file is read only for its key
        if self._room is not None:
            self._room -= size
        return self._room is None or self._room >= 0


class Reading(NamedTuple):
    """What a scan keeps of an entry that was read."""

    entry: IndexEntry
    value: Any
    data: bytes | None


class Batch(NamedTuple):
    """Files of one shard to be read in one call."""

    scan: ShardScan
    hexdigests: list[str]
    size: int
    """of all files together, in bytes"""
    last: bool
    """whether this is the shard's last batch"""


class ShardScan:
    """One shard, as a scan finds it.

    Callers call ``list_files`` or ``trust_index``, then read each of ``batches`` and pass the
    results to ``add_reading``, then call ``finish``.
    """

    def __init__(self, shard: str, number: int, before: ShardIndex) -> None:
        self.shard = shard
        self.number = number
        """the look's number: looks are numbered in the order in which they begin"""
        self.before = before
        """what was known when the look began"""
        self.known: dict[str, IndexEntry] = {}
        """the entries that were known before, by digest, but for files that are as they were"""
        self.without: list[int] = []
        """the positions of listed keys of ``before`` that are in ``known``; the others have the
        file that they had"""
        self.unpacked: dict[str, Any] = {}
        """values from the packs, by key, of files that are as they were"""
        self.unchanged: list[tuple[str, int]] = []
        """other keys that have the file that they had, and its size, if the cache may have to
        change"""
        self.clean = False
        """whether the stamp shows that the index has the shard's keys, so that it isn't listed"""
        self.stamp = NO_STAMP
        """the stamp of the listing; NO_STAMP if a file couldn't be read, so that the next scan
        lists the shard again"""
        self.entries: dict[str, IndexEntry] = {}
        """the other entries found now, by digest"""
        self.values: dict[str, Any] = {}
        """the values that were read and kept, by key"""
        self.data: dict[str, pack.Packed] = {}
        """what was read of small files, by key, as many as a pack takes of one shard"""
        self.changed: set[str] = set()
        """keys that were added or replaced, as far as signatures or contents show it"""
        self.gone: set[str] = set()
        """known keys that have no file any more"""
        self.unread: set[str] = set()
        """known keys whose files exist but couldn't be read"""
        self.missing = False
        """whether there was no file where one was known or listed"""
        self.read = 0
        """bytes of the files that were read"""
        self._to_read: list[tuple[str, int]] = []
        self._packed = 0
        self._complete = True

    def trust_index(self, stamp: Stamp, unpacked: dict[str, Any], policy: ReadPolicy) -> None:
        """Take the shard as the index has it: its directory was just seen to have this stamp."""
        self.clean, self.stamp = True, stamp
        signatures = self.before.proven_signatures()
        others = []
        if UNKNOWN in signatures:  # as hardly ever; looked for in C, as openings come here
            keys = range(len(self.before.keys))
            others = [at for at in keys if signature_at(signatures, at) == UNKNOWN]
        rest = {name: old.signature for name, old in self.before.entries(others).items()}
        self._settle(others, unpacked, policy)
        self._compare(rest, unpacked, policy)

    def list_files(self, shards: Shards, unpacked: dict[str, Any], policy: ReadPolicy) -> None:
        """List the shard. ``unpacked``: values from the packs, by key; used for files whose
        signatures prove that they are the same."""
        listing = shards.list(self.shard, self.before.keys, self.before.proven_signatures())
        self.stamp = listing.stamp
        self._settle(listing.others, unpacked, policy)
        self._compare(listing.signatures, unpacked, policy)

    def _settle(self, others: list[int], unpacked: dict[str, Any], policy: ReadPolicy) -> None:
        """Sort out which of the files that are the same as before to read nevertheless. ``others``:
        the positions of listed keys that aren't the same."""
        keys = self.before.keys
        same = bytearray(b"\1") * len(keys)
        for at in others:
            same[at] = 0
        if policy.keeps_all and unpacked:
            pairs = zip(keys, same)
            self.unpacked = {key: unpacked[key] for key, one in pairs if one and key in unpacked}
        for at in policy.unsettled(keys):
            key = keys[at]
            if not same[at] or key in self.unpacked:
                continue
            size = file_size(self.before.signature(at))
            if self._wants(key, True, size, unpacked, policy):
                self._to_read.append((digest(key), size))
                others.append(at)
            else:
                self.unchanged.append((key, size))
        self.without = sorted(others)
        self.known = self.before.entries(self.without)

    def _wants(
        self, key: str, proven: bool, size: int, unpacked: dict[str, Any], policy: ReadPolicy
    ) -> bool:
        """Whether to read the file of this known key; not if its value was unpacked."""
        if not proven or key not in unpacked:
            return policy.wants(key, proven, size)
        if policy.keeps(key, size):
            self.values[key] = unpacked[key]
        return False

    def _compare(
        self, signatures: dict[str, bytes], unpacked: dict[str, Any], policy: ReadPolicy
    ) -> None:
        """Sort out which other files to read: those with unknown names, and those that are
        wanted."""
        for hexdigest, signature in signatures.items():
            old = self.known.get(hexdigest)
            if old is None:
                self._to_read.append((hexdigest, file_size(signature)))
                continue
            proven = old.proves(signature)
            if self._wants(old.key, proven, file_size(signature), unpacked, policy):
                self._to_read.append((hexdigest, file_size(signature)))
                continue
            self.entries[hexdigest] = old.seen(signature)
            if signature != UNKNOWN and old.differs(signature):
                self.changed.add(old.key)

    def batches(self) -> Iterator[Batch]:
        """The files to read, in order; at least one batch, even if it is empty."""
        parts = list(batches(self._to_read))
        self.read = sum(size for _, size in self._to_read)
        for number, (hexdigests, size) in enumerate(parts, 1):
            yield Batch(self, hexdigests, size, number == len(parts))

    def add_reading(self, hexdigest: str, found: Reading | Exception | None) -> None:
        """Add what was read of this digest's file: None if it is gone."""
        old = self.known.get(hexdigest)
        if isinstance(found, Reading):
            key = found.entry.key
            self.entries[hexdigest] = found.entry
            if found.value is not _NOT_KEPT:
                self.values[key] = found.value
            if found.data is not None and self._packed + len(found.data) <= pack.SECTION:
                self._packed += len(found.data)
                self.data[key] = pack.Packed(found.data, found.entry.signature)
            if old is None or old.replaced_by(found.entry):
                self.changed.add(key)
            return
        self._complete = self._complete and found is None
        self.missing = self.missing or found is None
        if found is None or isinstance(found, CorruptValueError):
            return  # it was removed meanwhile, or it is damaged, which was logged
        if old is not None:
            self.entries[hexdigest] = old  # so that the next look notices a change
            self.unread.add(old.key)

    def signatures(self) -> dict[str, bytes]:
        """The signature of each file that was found, by key."""
        before = self.before
        signatures = dict(zip(before.keys, split_signatures(before.signatures)))
        for at in self.without:
            signatures.pop(before.keys[at], None)
        signatures.update((entry.key, entry.signature) for entry in self.entries.values())
        return signatures

    def finish(self) -> None:
        """Finish, after all batches were added."""
        known = self.known.items()
        self.gone.update(old.key for hexdigest, old in known if hexdigest not in self.entries)
        self.missing = self.missing or bool(self.gone)
        if not self._complete:
            self.stamp = NO_STAMP


def read(entries: Entries, batch: Batch, policy: ReadPolicy) -> list[Reading | Exception | None]:
    """Read the files of this batch. Values that the policy doesn't keep are dropped at once."""

    def keep(hexdigest: str, entry: Entry | Exception | None) -> Reading | Exception | None:
        if not isinstance(entry, Entry):
            if entry is not None and not isinstance(entry, CorruptValueError):  # that was logged
                told = entries.path_of(hexdigest), described(entry)
                log.warning("can't read %s: %s; `nfsdict verify` lists all such files", *told)
            return entry
        size = len(entry.data)
        value = entry.value if policy.keeps(entry.key, size) else _NOT_KEPT
        known = IndexEntry(entry.key, entry.signature, entry.fingerprint)
        return Reading(known, value, bytes(entry.data) if size <= pack.PACKED else None)

    return entries.read_entries(batch.hexdigests, keep)
