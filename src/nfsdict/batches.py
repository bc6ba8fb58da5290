"""Batches: lists of files to be read in one call, bounded in number and in bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

# A list has at most this many files. It has more than this many bytes only if it has a single file.
_FILES = 64
_BYTES = 1 << 20


def batches(files: Iterable[tuple[str, int]]) -> Iterator[tuple[list[str], int]]:
    """Split files, each (digest, size in bytes), into lists; yields (digests, total size).

    Yields at least one list, even if it is empty: callers finish a shard after its last list.
    """
    digests: list[str] = []
    total = 0
    for name, size in files:
        if digests and (len(digests) == _FILES or total + size > _BYTES):
            yield digests, total
            digests, total = [], 0
        digests.append(name)
        total += size
    yield digests, total
