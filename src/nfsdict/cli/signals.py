"""Signals that end a command as an exception does, which clears away."""

from __future__ import annotations

import signal
import sys


def end(number: int, _: object) -> None:
    """A signal's handler."""
    sys.exit(128 + number)


def end_on_signals() -> None:
    """Have those that end a process, if nobody else handles or ignores them, call ``end``."""
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) == signal.SIG_DFL:
            signal.signal(getattr(signal, name), end)
