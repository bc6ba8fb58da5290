"""Infos: where each entry is, how large, and since when. Values are read only for unknown keys."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import NamedTuple

from ..batches import batches
from ..core import digest
from ..entries import Entries
from ..index.shard import ShardIndex
from ..index.tables import PackTables
from ..layout import UNKNOWN, file_size, mtime_of
from ..parallel import in_parallel
from ..state import StoreState
from ..storage import Storage

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


@dataclass(frozen=True)
class EntryInfo:
    """An entry, as its file's attributes and the index have it."""

    key: str
    path: Path
    """of the value file"""
    size: int
    """bytes in the file: what the serializer has written, the key included"""
    modified: datetime
    """when the file was written, in UTC, by the clock that stamps files: the server's, but on file
    systems whose clients do so (CephFS, GlusterFS, Lustre, GPFS)"""
    packed: bool
    """whether a pack has the value too, so that who opens the store doesn't read the file"""


def moment_of(time_ns: int) -> datetime:
    """A file's time, in UTC."""
    return _EPOCH + timedelta(microseconds=time_ns // 1000)


class Known(NamedTuple):
    """An entry of one shard that was listed."""

    key: str
    hexdigest: str
    signature: bytes
    packed: bool


class _Listed(NamedTuple):
    """A shard that was listed."""

    known: list[Known]
    unknown: dict[str, bytes]
    """the signatures of files whose keys aren't known, by digest"""


class Infos:
    """The infos of one dictionary's entries."""

    def __init__(self, state: StoreState, storage: Storage, entries: Entries, workers: int) -> None:
        self._state = state
        self._storage = storage
        self._entries = entries
        self._workers = workers
        self._tables = PackTables(storage.index)

    def info(self, key: str) -> EntryInfo | None:
        """See ``NfsDict.info``; None if there is no entry."""
        hexdigest = digest(key)
        signature = self._storage.values.look(hexdigest)
        if signature is None:
            return None
        self._tables.load()
        packed = self._tables.has_value(hexdigest[:2], key, signature)
        return self._info(Known(key, hexdigest, signature, packed))

    def all(self, prefix: str) -> Iterator[EntryInfo]:
        """See ``NfsDict.infos``."""
        with closing(self.shards()) as shards:
            for shard in shards:
                for one in shard:
                    if one.key.startswith(prefix):
                        yield self._info(one)

    def shards(self) -> Generator[list[Known], None, None]:
        """What is in the store, in lists, each of entries of one shard. OSError if a directory
        can't be listed."""
        self._storage.shards.find_root(whole_path=True)
        self._tables.load()
        known: dict[str, ShardIndex] = {}
        if not self._state.locks.interrupted:
            with self._state.locks.guard:
                known = self._state.snapshot()
        present = self._storage.shards.present()
        listings = in_parallel(lambda shard: self._list(shard, known), present, self._workers)
        with closing(listings):
            pieces = (
                (shard if number == 0 else _Listed([], shard.unknown), names, size)
                for shard in listings
                for number, (names, size) in enumerate(_batches(shard))
            )
            yield from in_parallel(self._read, pieces, self._workers, size=lambda piece: piece[2])

    def _list(self, shard: str, known: dict[str, ShardIndex]) -> _Listed:
        # A digest has one key, however old it is what the packs or this dictionary know.
        keys = self._tables.names(shard)
        if shard in known:
            keys.update((digest(key), key) for key in known[shard].names())
        packed = self._tables.packed(shard)
        found = _Listed([], {})
        for hexdigest, signature in self._storage.shards.list(shard).signatures.items():
            key = keys.get(hexdigest)
            if key is None or signature == UNKNOWN:  # lstat failed
                found.unknown[hexdigest] = signature
            else:
                one = Known(key, hexdigest, signature, packed.get(key) == signature)
                found.known.append(one)
        return found

    def _read(self, piece: tuple[_Listed, list[str], int]) -> list[Known]:
        """What is known of the shard, and these files of it read for their keys."""
        shard, names, _ = piece

        found = self._entries.read_keys(names).items()
        return [*shard.known, *(Known(key, name, one, False) for name, (key, one) in found)]

    def _info(self, one: Known) -> EntryInfo:
        return EntryInfo(
            one.key,
            Path(self._storage.values.path_of(one.hexdigest)),
            file_size(one.signature),
            moment_of(mtime_of(one.signature)),
            one.packed,
        )


def _batches(shard: _Listed) -> Iterator[tuple[list[str], int]]:
    return batches((name, file_size(one)) for name, one in shard.unknown.items())
