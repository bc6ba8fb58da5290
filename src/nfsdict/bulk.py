"""Bulk: write or remove many keys in one call, each key atomically."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from functools import partial
from typing import Any, Callable, NamedTuple, Optional, Union

from .content import Content, size_of
from .core import digest
from .entries import Entries
from .errors import name_key
from .index.pack import PACKED
from .index.shard import Load, LoadedEntry
from .index.writer import IndexWriter
from .layout import latest_mtime
from .loads import Loaded, Loads
from .logs import Operation
from .parallel import chunks, in_parallel
from .progress import NO_BAR, Bar, Progress
from .state import StoreState
from .storage import Storage
from .storage.values import Prepared
from .undoing import insist

log = logging.getLogger("nfsdict")

# So many bytes are serialized before they are written together. If the serializer refuses a value,
# nothing of its batch is written.
BATCH_BYTES = 64 << 20
# From so many keys on small values are kept for a pack. Waiting for a tick of the server's clock,
# up to 10 ms for each batch, doesn't show then.
_LOAD = 2000
# So many files at most have temporary names at a time, which a killed process leaves.
_GROUP = 8192


class Item(NamedTuple):
    """An entry that is to be written."""

    hexdigest: str
    key: str
    value: Any
    """what is kept in memory; MISSING: the value is read when it is accessed"""
    data: Content
    changed: bool = False
    """whether another value than the one that was given is read from these bytes"""


_Written = tuple[Union[bytes, OSError], Optional[LoadedEntry]]
"""What came of writing an item: its signature or the error; and what is known of the file if that
is more than the signature."""


def _shard(item: Item) -> str:
    return item.hexdigest[:2]


def _size(items: Sequence[Item]) -> int:
    return sum(size_of(item.data) for item in items)


class Bulk:
    """Works on chunks of keys in threads. Keys that failed are returned with their errors."""

    def __init__(
        self,
        state: StoreState,
        writer: IndexWriter,
        storage: Storage,
        entries: Entries,
        loads: Loads,
        progress: Progress,
        workers: int,
    ) -> None:
        self._loads = loads
        self._progress = progress
        self._state = state
        self._writer = writer
        self._storage = storage
        self._entries = entries
        self._locks = state.locks
        self._workers = workers

    def put_all(self, pairs: Iterable[tuple[str, Any]], count: int) -> dict[str, OSError]:
        """Put these entries, so many, durable on return. Returns the keys that failed, with their
        errors."""
        operation = Operation(self._storage, "update", f"of {count} keys")
        with operation, self._progress.bar("update", count, "key") as bar:
            return self._put_all(pairs, count, bar)

    def _put_all(
        self, pairs: Iterable[tuple[str, Any]], count: int, bar: Bar
    ) -> dict[str, OSError]:
        failed: dict[str, OSError] = {}
        batch: list[Item] = []
        size = 0
        for key, value in pairs:
            try:
                value = self._entries.freeze(value)
                data = self._entries.dumps((key, value))
            except Exception as error:
                name_key(error, key)
                raise
            item = Item(digest(key), key, value, data)
            batch.append(item)
            size += size_of(item.data)
            if size >= BATCH_BYTES:
                failed.update(self.put(batch, count, bar))
                batch, size = [], 0
        failed.update(self.put(batch, count, bar))
        return failed

    def put(self, batch: list[Item], count: int, bar: Bar = NO_BAR) -> dict[str, OSError]:
        """Put these entries, each key once, which are part of so many, and tell the ``bar``.
        Returns as ``put_all``."""
        # A shard's files are written together, so that its directory is fsynced once.
        batch.sort(key=_shard)
        failed: dict[str, OSError] = {}
        loads = count >= _LOAD and self._storage.values.may_prepare
        if loads and any(size_of(item.data) <= PACKED for item in batch):
            for start in range(0, len(batch), _GROUP):
                failed.update(self._load(batch[start : start + _GROUP], bar))
            return failed
        parts = chunks(batch, self._workers, _shard)
        write_part = partial(self._write_chunk, write=self._write)
        with closing(in_parallel(write_part, parts, self._workers, without_gil=True)) as written:
            for part, errors in zip(parts, written):
                failed.update(errors)
                bar.add(len(part), _size(part))
        return failed

    def _load(self, group: Sequence[Item], bar: Bar) -> dict[str, OSError]:
        """Write these items in two halves, so that the files can be told later by their signatures
        (``LoadedEntry``), and keep the small ones for a pack. Returns as ``put``."""
        began = time.monotonic()
        load = Load()
        values = self._storage.values
        failed: dict[str, OSError] = {}
        made: list[Prepared] = []
        loaded: list[Loaded] = []

        def discard() -> None:
            while made:
                values.discard(made[-1])
                made.pop()

        def prepare(items: Sequence[Item]) -> Prepared:
            prepared = values.to_prepare((item.hexdigest, item.data) for item in items)
            made.append(prepared)  # first: an exception may come as soon as there are files
            values.prepare(prepared)
            return prepared

        def publish(items: Sequence[Item], prepared: Prepared) -> list[_Written]:
            outcomes = values.publish(prepared)
            if not ticked:
                return [(outcome, None) for outcome in outcomes]
            results: list[_Written] = []
            for (hexdigest, key, _, data, _), one, outcome in zip(items, prepared.made, outcomes):
                entry = None
                if isinstance(one, tuple) and outcome is one[1]:
                    entry = LoadedEntry(key, one[1], self._entries.fingerprint(data), load)
                    loaded.append((hexdigest, entry, data))
                results.append((outcome, entry))
            return results

        def write_half(half: tuple[Sequence[Item], Prepared]) -> dict[str, OSError]:
            return self._write_chunk(half[0], lambda items: publish(items, half[1]))

        parts = chunks(group, self._workers, _shard)
        halves: list[Prepared] = []
        try:
            with closing(in_parallel(prepare, parts, self._workers, without_gil=True)) as prepared:
                for part, half in zip(parts, prepared):
                    halves.append(half)
                    bar.add(0, _size(part))
            times = (one[1] for half in halves for one in half.made if isinstance(one, tuple))
            ticked = self._ticked(latest_mtime(times))
            pairs = zip(parts, halves)
            with closing(
                in_parallel(write_half, pairs, self._workers, without_gil=True)
            ) as written:
                for part, errors in zip(parts, written):
                    failed.update(errors)
                    bar.add(len(part))
        except BaseException:
            try:
                insist(discard)
            finally:
                insist(discard)
            raise
        if loaded:
            self._keep(load, loaded, began)
        return failed

    def _keep(self, load: Load, loaded: list[Loaded], began: float) -> None:
        """Keep these values, all of which have their names, for a pack."""
        try:
            load.named_by = self._storage.files.probe_clock()
        except OSError as error:
            log.info("what was written is not packed: %s", error)
            return
        with self._locks.guard:
            self._loads.add(loaded, began)

    def _ticked(self, time_ns: int) -> bool:
        """Whether the server's clock shows a later time than this."""
        try:
            return self._storage.files.await_tick(time_ns)
        except OSError as error:
            log.info("can't learn the server's time: %s", error)
            return False

    def _write(self, items: Sequence[Item]) -> list[_Written]:
        pairs = ((item.hexdigest, item.data) for item in items)
        return [(outcome, None) for outcome in self._storage.values.write(pairs)]

    def _write_chunk(
        self, items: Sequence[Item], write: Callable[[Sequence[Item]], list[_Written]]
    ) -> dict[str, OSError]:
        replaced: list[Any] = []  # dropped after all locks are released
        if not self._state.has_all(item.key for item in items):
            self._writer.invalidate_legacy_index()
        with self._locks.guard:
            return self._locks.holding(
                (item.hexdigest for item in items),
                lambda: self._write_items(items, write, replaced),
            )

    def _write_items(
        self,
        items: Sequence[Item],
        write: Callable[[Sequence[Item]], list[_Written]],
        replaced: list[Any],
    ) -> dict[str, OSError]:
        failed: dict[str, OSError] = {}
        state = self._state
        generation = state.generation
        uncertain = [(item.hexdigest, item.key) for item in items]
        forget = partial(state.invalidate_all, uncertain, replaced)
        try:
            outcomes = write(items)
            for (hexdigest, key, value, data, _), (outcome, entry) in zip(items, outcomes):
                if isinstance(outcome, bytes):
                    replaced.append(
                        state.record_write(hexdigest, key, value, outcome, data, generation, entry)
                    )
                else:
                    failed[key] = outcome
                    replaced.append(state.invalidate_if_uncertain(hexdigest, key, outcome))
        except BaseException:
            try:
                insist(forget)
            finally:
                insist(forget)
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
        cleared = in_parallel(self._clear, shards, self._workers)
        for part in self._progress.over(cleared, len(shards), "clear"):
            failed.update(part)
        return failed

    def _clear(self, shard: str) -> dict[str, OSError]:
        replaced: list[Any] = []  # dropped after all locks are released
        with self._locks.guard, self._locks.shard(shard):
            known = self._state.entries(shard)
            uncertain = [(hexdigest, entry.key) for hexdigest, entry in known.items()]
            forget = partial(self._state.invalidate_all, uncertain, replaced)
            try:
                hexdigests = list(self._storage.shards.list(shard).signatures)
                outcomes = dict(zip(hexdigests, self._storage.values.remove(hexdigests)))
                failed = {
                    hexdigest: error
                    for hexdigest, error in outcomes.items()
                    if isinstance(error, OSError)
                }
                self._state.count_deletes(sum(one is True for one in outcomes.values()))
                for hexdigest, entry in known.items():
                    if hexdigest in failed:
                        replaced.append(self._state.invalidate(hexdigest, entry.key))
                    else:
                        replaced.append(
                            self._state.record_delete(hexdigest, entry.key, removed=False)
                        )
            except BaseException:
                try:
                    insist(forget)
                finally:
                    insist(forget)
                raise
        return {self._storage.values.path_of(hexdigest): failed[hexdigest] for hexdigest in failed}
