"""Reading: all entries of a store, shard by shard, while others go on writing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Callable, TypeVar, Union

from ..batches import batches
from ..entries import Entries, Entry
from ..errors import CorruptValueError, described
from ..layout import file_size
from ..parallel import in_parallel
from ..progress import Progress
from ..storage import Storage

T = TypeVar("T")
# What became of a value file: what the caller keeps of it, in a tuple of one; its path and why it
# was left out; or None, if it is gone.
_Outcome = Union[tuple[T], tuple[str, str], None]


@dataclass(frozen=True)
class ExportReport:
    """What ``export_to`` did."""

    entries: int = 0
    """number of entries that were written"""
    bytes: int = 0
    """of their value files, or lines"""
    failed: dict[str, str] = field(default_factory=dict)
    """paths of value files that were left out, and why: damaged, unreadable, or with a value that
    can't be decoded here"""


class Reading:
    """Reads all entries of one store."""

    def __init__(
        self, storage: Storage, entries: Entries, progress: Progress, workers: int
    ) -> None:
        self._storage = storage
        self._entries = entries
        self._progress = progress
        self._workers = workers

    def over(self, keep: Callable[[str, Entry], T], left_out: dict[str, str]) -> Iterator[T]:
        """What ``keep`` returns for each digest and its entry, in the order of the digests.

        Each entry is the content of one file, read and decoded whole. A key that has an entry from
        the beginning to the end comes exactly once; one that others add or remove meanwhile, once
        or not at all. Files that are damaged, that can't be read or decoded here, or for which
        ``keep`` raises an exception, are noted in ``left_out``, by path with the reason. Threads
        read ahead, as many bytes as ``in_parallel`` allows; ``keep`` runs in them. OSError if a
        directory can't be listed.
        """

        def read(piece: tuple[list[str], int]) -> list[_Outcome[T]]:
            return self._entries.read_entries(piece[0], outcome)

        def outcome(hexdigest: str, entry: Entry | Exception | None) -> _Outcome[T]:
            if entry is None:
                return None
            if isinstance(entry, Entry):
                try:
                    return (keep(hexdigest, entry),)
                except Exception as error:
                    reason = f"the value of {entry.key!r:.200}: {described(error)}"
            elif isinstance(entry, CorruptValueError):
                reason = entry.reason
            else:
                reason = described(entry)
            return self._entries.path_of(hexdigest), reason

        self._storage.shards.find_root(whole_path=True)
        readings = in_parallel(read, self._pieces(), self._workers, size=lambda piece: piece[1])
        with closing(readings):
            for outcomes in readings:
                for one in outcomes:
                    if one is None:
                        continue
                    if len(one) == 2:
                        left_out[one[0]] = one[1]
                    else:
                        yield one[0]

    def _pieces(self) -> Iterator[tuple[list[str], int]]:
        shards = self._storage.shards.present()
        over = self._progress.over(shards, len(shards), "reading")
        with closing(in_parallel(self._storage.shards.list, over, self._workers)) as listings:
            for listing in listings:
                files = ((name, file_size(one)) for name, one in listing.signatures.items())
                yield from batches(sorted(files))
