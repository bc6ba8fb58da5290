"""Mailbox: messages between two hosts, as files in one directory.

Each message has a name that nobody has asked for before it is there, and is found by listing the
directory anew, as that is the least that a client's memory can spoil.
"""

from __future__ import annotations

import os

from ..errors import failure
from .coherence import Coherence
from .files import Files


class Mailbox:
    """The messages in one directory. OSError from any call: the directory is gone, say."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self._rules = Coherence(directory)
        self._files = Files(self._rules, directory, mode=None, durable=False)

    def send(self, name: str, data: bytes) -> int:
        """Write a message, whole or not at all. Its mtime in ns."""
        path = self._path(name)
        [outcome] = self._files.write_once([(path, data)])
        if isinstance(outcome, tuple):
            raise failure(outcome[1], path)
        # As ``receive`` has it: SMB's client gives fstat whole seconds and lstat fine ones.
        return os.lstat(path).st_mtime_ns

    def receive(self, name: str) -> tuple[bytes, int] | None:
        """A message and its mtime in ns; None while there is none of that name."""
        if all(name != found for found, *_ in self._rules.list_twice(self.directory)[2]):
            return None
        path = self._path(name)
        [found] = self._files.read_paths([path])
        if isinstance(found, OSError):
            raise found
        return None if found is None else (bytes(found[0]), os.lstat(path).st_mtime_ns)

    def _path(self, name: str) -> str:
        return os.path.join(self.directory, name)
