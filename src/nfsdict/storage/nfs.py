"""NFS: the rules by which another host's changes are seen, each with its reason.

What a Linux NFS client does, and what is done about it here, in ``files`` and in ``values``:

- It remembers that a name was missing, for up to a minute. So a miss counts only after the
  directory was revalidated, which opening it does (close-to-open consistency, nfs(5)).
- A file or a directory that another host replaced or removed gives ESTALE, or EBADF while reading
  after an NFSv4 server's restart. Both are met by starting again from the path, its directory
  revalidated: without that NFSv4.1 and later go on using the stale handle.
- A file that another client holds a delegation or an oplock of is under a lease at the server, and
  opening it there without waiting is EAGAIN (open(2)) until the holder has given the lease back.
  Waiting in ``open`` itself would wait for ever on a FIFO, so it is opened again after pauses.
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

import enum
import errno
import os
import stat
import time
from contextlib import suppress
from typing import Callable, TypeVar

from ..core import list_directory
from ..errors import failure
from .clock import ServerClock
from .mounts import NFS, NO_SYNC_NEEDED, TRUSTED, mounted_as

T = TypeVar("T")

Listed = tuple[int, int, list[tuple[str, int, bytes, int]]]
"""A directory's mtime and ctime in ns, and its entries; see the core's ``list_directory``."""

STALE = (errno.ESTALE, errno.EBADF)
_LEASED = (errno.EAGAIN, errno.EWOULDBLOCK)
# The holder of a lease has 45 s to give it back (/proc/sys/fs/lease-break-time), an NFS client that
# holds a delegation the server's lease time, 90 s by default. So long again, for the next holder.
_LEASE_SECONDS = 180
# A file replaced without pause can be stale at each try; so often in a row is no accident.
TRIES = 20
_PAUSE = 0.005
DIRECTORY_FLAGS = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)
# For files. A FIFO doesn't block, a link isn't followed.
READ_FLAGS = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
READ_FLAGS |= getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def is_directory(path: str) -> bool:
    """Whether the path leads to one. Unlike ``os.path.isdir`` it takes no error for absence."""
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except FileNotFoundError:
        check_absent(path)
        return False


def check_absent(path: str) -> None:
    """To be called after ENOENT: NotADirectoryError if a symbolic link has this name. It may lead
    to a disk that isn't mounted, and what lies there isn't known to be absent."""
    try:
        linked = stat.S_ISLNK(os.lstat(path).st_mode)
    except FileNotFoundError:
        return
    if linked:
        raise OSError(errno.ENOTDIR, "A symbolic link that leads nowhere", path)


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
    """Of the entry itself; None if it has just been removed, or they can't be told."""
    try:
        return entry.stat(follow_symlinks=False)
    except OSError:
        return None


class Contains(enum.Enum):
    """Whether a directory contains a name, by the server's word."""

    MAYBE = enum.auto()
    NO = enum.auto()
    NO_DIRECTORY = enum.auto()


class NfsRules:
    """How one store is read so that what other hosts have finished is seen. Safe for threads.

    ``clock`` is what the server's clock showed. Elsewhere than on NFS the same calls cost what
    opening the directory costs.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self.clock = ServerClock()
        self._file_system: str | None = None
        # Directories that were looked at while their ctime, kept here, could still come again.
        self._racy: dict[str, int] = {}

    # --- what lies below -----------------------------------------------------------------------

    def mounted_as(self, path: str) -> str | None:
        """See ``mounts``. None: not found out yet, so that the most careful rules hold."""
        if self._file_system is None:
            with suppress(OSError):
                self._file_system = mounted_as(path)
        return self._file_system

    def over_nfs(self) -> bool:
        """Whether the store is on NFS, whose client may notice changes of a directory only by its
        timestamps."""
        mounted = self.mounted_as(self._directory)
        return mounted is None or mounted in NFS

    def trusted(self) -> bool:
        """Whether a rename or link that is refused has certainly done nothing."""
        return self.mounted_as(self._directory) in TRUSTED

    def synchronous(self, path: str) -> bool:
        """Whether directory operations here need no fsync, or can't have one (Windows)."""
        return os.name == "nt" or self.mounted_as(path) in NO_SYNC_NEEDED

    # --- revalidation --------------------------------------------------------------------------

    def revalidate(self, path: str) -> os.stat_result | None:
        """Have the client ask the server what the directory's state is: one GETATTR.

        None if there is no such directory, or a link that leads nowhere: ``check_absent`` tells.
        ``stat`` would answer from the attribute cache, and ``fstat`` of a descriptor held open as
        well.
        """
        if os.name == "nt":
            return os.stat(path) if is_directory(path) else None
        try:
            descriptor = self.retry_stale(lambda path: os.open(path, DIRECTORY_FLAGS), path)
        except FileNotFoundError:
            return None
        try:
            status = os.fstat(descriptor)
            self.clock.observe(status.st_ctime_ns)
            return status
        finally:
            os.close(descriptor)

    def list(self, directory: str) -> Listed:
        """Its mtime and ctime, and its entries. OSError if it can't be listed."""
        return self.retry_stale(self._list, directory)

    def prefetch(self, directory: str) -> None:
        """On NFS, learn of all that is in the directory, which spares each first lookup a call."""
        if self.over_nfs():
            # A directory that can't be listed can be good for exact lookups.
            with suppress(OSError):
                self.retry_stale(self._list_once, directory)

    def _list(self, directory: str) -> Listed:
        found = self._list_once(directory)
        if self.over_nfs() and not self.clock.is_past(found[1]):
            found = self._list_once(directory)  # see _read_names
        return found

    def _list_once(self, directory: str) -> Listed:
        found = list_directory(directory, self.over_nfs())
        if isinstance(found, int):
            raise failure(found, directory)
        self.clock.observe(found[1])
        return found

    def refresh_dentry(self, path: str) -> None:
        """Make the NFS client read its dentry for this existing name anew."""
        directory, name = os.path.split(path)
        for _ in range(TRIES if self.over_nfs() else 0):
            if any(found == name for found, *_ in self.list(directory)[2]):
                break

    def revalidate_parent(self, path: str) -> bool:
        """After a miss: revalidate the file's directory. Whether it is worth looking once more.

        FileNotFoundError if the whole store is gone, an unmounted file system for example:
        that isn't the absence of a key.
        """
        shard, name = os.path.split(path)
        found = self.may_contain(shard, name, strict=True)
        if found is Contains.NO_DIRECTORY:
            # The shard, too, can be a name that was missed within one tick.
            there = self.may_contain(self._directory, os.path.basename(shard))
            if there is Contains.NO_DIRECTORY:
                raise failure(errno.ENOENT, self._directory)
            if there is Contains.MAYBE:
                found = self.may_contain(shard, name, strict=True)
        return found is Contains.MAYBE

    def may_contain(self, directory: str, name: str, strict: bool = False) -> Contains:
        """Revalidate the directory. Whether it may contain this name.

        With ``strict`` nothing is believed that was asked for before this call began.
        """
        if not self.over_nfs():
            if self.revalidate(directory) is not None:
                return Contains.MAYBE
        else:
            try:
                return self.retry_stale(
                    lambda path: self._read_names(path, name, strict), directory
                )
            except FileNotFoundError:
                pass
        check_absent(directory)
        return Contains.NO_DIRECTORY

    def forget(self) -> None:
        """Another directory has the store's path: what was seen in the former says nothing."""
        self._racy.clear()

    def _read_names(self, directory: str, name: str, strict: bool) -> Contains:
        """Whether the directory may have this name; while its ctime may come again, it is read."""
        descriptor = os.open(directory, DIRECTORY_FLAGS)
        try:
            stamp = os.fstat(descriptor).st_ctime_ns
            self.clock.observe(stamp)
            passed = self.clock.is_past(stamp)
            if passed and self._racy.get(directory) != stamp:
                return Contains.MAYBE
            self._racy[directory] = stamp
            # What is being read at this moment, for another process of this host, isn't dropped but
            # waited for. It may have been asked for before this call began: then it proves nothing,
            # whether it has the name or not. The second one drops it, and asks the server.
            found = _read_anew(descriptor, name)
            if not passed and (strict or not found):
                found = _read_anew(descriptor, name)
            if passed:
                self._racy.pop(directory, None)
            return Contains.MAYBE if found else Contains.NO
        finally:
            os.close(descriptor)

    # --- errors that pass -----------------------------------------------------------------------

    def retry_stale(self, call: Callable[[str], T], path: str) -> T:
        """The call's result for this path, ESTALE ridden out.

        The path alone doesn't help on NFSv4.1 and later: the client goes on using the stale handle
        until its directory was revalidated. A file under a lease is waited for.
        """
        for number in range(TRIES - 1):
            try:
                return call(path)
            except OSError as error:
                if error.errno not in STALE and not self.lease_ended(error.errno, path):
                    raise
                stale = error.errno in STALE
            if stale:
                self.after_stale(path, number)
        return call(path)

    def lease_ended(self, number: int | None, path: str) -> bool:
        """Whether this errno told of a lease on the file, which has ended meanwhile.

        Opening the file without waiting is what makes the system ask for the lease. False for what
        isn't a regular file, and after ``_LEASE_SECONDS``. Any other error is left to the caller's
        next call to meet.
        """
        if number not in _LEASED:
            return False
        try:
            if not stat.S_ISREG(os.lstat(path).st_mode):
                return False
        except OSError:
            return True
        end = time.monotonic() + _LEASE_SECONDS
        pause = 0.001
        while time.monotonic() < end:
            time.sleep(pause)
            pause = min(2 * pause, 0.1)
            try:
                os.close(os.open(path, READ_FLAGS))
            except OSError as error:
                if error.errno in _LEASED:
                    continue
            return True
        return False

    def after_stale(self, path: str, number: int) -> None:
        """Before another try, after so many: what was revalidated within one tick of a change may
        be as stale as before, so later tries wait for the tick to pass."""
        if number > 2:
            time.sleep(_PAUSE)
        if path != self._directory:
            self.revalidate(os.path.dirname(path))
