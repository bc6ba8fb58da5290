"""Infos: where each entry is, how large, and since when. Values are read only for unknown keys."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import NamedTuple

from ..batches import batches
from ..core import digest
from ..entries import Entries, Entry
from ..errors import CorruptValueError, described
from ..index.tables import PackTables
from ..layout import UNKNOWN, file_size, mtime_of
from ..parallel import in_parallel
from ..state import StoreState
from ..storage import Storage

log = logging.getLogger("nfsdict")

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
        packed = self._tables.packed(hexdigest[:2]).get(key) == signature
        return self._info(Known(key, hexdigest, signature, packed))

    def all(self, prefix: str) -> Iterator[EntryInfo]:
        """See ``NfsDict.infos``."""
        for shard in self.shards():
            for one in shard:
                if one.key.startswith(prefix):
                    yield self._info(one)

    def shards(self) -> Iterator[list[Known]]:
        """What is in the store, in lists, each of entries of one shard. OSError if a directory
        can't be listed."""
        self._storage.shards.find_root(whole_path=True)
        self._tables.load()
        present = self._storage.shards.present()
        with closing(in_parallel(self._list, present, self._workers)) as listed:
            pieces = (
                (shard if number == 0 else _Listed([], shard.unknown), names, size)
                for shard in listed
                for number, (names, size) in enumerate(_batches(shard))
            )
            read = in_parallel(self._read, pieces, self._workers, size=lambda piece: piece[2])
            with closing(read):
                yield from read

    def _list(self, shard: str) -> _Listed:
        signatures = self._storage.shards.list(shard).signatures
        keys = self._known_keys(shard)
        packed = self._tables.packed(shard)
        found = _Listed([], {})
        for hexdigest, signature in signatures.items():
            key = keys.get(hexdigest)
            if key is None or signature == UNKNOWN:  # lstat failed
                found.unknown[hexdigest] = signature
            else:
                known = Known(key, hexdigest, signature, packed.get(key) == signature)
                found.known.append(known)
        return found

    def _known_keys(self, shard: str) -> dict[str, str]:
        """The keys of this shard that the packs or this dictionary know, by digest. A digest has
        one key, however old that knowledge is."""
        keys = {digest(key): key for key in self._tables.keys(shard)}
        if not self._state.locks.interrupted:
            with self._state.locks.guard:
                known = self._state.entries(shard)
            keys.update((hexdigest, entry.key) for hexdigest, entry in known.items())
        return keys

    def _read(self, piece: tuple[_Listed, list[str], int]) -> list[Known]:
        """What is known of the shard, and these files of it read for their keys."""
        shard, names, _ = piece

        def keep(hexdigest: str, entry: Entry | Exception | None) -> Known | None:
            if isinstance(entry, Entry):
                return Known(entry.key, hexdigest, entry.signature, False)
            if entry is not None and not isinstance(entry, CorruptValueError):  # that was logged
                path = self._storage.values.path_of(hexdigest)
                log.warning("can't read %s: %s", path, described(entry))
            return None

        found = self._entries.read_entries(names, keep)
        return [*shard.known, *(one for one in found if one is not None)]

    def _info(self, one: Known) -> EntryInfo:
        return EntryInfo(
            one.key,
            Path(self._storage.values.path_of(one.hexdigest)),
            file_size(one.signature),
            _EPOCH + timedelta(microseconds=mtime_of(one.signature) // 1000),
            one.packed,
        )


def _batches(shard: _Listed) -> Iterator[tuple[list[str], int]]:
    return batches((name, file_size(one)) for name, one in shard.unknown.items())
