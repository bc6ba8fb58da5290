"""Stats: count the files of a store by its listings, and what its packs hold by their tables."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from heapq import nlargest
from itertools import chain
from typing import Callable, NamedTuple

from ..core import digest
from ..entries import Entries, Entry
from ..index.pack import Pack
from ..index.tables import PackTables
from ..kinds import Kinds
from ..layout import (
    UNKNOWN,
    file_size,
    is_damaged,
    is_index_file,
    mtime_of,
    sizes_and_mtimes,
)
from ..parallel import in_parallel
from ..storage import Storage
from ..storage.shards import Listing
from .infos import moment_of

_LARGEST = 10
# A value whose key the index doesn't know is read for it, unless it has more bytes than these.
_READ = 16 << 20
_NEVER = 1 << 63  # ns: no file has this time

Watching = Callable[[str, "list[tuple[int, int]]"], None]
"""Gets each shard, and the sizes and mtimes in ns of its value files."""


@dataclass(frozen=True)
class IndexFileStats:
    """One file of the index."""

    bytes: int
    modified: str
    """ISO 8601, UTC"""


@dataclass(frozen=True)
class PackStats:
    """What one pack holds."""

    keys: int
    """number of keys that it lists"""
    values: int
    """number of values that it has, outdated ones too"""
    value_bytes: int
    """bytes of these values"""
    tombstones: int
    """number of keys that it says are gone"""


@dataclass(frozen=True)
class LargeValue:
    """A value file that is among the largest."""

    key: str | None
    """None if the index doesn't know it, and the file is damaged, or too large to be read for it"""
    path: str
    bytes: int
    modified: str
    """ISO 8601, UTC, by the clock that stamps files"""


@dataclass
class StoreStats:
    """What ``stats`` found."""

    keys: int = 0
    """number of value files; damaged ones count until ``repair`` has put them aside"""
    bytes: int = 0
    """of all value files; those whose lstat fails count 0"""
    shards: int = 0
    """number of shards that hold a value file"""
    oldest: str | None = None
    """when the value file was written that was not replaced for longest; ISO 8601, UTC, by the
    clock that stamps files; None if there is none"""
    newest: str | None = None
    """the time of the last write that is left"""
    packed: int = 0
    """number of values that those who open the store get from packs"""
    largest: list[LargeValue] = field(default_factory=list)
    """the ten largest value files, the largest first"""
    other_files: int = 0
    """number of temporary and damaged files, and files that aren't nfsdict's"""
    temporary: int = 0
    """of these, temporary files: writes under way, or left by a crash"""
    damaged: int = 0
    """of these, damaged values that ``repair`` has put aside; ``verify`` finds others"""
    index: dict[str, IndexFileStats] = field(default_factory=dict)
    """the index's files, by name"""
    packs: dict[str, PackStats] = field(default_factory=dict)
    """those of them that are packs in use, the lowest first"""


class _Large(NamedTuple):
    size: int
    hexdigest: str
    mtime: int


def stats(
    storage: Storage,
    entries: Entries,
    workers: int,
    watching: Watching = lambda shard, files: None,
) -> StoreStats:
    """Count the store's files. Needs memory for the tables of the packs, and for a shard's files.

    No value is read, but those of the ten largest whose keys the index doesn't know.

    Raises:
        OSError: a directory can't be listed.
        WrongSerializerError: the store holds only entries of other serializers.
    """
    storage.shards.find_root(whole_path=True)
    tables = PackTables(storage.index)
    tables.load()
    found = StoreStats()
    largest: list[_Large] = []
    oldest, newest = _NEVER, -_NEVER

    def look(shard: str) -> tuple[str, Listing, int]:
        listing = storage.shards.list(shard)
        return shard, listing, _packed(tables, shard, listing)

    for shard, listing, packed in in_parallel(look, storage.shards.present(), workers):
        found.other_files += len(listing.temporary) + len(listing.unrecognized)
        found.temporary += len(listing.temporary)
        found.damaged += sum(is_damaged(os.path.basename(path)) for path in listing.unrecognized)
        found.keys += len(listing.signatures)
        found.shards += bool(listing.signatures)
        found.packed += packed
        seen = {name: one for name, one in listing.signatures.items() if one != UNKNOWN}
        files = list(sizes_and_mtimes(seen.values()))
        found.bytes += sum(size for size, _ in files)
        here = (_Large(size, name, time) for name, (size, time) in zip(seen, files))
        largest = nlargest(_LARGEST, chain(largest, here))
        if files:
            times = [time for _, time in files]
            oldest, newest = min(oldest, *times), max(newest, *times)
        watching(shard, files)
    Kinds(storage, workers).check_serializer(any_known=found.keys > 0)
    if oldest <= newest:
        found.oldest, found.newest = moment(oldest), moment(newest)
    found.largest = [_named(one, tables, storage, entries) for one in largest]
    _count_root(found, storage, tables.packs)
    return found


def moment(time_ns: int) -> str:
    """A file's time in ISO 8601, UTC."""
    return moment_of(time_ns).isoformat()


def _packed(tables: PackTables, shard: str, listing: Listing) -> int:
    """How many files of this shard have their values in a pack."""
    packed = tables.packed(shard).items()
    return sum(listing.signatures.get(digest(key)) == one for key, one in packed)


def _named(one: _Large, tables: PackTables, storage: Storage, entries: Entries) -> LargeValue:
    """With its key, from the index or else from the file."""
    key = tables.names(one.hexdigest[:2]).get(one.hexdigest)
    if key is None and one.size <= _READ:
        [key] = entries.read_entries(
            [one.hexdigest], lambda _, entry: entry.key if isinstance(entry, Entry) else None
        )
    path = storage.values.path_of(one.hexdigest)
    return LargeValue(key, path, one.size, moment(one.mtime))


def _count_root(found: StoreStats, storage: Storage, packs: Iterable[Pack]) -> None:
    """Count what lies beside the shards."""
    for name, signature in storage.shards.root_files().items():
        if is_index_file(name):
            found.index[name] = IndexFileStats(file_size(signature), moment(mtime_of(signature)))
        else:
            found.other_files += 1
    found.temporary += len(storage.shards.temporary_files())
    for pack in packs:
        said = list(pack.shards.values())
        tombstones = sum(sum(one.tombstones()) for one in said)
        counted = PackStats(
            keys=sum(len(one.keys) for one in said) - tombstones,
            values=sum(sum(one.held()) for one in said),
            value_bytes=sum(one.size for one in said),
            tombstones=tombstones,
        )
        found.packs[storage.index.name_of(pack.record.pack_id)] = counted
