"""What coroutines of one dictionary do together: they wait for leases, and make a value once."""

from __future__ import annotations

import asyncio
import contextvars
import time
import weakref
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic

from ..arguments import checked_seconds, deadline, is_coroutine_function, plain
from ..core import MISSING
from .leases import Lease
from .off_loop import Call, change, read

if TYPE_CHECKING:
    from typing import Protocol, Union

    from _typeshed import SupportsKeysAndGetItem
    from typing_extensions import TypeVar

    from ..background import Background
    from ..scan import Scanner
    from ..state import StoreState
    from ..watching import Watching
    from .compute import ComputeOnce, Sought
    from .leases import Leases

    V = TypeVar("V", default=Any)

    class Dictionary(Protocol[V]):
        """What of ``NfsDict`` is used here."""

        _scanner: Scanner
        _state: StoreState
        _watching: Watching

        @property
        def _background(self) -> Background: ...
        @property
        def _cache(self) -> dict[str, Any]: ...
        @property
        def _compute(self) -> ComputeOnce: ...
        @property
        def _leases(self) -> Leases: ...
        def __getitem__(self, key: str, /) -> V: ...
        def get(self, key: str, default: Any, *, fresh: bool = False) -> Any: ...
        def pop(self, key: str, default: Any) -> Any: ...
        def add(self, key: str, value: V) -> bool: ...
        def update(self, other: SupportsKeysAndGetItem[str, V], /) -> None: ...
        def __setitem__(self, key: str, value: V, /) -> None: ...
        def __delitem__(self, key: str, /) -> None: ...
        def _writable(self) -> None: ...
        def _kept(self, take: Callable[[set[str]], set[str]], /) -> set[str]: ...
        def _take_news(self, taken: set[str], /) -> set[str]: ...

    Creator = Union[Callable[[], V], Callable[[], Awaitable[V]]]
else:
    from typing import TypeVar

    V = TypeVar("V")

T = TypeVar("T")

_Flight = asyncio.Future[Any]
# By event loop, then by store and key: the values that its tasks are about to get or to make.
_flights: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[int, str], _Flight]]
_flights = weakref.WeakKeyDictionary()
# Those of them that the current task, and those that have started it, are about to make.
_making: contextvars.ContextVar[frozenset[_Flight]] = contextvars.ContextVar(
    "making", default=frozenset()
)


class AsyncOnce(Generic[V]):
    """Base class of ``AsyncNfsDict``: what its methods have in common, and ``get_or_create``."""

    def __init__(self, mapping: Dictionary[V]) -> None:
        self.mapping = mapping
        """the dictionary"""

    async def _read(self, call: Callable[[], T]) -> T:
        return await read(call, self.mapping._background.run)

    async def _change(self, call: Callable[[], T], undo: Callable[[T], object] | None = None) -> T:
        return await change(call, self.mapping._background.run, undo)

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
        end = deadline(timeout)
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
        if not is_coroutine_function(creator):
            return await self._make_in_thread(sought, lease, creator)
        try:
            if await self._change(found):
                return sought.value
            value = await creator()
            publish = self.mapping._compute.publish
            return await self._change(lambda: publish(self.mapping, sought, value))
        finally:
            await self._release(lease)

    async def _make_in_thread(
        self, sought: Sought, lease: Lease, creator: Callable[[], Any]
    ) -> Any:
        """As ``ComputeOnce.make``, which goes on and releases the lease if this is cancelled."""
        loop = asyncio.get_running_loop()
        making = Call(
            lambda: self.mapping._compute.make(self.mapping, sought, lease, creator),
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
