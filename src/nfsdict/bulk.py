"""Bulk: write or remove many keys in one call, each key atomically."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from .content import Content, size_of
from .core import digest
from .entries import Entries
from .errors import name_key
from .index.writer import IndexWriter
from .parallel import chunks, in_parallel
from .state import StoreState
from .storage import Storage

# So many bytes are serialized before they are written together. If the serializer refuses a value,
# nothing of its batch is written.
_BATCH_BYTES = 64 << 20


class _Item(NamedTuple):
    """An entry that is to be written."""

    hexdigest: str
    key: str
    value: Any
    data: Content


def _shard(item: _Item) -> str:
    return item.hexdigest[:2]


class Bulk:
    """Works on chunks of keys in threads. Keys that failed are returned with their errors."""

    def __init__(
        self,
        state: StoreState,
        writer: IndexWriter,
        storage: Storage,
        entries: Entries,
        workers: int,
    ) -> None:
        self._state = state
        self._writer = writer
        self._storage = storage
        self._entries = entries
        self._locks = state.locks
        self._workers = workers

    def put_all(self, pairs: Iterable[tuple[str, Any]]) -> dict[str, OSError]:
        """Put these entries, durable on return. Returns the keys that failed, with their errors."""
        failed: dict[str, OSError] = {}
        batch: list[_Item] = []
        size = 0
        for key, value in pairs:
            try:
                value = self._entries.freeze(value)
                data = self._entries.dumps((key, value))
            except Exception as error:
                name_key(error, key)
                raise
            item = _Item(digest(key), key, value, data)
            batch.append(item)
            size += size_of(item.data)
            if size >= _BATCH_BYTES:
                failed.update(self._write_batch(batch))
                batch, size = [], 0
        failed.update(self._write_batch(batch))
        return failed

    def _write_batch(self, batch: list[_Item]) -> dict[str, OSError]:
        # A shard's files are written together, so that its directory is fsynced once.
        batch.sort(key=_shard)
        failed: dict[str, OSError] = {}
        parts = chunks(batch, self._workers, _shard)
        for part in in_parallel(self._write_chunk, parts, self._workers, without_gil=True):
            failed.update(part)
        return failed

    def _write_chunk(self, items: Sequence[_Item]) -> dict[str, OSError]:
        replaced: list[Any] = []  # dropped after all locks are released
        if not self._state.has_all(item.key for item in items):
            self._writer.invalidate_legacy_index()
        with self._locks.guard:
            return self._locks.holding(
                (item.hexdigest for item in items), lambda: self._write_items(items, replaced)
            )

    def _write_items(self, items: Sequence[_Item], replaced: list[Any]) -> dict[str, OSError]:
        failed: dict[str, OSError] = {}
        state = self._state
        generation = state.generation
        try:
            outcomes = self._storage.values.write((item.hexdigest, item.data) for item in items)
            for (hexdigest, key, value, data), outcome in zip(items, outcomes):
                if isinstance(outcome, bytes):
                    replaced.append(
                        state.record_write(hexdigest, key, value, outcome, data, generation)
                    )
                else:
                    failed[key] = outcome
                    replaced.append(state.invalidate_if_uncertain(hexdigest, key, outcome))
        except BaseException:
            replaced.extend(state.invalidate(item.hexdigest, item.key) for item in items)
            raise
        return failed

    def remove_all(self) -> dict[str, OSError]:
        """Remove each value file that exists now. Returns the paths that failed, with errors."""
        self._writer.invalidate_legacy_index()
        failed: dict[str, OSError] = {}
        self._storage.shards.find_root(whole_path=True)
        with self._locks.guard:
            known = self._state.shards()
        shards = sorted(known.union(self._storage.shards.present()))
        for part in in_parallel(self._clear, shards, self._workers):
            failed.update(part)
        return failed

    def _clear(self, shard: str) -> dict[str, OSError]:
        replaced: list[Any] = []  # dropped after all locks are released
        with self._locks.guard, self._locks.shard(shard):
            known = self._state.entries(shard)
            try:
                hexdigests = list(self._storage.shards.list(shard).signatures)
                outcomes = zip(hexdigests, self._storage.values.remove(hexdigests))
                failed = {
                    hexdigest: error for hexdigest, error in outcomes if isinstance(error, OSError)
                }
                for hexdigest, entry in known.items():
                    if hexdigest in failed:
                        replaced.append(self._state.invalidate(hexdigest, entry.key))
                    else:
                        replaced.append(self._state.record_delete(hexdigest, entry.key))
            except BaseException:
                for hexdigest, entry in known.items():
                    replaced.append(self._state.invalidate(hexdigest, entry.key))
                raise
        return {self._storage.values.path_of(hexdigest): failed[hexdigest] for hexdigest in failed}
