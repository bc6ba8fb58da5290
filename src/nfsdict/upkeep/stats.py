"""Stats: count the files of a store by its listings. No value is read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone

from ..layout import file_size, is_index_file, mtime_of
from ..parallel import in_parallel
from ..storage import Storage
from ..storage.shards import Listing


@dataclass(frozen=True)
class IndexFileStats:
    """One file of the index."""

    bytes: int
    modified: str
    """ISO 8601, UTC"""


@dataclass
class StoreStats:
    """What ``stats`` found."""

    bytes: int = 0
    """of all value files; those whose lstat fails count 0"""
    shards: int = 0
    """number of shards that hold a value file"""
    other_files: int = 0
    """number of temporary and damaged files, and files that aren't nfsdict's"""
    index: dict[str, IndexFileStats] = field(default_factory=dict)
    """the index's files, by name"""


def stats(storage: Storage, workers: int) -> StoreStats:
    """Count the store's files. OSError if a directory can't be listed."""
    storage.shards.find_root(whole_path=True)
    found = StoreStats()
    for listing in _listings(storage, workers):
        found.bytes += sum(map(file_size, listing.signatures.values()))
        found.shards += bool(listing.signatures)
        found.other_files += len(listing.temporary) + len(listing.unrecognized)
    for name, signature in storage.shards.root_files().items():
        if is_index_file(name):
            moment = datetime.fromtimestamp(mtime_of(signature) / 1e9, timezone.utc)
            found.index[name] = IndexFileStats(file_size(signature), moment.isoformat())
        else:
            found.other_files += 1
    return found


def _listings(storage: Storage, workers: int) -> Iterator[Listing]:
    return in_parallel(storage.shards.list, storage.shards.present(), workers)
