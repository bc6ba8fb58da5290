"""Bulk: many keys written or removed at a time, each still atomic."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from .content import Content, fingerprint, size_of
from .core import digest
from .entries import Entries
from .errors import name_key
from .index.flush import Flush
from .locks import Locks
from .parallel import chunks, in_parallel
from .state import StoreState
from .storage.store import Store

# So many bytes are serialized before they are written: up to here, a value that the serializer
# refuses leaves everything unchanged.
_BATCH_BYTES = 64 << 20


class _Item(NamedTuple):
    """To be written."""

    name: str
    key: str
    value: Any
    data: Content


def _shard(item: _Item) -> str:
    return item.name[:2]


class Bulk:
    """Work on chunks of keys in threads. What couldn't be done is returned with the reason."""

    def __init__(
        self,
        known: StoreState,
        flush: Flush,
        store: Store,
        entries: Entries,
        locks: Locks,
        workers: int,
    ) -> None:
        self._known = known
        self._flush = flush
        self._store = store
        self._entries = entries
        self._locks = locks
        self._workers = workers

    def write(self, pairs: Iterable[tuple[str, Any]]) -> dict[str, OSError]:
        """Put these entries; all durable on return. Keys that failed."""
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
        # A shard's files go together: its directory is made durable once.
        batch.sort(key=_shard)
        failed: dict[str, OSError] = {}
        parts = chunks(batch, self._workers, _shard)
        for part in in_parallel(self._write_chunk, parts, self._workers, without_gil=True):
            failed.update(part)
        return failed

    def _write_chunk(self, items: Sequence[_Item]) -> dict[str, OSError]:
        replaced: list[Any] = []  # let go of when no lock is held
        if not self._known.has_all(item.key for item in items):
            self._flush.keys_change()
        with self._locks.guard:
            return self._locks.holding(
                (item.name for item in items), lambda: self._write_items(items, replaced)
            )

    def _write_items(self, items: Sequence[_Item], replaced: list[Any]) -> dict[str, OSError]:
        failed: dict[str, OSError] = {}
        known = self._known
        generation = known.generation
        try:
            outcomes = self._store.write((name, data) for name, _, _, data in items)
            for (name, key, value, data), outcome in zip(items, outcomes):
                if isinstance(outcome, bytes):
                    replaced.append(
                        known.record_write(
                            name, key, value, outcome, fingerprint(data), size_of(data), generation
                        )
                    )
                else:
                    failed[key] = outcome
                    replaced.append(known.invalidate_if_uncertain(name, key, outcome))
        except BaseException:
            replaced.extend(known.invalidate(item.name, item.key) for item in items)
            raise
        return failed

    def clear(self) -> dict[str, OSError]:
        """Remove each value file that is there now. Paths that failed."""
        self._flush.keys_change()
        failed: dict[str, OSError] = {}
        self._store.find_root(whole_path=True)
        with self._locks.guard:
            known = self._known.shards()
        shards = sorted(known.union(self._store.shards()))
        for part in in_parallel(self._clear, shards, self._workers):
            failed.update(part)
        return failed

    def _clear(self, shard: str) -> dict[str, OSError]:
        replaced: list[Any] = []  # let go of when no lock is held
        with self._locks.guard, self._locks.shard(shard):
            known = self._known.entries(shard)
            try:
                paths = [self._store.path_of(name) for name in self._store.list(shard).signatures]
                outcomes = dict(zip(paths, self._store.remove(paths)))
                failed = {
                    path: error for path, error in outcomes.items() if isinstance(error, OSError)
                }
                for name, entry in known.items():
                    if self._store.path_of(name) in failed:
                        replaced.append(self._known.invalidate(name, entry.key))
                    else:
                        replaced.append(self._known.record_delete(name, entry.key))
            except BaseException:
                for name, entry in known.items():
                    replaced.append(self._known.invalidate(name, entry.key))
                raise
        return failed
