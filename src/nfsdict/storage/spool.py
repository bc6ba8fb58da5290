"""Spool: bytes that one process puts aside for itself, in a temporary file of the store.

It is neither durable nor for others. A process that is killed leaves the file, which ``repair``
sweeps as it does other temporary files.
"""

from __future__ import annotations

import os
import weakref
from contextlib import suppress

from ..layout import temporary_name
from ..opening import with_open
from .descriptors import read_at
from .directories import READ_FLAGS
from .files import WRITE_FLAGS

# Up to this many bytes are held in memory; less cause no call to the disk.
_BUFFER = 1 << 20


class Spool:
    """Used by one thread at a time. Its file is removed when the spool is, or at exit."""

    def __init__(self, directory: str) -> None:
        self._path = os.path.join(directory, temporary_name())
        self._process = os.getpid()
        self._parts: list[bytes] = []
        self._buffered = 0
        self._written = 0
        self._finalizer: weakref.finalize[..., Spool] | None = None

    @property
    def size(self) -> int:
        """Bytes that were appended."""
        return self._written + self._buffered

    @property
    def inherited(self) -> bool:
        """Whether it belongs to the process from which this one was forked."""
        return self._process != os.getpid()

    def append(self, data: bytes) -> int:
        """Append these bytes. Returns their offset. On OSError the caller removes the spool."""
        offset = self.size
        self._parts.append(data)
        self._buffered += len(data)
        if self._buffered >= _BUFFER:
            if self._finalizer is None:
                self._finalizer = weakref.finalize(self, _remove, self._path, self._process)
            with_open(self._path, WRITE_FLAGS | os.O_APPEND, self._write, 0o600)
            self._written += self._buffered
            self._parts, self._buffered = [], 0
        return offset

    def _write(self, descriptor: int) -> None:
        view = memoryview(b"".join(self._parts))
        while view:
            view = view[os.write(descriptor, view) :]

    def remove(self) -> None:
        """Remove the file."""
        if self._finalizer is not None:
            self._finalizer()

    def read_at(self, offset: int, size: int) -> bytes:
        """These bytes, or fewer if the file was cut short. OSError if they can't be read."""
        if offset >= self._written:
            self._parts = [b"".join(self._parts)]
            return self._parts[0][offset - self._written :][:size]
        found = with_open(
            self._path, READ_FLAGS, lambda descriptor: read_at(descriptor, size, offset)
        )
        rest = size - len(found)
        return found + b"".join(self._parts)[:rest] if rest else found


def _remove(path: str, process: int) -> None:
    if process == os.getpid():
        with suppress(OSError):
            os.unlink(path)
