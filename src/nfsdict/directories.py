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
  synchronous (fs/nfs/dir.c); opening the directory for it costs a GETATTR. It is left out there,
  and on tmpfs, where no fsync does anything (mm/shmem.c).
- Its clock is not the server's. Times on files are compared with such times only, see ``clock``.
- On NFSv3 a directory's mtime and ctime tell the client that it changed. Two changes in one tick of
  the server's clock look like one: what was missed or listed between them is remembered after any
  revalidation. Touching the directory (utime, chmod, a file made and removed there) doesn't help,
  as the client takes its own changes for the only ones. Dropping its cached pages does
  (posix_fadvise): then it reads the directory anew by READDIRPLUS, whose answer also replaces what
  was remembered of the names in it (fs/nfs/dir.c, nfs_prime_dcache). Done for every listing there,
  and after a miss as long as the directory's ctime may come again, and once more after that.
  NFSv4 has a change attribute in place of the times, which Linux's server makes of the ctime where
  the file system keeps no version (tmpfs; ext4 before Linux 6.1): it is met in the same way.
- It carries what it remembers of a name along when it renames it, also where the server, which goes
  by the name, has renamed another file that had replaced that one (fs/nfs/dir.c, nfs_rename). So
  what was renamed is read after the directory was read anew, in the way told above.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from typing import Callable, TypeVar

from .clock import Clock
from .core import list_directory

T = TypeVar("T")

STALE = (errno.ESTALE, errno.EBADF)
# A file replaced without pause can be stale at each try; so often in a row is no accident.
TRIES = 20
_PAUSE = 0.005
_FLAGS = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)
NFS = ("nfs", "nfs4")
_NO_SYNC_NEEDED = (*NFS, "tmpfs")
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


def _read_anew(descriptor: int, name: str) -> bool:
    """Whether the directory has this name, its listing forgotten by the client and read anew."""
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    found = False
    with os.scandir(descriptor) as entries:
        for entry in entries:
            found = found or entry.name == name
            # Who asks for attributes gets READDIRPLUS, in a long directory to its end.
            _attributes(entry)
    return found


def _attributes(entry: os.DirEntry[str]) -> os.stat_result | None:
    """Of the entry itself; None if it has just been removed."""
    try:
        return entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None


class Directories:
    """One directory and those in it. Safe for threads.

    ``times`` is what the server's clock showed. ``mode`` is the permission bits for files, None for
    what the umask leaves; directories get the same and x where r is. ``durable`` is whether a
    change is made to survive a power cut.
    """

    def __init__(self, directory: str, mode: int | None, durable: bool) -> None:
        self.directory = directory
        self._mode = mode
        self._durable = durable
        self.times = Clock()
        self._file_system: str | None = None
        # Directories that were looked at while their ctime, kept here, could still come again.
        self._racy: dict[str, int] = {}

    def check(self) -> None:
        """FileNotFoundError or NotADirectoryError unless the store's directory is there."""
        if not stat.S_ISDIR(os.stat(self.directory).st_mode):
            raise failure(errno.ENOTDIR, self.directory)

    def status(self) -> os.stat_result | None:
        """Of the store's directory, which was just looked up; None if it can't be told."""
        try:
            return os.stat(self.directory)
        except OSError:
            return None

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

    def _mounted_as(self, path: str) -> str:
        if not self._file_system:  # it couldn't be told: the directory wasn't there yet
            self._file_system = mounted_as(path)
        return self._file_system

    def _synchronous(self, path: str) -> bool:
        """Whether directory operations here need no fsync, or can't have one (Windows)."""
        return os.name == "nt" or self._mounted_as(path) in _NO_SYNC_NEEDED

    def _over_nfs(self) -> bool:
        """Whether a client stands between, which may know by a directory's times alone that it
        changed."""
        return self._mounted_as(self.directory) in NFS

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

    def _revalidate(self, path: str) -> os.stat_result | None:
        """Have the client ask the server what the directory's state is: one GETATTR.

        None if there is no such directory. ``stat`` would answer from the attribute cache, and
        ``fstat`` of a descriptor held open as well.
        """
        if os.name == "nt":
            return os.stat(path) if os.path.isdir(path) else None
        try:
            descriptor = self._again(lambda path: os.open(path, _FLAGS), path)
        except FileNotFoundError:
            return None
        try:
            status = os.fstat(descriptor)
            self.times.seen(status.st_ctime_ns)
            return status
        finally:
            os.close(descriptor)

    def _listed(self, directory: str) -> tuple[int, int, list[tuple[str, int, bytes, int]]]:
        """Its mtime and ctime, and its entries; see the core's ``list_directory``.

        OSError if it can't be listed.
        """
        found = self._list(directory)
        if self._over_nfs() and not self.times.passed(found[1]):
            found = self._list(directory)  # see _may_have
        return found

    def _list(self, directory: str) -> tuple[int, int, list[tuple[str, int, bytes, int]]]:
        found = list_directory(directory, self._over_nfs())
        if isinstance(found, int):
            raise failure(found, directory)
        self.times.seen(found[1])
        return found

    def _relearn(self, path: str) -> None:
        """Have an NFS client learn anew what this name stands for, which is there."""
        directory, name = os.path.split(path)
        for _ in range(TRIES if self._over_nfs() else 0):
            if any(found == name for found, *_ in self._again(self._listed, directory)[2]):
                break

    def _look_again(self, path: str) -> bool:
        """After a miss: revalidate the file's directory. Whether it is worth looking once more.

        FileNotFoundError if the whole store is gone, an unmounted file system for example:
        that isn't the absence of a key.
        """
        shard, name = os.path.split(path)
        found = self._look_into(shard, name)
        if found is None:
            # The shard, too, can be a name that was missed within one tick.
            there = self._look_into(self.directory, os.path.basename(shard))
            if there is None:
                raise failure(errno.ENOENT, self.directory)
            found = there and self._look_into(shard, name)
        return bool(found)

    def _look_into(self, directory: str, name: str) -> bool | None:
        """Revalidate the directory. Whether it may have this name, None if it isn't there."""
        if not self._over_nfs():
            return None if self._revalidate(directory) is None else True
        try:
            return self._again(lambda path: self._may_have(path, name), directory)
        except FileNotFoundError:
            return None

    def _may_have(self, directory: str, name: str) -> bool:
        descriptor = os.open(directory, _FLAGS)
        try:
            stamp = os.fstat(descriptor).st_ctime_ns
            self.times.seen(stamp)
            passed = self.times.passed(stamp)
            if passed and self._racy.get(directory) != stamp:
                return True
            self._racy[directory] = stamp
            # What is being read at this moment, for another process of this host, isn't dropped but
            # waited for, and may have been asked for before the change. The second one drops it.
            found = _read_anew(descriptor, name)
            if not found and not passed:
                found = _read_anew(descriptor, name)
            if passed:
                self._racy.pop(directory, None)
            return found
        finally:
            os.close(descriptor)

    def _again(self, call: Callable[[str], T], path: str) -> T:
        """The call's result for this path, ESTALE ridden out.

        The path alone doesn't help on NFSv4.1 and later: the client goes on using the stale handle
        until its directory was revalidated.
        """
        for number in range(TRIES - 1):
            try:
                return call(path)
            except OSError as error:
                if error.errno not in STALE:
                    raise
            self._after_stale(path, number)
        return call(path)

    def _after_stale(self, path: str, number: int) -> None:
        """Before another try, after so many: what was revalidated within one tick of a change may
        be as stale as before, so later tries wait for the tick to pass."""
        if number > 2:
            time.sleep(_PAUSE)
        if path != self.directory:
            self._revalidate(os.path.dirname(path))
