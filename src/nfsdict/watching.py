"""Watching: refresh a dictionary again and again, for those who want to be told of each change, and
so that what is cached doesn't grow old."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import weakref
from collections.abc import Generator
from contextlib import closing, suppress
from typing import TYPE_CHECKING

from .errors import described
from .parallel import start

if TYPE_CHECKING:
    from .scan import Scanner
    from .state import StoreState

log = logging.getLogger("nfsdict")

# So many seconds a refresh under way is waited for, which a lost server may never answer.
_PATIENCE = 10.0


class _Flag:
    """Once ``set`` it stays so; threads can wait for it.

    A signal handler may set it whatever its thread was doing, and a forked child may use it:
    ``threading.Event`` has a lock of its own, for which both could wait for ever.
    """

    def __init__(self) -> None:
        self._set = False
        self._lock = threading.Lock()
        self._lock.acquire()

    def set(self) -> None:
        self._set = True
        with suppress(RuntimeError):  # it is released already
            self._lock.release()

    def wait(self, seconds: float) -> bool:
        """Whether it is set within so many seconds."""
        if not self._set and self._lock.acquire(timeout=max(0.0, seconds)):
            self.set()  # for others who wait
        return self._set


_spans: weakref.WeakSet[_Span] = weakref.WeakSet()


class _Span:
    """From the opening of a dictionary, or from a ``close``, to the next ``close``."""

    def __init__(self) -> None:
        self.ended = _Flag()
        self.looks: dict[int, _Flag] = {}
        """by thread, the refresh under way"""
        _spans.add(self)

    def look(self, scanner: Scanner, failing: bool, errors: type[Exception]) -> bool:
        """Refresh, unless the span has ended. Whether that failed by one of these errors, which is
        logged unless it was ``failing`` before."""
        under_way, thread = _Flag(), threading.get_ident()
        try:
            self.looks[thread] = under_way  # first: who ends the span waits for it then
            if not self.ended.wait(0):
                scanner.scan()
        except errors as error:
            if not failing:
                log.warning(
                    "can't refresh now, trying again: %s; values grow older until that succeeds: "
                    "see whether the server answers",
                    described(error),
                )
            return True
        finally:
            self.looks.pop(thread, None)
            under_way.set()
        return False

    def join(self, end: float) -> None:
        """Wait for what other threads are refreshing, until ``end`` by ``time.monotonic``."""
        for thread, under_way in list(self.looks.items()):
            if thread != threading.get_ident():
                under_way.wait(end - time.monotonic())


class Watching:
    """The watches of one dictionary, and the thread that refreshes it."""

    def __init__(self, scanner: Scanner, state: StoreState) -> None:
        self._scanner = scanner
        self._state = state
        self._span = _Span()

    def watch(self, owner: object, interval: float) -> Generator[set[str], None, None]:
        """See ``NfsDict.watch``. ``owner``: the dictionary, which lives as long as its watch."""
        looks, span = self.looks(owner)
        changes = self._changes(looks, interval, span)
        next(changes)
        return changes

    def _changes(
        self, looks: Generator[set[str], None, None], interval: float, span: _Span
    ) -> Generator[set[str], None, None]:
        with closing(looks):
            yield set()
            due = time.monotonic()
            while not span.ended.wait(due - time.monotonic()):
                due = time.monotonic() + interval
                changed = next(looks)
                if changed or self._scanner.barred:
                    yield changed

    def looks(self, owner: object) -> tuple[Generator[set[str], None, None], _Span]:
        """A watch that waits for nothing: each ``next`` looks, and gives what has changed, if
        anything. With the span at whose end it is to be closed."""
        looks, span = self._looks(owner, self._span), self._span
        next(looks)  # from here on it gathers news
        return looks, span

    def _looks(self, owner: object, span: _Span) -> Generator[set[str], None, None]:
        news: set[str] = set()
        failing = False
        changed: set[str] = set()
        try:
            self._state.news.begin_watch(news)
            while True:
                yield changed
                changed = set()
                if not self._scanner.barred:
                    failing = span.look(self._scanner, failing, OSError)
                    with self._state.locks.guard:
                        changed = self._state.news.take_from(news)
        finally:
            self._state.news.end_watch(news)

    def refresh_every(self, owner: object, seconds: float, begun: float | None) -> None:
        """Start the thread that refreshes until ``end``, or until ``owner`` is collected.

        ``begun``: when the opening's scan began, by ``time.monotonic``. RuntimeError if the system
        starts no thread. None if nothing was read: then the thread is started when ``owner`` is
        first used, as each of many values can refer to a dictionary that nobody uses; and that none
        can be started is logged.
        """
        span, scanner = self._span, weakref.ref(self._scanner)
        pool: list[threading.Thread] = []
        told = False

        def begin(begun: float) -> bool:
            if not pool:
                start(lambda: _refresh(scanner, span, seconds, begun), 1, pool)
            return bool(pool)

        def begin_at_use() -> bool:
            nonlocal told
            done = begin(time.monotonic())
            if not done and not told:
                told = True
                log.warning("no thread can be started for refresh_every: values grow older")
            return done

        weakref.finalize(owner, span.ended.set).atexit = False  # ``_exit`` does that, and waits
        if begun is None:
            self._state.begin_refreshing = begin_at_use
        elif not begin(begun):
            raise RuntimeError("no thread can be started for refresh_every")

    def end(self) -> None:
        """End all watches and the thread; wait for their refreshes under way, for 10 s at most.

        A call that has interrupted another one doesn't wait: the refresh may need its locks.
        """
        span, self._span = self._span, _Span()
        span.ended.set()
        self._state.begin_refreshing = None
        if not self._state.locks.interrupted:
            span.join(time.monotonic() + _PATIENCE)


def _refresh(find_scanner: weakref.ref[Scanner], span: _Span, seconds: float, begun: float) -> None:
    failing = False
    due = begun + seconds
    while not span.ended.wait(due - time.monotonic()):
        due = time.monotonic() + seconds
        scanner = find_scanner()
        if scanner is None:
            return
        failing = span.look(scanner, failing, Exception)
        del scanner  # while this waits, the dictionary may be collected


def _exit() -> None:
    """At the interpreter's exit: a refresh that is cut short would leave temporary files."""
    spans = list(_spans)
    for span in spans:
        span.ended.set()
    end = time.monotonic() + _PATIENCE
    for span in spans:
        span.join(end)


def _forked() -> None:
    """In a child: it has none of the threads that were refreshing."""
    for span in list(_spans):
        span.looks.clear()


atexit.register(_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
