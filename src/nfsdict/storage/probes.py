"""Probes: a private directory in which the doctor tries what a store needs of a file system.

A call that the system may refuse gives its errno, or 0 if it was carried out: which of the two is
right is judged elsewhere.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Callable

from ..layout import PROBES, Stamp, random_name, stamp_of
from ..opening import Opened, with_open
from .directories import DIRECTORY_FLAGS, READ_FLAGS

_CREATE = os.O_WRONLY | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
_SECONDS = 3.0  # for so long the private directory is tried to be removed


def _number(call: Callable[..., object], *arguments: object) -> int:
    try:
        call(*arguments)
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


def umask() -> int:
    """This process's umask. Without Linux's /proc it is 0o077 for a moment, for all threads."""
    with suppress(OSError, StopIteration), open("/proc/self/status", errors="replace") as lines:
        return int(next(line for line in lines if line.startswith("Umask:")).split()[1], 8)
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def takes_from_owner(mask: int) -> bool:
    """Whether such a umask keeps this user from using what he makes himself."""
    return mask & 0o700 != 0 and not is_root()


def _make_directory(path: str, mode: int = 0o777) -> None:
    """Make it; whatever the umask takes from others, the owner may do all there."""
    os.mkdir(path, mode)
    made = stat.S_IMODE(os.lstat(path).st_mode)
    if made & 0o700 != 0o700:
        _number(os.chmod, path, made | 0o700)


def _remove_tree(path: str) -> None:
    """Remove the directory and all in it. One directory is open at a time, as few descriptors may
    be left; ``shutil.rmtree`` opens one for each level."""

    def fail(error: OSError) -> None:
        raise error

    for directory, directories, files in os.walk(path, topdown=False, onerror=fail):
        for name in files:
            os.unlink(os.path.join(directory, name))
        for one in (os.path.join(directory, name) for name in directories):
            os.unlink(one) if os.path.islink(one) else os.rmdir(one)
    os.rmdir(path)


def is_in_group(group: int) -> bool:
    return group == os.getegid() or group in os.getgroups()


class OpenFile:
    """A file that is open to be read."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def read(self) -> bytes | int:
        """Its first bytes, or the errno."""
        try:
            return os.pread(self._descriptor, 100, 0)
        except OSError as error:
            return error.errno or errno.EIO


class Directory:
    """Calls on the names in one directory. Where nothing else is said they raise OSError."""

    def __init__(self, path: str) -> None:
        self.path = path

    def _of(self, name: str) -> str:
        return os.path.join(self.path, name)

    def subdirectory(self, name: str) -> Directory:
        """A directory that this call makes."""
        _make_directory(self._of(name))
        return Directory(self._of(name))

    # --- calls that may be refused: 0 or the errno ----------------------------------------------

    def create(self, name: str, mode: int = 0o666) -> int:
        """O_EXCL: refused where the name is there."""
        return _number(with_open, self._of(name), _CREATE | os.O_EXCL, os.fstat, mode)

    def link(self, name: str, other: str) -> int:
        return _number(os.link, self._of(name), self._of(other))

    def symlink(self, target: str, name: str) -> int:
        return _number(os.symlink, target, self._of(name))

    def rename(self, name: str, other: str) -> int:
        return _number(os.rename, self._of(name), self._of(other))

    def unlink(self, name: str) -> int:
        return _number(os.unlink, self._of(name))

    def change_mode(self, name: str, mode: int) -> int:
        return _number(os.chmod, self._of(name), mode)

    def give_to_group(self, name: str, group: int) -> int:
        return _number(lambda: os.chown(self._of(name), -1, group))

    def open_unfollowed(self, name: str) -> int:
        """O_NOFOLLOW: refused where the name is a symbolic link."""
        return _number(with_open, self._of(name), READ_FLAGS, os.fstat)

    def sync(self) -> int:
        """fsync of the directory."""
        return _number(with_open, self.path, DIRECTORY_FLAGS, os.fsync)

    def fill(self, name: str, size: int) -> int:
        """Write so many bytes, durably, and remove them."""
        try:
            return _number(self.write, name, bytes(size))
        finally:
            self.unlink(name)

    # --- calls that the probes rest on -----------------------------------------------------------

    def write(self, name: str, data: bytes) -> os.stat_result:
        """Write a file in place, durably, that the owner may read whatever the umask is. Its
        attributes when it was written."""

        def write(descriptor: int) -> os.stat_result:
            left = memoryview(data)
            while left:
                left = left[os.write(descriptor, left) :]
            os.fsync(descriptor)
            made = stat.S_IMODE(os.fstat(descriptor).st_mode)
            if made & 0o600 != 0o600:
                self.change_mode(name, made | 0o600)
            return os.fstat(descriptor)

        return with_open(self._of(name), _CREATE | os.O_TRUNC, write)

    def read(self, name: str) -> bytes | None:
        """The first bytes of a file; None if there is none."""
        try:
            with self.opened(name) as file:
                content = file.read()
        except FileNotFoundError:
            return None
        if isinstance(content, int):
            raise OSError(content, os.strerror(content), self._of(name))
        return content

    @contextmanager
    def opened(self, name: str) -> Iterator[OpenFile]:
        opened = Opened()
        try:
            yield OpenFile(opened.open(self._of(name), READ_FLAGS))
        finally:
            opened.close()

    def status(self, name: str = "") -> os.stat_result | None:
        """The attributes of what has this name; None if nothing has."""
        try:
            return os.lstat(self._of(name) if name else self.path)
        except FileNotFoundError:
            return None

    def touch(self, name: str) -> int:
        """utime(NULL): the file's mtime afterwards, in ns."""
        os.utime(self._of(name))
        return os.lstat(self._of(name)).st_mtime_ns

    def stamp(self) -> Stamp:
        """The directory's stamp, by the server's word."""
        return stamp_of(with_open(self.path, DIRECTORY_FLAGS, os.fstat))

    def has_room_for(self, name: str) -> bool:
        """Whether this system takes a path as long as this name's here."""
        return len(os.fsencode(self._of(name))) < os.pathconf(self.path, "PC_PATH_MAX")

    def other_group(self) -> int | None:
        """A group of this process that isn't its first one; any for root. None if there is none."""
        first = os.getegid()
        groups = [group for group in os.getgroups() if group != first]
        return groups[0] if groups else first + 1 if is_root() else None


class PrivateDirectory(Directory):
    """A private directory for the probes, below the one that is examined."""

    def __init__(self, parent: str, name: str | None = None) -> None:
        self.name = name or random_name()
        super().__init__(os.path.join(parent, PROBES + self.name))

    def make(self, mode: int = 0o777) -> None:
        _make_directory(self.path, mode)

    def remove(self) -> None:
        """Remove the directory and all in it, whatever signals come meanwhile: the exception of a
        handler is raised at the end. OSError if something is left after some tries."""
        interrupted: BaseException | None = None
        end, pause = time.monotonic() + _SECONDS, 0.0
        while os.path.lexists(self.path):
            try:
                time.sleep(pause)
                _remove_tree(self.path)
            except OSError:
                # Another host may just be writing there, and SMB shows removed names for a moment.
                # Or it was interrupted before it had its mode.
                _number(os.chmod, self.path, 0o700)
                pause = 0.05
                if time.monotonic() > end:
                    raise
            except BaseException as error:
                interrupted = error
        if interrupted is not None:
            raise interrupted


def space(path: str) -> os.statvfs_result:
    return os.statvfs(path)


def check_directory(path: str) -> None:
    """FileNotFoundError, NotADirectoryError or another OSError unless this is a directory.

    An automounter that waits for somebody to use the directory mounts it.
    """
    if not stat.S_ISDIR(os.stat(path).st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
    with suppress(OSError):  # stat alone asks for no mount
        with_open(path, DIRECTORY_FLAGS, os.fstat)


def same_device(path: str, other: str) -> bool:
    return device(path) == device(other)


def device(path: str) -> int:
    return os.stat(path).st_dev


@contextmanager
def local_directory() -> Iterator[str]:
    """A temporary directory where this system has such, removed at the end as a private one."""
    directory = PrivateDirectory(tempfile.gettempdir())
    try:
        directory.make(0o700)
        yield directory.path
    finally:
        directory.remove()
