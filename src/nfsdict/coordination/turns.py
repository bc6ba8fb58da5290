"""Turns: of the processes of one host that wait for the same, one at a time asks the server.

Who has the turn has bound a Unix socket to an abstract name (unix(7)). The kernel gives a name to
one process at a time, and takes it back when that process ends; no file is left. Other systems than
Linux have no such names: there each process has a turn of its own.
"""

from __future__ import annotations

import errno
import os
import random
import sys
import time
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..core import digest

if TYPE_CHECKING:
    import socket

# Seconds between two tries to have the turn, shorter ones first. No server is asked.
_SHORTEST, _LONGEST = 0.005, 0.05

_turns: weakref.WeakSet[Turn] = weakref.WeakSet()


class Turn:
    """The turn of one who waits. A context manager, which passes the turn on at the end.

    Args:
        about: what is waited for, the same for all who wait for it; the host's name among it, if
            several hosts may share a network namespace.
    """

    def __init__(self, *about: str) -> None:
        name = digest("\0".join(about))
        self._name = f"\0nfsdict-{name}"
        self._socket: socket.socket | None = None
        _turns.add(self)

    def taken(self) -> bool:
        """Whether this one has the turn: it takes it if nobody has."""
        if self._socket is None and sys.platform == "linux":
            import socket  # takes long, and who needn't wait needs none

            mine = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            try:
                mine.bind(self._name)
            except OSError as error:
                mine.close()
                return error.errno != errno.EADDRINUSE
            self._socket = mine
        return True

    def await_(self, seconds: float) -> None:
        """Wait until this one has the turn, at most for so long."""
        for pause in self.pauses(seconds):
            time.sleep(pause)

    def pauses(self, seconds: float) -> Iterator[float]:
        """``await_`` for one who sleeps in another way: seconds to sleep before it asks again."""
        end = time.monotonic() + seconds
        pause = _SHORTEST
        while not self.taken() and time.monotonic() < end:
            yield random.uniform(0.5, 1.0) * pause
            pause = min(1.5 * pause, _LONGEST)

    def pass_on(self) -> None:
        """Let the next one have it. Nothing if this one doesn't have it."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def __enter__(self) -> Turn:
        return self

    def __exit__(self, *exc: object) -> None:
        self.pass_on()


def _leave_to_parent() -> None:
    for turn in list(_turns):
        turn.pass_on()


if hasattr(os, "register_at_fork"):
    # A child would keep the name for as long as it lives.
    os.register_at_fork(after_in_child=_leave_to_parent)
