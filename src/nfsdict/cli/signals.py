"""Signals that end a command as an exception does, which clears away."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def end(number: int, _: object) -> None:
    """A signal's handler."""
    sys.exit(128 + number)


def _ending() -> list[signal.Signals]:
    """The signals that end a process, as far as this system has them."""
    names = ("SIGTERM", "SIGHUP")
    return [getattr(signal, name) for name in names if hasattr(signal, name)]


def end_on_signals() -> None:
    """Have those that end a process, if nobody else handles or ignores them, call ``end``."""
    for number in _ending():
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, end)


@contextmanager
def noted_signals() -> Iterator[list[int]]:
    """Have those that call ``end`` noted in this list; the first one ends the process after the
    block. So none comes between two steps of it."""
    noted: list[int] = []
    numbers = [number for number in _ending() if signal.getsignal(number) == end]
    for number in numbers:
        signal.signal(number, lambda number, _: noted.append(number))
    try:
        yield noted
    finally:
        for number in numbers:
            signal.signal(number, end)
        if noted:
            end(noted[0], None)
