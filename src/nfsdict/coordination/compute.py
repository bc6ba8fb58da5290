"""Compute once: of all who need a value, on all hosts, one makes it, and all others wait for it.

Who makes it holds the key's lease. Threads of one process wait for the first of them, which asks
the server for all. No lock is held while a creator runs, but one that nobody waits for;
``dict.setdefault`` decides which thread is the first.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from types import CoroutineType
from typing import Any, Callable, Protocol

from ..arguments import checked_seconds, deadline
from ..core import MISSING, digest
from ..errors import CorruptValueError
from ..layout import UNKNOWN, mtime_of
from ..logs import Operation
from ..state import StoreState
from ..storage import Storage
from .holding import clock_ns
from .leases import Lease, Leases

_SECOND = 1_000_000_000
# For so long the local clock is trusted to have gone on as the server's.
_PROBED_NS = 60 * _SECOND
# After so many seconds a thread looks whether the one that it waits for was interrupted.
_LOOK = 1.0


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
        self.value: Any = MISSING
        """MISSING at the end if the thread has failed"""
        self.under_way = threading.Lock()
        """held by the thread from beginning to end, whatever interrupts it"""
        self.done = threading.Event()
        """set at the end, unless the thread was interrupted just then"""

    def wait(self, key: str, end: float | None) -> None:
        """Wait until it has ended; TimeoutError at that moment by ``time.monotonic``."""
        while self.under_way.locked():
            left = _left(end)
            if self.done.wait(_LOOK if left is None else min(left, _LOOK)):
                break
            if left is not None and left <= _LOOK:
                raise TimeoutError(f"{key!r:.200} was not made in time")


class Sought:
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

    def find(self) -> bool:
        """Whether there is such a value, known here or as the server has it."""
        return self.look(fresh=False) or (self.old is not MISSING and self.look(fresh=True))


class ComputeOnce:
    """``get_or_create`` and ``modify`` of one dictionary, which passes itself to each call: so it
    isn't part of a cycle of references."""

    def __init__(
        self, leases: Leases, state: StoreState, storage: Storage, freeze: Callable[[Any], Any]
    ) -> None:
        self._leases = leases
        self._storage = storage
        self._state = state
        self._files = storage.files
        self._values = storage.values
        self._freeze = freeze
        # By process and key: a forked child doesn't wait for threads that it doesn't have.
        self._flights: dict[tuple[int, str], _Flight] = {}
        self._probed: tuple[int, int] | None = None

    def age(self, key: str) -> float:
        """How many seconds ago the value that is known was written, by the server's clock."""
        here = clock_ns()
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
        sought = Sought(self, store, key, max_age)
        return sought.value if sought.look(fresh=False) else MISSING

    def sought(self, store: Store, key: str, max_age: float | None) -> Sought:
        """The entry that ``get_or_create`` looks for. ``key`` is an exact ``str``."""
        if max_age is not None:
            max_age = checked_seconds("max_age", max_age, 0)
        return Sought(self, store, key, max_age)

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
        end = deadline(timeout)
        sought = self.sought(store, key, max_age)
        if sought.find():
            return sought.value
        store._writable()
        old = sought.old if stale else MISSING
        with Operation(self._storage, "get_or_create", f"{key!r:.200}"):
            while True:
                mine = _Flight()
                first = self._first(
                    key, mine, lambda: self._create(store, sought, creator, lease, end, old)
                )
                if old is not MISSING and mine.value is MISSING:
                    return old
                if first is not mine:
                    first.wait(key, end)
                if first.value is not MISSING:
                    return first.value

    def _first(self, key: str, mine: _Flight, call: Callable[[], Any]) -> _Flight:
        """Get a value by ``call``, unless another thread is about to. The flight that counts.

        RuntimeError if that thread is this one: the call asks for what it is to make.
        """
        place = os.getpid(), key
        with mine.under_way:
            first = self._flights.setdefault(place, mine)
            if first is mine:
                try:
                    mine.value = call()
                finally:
                    self._flights.pop(place, None)
                    mine.done.set()
                return mine
        if not (first.under_way.locked() or first.done.is_set()):
            self._flights.pop(place, None)  # left there by an interruption
            return self._first(key, mine, call)
        if first.thread == mine.thread:
            raise RuntimeError(f"what makes the value of {key!r:.200} asks for that itself")
        return first

    def _create(
        self,
        store: Store,
        sought: Sought,
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
        return self.make(store, sought, lease, creator)

    def make(self, store: Store, sought: Sought, lease: Lease, creator: Callable[[], Any]) -> Any:
        """The value that others have written before this lease was held, or else the creator's.
        Releases the lease."""
        try:
            if sought.look(fresh=True):
                return sought.value
            with Operation(self._storage, "the creator of", f"{sought.key!r:.200}"):
                value = _no_coroutine(creator(), _AWAITED)
            return self.publish(store, sought, value)
        finally:
            # The value is there. If the lease stays, others only wait for longer.
            with suppress(OSError):
                lease.release()

    def publish(self, store: Store, sought: Sought, value: Any) -> Any:
        """Write the value and return it; or another one, if that was written meanwhile: by who lost
        the lease, or by who needs none."""
        value = self._freeze(value)
        while True:
            if sought.damaged or sought.old is not MISSING:
                if sought.look(fresh=True):
                    return sought.value
                store[sought.key] = value
                return value
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
        lease = checked_seconds("lease", lease)
        end = deadline(timeout)
        store._writable()
        while True:
            mine = _Flight()
            first = self._first(
                key, mine, lambda: self._modify(store, key, function, default, lease, end)
            )
            if first is mine:
                return mine.value
            first.wait(key, end)

    def _modify(
        self,
        store: Store,
        key: str,
        function: Callable[[Any], Any],
        default: Any,
        duration: float,
        end: float | None,
    ) -> Any:
        """The new value, written under the lease."""
        lease = self._leases.acquire(key, duration, _left(end))
        assert lease is not None
        try:
            value = store.get(key, default, fresh=True)
            if value is MISSING:
                raise KeyError(key)
            value = self._freeze(_no_coroutine(function(value), _NOT_AWAITED))
            lease.check()
            store[key] = value
            return value
        except BaseException:
            forget(self._state, key)  # the function may have changed the object in place
            raise
        finally:
            with suppress(OSError):
                lease.release()


def forget(state: StoreState, key: str) -> None:
    """Let the next lookup of the key read its file anew. For others may change the object that was
    read, in place."""
    if not state.locks.interrupted:
        with state.locks.guard:
            replaced = state.invalidate(digest(key), key)
        del replaced


_AWAITED = (
    "the creator returned a coroutine: pass the coroutine function itself, or a functools.partial "
    "of it, to d.aio.get_or_create"
)
_NOT_AWAITED = (
    "the function returned a coroutine, which isn't awaited: pass one that returns the new value"
)


def _no_coroutine(value: Any, advice: str) -> Any:
    """What a caller's function returned. TypeError if it is a coroutine, which nothing here would
    await."""
    if isinstance(value, CoroutineType):
        value.close()
        raise TypeError(advice)
    return value


def _left(end: float | None) -> float | None:
    return None if end is None else max(0.0, end - time.monotonic())
