"""Oldest: which entries come first, oldest first, in bounded memory.

A histogram of ranks. Its bins are as wide as need be so that there are few of them. The bin in
which the limit falls is counted again by itself, until it has a single entry: for a million entries
that is twice.
"""

from __future__ import annotations

from typing import NamedTuple

from ..layout import mtime_of

# At most so many bins: 2 MiB.
_MOST = 1 << 14
_DIGEST_BITS = 64


def rank(hexdigest: str, signature: bytes) -> int:
    """The place of an entry among all: by the time it was written, then by its digest."""
    return first_rank(mtime_of(signature)) | int(hexdigest[: _DIGEST_BITS // 4], 16)


def first_rank(time_ns: int) -> int:
    """The first rank of what was written at this time."""
    return time_ns << _DIGEST_BITS


def time_of(rank: int) -> int:
    """When an entry of this rank was written, in ns."""
    return rank >> _DIGEST_BITS


class Amount(NamedTuple):
    """Entries, and bytes in their files."""

    items: int = 0
    size: int = 0

    def plus(self, items: int, size: int) -> Amount:
        return Amount(self.items + items, self.size + size)

    def minus(self, other: Amount) -> Amount:
        return Amount(self.items - other.items, self.size - other.size)

    def reaches(self, other: Amount) -> bool:
        """Whether both numbers are as large as the other's."""
        return self.items >= other.items and self.size >= other.size


class Bin(NamedTuple):
    """Entries of neighbouring ranks."""

    first: int
    """no rank here is lower"""
    end: int
    """all ranks here are lower"""
    before: Amount
    """entries of lower ranks that were counted"""
    inside: Amount


class Histogram:
    """Counts entries by their ranks."""

    def __init__(self) -> None:
        self._bins: dict[int, Amount] = {}
        self._shift = 0

    def add(self, rank: int, size: int) -> None:
        number = rank >> self._shift
        self._bins[number] = self._bins.get(number, _NONE).plus(1, size)
        if len(self._bins) > _MOST:
            while len(self._bins) > _MOST // 2:
                self._widen()

    def _widen(self) -> None:
        self._shift += 1
        before, self._bins = self._bins, {}
        for number, amount in before.items():
            self._bins[number >> 1] = self._bins.get(number >> 1, _NONE).plus(*amount)

    def bin_reaching(self, amount: Amount, end: int) -> Bin:
        """The bin with which the entries, counted from the lowest rank, reach this amount; an empty
        one at ``end``, which is above all of them, if they never do."""
        before = _NONE
        for number in sorted(self._bins):
            inside = self._bins[number]
            if before.plus(*inside).reaches(amount):
                return Bin(number << self._shift, (number + 1) << self._shift, before, inside)
            before = before.plus(*inside)
        return Bin(end, end, before, _NONE)


_NONE = Amount()
