"""Logs: when the logger ``nfsdict`` tells what, and what a call has cost.

Modules log by ``logging.getLogger("nfsdict")``, wherever they are. A handler of log records is
users' code, which may use the dictionary, or wait for a thread that does. So a filter of the logger
keeps back the records of a thread that is inside a call which takes locks; they are handed out when
the call has ended, by whichever thread comes first. Those of threads that work for a call are kept
back too, as a handler may have made that call, and holds its lock. A handler that uses a dictionary
itself isn't told of that, or it would have no end.

Levels: DEBUG for each call of a dictionary (see ``told``), but not for reads of cached values, as a
look at the level would take longer than they do; INFO for what took a second or more, and for what
was decided; WARNING for what a person should act on.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from functools import wraps
from typing import Any, Callable, Protocol, TypeVar, cast

from .core import MISSING
from .errors import described
from .locks import in_a_call

F = TypeVar("F", bound=Callable[..., Any])

log = logging.getLogger("nfsdict")
INFO = logging.INFO
_NAME = "nfsdict.logs"  # of the filter

# A call that took so many seconds is told of at INFO.
_LONG = 1.0
# Of more records that are kept back the oldest go.
_MOST = 10_000

kept_back: deque[logging.LogRecord] = deque(maxlen=_MOST)


class _Mine(threading.local):
    record: logging.LogRecord | None = None
    """the record that this thread, or the one that it works for, is handing out"""
    works = False
    """whether it works for another one"""


_mine = _Mine()


class _Gate(logging.Filter):
    """Keeps back the records of a thread that may hold locks."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record is _mine.record:
            return True
        if _mine.record is not None:
            return False
        if _mine.works or in_a_call():
            kept_back.append(record)
        else:
            emit()
            _hand_out(record)
        return False


def handed_out() -> logging.LogRecord | None:
    """What the calling thread is handing out; for ``work_for``."""
    return _mine.record


def work_for(record: logging.LogRecord | None) -> None:
    """Note in a new thread that it works for one that is handing out this record, if any."""
    _mine.works, _mine.record = True, record


def emit() -> None:
    """Hand out the records that were kept back, unless this thread may hold locks."""
    if _mine.works or _mine.record is not None or in_a_call():
        return
    while kept_back:
        try:
            record = kept_back.popleft()
        except IndexError:  # another thread was faster
            return
        _hand_out(record)


def _hand_out(record: logging.LogRecord) -> None:
    try:
        _mine.record = record
        log.handle(record)
    finally:
        _mine.record = None


for _one in list(log.filters):
    if isinstance(_one, logging.Filter) and _one.name == _NAME:
        log.removeFilter(_one)  # of the package as it was imported before, for the other core
log.addFilter(_Gate(_NAME))
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=kept_back.clear)  # the parent tells of them


class Store(Protocol):
    """What of ``Storage`` is used here."""

    directory: str

    def calls_sent(self) -> int | None: ...


class Operation:
    """One call, which is told of when it ends. A context manager.

    Calls to the server are counted at DEBUG, on NFS mounts: those that this host has sent over the
    mount meanwhile, those of other threads and processes among them.
    """

    def __init__(self, store: Store, name: str, about: str = "") -> None:
        self._store = store
        self._name = f"{name} {about}" if about else name
        self.outcome = ""
        """what came of it, if that is known by its end"""
        self._sent: int | None = None
        self._began = 0.0

    def __enter__(self) -> Operation:
        if log.isEnabledFor(logging.DEBUG):
            self._sent = self._store.calls_sent()
        self._began = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: object
    ) -> None:
        seconds = time.perf_counter() - self._began
        level = INFO if seconds >= _LONG else logging.DEBUG
        if log.isEnabledFor(level):
            now = None if self._sent is None else self._store.calls_sent()
            calls = "" if now is None or self._sent is None else f", {now - self._sent} calls"
            outcome = described(error) if error is not None else self.outcome
            log.log(
                level,
                "%s: %s: %s%.2f ms%s",
                self._store.directory,
                self._name,
                outcome and f"{outcome}, ",
                1000 * seconds,
                calls,
            )
        emit()


def told(name: str, second: str = "") -> Callable[[F], F]:
    """A decorator: calls of this method of ``NfsDict`` are told of, by this name.

    The record has the first argument, if that is a key or has one; the word ``second``, if the
    second argument is true; and the result, if it is MISSING, a bool, or a number of keys. While
    nobody is to be told it costs a call, and a look at the logger's level, which that remembers.

    A method whose result would be lost with an exception that a signal handler raises, such as
    ``pop``, has an inner one decorated, around which it has undone what it did.
    """

    def decorate(method: F) -> F:
        @wraps(method)
        def call(self: Any, /, *arguments: Any, **options: Any) -> Any:
            try:
                if not log.isEnabledFor(INFO):
                    return method(self, *arguments, **options)
                about = _about(arguments)
                if second and len(arguments) > 1 and arguments[1]:
                    about += f" {second}"
                with Operation(self._storage, name, about) as operation:
                    result = method(self, *arguments, **options)
                    operation.outcome = _outcome(result)
                    return result
            finally:
                if kept_back:
                    emit()

        return cast(F, call)

    return decorate


def _about(arguments: tuple[Any, ...]) -> str:
    first = arguments[0] if arguments else None
    key = getattr(first, "key", first)
    return f"{key!r:.200}" if isinstance(key, str) else ""


def _outcome(result: Any) -> str:
    if result is MISSING:
        return "missing"
    if isinstance(result, bool):
        return str(result)
    if isinstance(result, (set, list)):
        return f"{len(result)} found"
    return ""
