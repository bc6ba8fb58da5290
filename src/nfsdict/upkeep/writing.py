"""Writing: entries that come from elsewhere, in bulk; those that are there already are left alone.

What is the same isn't written again, so whatever was interrupted is done again for little: each
directory is listed, and files of the same size are read and compared.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ..batches import batches
from ..bulk import Bulk, Item
from ..content import holds, size_of
from ..errors import BatchError
from ..layout import file_size
from ..one_key import OneKey
from ..parallel import IN_FLIGHT, in_parallel
from ..progress import Progress
from ..storage import Storage

log = logging.getLogger("nfsdict")

# So many bytes are written together. What is read ahead of them, and what is read to be compared
# with them, is in memory meanwhile: 64 MiB in all.
_BATCH_BYTES = (64 << 20) - 2 * IN_FLIGHT
# So many entries at most are written together, as small ones take more memory than their bytes.
_ENTRIES = 1 << 16


@dataclass(frozen=True)
class TransferReport:
    """What ``import_from`` or ``copy_from`` did."""

    written: int = 0
    """number of entries that were written"""
    same: int = 0
    """number of entries that were there with the same content, and were left as they are"""
    kept: int = 0
    """with ``keep_existing``: number of keys that had an entry, whatever its value"""
    changed: int = 0
    """number of entries, of those that were written or were there with the same content, whose
    values are others here: JSON has lists for tuples, text for other keys of a ``dict``, and no
    classes; the log names them at INFO. Of a serializer of the user's own it isn't known"""
    failed: dict[str, str] = field(default_factory=dict)
    """keys that were left out, or names of files, and why: damaged there, or with a value that
    can't be decoded, or that this serializer can't write"""


class Writing:
    """One transfer into a store."""

    def __init__(
        self,
        storage: Storage,
        bulk: Bulk,
        one_key: OneKey,
        progress: Progress,
        workers: int,
        keep_existing: bool,
    ) -> None:
        self._storage = storage
        self._progress = progress
        self._bulk = bulk
        self._one_key = one_key
        self._workers = workers
        self._keep_existing = keep_existing
        self._written = self._same = self._kept = self._changed = 0
        self.failed: dict[str, str] = {}
        """see ``TransferReport``; filled by whoever makes the items, too"""

    def take(self, items: Iterable[Item], total: int | None) -> None:
        """Write these entries, in batches of 16 MiB. If a key comes twice, its last entry counts;
        with ``keep_existing`` its first. ``total`` is how many they are, None if nobody knows.

        BatchError if some can't be written: the rest of their batch is, and of the later ones
        nothing. After any exception ``report`` tells what was done by then, in whole batches.
        """
        with self._progress.bar("writing", total, "key") as bar:
            for batch in _batched(items):
                self._take_batch(batch)
                bar.add(len(batch), sum(size_of(item.data) for item in batch))
                del batch  # before the next one is made

    def report(self) -> TransferReport:
        """What was done so far."""
        return TransferReport(self._written, self._same, self._kept, self._changed, self.failed)

    def _take_batch(self, batch: list[Item]) -> None:
        there = self._there(batch)
        if self._keep_existing:
            self._kept += len(there)
            batch = self._add([item for item in batch if item.hexdigest not in there])
        else:
            same = self._same_as(batch, there)
            self._same += len(same)
            self._put([item for item in batch if item.hexdigest not in same])
        for item in batch:
            if item.changed:
                self._changed += 1
                log.info(
                    "%s: the value of %r is another one here", self._storage.directory, item.key
                )

    def _there(self, batch: list[Item]) -> dict[str, int]:
        """The digests of this batch that have a file, with its size."""
        wanted = {item.hexdigest for item in batch}
        there: dict[str, int] = {}
        shards = sorted({hexdigest[:2] for hexdigest in wanted})
        for listing in in_parallel(self._storage.shards.list, shards, self._workers):
            found = wanted.intersection(listing.signatures)
            there.update((one, file_size(listing.signatures[one])) for one in found)
        return there

    def _same_as(self, batch: list[Item], there: dict[str, int]) -> set[str]:
        """The digests whose files have the content that the batch has for them."""
        wanted = {
            item.hexdigest: item.data
            for item in batch
            if there.get(item.hexdigest) == size_of(item.data)
        }

        def same(piece: tuple[list[str], int]) -> list[str]:
            found = zip(piece[0], self._storage.values.read_many(piece[0]))
            return [
                hexdigest
                for hexdigest, content in found
                if isinstance(content, tuple) and holds(content[0], wanted[hexdigest])
            ]

        pieces = batches(sorted((hexdigest, there[hexdigest]) for hexdigest in wanted))
        read = in_parallel(same, pieces, self._workers, size=lambda piece: piece[1])
        return {hexdigest for part in read for hexdigest in part}

    def _put(self, items: list[Item]) -> None:
        # None is kept for a pack: there may be more than a spool should hold.
        failed = self._bulk.put(items, count=0)
        self._written += len(items) - len(failed)
        if failed:
            raise BatchError(failed)

    def _add(self, items: list[Item]) -> list[Item]:
        """Create these entries, but where another process was faster; returns those created."""
        failed: dict[str, OSError] = {}

        def add(item: Item) -> bool | None:
            try:
                return self._one_key.add(item.key, item.value, item.data)
            except OSError as error:
                failed[item.key] = error
                return None

        outcomes = list(in_parallel(add, items, self._workers, without_gil=True))
        self._written += outcomes.count(True)
        self._kept += outcomes.count(False)
        if failed:
            raise BatchError(failed)
        return [item for item, added in zip(items, outcomes) if added]


def _batched(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Split the items into batches, each of which has a key once."""
    batch: dict[str, Item] = {}
    size = 0
    for item in items:
        if batch and (item.hexdigest in batch or size >= _BATCH_BYTES or len(batch) >= _ENTRIES):
            yield list(batch.values())
            batch, size = {}, 0
        batch[item.hexdigest] = item
        size += size_of(item.data)
    if batch:
        yield list(batch.values())
