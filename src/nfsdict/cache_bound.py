"""A limit on the bytes of values in the cache. It notes loads and drops only, never a hit."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from .core import MISSING


class CacheBound:
    """Keeps the values in ``cache`` within ``limit`` bytes, counted by the sizes of their files.

    To make room, the value loaded first goes first (FIFO: a hit is one lookup in C and leaves no
    trace to go by). Its key stays, with MISSING for its value. Callers hold the lock ``state``.
    """

    def __init__(self, cache: dict[str, Any], limit: int) -> None:
        self._cache = cache
        self.limit = limit
        self._sizes: OrderedDict[str, int] = OrderedDict()
        self._total = 0
        # Whether a change has begun and not ended. After an exception of a signal handler within it
        # the total may be wrong; the next change counts anew.
        self._changing = False

    @property
    def room(self) -> int:
        """How many bytes fit before a value must go."""
        return self.limit - self._total

    def drop(self, key: str) -> None:
        """Stop counting the key's value: it isn't in the cache, or the caller removes it."""
        if self._changing:
            self._total = sum(self._sizes.values())
        self._changing = True
        self._total -= self._sizes.pop(key, 0)
        self._changing = False

    def hold(self, key: str, value: Any, size: int) -> list[Any]:
        """Put this value of ``size`` bytes into the cache, or MISSING if it is too large.

        Returns the values that went. The caller keeps them until it has released its locks, as
        dropping them may run their ``__del__``.
        """
        self.drop(key)
        evicted = [self._cache.get(key)]
        if value is MISSING or size > self.limit:
            self._cache[key] = MISSING
            return evicted
        self._changing = True
        # In an order in which what is in the cache is counted, wherever an exception comes.
        while self._total + size > self.limit:
            oldest = next(iter(self._sizes))
            if oldest in self._cache:
                evicted.append(self._cache.get(oldest))  # an interrupting call may remove it
                self._cache[oldest] = MISSING
            self._total -= self._sizes.pop(oldest)
        self._sizes[key] = size
        self._total += size
        self._cache[key] = value
        self._changing = False
        return evicted
