"""Directories: made, revalidated and made durable as NFS demands. The base of ``Store``.

What a Linux NFS client does, and what is done about it here and in ``store``:

- It remembers that a name was missing, for up to a minute. So a miss counts only after the
  directory was revalidated, which opening it does (close-to-open consistency, nfs(5)).
- A file or a directory that another host replaced or removed gives ESTALE, or EBADF while reading
  after an NFSv4 server's restart. Both are met by starting again from the path, its directory
  revalidated: without that NFSv4.1 and later go on using the stale handle.
- A call that the server carried out can report an error when its reply was lost: mkdir EEXIST,
  rename ENOENT, unlink ENOENT. What lies on the disk then tells.
- A write can fail as late as fsync or close.
- A directory's fsync does nothing on Linux's NFS client, whose directory operations are
  synchronous (fs/nfs/dir.c); opening the directory for it costs a GETATTR. It is left out there.
- Its clock is not the server's. Times are compared with ``Store.clock`` only.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Callable, TypeVar

T = TypeVar("T")

STALE = (errno.ESTALE, errno.EBADF)
# A file replaced without pause can be stale at each try; so often in a row is no accident.
TRIES = 10
_FLAGS = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)
# What file systems without an fsync for directories answer.
_NO_DIRECTORY_SYNC = frozenset((errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP))


def failure(number: int, path: str) -> OSError:
    """The OSError, or the subclass of it, that stands for this errno."""
    return OSError(number, os.strerror(number), path)


def mounted_as(path: str) -> str:
    """The type of the file system that holds the path ("nfs4", "ext4"), "" if it can't be told.

    On Linux, see proc_pid_mountinfo(5).
    """
    try:
        device = os.stat(path).st_dev
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
            for mount in mounts:
                fields = mount.split(" - ")
                if fields[0].split()[2] == f"{os.major(device)}:{os.minor(device)}":
                    return fields[1].split()[0]
    except (OSError, IndexError):
        pass
    return ""


class Directories:
    """One directory and those in it. Safe for threads.

    ``mode`` is the permission bits for files, None for what the umask leaves; directories get the
    same and x where r is. ``durable`` is whether a change is made to survive a power cut.
    """

    def __init__(self, directory: str, mode: int | None, durable: bool) -> None:
        self.directory = directory
        self._mode = mode
        self._durable = durable
        self._operations_synchronous: bool | None = None

    def check(self) -> None:
        """FileNotFoundError or NotADirectoryError unless the store's directory is there."""
        if not stat.S_ISDIR(os.stat(self.directory).st_mode):
            raise failure(errno.ENOTDIR, self.directory)

    def create(self) -> None:
        """Make the store's directory and its parents, unless they are there.

        NotADirectoryError if a file is in the way.
        """
        missing = []
        path = self.directory
        while not os.path.isdir(path):
            missing.append(path)
            path, name = os.path.split(path)
            if not name:
                break
        try:
            for path in reversed(missing):
                self._make_directory(path)
        except FileExistsError as error:
            raise failure(errno.ENOTDIR, path) from error

    def _make_directory(self, path: str) -> None:
        """mkdir, durable. One that is there already is as good: somebody was faster, or the
        reply to our own call was lost."""
        try:
            os.mkdir(path)
            if self._mode is not None:
                readable = self._mode & 0o444
                # chmod would clear a setgid bit that the parent gave.
                setgid = os.stat(path).st_mode & stat.S_ISGID
                os.chmod(path, self._mode | readable >> 2 | setgid)
        except FileExistsError:
            if not os.path.isdir(path):
                raise
        if self._durable:
            self._sync_directory(os.path.dirname(path))

    def _synchronous(self, path: str) -> bool:
        """Whether directory operations here need no fsync, or can't have one (Windows)."""
        if self._operations_synchronous is None:
            self._operations_synchronous = os.name == "nt" or mounted_as(path).startswith("nfs")
        return self._operations_synchronous

    def _sync_directory(self, path: str) -> None:
        if self._synchronous(path):
            return
        descriptor = os.open(path, _FLAGS)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in _NO_DIRECTORY_SYNC:
                raise
        finally:
            os.close(descriptor)

    def _revalidate(self, path: str) -> int | None:
        """Have the client ask the server what the directory's state is: one GETATTR.

        Gives the mtime in ns, None if there is no such directory. ``stat`` would answer from the
        attribute cache, and ``fstat`` of a descriptor held open as well.
        """
        if os.name == "nt":
            return os.stat(path).st_mtime_ns if os.path.isdir(path) else None
        try:
            descriptor = self._again(lambda path: os.open(path, _FLAGS), path)
        except FileNotFoundError:
            return None
        try:
            return os.fstat(descriptor).st_mtime_ns
        finally:
            os.close(descriptor)

    def _look_again(self, shard: str) -> bool:
        """After a miss: revalidate the shard directory. Whether it is worth looking once more.

        FileNotFoundError if the whole store is gone, an unmounted file system for example:
        that isn't the absence of a key.
        """
        if self._revalidate(shard) is not None:
            return True
        if self._revalidate(self.directory) is None:
            raise failure(errno.ENOENT, self.directory)
        return self._revalidate(shard) is not None

    def _again(self, call: Callable[[str], T], path: str) -> T:
        """The call's result for this path, ESTALE ridden out.

        The path alone doesn't help on NFSv4.1 and later: the client goes on using the stale handle
        until its directory was revalidated.
        """
        for _ in range(TRIES - 1):
            try:
                return call(path)
            except OSError as error:
                if error.errno not in STALE:
                    raise
            if path != self.directory:
                self._revalidate(os.path.dirname(path))
        return call(path)
