"""Draw: which keys ``popitem`` tries, so that workers who call it at once don't fight for one."""

from __future__ import annotations

import random
from collections.abc import Container, Iterator

from .scan import Scanner

# Not seeded: what was forked, or has seeded alike, is to draw differently.
_RANDOM = random.SystemRandom()
# So many keys that others have taken are drawn before the whole store is looked at: that costs
# about as much, over NFS, as looking for so many.
_PATIENCE = 32


class Draw:
    """Known keys in random order, gone through once for many calls."""

    def __init__(self, scanner: Scanner, cache: Container[str]) -> None:
        self._scanner = scanner
        self._cache = cache
        self._left: list[str] = []

    def __iter__(self) -> Iterator[str]:
        """Of those that are left of earlier calls, of all that are known now, and then of all that
        are there.

        Each costs a lookup, and what is known may be long gone: after a few that others took, what
        is there is found out.
        """
        yield from self._draw(_PATIENCE)
        self._left = self._scanner.known_keys()
        yield from self._draw(_PATIENCE)
        most = _PATIENCE
        while True:
            self._scanner.scan()
            self._left = self._scanner.known_keys()
            drawn = 0
            for key in self._draw(most):
                drawn += 1
                yield key
            if drawn < most:
                return
            most *= 2

    def _draw(self, most: int) -> Iterator[str]:
        """So many of the keys that are left, at most."""
        left = self._left
        while left and most > 0:
            at = _RANDOM.randrange(len(left))
            try:
                left[at], left[-1] = left[-1], left[at]
                key = left.pop()
            except IndexError:
                continue  # another thread drew the last one
            if key in self._cache:
                most -= 1
                yield key
