"""Calls that wait for a server, in threads, while an event loop goes on."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable
from typing import Any, TypeVar

from ..errors import described

log = logging.getLogger("nfsdict")

T = TypeVar("T")

Start = Callable[[Callable[[], None]], object]
"""has a function run in a thread"""


class Call:
    """A call in a thread, with the current task's context variables."""

    def __init__(
        self,
        call: Callable[[], Any],
        start: Start,
        undo: Callable[[Any], object] | None = None,
    ) -> None:
        self._call = call
        self._undo = undo
        self._context = contextvars.copy_context()
        self._loop = asyncio.get_running_loop()
        self._token = [None]
        self.done: asyncio.Future[tuple[Any, BaseException | None]] = self._loop.create_future()
        """what came of it: a value or an exception, as ``set_exception`` doesn't take each one"""
        start(self._run)

    def take(self) -> bool:
        """Whether this is the first to take the call: either the thread, which makes it then, or
        who doesn't want it to be made any more."""
        try:
            self._token.pop()
        except IndexError:
            return False
        return True

    def _run(self) -> None:
        if not self.take():
            return
        value, failed = None, None
        try:
            value = self._context.run(self._call)
        except BaseException as error:
            failed = error
        try:
            self._loop.call_soon_threadsafe(self._settle, value, failed)
        except RuntimeError:  # the loop is closed, so nobody waits
            if failed is None:
                self.undo(value)

    def _settle(self, value: Any, error: BaseException | None) -> None:
        if not self.done.done():
            self.done.set_result((value, error))

    def undo(self, value: Any) -> None:
        """Undo what the call has done, if that is wanted. An error is logged."""
        try:
            if self._undo is not None:
                self._undo(value)
        except Exception as error:
            log.error("what a cancelled call did can't be undone: %s", described(error))

    def result(self) -> Any:
        """What it returned or raised, when it is done."""
        value, error = self.done.result()
        if error is not None:
            raise error
        return value


async def read(call: Callable[[], T], start: Start) -> T:
    """What ``call`` returns in a thread. If this is cancelled, nobody waits for it any more."""
    under_way = Call(call, start)
    try:
        await under_way.done
    except asyncio.CancelledError:
        under_way.take()
        raise
    return under_way.result()  # type: ignore[no-any-return]


async def change(
    call: Callable[[], T], start: Start, undo: Callable[[T], object] | None = None
) -> T:
    """What ``call``, which changes something, returns in a thread.

    If this is cancelled, a call that hasn't begun isn't made. One that is under way is waited for,
    and if it succeeds ``undo(value)`` is called in a thread; then the cancellation goes on.
    """
    under_way = Call(call, start, undo)
    cancelled = await _outlast(under_way)
    if cancelled is None:
        return under_way.result()  # type: ignore[no-any-return]
    if undo is not None and under_way.done.done() and under_way.done.result()[1] is None:
        value = under_way.result()
        await _outlast(Call(lambda: under_way.undo(value), start), begin=True)
    raise cancelled


async def _outlast(call: Call, begin: bool = False) -> asyncio.CancelledError | None:
    """Wait until the call is done. A cancellation that came meanwhile; by it a call that hasn't
    begun is dropped, unless it is to ``begin``."""
    cancelled = None
    while not call.done.done():
        try:
            await asyncio.wait([call.done])
        except asyncio.CancelledError as error:
            cancelled = error
            if not begin and call.take():
                break
    return cancelled
