"""Compute once: of all who need a value, on all hosts, one makes it, and all others wait for it.

Who makes it holds the key's lease. Threads of one process wait for the first of them, which asks
the server for all. No lock is held while a creator runs; ``dict.setdefault`` decides which thread
is the first.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from typing import Any, Callable, Protocol

from ..arguments import checked_seconds
from ..core import MISSING, digest
from ..errors import CorruptValueError
from ..layout import UNKNOWN, mtime_of
from ..state import StoreState
from ..storage import Storage
from .leases import Lease, Leases

_SECOND = 1_000_000_000
# For so long the local clock is trusted to have gone on as the server's.
_PROBED_NS = 60 * _SECOND


class Store(Protocol):
    """What of ``NfsDict`` is used here."""

    def get(self, key: str, default: Any, *, fresh: bool = False) -> Any: ...
    def add(self, key: str, value: Any) -> bool: ...
    def __setitem__(self, key: str, value: Any) -> None: ...
    def _writable(self) -> None: ...


class _Flight:
    """A value that a thread is about to get or to make."""

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self.done = threading.Event()
        self.value: Any = MISSING
        """MISSING after ``done`` if the thread has failed"""


class _Sought:
    """The entry that a call looks for."""

    def __init__(self, once: ComputeOnce, store: Store, key: str, max_age: float | None) -> None:
        self._once = once
        self._store = store
        self.key = key
        self._max_age = max_age
        self.value: Any = MISSING
        self.old: Any = MISSING
        """the value, if it is older than ``max_age``"""
        self.damaged = False

    def look(self, fresh: bool) -> bool:
        """Whether there is a value that is no older than ``max_age``."""
        self.old, self.damaged = MISSING, False
        try:
            value = self._store.get(self.key, MISSING, fresh=fresh)
        except CorruptValueError:
            self.damaged = True
            return False
        if value is MISSING:
            return False
        if self._max_age is not None and self._once.age(self.key) > self._max_age:
            self.old = value
            return False
        self.value = value
        return True


class ComputeOnce:
    """``get_or_create`` and ``modify`` of one dictionary, which passes itself to each call: so it
    isn't part of a cycle of references."""

    def __init__(
        self, leases: Leases, state: StoreState, storage: Storage, freeze: Callable[[Any], Any]
    ) -> None:
        self._leases = leases
        self._state = state
        self._files = storage.files
        self._values = storage.values
        self._freeze = freeze
        # By process and key: a forked child doesn't wait for threads that it doesn't have.
        self._flights: dict[tuple[int, str], _Flight] = {}
        self._probed: tuple[int, int] | None = None

    def age(self, key: str) -> float:
        """How many seconds ago the value that is known was written, by the server's clock."""
        here = time.monotonic_ns()
        if self._probed is None or here - self._probed[1] > _PROBED_NS:
            self._probed = self._files.server_time_ns(), here
        now = self._probed[0] + here - self._probed[1]
        return (now - mtime_of(self._signature(key))) / _SECOND

    def _signature(self, key: str) -> bytes:
        known, locks = None, self._state.locks
        if not locks.interrupted:
            with locks.guard:
                known, _ = self._state.known(key)
        if known is None or known.signature == UNKNOWN:
            return self._values.look(digest(key)) or UNKNOWN
        return known.signature

    def known(self, store: Store, key: str, max_age: float | None) -> Any:
        """The value, unless it is older than ``max_age``, damaged or missing: then MISSING."""
        sought = _Sought(self, store, key, max_age)
        return sought.value if sought.look(fresh=False) else MISSING

    def get_or_create(
        self,
        store: Store,
        key: str,
        creator: Callable[[], Any],
        lease: float,
        timeout: float | None,
        max_age: float | None,
        stale: bool,
    ) -> Any:
        """See ``NfsDict.get_or_create``. ``key`` is an exact ``str``."""
        lease = checked_seconds("lease", lease)
        end = _deadline(timeout)
        if max_age is not None:
            max_age = checked_seconds("max_age", max_age, 0)
        sought = _Sought(self, store, key, max_age)
        if sought.look(fresh=False) or (sought.old is not MISSING and sought.look(fresh=True)):
            return sought.value
        store._writable()
        old = sought.old if stale else MISSING
        place = os.getpid(), key
        while True:
            mine = _Flight()
            try:
                first = self._flights.setdefault(place, mine)
                if first is mine:
                    mine.value = self._create(store, sought, creator, lease, end, old)
                    return old if mine.value is MISSING else mine.value
            finally:
                if self._flights.get(place) is mine:
                    del self._flights[place]
                mine.done.set()
            if first.thread == mine.thread:
                raise RuntimeError(f"the creator of {key!r:.200} asks for {key!r:.200}")
            if old is not MISSING:
                return old
            if not first.done.wait(_left(end)):
                raise TimeoutError(f"{key!r:.200} was not made in time")
            if first.value is not MISSING:
                return first.value

    def _create(
        self,
        store: Store,
        sought: _Sought,
        creator: Callable[[], Any],
        duration: float,
        end: float | None,
        old: Any,
    ) -> Any:
        """The value that others write meanwhile, or else the creator's, under the lease.

        MISSING if there is an ``old`` one for the time in which another process makes it anew.
        """

        def found() -> bool:
            return sought.look(fresh=True)

        try:
            left = _left(end) if old is MISSING else 0.0
            lease = self._leases.acquire(sought.key, duration, left, unless=found)
        except TimeoutError:
            if old is MISSING:
                raise
            return MISSING
        if lease is None:
            return sought.value
        try:
            if found():
                return sought.value
            return self._publish(store, sought, self._freeze(creator()), lease)
        finally:
            # The value is there. If the lease stays, others only wait for longer.
            with suppress(OSError):
                lease.release()

    def _publish(self, store: Store, sought: _Sought, value: Any, lease: Lease) -> Any:
        """Write the value. If another one was written, as the lease was lost, that one instead."""
        while True:
            if sought.damaged or sought.old is not MISSING:
                if lease.held or not sought.look(fresh=True):
                    store[sought.key] = value
                    return value
                return sought.value
            if store.add(sought.key, value):
                return value
            if sought.look(fresh=True):
                return sought.value

    def modify(
        self,
        store: Store,
        key: str,
        function: Callable[[Any], Any],
        default: Any,
        lease: float,
        timeout: float | None,
    ) -> Any:
        """See ``NfsDict.modify``; MISSING as ``default`` is none. ``key`` is an exact ``str``."""
        store._writable()
        held = self._leases.acquire(key, lease, timeout)
        assert held is not None
        try:
            value = store.get(key, default, fresh=True)
            if value is MISSING:
                raise KeyError(key)
            value = self._freeze(function(value))
            held.check()
            store[key] = value
            return value
        finally:
            with suppress(OSError):
                held.release()


def _deadline(timeout: float | None) -> float | None:
    if timeout is None:
        return None
    return time.monotonic() + checked_seconds("timeout", timeout, 0)


def _left(end: float | None) -> float | None:
    return None if end is None else max(0.0, end - time.monotonic())
