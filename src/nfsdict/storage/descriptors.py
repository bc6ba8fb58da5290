"""Descriptors: calls of POSIX on an open file, and what is done on Windows, which lacks them."""

from __future__ import annotations

import os
import threading

_POSITION = threading.Lock()
"""held between moving a descriptor's position and reading there"""


def read_at(descriptor: int, size: int, offset: int) -> bytes:
    """At most so many bytes from there on. Threads may read from one descriptor at once."""
    if hasattr(os, "pread"):
        return os.pread(descriptor, size, offset)
    with _POSITION:
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.read(descriptor, size)


def set_mode(descriptor: int, mode: int) -> None:
    """Give the file these permission bits. Windows has none, and leaves that to its directory."""
    if hasattr(os, "fchmod"):
        os.fchmod(descriptor, mode)
