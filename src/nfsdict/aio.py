"""AsyncNfsDict: a dictionary's methods as coroutines: the event loop goes on while threads wait."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import time
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Generic, overload

from .arguments import checked_seconds, plain
from .coordination.leases import Lease, pauses
from .coordination.off_loop import Call, change, read
from .core import MISSING

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable
    from typing import Protocol, Union

    from _typeshed import SupportsKeysAndGetItem
    from typing_extensions import TypeVar

    from .background import Background
    from .coordination.compute import ComputeOnce, Sought
    from .coordination.leases import Leases
    from .scan import Scanner
    from .state import StoreState
    from .watching import Watching

    V = TypeVar("V", default=Any)

    class Dictionary(Protocol[V]):
        """What of ``NfsDict`` is used here."""

        _background: Background
        _leases: Leases
        _compute: ComputeOnce
        _scanner: Scanner
        _state: StoreState
        _watching: Watching

        @property
        def _cache(self) -> dict[str, Any]: ...
        def __getitem__(self, key: str, /) -> V: ...
        def get(self, key: str, default: Any, *, fresh: bool = False) -> Any: ...
        def pop(self, key: str, default: Any) -> Any: ...
        def add(self, key: str, value: V) -> bool: ...
        def update(self, other: SupportsKeysAndGetItem[str, V], /) -> None: ...
        def __setitem__(self, key: str, value: V, /) -> None: ...
        def __delitem__(self, key: str, /) -> None: ...
        def _writable(self) -> None: ...

    Creator = Union[Callable[[], V], Callable[[], Awaitable[V]]]
else:
    from typing import TypeVar

    V = TypeVar("V")

T = TypeVar("T")
Keys = set[str]

_RAISE: Any = object()
# After so many seconds a watch finds that the dictionary was closed.
_LOOK = 0.1

_Flight = asyncio.Future[Any]
# By event loop, then by store and key: the values that its tasks are about to get or to make.
_flights: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[int, str], _Flight]]
_flights = weakref.WeakKeyDictionary()
# Those of them that the current task, and those that have started it, are about to make.
_making: contextvars.ContextVar[frozenset[_Flight]] = contextvars.ContextVar(
    "making", default=frozenset()
)


class AsyncNfsDict(Generic[V]):
    """The methods of a dictionary that may ask the server, as coroutines; ``d.aio`` is one of it.

    What is in memory is given at once. Every other call is made in a thread, of which the
    dictionary has at most ``workers`` for this, and none while there is nothing to do. A call that
    waits, for a key, a lease or a change, has no thread while it waits.

    Each method promises what the dictionary's own of that name does. Beside that, if it is
    cancelled (as by ``asyncio.timeout``):

    - a call that has not begun, as all threads are busy, is not made;
    - ``get``, ``wait_for`` and ``refresh`` end at once. A call to the server that is under way ends
      by itself in its thread. Changes that a cancelled ``refresh`` has found are what the next one
      returns;
    - ``set``, ``delete``, ``add`` and ``update`` that are under way are finished, and only then
      does CancelledError go on: so nothing is written later, over what the caller does next. Over
      a server that doesn't answer they wait as the dictionary's own do;
    - ``pop`` gives the value back, as ``add`` does, so that a newer one of that key stays;
    - ``lease`` releases the lease, ``get_or_create`` too: see there.

    Values are made bytes in the thread: change none before the call has returned. Other methods of
    the dictionary, such as ``pack``, have none here: ``asyncio.to_thread`` calls them.
    """

    def __init__(self, mapping: Dictionary[V]) -> None:
        self.mapping = mapping
        """the dictionary"""

    async def _read(self, call: Callable[[], T]) -> T:
        return await read(call, self.mapping._background.run)

    async def _change(self, call: Callable[[], T], undo: Callable[[T], object] | None = None) -> T:
        return await change(call, self.mapping._background.run, undo)

    # --- one key -------------------------------------------------------------------------------

    @overload
    async def get(self, key: str, default: None = None, *, fresh: bool = False) -> V | None: ...
    @overload
    async def get(self, key: str, default: V, *, fresh: bool = False) -> V: ...
    @overload
    async def get(self, key: str, default: T, *, fresh: bool = False) -> V | T: ...

    async def get(self, key: str, default: Any = None, *, fresh: bool = False) -> Any:
        """The key's value, or ``default``; with ``fresh`` past the cache. As ``NfsDict.get``."""
        value = MISSING if fresh else self.mapping._cache.get(key, MISSING)
        if value is MISSING:
            value = await self._read(lambda: self.mapping.get(key, default, fresh=fresh))
        return value

    async def set(self, key: str, value: V) -> None:
        """``d[key] = value``."""
        await self._change(lambda: self.mapping.__setitem__(key, value))

    async def delete(self, key: str) -> None:
        """``del d[key]``: KeyError if there is no entry."""
        await self._change(lambda: self.mapping.__delitem__(key))

    async def add(self, key: str, value: V) -> bool:
        """Create the entry and return True, or return False as it exists: as ``NfsDict.add``."""
        return await self._change(lambda: self.mapping.add(key, value))

    @overload
    async def pop(self, key: str) -> V: ...
    @overload
    async def pop(self, key: str, default: V) -> V: ...
    @overload
    async def pop(self, key: str, default: T) -> V | T: ...

    async def pop(self, key: str, default: Any = _RAISE) -> Any:
        """Remove the entry and return its value, as ``NfsDict.pop``."""

        def give_back(value: Any) -> None:
            if value is not MISSING:
                self.mapping.add(key, value)

        value = await self._change(lambda: self.mapping.pop(key, MISSING), give_back)
        if value is not MISSING:
            return value
        if default is _RAISE:
            raise KeyError(key)
        return default

    async def wait_for(self, key: str, timeout: float | None = None) -> V:
        """The value, once some host has written it: as ``NfsDict.wait_for``."""
        key = plain(key)
        end = None if timeout is None else time.monotonic() + timeout
        for pause in pauses():
            value: Any = await self.get(key, MISSING, fresh=True)
            if value is not MISSING:
                return value  # type: ignore[no-any-return]
            left = pause if end is None else end - time.monotonic()
            if left <= 0:
                break
            await asyncio.sleep(min(pause, left))
        raise TimeoutError(f"nobody wrote {key!r} within {timeout} s")

    # --- many keys -----------------------------------------------------------------------------

    async def update(
        self, other: SupportsKeysAndGetItem[str, V] | Iterable[tuple[str, V]] = (), /, **kwargs: V
    ) -> None:
        """Write many keys, as ``NfsDict.update``. Which they are is settled when this is called."""
        pairs: dict[str, V] = dict(other)
        pairs.update(kwargs)
        await self._change(lambda: self.mapping.update(pairs))

    async def refresh(self) -> Keys:
        """Take over what others changed, and return those keys: as ``NfsDict.refresh``."""
        await self._read(self.mapping._scanner.scan)
        with self.mapping._state.locks.guard:
            return self.mapping._state.news.take()

    def watch(self, interval: float = 1.0) -> AsyncGenerator[Keys, None]:
        """Be told of what others change, as by ``NfsDict.watch``::

            async for keys in d.aio.watch(10):
                ...

        ``close`` of the dictionary ends the loop within 0.1 s.
        """
        checked_seconds("interval", interval)
        looks, span = self.mapping._watching.looks(self.mapping)
        return self._watch(looks, span.ended.wait, interval)

    async def _watch(
        self,
        looks: Generator[Keys, None, None],
        ended: Callable[[float], bool],
        interval: float,
    ) -> AsyncGenerator[Keys, None]:
        try:
            while not ended(0):
                due = time.monotonic() + interval
                changed = await self._change(functools.partial(next, looks))
                if changed:
                    yield changed
                while not ended(0) and (left := due - time.monotonic()) > 0:
                    await asyncio.sleep(min(left, _LOOK))
        finally:
            looks.close()

    # --- leases, values made once --------------------------------------------------------------

    @asynccontextmanager
    async def lease(
        self, key: str, duration: float = 60.0, *, timeout: float | None = None
    ) -> AsyncIterator[Lease]:
        """Hold the lease of a key, as ``NfsDict.lease``::

            async with d.aio.lease("nightly") as lease:
                ...
                lease.check()

        ``held`` and ``check`` ask no server. Who is cancelled while he waits has no lease, and one
        that he has got meanwhile is released.
        """
        self.mapping._writable()
        lease = await self._acquire(plain(key), duration, timeout)
        assert lease is not None
        try:
            yield lease
        except BaseException:
            await self._release(lease)
            raise
        await self._change(lease.release)

    async def _acquire(
        self,
        key: str,
        duration: float,
        timeout: float | None,
        unless: Callable[[], bool] | None = None,
    ) -> Lease | None:
        """As ``Leases.acquire``."""
        attempts = self.mapping._leases.attempts(key, duration, timeout, unless)

        def attempt() -> tuple[float, float] | Lease | None:
            try:
                return next(attempts)
            except StopIteration as ended:
                return ended.value  # type: ignore[no-any-return]

        def release(found: tuple[float, float] | Lease | None) -> None:
            if isinstance(found, Lease):
                found.release()

        with self.mapping._leases.turn(key) as turn:
            while isinstance(found := await self._change(attempt, release), tuple):
                pause, patience = found
                await asyncio.sleep(pause)
                for moment in turn.pauses(patience):
                    await asyncio.sleep(moment)
        return found

    async def get_or_create(
        self,
        key: str,
        creator: Creator[V],
        *,
        lease: float = 60.0,
        timeout: float | None = None,
        max_age: float | None = None,
        stale: bool = False,
    ) -> V:
        """The entry's value. If there is none, one of all callers on all hosts makes it.

        As ``NfsDict.get_or_create``. A ``creator`` that is a coroutine function runs in the calling
        task; any other one in a thread, as by ``asyncio.to_thread``. Tasks of
        this event loop that want the same value wait for one of them, which asks for all.

        If that one is cancelled, so is its coroutine function; nothing is written, the lease is
        released, and another caller goes on. A function in a thread can't be stopped: its value is
        written when it returns, and until then the lease is held.
        """
        key = plain(key)
        checked_seconds("lease", lease)
        if timeout is not None:
            checked_seconds("timeout", timeout, 0)
        end = None if timeout is None else time.monotonic() + timeout
        if max_age is None:
            known: Any = self.mapping._cache.get(key, MISSING)
            if known is not MISSING:
                return known  # type: ignore[no-any-return]
        sought = self.mapping._compute.sought(self.mapping, key, max_age)
        if await self._read(sought.find):
            return sought.value  # type: ignore[no-any-return]
        self.mapping._writable()
        old: Any = sought.old if stale else MISSING
        here = _flights.setdefault(asyncio.get_running_loop(), {})
        place = id(self.mapping), key
        while True:
            flight = here.get(place)
            if flight is None:
                value: Any = await self._make(here, place, sought, creator, lease, end, old)
            elif flight in _making.get():
                raise RuntimeError(f"what makes the value of {key!r:.200} asks for that itself")
            elif old is not MISSING:
                value = old
            else:
                await asyncio.wait([flight], timeout=_left(end))
                if not flight.done():
                    raise TimeoutError(f"{key!r:.200} was not made in time")
                value = flight.result()
            if value is not MISSING:
                return value  # type: ignore[no-any-return]
            if old is not MISSING:
                return old  # type: ignore[no-any-return]

    async def _make(
        self,
        here: dict[tuple[int, str], _Flight],
        place: tuple[int, str],
        sought: Sought,
        creator: Callable[[], Any],
        duration: float,
        end: float | None,
        old: Any,
    ) -> Any:
        """Get the value for all tasks that wait for this one. MISSING as ``ComputeOnce``'s."""
        flight = here[place] = asyncio.get_running_loop().create_future()
        outer = _making.set(_making.get() | {flight})
        value = MISSING
        try:
            value = await self._create(sought, creator, duration, end, old)
        finally:
            del here[place]
            flight.set_result(value)
            _making.reset(outer)
        return value

    async def _create(
        self,
        sought: Sought,
        creator: Callable[[], Any],
        duration: float,
        end: float | None,
        old: Any,
    ) -> Any:
        def found() -> bool:
            return sought.look(fresh=True)

        try:
            left = _left(end) if old is MISSING else 0.0
            lease = await self._acquire(sought.key, duration, left, unless=found)
        except TimeoutError:
            if old is MISSING:
                raise
            return MISSING
        if lease is None:
            return sought.value
        if not inspect.iscoroutinefunction(creator):
            return await self._make_in_thread(sought, lease, creator)
        try:
            if await self._change(found):
                return sought.value
            value = await creator()
            publish = self.mapping._compute.publish
            return await self._change(lambda: publish(self.mapping, sought, value, lease))
        finally:
            await self._release(lease)

    async def _make_in_thread(
        self, sought: Sought, lease: Lease, creator: Callable[[], Any]
    ) -> Any:
        """As ``ComputeOnce.make``, which goes on and releases the lease if this is cancelled."""

        def create() -> Any:
            value = creator()
            if inspect.iscoroutine(value):
                value.close()
                raise TypeError(
                    "the creator returned a coroutine: pass the coroutine function itself, or a "
                    "functools.partial of it"
                )
            return value

        loop = asyncio.get_running_loop()
        making = Call(
            lambda: self.mapping._compute.make(self.mapping, sought, lease, create),
            lambda run: loop.run_in_executor(None, run),
        )
        try:
            await making.done
        except asyncio.CancelledError:
            if making.take():
                await self._release(lease)
            raise
        return making.result()

    async def _release(self, lease: Lease) -> None:
        """Release it, if the server can be asked to. Else it ends by itself."""
        with suppress(OSError):
            await self._change(lease.release)


def _left(end: float | None) -> float | None:
    return None if end is None else max(0.0, end - time.monotonic())
