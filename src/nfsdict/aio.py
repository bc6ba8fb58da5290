"""AsyncNfsDict: a dictionary's methods as coroutines: the event loop goes on while threads wait."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, overload

from .arguments import checked_seconds, deadline, plain
from .coordination.async_once import AsyncOnce
from .coordination.leases import Lease, pauses
from .core import MISSING

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from _typeshed import SupportsKeysAndGetItem
    from typing_extensions import TypeVar

    V = TypeVar("V", default=Any)
else:
    from typing import TypeVar

    V = TypeVar("V")

T = TypeVar("T")
Keys = set[str]

_RAISE: Any = object()
# After so many seconds a watch finds that the dictionary was closed.
_LOOK = 0.1


class AsyncNfsDict(AsyncOnce[V]):
    """The methods of a dictionary that may ask the server, as coroutines; ``d.aio`` is one of it.

    What is in memory is given at once. Every other call is made in a thread, of which the
    dictionary has at most ``workers`` for this; each ends when there was nothing to do for 0.1 s. A
    call that waits, for a key, a lease or a change, has no thread while it waits.

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
        end = deadline(timeout)
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
        return self.mapping._kept(self.mapping._take_news)

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
