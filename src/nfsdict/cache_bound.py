"""A bound on the values in the cache. Only what is loaded or dropped is noted, never a hit."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from .core import MISSING


class CacheBound:
    """Keeps the values in ``cache`` within ``limit`` bytes, as their files have them.

    What doesn't fit goes out, the oldest loaded first (FIFO: a hit is one lookup in C and leaves no
    trace). Its key stays, with MISSING for its value. Used with the lock ``state`` held.
    """

    def __init__(self, cache: dict[str, Any], limit: int) -> None:
        self._cache = cache
        self.limit = limit
        self._sizes: OrderedDict[str, int] = OrderedDict()
        self._total = 0

    @property
    def room(self) -> int:
        """Bytes that fit without anything going out."""
        return self.limit - self._total

    def drop(self, key: str) -> None:
        """The key's value isn't in the cache, or is no longer wanted there."""
        self._total -= self._sizes.pop(key, 0)

    def hold(self, key: str, value: Any, size: int) -> list[Any]:
        """Put this value of so many bytes into the cache, or MISSING if it is too large for it.

        Returns what went out, for the caller to let go of when it holds no lock: that may run the
        values' ``__del__``.
        """
        self.drop(key)
        evicted = [self._cache.get(key)]
        if value is MISSING or size > self.limit:
            self._cache[key] = MISSING
            return evicted
        while self._total + size > self.limit:
            oldest, gone = self._sizes.popitem(last=False)
            self._total -= gone
            if oldest in self._cache:
                evicted.append(self._cache[oldest])
                self._cache[oldest] = MISSING
        self._cache[key] = value
        self._sizes[key] = size
        self._total += size
        return evicted
