"""Batches: files to be read at once, few of them and of few bytes together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

# A list has so many files at most, and more than so many bytes only if it has one file.
_FILES = 64
_BYTES = 1 << 20


def batches(files: Iterable[tuple[str, int]]) -> Iterator[tuple[list[str], int]]:
    """The files, each a digest and its size in bytes, in lists with their bytes together.

    At least one list, so that whoever waits for the last of a shard gets one.
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
