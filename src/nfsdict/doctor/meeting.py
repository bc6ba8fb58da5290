"""Meeting: two hosts that speak by turns, through files in one directory.

The first one asks and the second one answers, so each message is written after the one before was
read: their times must grow, unless they come from clocks that differ.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from ..errors import described
from ..storage.mailbox import Mailbox
from ..storage.probes import Directory
from .report import FULL

# Seconds between two looks for a message.
_SHORTEST, _LONGEST, _LONGER = 0.001, 0.2, 1.2

Message = dict[str, Any]
_NO_ROOM = "no room"


class Silence(Exception):
    """The other host wasn't heard of in time."""


class NoRoom(Exception):
    """A host has no room for what is tried: the text says what failed."""


class Meeting:
    """One side of it: ``me`` is "first" or "second". ``wait``: seconds without a word after which
    the other one counts as gone."""

    def __init__(self, directory: str, me: str, wait: float) -> None:
        self._mailbox = Mailbox(directory)
        self._directory = Directory(directory)
        self._wait = wait
        self._me, self._other = me, "second" if me == "first" else "first"
        self._said = self._heard = 0
        self._latest = 0
        self.backwards = 0
        """ns by which a message's time was earlier than that of one before it, at most"""

    def say(self, message: Message) -> None:
        """Send a message. OSError if it can't be written; NoRoom if there is none, of which the
        other one is told."""
        try:
            self._send(message)
        except OSError as error:
            if error.errno not in FULL:
                raise
            self._directory.unlink(f"{self._me}-1")  # it was read, and makes way
            with suppress(OSError):
                self._send({_NO_ROOM: described(error)})
            raise NoRoom(described(error)) from error

    def _send(self, message: Message) -> None:
        name = f"{self._me}-{self._said + 1}"
        self._note(self._mailbox.send(name, json.dumps({"name": name, **message}).encode()))
        self._said += 1

    def hear(self) -> Message:
        """The other's next message. Silence if it doesn't come in time; OSError if it can't be
        looked for: the directory is gone. NoRoom if the other one had none for its message."""
        name = f"{self._other}-{self._heard + 1}"
        end = time.monotonic() + self._wait
        for pause in _pauses():
            message = self._receive(name)
            if message is not None:
                self._heard += 1
                if _NO_ROOM in message:
                    raise NoRoom(message[_NO_ROOM])
                return message
            if time.monotonic() > end:
                raise Silence
            time.sleep(pause)
        raise AssertionError

    def _receive(self, name: str) -> Message | None:
        found = self._mailbox.receive(name)
        if found is None:
            return None
        try:
            message = json.loads(found[0])
        except ValueError:
            return None
        if not isinstance(message, dict) or message.get("name") != name:
            return None  # a client that serves another file's content, as SMB's does
        self._note(found[1])
        return message

    def _note(self, moment: int) -> None:
        self.backwards = max(self.backwards, self._latest - moment)
        self._latest = max(self._latest, moment)


def _pauses() -> Iterator[float]:
    pause = _SHORTEST
    while True:
        yield pause
        pause = min(_LONGER * pause, _LONGEST)
