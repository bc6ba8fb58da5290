"""Memoised coroutine functions: an event loop goes on while threads ask the store.

A result that is in memory is returned at once. For any other, one task of the event loop starts a
thread, which waits for the server and for other hosts; the function itself runs in the event loop.
There is no pool of threads: if all of its threads waited for results that others are to compute,
and those in turn for a thread, it would never end.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import functools
import threading
import weakref
from collections.abc import Callable, Coroutine
from typing import Any

from ..core import MISSING
from .memo import Memo
from .off_loop import read

# After so many seconds a thread looks whether the event loop that it waits for was closed.
_LOOK = 1.0
# For which results the current task, and those that have started it, compute or have computed.
_computing: contextvars.ContextVar[frozenset[_OnLoop]] = contextvars.ContextVar(
    "computing", default=frozenset()
)


class _Flight:
    """A result that is sought, and by how many calls."""

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self.task = task
        self.waiting = 0


class _OnLoop:
    """Calls a coroutine function in an event loop, from a thread that waits for the result."""

    def __init__(
        self, place: tuple[str, str], call: Callable[[], Coroutine[Any, Any, Any]]
    ) -> None:
        self.place = place
        self._call = call
        self._loop = asyncio.get_running_loop()
        # Both are the event loop's; the thread doesn't touch them.
        self._task: asyncio.Task[Any] | None = None
        self._cancelled = False

    def __call__(self) -> Any:
        run = self._run()
        try:
            running = asyncio.run_coroutine_threadsafe(run, self._loop)
        except RuntimeError:  # the loop is closed
            run.close()
            raise
        while not concurrent.futures.wait([running], _LOOK).done:
            if self._loop.is_closed():
                raise RuntimeError("the event loop was closed while it computed a result")
        return running.result()

    async def _run(self) -> Any:
        if self._cancelled:
            raise asyncio.CancelledError
        self._task = asyncio.current_task()
        others = {one for one in _computing.get() if one.running}
        _computing.set(frozenset(others | {self}))  # for this task, and those that it starts
        return await self._call()

    @property
    def running(self) -> bool:
        return self._task is not None and not self._task.done()

    def cancel(self) -> None:
        self._cancelled = True
        if self._task is not None:
            self._task.cancel()


def memoized_coroutine(
    function: Callable[..., Coroutine[Any, Any, Any]], memo: Memo
) -> Callable[..., Coroutine[Any, Any, Any]]:
    """The coroutine function that looks for a result before it calls ``function``."""
    flights: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, _Flight]]
    flights = weakref.WeakKeyDictionary()

    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        key = memo.cache_key(*args, **kwargs)
        value = memo.in_memory(key)
        if value is not MISSING:
            memo.count("hits")
            return value
        place = memo.place(key)
        if any(one.running and one.place == place for one in _computing.get()):
            raise RuntimeError(f"{key} is being computed, and asks for itself")
        here = flights.setdefault(asyncio.get_running_loop(), {})
        flight = here.get(key)
        if flight is None or flight.task.done():
            creator = _OnLoop(place, lambda: function(*args, **kwargs))
            task = asyncio.ensure_future(_in_thread(lambda: memo.find(key, creator), creator))
            here[key] = flight = _Flight(task)
        else:
            memo.count("waited")
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiting -= 1
            if not flight.waiting:
                if here.get(key) is flight:
                    del here[key]
                flight.task.cancel()  # nothing, if it is done

    async def refresh(*args: Any, **kwargs: Any) -> Any:
        """Call the function, keep its result, and return it."""
        key = memo.cache_key(*args, **kwargs)
        creator = _OnLoop(memo.place(key), lambda: function(*args, **kwargs))
        return await _in_thread(lambda: memo.replace(key, creator), creator)

    wrapper.__dict__.update(memo.attributes(refresh, _threaded))
    return wrapper


def _threaded(method: Callable[..., Any]) -> Callable[..., Coroutine[Any, Any, Any]]:
    @functools.wraps(method)
    async def call(*args: Any, **kwargs: Any) -> Any:
        return await _in_thread(lambda: method(*args, **kwargs))

    return call


async def _in_thread(call: Callable[[], Any], creator: _OnLoop | None = None) -> Any:
    """What ``call`` returns in a thread of its own, with this task's context variables.

    If this is cancelled, so is the creator, if it runs. The thread ends by itself; as a daemon it
    doesn't keep the process from ending.
    """
    try:
        return await read(call, _start)
    except asyncio.CancelledError:
        if creator is not None:
            creator.cancel()
        raise
    except concurrent.futures.CancelledError:
        raise asyncio.CancelledError from None


def _start(run: Callable[[], None]) -> None:
    threading.Thread(target=run, name="nfsdict-memoize", daemon=True).start()
