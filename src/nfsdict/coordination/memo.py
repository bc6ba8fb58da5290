"""Memo: the results of one memoised function in a store, and how often they were of use."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from ..arguments import checked_seconds
from ..core import MISSING
from .calls import Calls
from .compute import ComputeOnce, Store

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Protocol

    class MemoStore(Store, Protocol):
        """What of ``NfsDict`` is used here."""

        _cache: dict[str, Any]

        @property
        def path(self) -> Path: ...
        def __getitem__(self, key: str, /) -> Any: ...
        def __delitem__(self, key: str, /) -> None: ...
        def __iter__(self) -> Iterator[str]: ...
        def refresh(self) -> set[str]: ...


_all: weakref.WeakSet[Memo] = weakref.WeakSet()


class CacheInfo(NamedTuple):
    """What became of the calls of a memoised function in this process, each counted once."""

    hits: int
    """a result was there"""
    misses: int
    """the function was called here"""
    waited: int
    """another thread, process or host computed the result meanwhile"""
    errors: int
    """an exception came instead: the function's, or the store's"""


class Memo:
    """The results of one function in one store: all but how the function is called."""

    def __init__(
        self,
        store: MemoStore,
        compute: ComputeOnce,
        calls: Calls,
        lease: float,
        max_age: float | None,
        stale: bool,
    ) -> None:
        self.calls = calls
        self._store = store
        self._compute = compute
        self._lease = checked_seconds("lease", lease)
        self._max_age = None if max_age is None else checked_seconds("max_age", max_age, 0)
        self._stale = stale
        self._counts = dict.fromkeys(CacheInfo._fields, 0)
        self._renew_lock()
        _all.add(self)

    def _renew_lock(self) -> None:
        # Reentrant, as a signal handler may call what its thread is just calling.
        self._lock = threading.RLock()

    def attributes(
        self,
        refresh: Callable[..., Any],
        asking: Callable[[Callable[..., Any]], Callable[..., Any]] = lambda method: method,
    ) -> dict[str, Callable[..., Any]]:
        """Those of the memoised function. ``asking`` is what becomes of one that asks the store."""
        return {
            "cache_key": self.cache_key,
            "peek": asking(self.peek),
            "put": asking(self.put),
            "refresh": refresh,
            "discard": asking(self.discard),
            "cache_info": self.cache_info,
            "cache_clear": asking(self.cache_clear),
        }

    def place(self, key: str) -> tuple[str, str]:
        """What tells the result under this key from all others in this process."""
        return str(self._store.path), key

    def count(self, what: str) -> None:
        """Count a call, by a field of ``CacheInfo``."""
        with self._lock:
            self._counts[what] += 1

    def in_memory(self, key: str) -> Any:
        """The result if it is in memory and doesn't age; else MISSING. Asks no server."""
        return self._store._cache.get(key, MISSING) if self._max_age is None else MISSING

    def find(self, key: str, call: Callable[[], Any]) -> Any:
        """The result, computed by ``call`` if need be."""
        outcome = "errors"
        try:
            value = self._compute.known(self._store, key, self._max_age)
            if value is not MISSING:
                outcome = "hits"
                return value
            called = False

            def creator() -> Any:
                nonlocal called
                called = True
                return call()

            value = self._compute.get_or_create(
                self._store, key, creator, self._lease, None, self._max_age, self._stale
            )
            outcome = "misses" if called else "waited"
            return value
        finally:
            self.count(outcome)

    def replace(self, key: str, call: Callable[[], Any]) -> Any:
        """Compute the result, whether there is one or not."""
        outcome = "errors"
        try:
            value = call()
            self._store[key] = value
            outcome = "misses"
            return value
        finally:
            self.count(outcome)

    def cache_key(self, /, *args: Any, **kwargs: Any) -> str:
        """The key of the result of this call in the store."""
        return self.calls.key_of(args, kwargs)

    def peek(self, /, *args: Any, **kwargs: Any) -> Any:
        """The result of this call, however old, if there is one; else KeyError."""
        return self._store[self.cache_key(*args, **kwargs)]

    def put(self, value: Any, /, *args: Any, **kwargs: Any) -> None:
        """Keep this value as the result of the call."""
        self._store[self.cache_key(*args, **kwargs)] = value

    def discard(self, /, *args: Any, **kwargs: Any) -> None:
        """Remove the result of this call, if there is one."""
        self._remove(self.cache_key(*args, **kwargs))

    def _remove(self, key: str) -> None:
        with suppress(KeyError):
            del self._store[key]

    def cache_clear(self) -> None:
        """Remove all results of this function and version from the store, whoever wrote them.

        Processes that have read a result go on with it until their dictionary's ``refresh()``.
        """
        self._store.refresh()
        for key in self._store:
            if self.calls.owns(key):
                self._remove(key)

    def cache_info(self) -> CacheInfo:
        """Counts of this process: ``CacheInfo(hits, misses, waited, errors)``."""
        with self._lock:
            return CacheInfo(**self._counts)


def _renew_locks() -> None:
    for memo in list(_all):
        memo._renew_lock()


# If another thread holds a lock during a fork, nobody can release it in the child.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)
