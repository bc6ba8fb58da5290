"""Draw: which keys ``popitem`` tries, so that workers that call it at once try different ones."""

from __future__ import annotations

import random
from collections.abc import Container, Iterator

from .scan import Scanner

# The system's randomness: forked processes, and those with the same seed, must draw differently.
_RANDOM = random.SystemRandom()
# After this many keys that others have taken, the store is scanned: over NFS that costs about as
# much as looking up so many keys.
_PATIENCE = 32


class Draw:
    """Known keys in random order. Calls share one list of keys until it is used up.

    Threads take from it without a lock, as any of them may be interrupted: a key can be drawn
    twice, and another one lost. So the last word, that there is none left, comes from a list of the
    call's own.
    """

    def __init__(self, scanner: Scanner, cache: Container[str]) -> None:
        self._scanner = scanner
        self._cache = cache
        self._left: list[str] = []

    def __iter__(self) -> Iterator[str]:
        """Draw from the keys left by earlier calls, then from all known now, then from a scan's.

        A caller looks up each key that it draws, and known keys may be long gone. So after a few
        that others took, a scan finds which keys the store has.
        """
        yield from self._draw(self._left, _PATIENCE)
        self._left = self._scanner.known_keys()
        yield from self._draw(self._left, _PATIENCE)
        most = _PATIENCE
        while True:
            self._scanner.scan()
            drawn = 0
            for key in self._draw(self._scanner.known_keys(), most):
                drawn += 1
                yield key
            if drawn < most:
                return
            most *= 2

    def _draw(self, left: list[str], most: int) -> Iterator[str]:
        """Draw at most this many of the keys that are left."""
        while left and most > 0:
            try:
                at = _RANDOM.randrange(len(left))
                left[at], left[-1] = left[-1], left[at]
                key = left.pop()
            except (IndexError, ValueError):
                continue  # another thread drew the last one
            if key in self._cache:
                most -= 1
                yield key
