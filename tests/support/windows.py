"""Windows, as far as a POSIX system can play it: what its ``os`` lacks, and what it refuses.

Names of POSIX are missing; a directory can't be opened; a file that is open, as Python opens it,
can be neither removed, renamed nor replaced (EACCES, a sharing violation); links can't be made.
Paths and times are the system's own.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
import types
from typing import Any

import pytest

MISSING = [
    *("O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "O_PATH"),
    *("fchmod", "fork", "geteuid", "getuid", "posix_fadvise", "pread", "preadv", "pwrite"),
    *("register_at_fork", "sched_getaffinity", "statvfs", "uname", "writev"),
]


class Windows(types.ModuleType):
    """A module in the place of ``os``."""

    name = "nt"
    O_BINARY = 0

    def __init__(self) -> None:
        super().__init__("os")
        self._open: dict[int, str] = {}
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        if name in MISSING:
            raise AttributeError(f"module 'os' has no attribute {name!r}")
        return getattr(os, name)

    def open(self, path: Any, flags: int, mode: int = 0o777) -> int:
        if os.path.isdir(path):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        with self._lock:
            descriptor = os.open(path, flags, mode)
            self._open[descriptor] = os.path.realpath(path)
        return descriptor

    def close(self, descriptor: int) -> None:
        with self._lock:
            self._open.pop(descriptor, None)
            os.close(descriptor)

    def scandir(self, path: Any) -> Any:
        if isinstance(path, int):
            raise TypeError("scandir: path should be string, not int")
        return os.scandir(path)

    def _unshared(self, *paths: Any) -> None:
        """PermissionError if one of the files is open. Called with the lock."""
        for path in paths:
            if os.path.realpath(path) in self._open.values():
                raise PermissionError(errno.EACCES, "Permission denied", path)

    def unlink(self, path: Any) -> None:
        with self._lock:
            self._unshared(path)
            os.unlink(path)

    remove = unlink

    def replace(self, source: Any, target: Any) -> None:
        with self._lock:
            self._unshared(source, target)
            if os.path.isdir(target):
                raise PermissionError(errno.EACCES, "Permission denied", target)
            os.replace(source, target)

    def rename(self, source: Any, target: Any) -> None:
        with self._lock:
            self._unshared(source)
            if os.path.lexists(target):
                raise FileExistsError(errno.EEXIST, "File exists", target)
            os.rename(source, target)

    def symlink(self, target: Any, path: Any) -> None:
        raise OSError(errno.EINVAL, "A required privilege is not held by the client", path)


def play(patch: pytest.MonkeyPatch) -> None:
    """From now on the modules of nfsdict that are imported see Windows."""
    system = Windows()
    for name, module in list(sys.modules.items()):
        if name.startswith("nfsdict") and getattr(module, "os", None) is os:
            patch.setattr(module, "os", system)
    storage = "nfsdict.storage"
    mounts, mounted = (sys.modules[f"{storage}.{name}"] for name in ("mounts", "mounted"))
    patch.setattr(
        sys.modules[f"{storage}.file_systems"], "sys", types.SimpleNamespace(platform="win32")
    )
    patch.setattr(mounted, "mount_of", lambda path: mounts.Mount(""))  # there is no /proc
