"""NFS: the rules by which another host's changes are seen, each with its reason.

What a Linux NFS client does, and what is done about it here, in ``files`` and in ``values``:

- The client remembers for up to a minute that a name was missing. So a miss counts only after the
  directory was revalidated. Opening the directory does that (close-to-open consistency, nfs(5)).
- A file or a directory that another host replaced or removed gives ESTALE, or EBADF while reading
  after an NFSv4 server's restart. The call is then repeated from the path, after revalidating the
  file's directory: without that NFSv4.1 and later go on using the stale handle.
- While another client holds a delegation or an oplock of a file, the server has a lease on it.
  Opening the file on the server with O_NONBLOCK then gives EAGAIN (open(2)), until the holder gives
  the lease back. Without O_NONBLOCK an open of a FIFO would wait for ever. So the file is opened
  again after pauses.
- If the reply to a call is lost, the client repeats the call. The second one then fails, though the
  first was carried out: mkdir with EEXIST, rename and unlink with ENOENT. A look at the disk tells.
- A write can fail as late as fsync or close.
- A directory's fsync does nothing on Linux's NFS client, whose directory operations are
  synchronous (fs/nfs/dir.c); opening the directory for it costs a GETATTR. It is left out there,
  and on tmpfs, where no fsync does anything (mm/shmem.c).
- Client and server have different clocks. Times on files are compared only with other times on
  files, see ``clock``.
- On NFSv3 the client notices changes of a directory by its mtime and ctime. Two changes in one tick
  of the server's clock look like one: if the client missed a name or listed the directory between
  them, it goes on believing the result, whatever is revalidated. Touching the directory (utime,
  chmod, a file made and removed there) doesn't help, as the client takes its own changes for the
  only ones. Dropping the directory's cached pages does (posix_fadvise): the client then reads it
  anew by READDIRPLUS, and the answer also replaces what the client remembered of the names in it
  (fs/nfs/dir.c, nfs_prime_dcache). That is done for every listing on NFS; after a miss as long as
  another change may bear the directory's present ctime, and once more after that.
  NFSv4 has a change attribute in place of the times. Linux's server makes it from the ctime if the
  file system keeps no version (tmpfs; ext4 before Linux 6.1). So the same is done there.
- When the client renames a name, it moves what it remembers of the file along. But the server goes
  by the name: if another host had replaced the file, the server has renamed the new one
  (fs/nfs/dir.c, nfs_rename). So the directory is read anew, as above, before the renamed file is
  read.
- The client asks for the attributes of all entries with the first page of a listing, and takes them
  over for the directories that it knows. So one listing of the root gives the stamps of all shards,
  if its cached pages were dropped after the call began, and unless the mount forbids READDIRPLUS.
  Another process of the host that is listing at that moment is waited for, not asked again: so the
  root is listed twice.
"""

from __future__ import annotations

import enum
import errno
import logging
import os
import stat
import time
from contextlib import suppress
from typing import Callable, TypeVar

from ..core import list_changes, list_directory
from ..errors import failure
from ..layout import Stamp, stamp_of
from .clock import ServerClock
from .mounts import NFS, NO_SYNC_NEEDED, TRUSTED, lists_attributes, mounted_as

log = logging.getLogger("nfsdict")

T = TypeVar("T")
Names = tuple[Stamp, list[str]]
"""A directory's stamp, and the names in it."""

Listed = tuple[int, int, list[tuple[str, int, bytes, int]]]
"""A directory's mtime and ctime in ns, and its entries; see the core's ``list_directory``."""

Changes = tuple[int, int, list[tuple[str, int, bytes, int]], list[int]]
"""The same without the files that are known, and the positions of keys that have another file or
none; see the core's ``list_changes``."""

L = TypeVar("L", Listed, Changes)

STALE = (errno.ESTALE, errno.EBADF)
_LEASED = (errno.EAGAIN, errno.EWOULDBLOCK)
# The holder of a lease has 45 s to give it back (/proc/sys/fs/lease-break-time), an NFS client that
# holds a delegation the server's lease time, 90 s by default. Twice that, as another holder may
# follow.
_LEASE_SECONDS = 180
# A file that is replaced without pause can be stale at each try. So many in a row are no accident.
TRIES = 20
_PAUSE = 0.005
DIRECTORY_FLAGS = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)
# For files. A FIFO doesn't block, a link isn't followed.
READ_FLAGS = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
READ_FLAGS |= getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def is_directory(path: str) -> bool:
    """Whether the path leads to a directory. Errors are raised: ``os.path.isdir`` would take them
    for absence."""
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except FileNotFoundError:
        check_absent(path)
        return False


def check_absent(path: str) -> None:
    """To be called after ENOENT: NotADirectoryError if the path is a symbolic link.

    The link may lead to a disk that isn't mounted, so nobody knows whether its target is absent.
    """
    try:
        linked = stat.S_ISLNK(os.lstat(path).st_mode)
    except FileNotFoundError:
        return
    if linked:
        raise OSError(errno.ENOTDIR, "A symbolic link that leads nowhere", path)


def _read_anew(descriptor: int, name: str) -> bool:
    """Make the client drop its listing and read the directory anew. Whether it has this name."""
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    found = False
    with os.scandir(descriptor) as entries:
        for entry in entries:
            found = found or entry.name == name
            # Asking for attributes makes the client use READDIRPLUS, to a long directory's end.
            with suppress(OSError):
                entry.stat(follow_symlinks=False)
    return found


class Contains(enum.Enum):
    """Whether a directory contains a name, by the server's word."""

    MAYBE = enum.auto()
    NO = enum.auto()
    NO_DIRECTORY = enum.auto()


class NfsRules:
    """Reads one store so that every change that another host has finished is seen.

    ``clock`` learns the server's time. On other file systems the same methods cost no more than
    opening the directory. Safe for threads.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self.clock = ServerClock()
        self._file_system: str | None = None
        self._lists_attributes: bool | None = None
        # The ctime of each directory that was looked at while a later change could bear the same.
        self._racy: dict[str, int] = {}

    # --- the file system -----------------------------------------------------------------------

    def mounted_as(self, path: str) -> str | None:
        """See ``mounts``. None while it can't be found out: the most careful rules hold then."""
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
        """Whether a refused rename or link has certainly done nothing; see ``mounts.TRUSTED``."""
        return self.mounted_as(self._directory) in TRUSTED

    def synchronous(self, path: str) -> bool:
        """Whether directory operations here need no fsync, or can't have one (Windows)."""
        return os.name == "nt" or self.mounted_as(path) in NO_SYNC_NEEDED

    # --- revalidation --------------------------------------------------------------------------

    def revalidate(self, path: str) -> os.stat_result | None:
        """Make the client ask the server for the directory's attributes: one GETATTR.

        None if there is no such directory, or the path is a link that leads nowhere;
        ``check_absent`` tells the two apart. ``stat``, or ``fstat`` of a descriptor kept open,
        would answer from the attribute cache.
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

    def list_changes(
        self, directory: str, keys: list[str], signatures: bytes, extension: str
    ) -> Changes:
        """As ``list``, without files that still have the signature that is known of their key."""
        return self._list(
            directory,
            lambda path: list_changes(path, self.over_nfs(), keys, signatures, extension),
        )

    def list(self, directory: str) -> Listed:
        """The directory's mtime, ctime and entries. OSError if it can't be listed."""
        return self._list(directory, lambda path: list_directory(path, self.over_nfs()))

    def list_twice(self, directory: str) -> Listed:
        """The directory's entries as the server has them after this call began: one GETATTR and two
        listings, where a listing brings attributes (``lists_attributes``).

        The client asks for attributes with the first listing page of a directory at least, goes on
        while they are used, and takes them over for what it knows (fs/nfs/dir.c,
        nfs_use_readdirplus and nfs_prime_dcache). Another process of this host may be listing at
        this moment: that one is waited for and proves nothing, so the directory is listed again.
        """
        return self._list_anew(directory, 2)

    def prefetch(self, directory: str) -> None:
        """On NFS, have the client read the whole directory: saves a call for each first lookup."""
        if self.over_nfs():
            # A directory that can't be listed may still allow lookups by name.
            with suppress(OSError):
                self._list_anew(directory, 1)

    def _list_anew(self, directory: str, times: int) -> Listed:
        return self.retry_stale(
            lambda path: self._checked(list_directory(path, times), path), directory
        )

    def _list(self, directory: str, list_once: Callable[[str], L | int]) -> L:
        def list_by_clock(path: str) -> L:
            found = self._checked(list_once(path), path)
            if self.over_nfs() and not self.clock.is_past(found[1]):
                found = self._checked(list_once(path), path)  # see _read_names
            return found

        return self.retry_stale(list_by_clock, directory)

    def _checked(self, found: L | int, directory: str) -> L:
        """What the core has listed; OSError if it has an errno."""
        if isinstance(found, int):
            raise failure(found, directory)
        self.clock.observe(found[1])
        return found

    def names(self, directory: str, known: Names, strict: bool) -> Names:
        """The directory's stamp, and if ``strict`` all names that are there during this call: see
        ``list_twice``. ``known`` again while the directory has its stamp. Not retried."""
        descriptor = os.open(directory, DIRECTORY_FLAGS)
        try:
            stamp = stamp_of(os.fstat(descriptor))
            self.clock.observe(stamp.ctime)
            if stamp == known[0]:
                return known
            if not self.over_nfs():
                return stamp, os.listdir(descriptor)
            names: list[str] = []
            for _ in range(2 if strict else 1):  # see _read_names
                # Only names: if others change the directory, each stat would ask the server.
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                names = os.listdir(descriptor)
            return stamp, names
        finally:
            os.close(descriptor)

    def lists_attributes(self) -> bool:
        """Whether listings bring attributes on this mount. Found out once, and logged."""
        if self._lists_attributes is None and self.mounted_as(self._directory) is not None:
            self._lists_attributes = self.over_nfs() and lists_attributes(self._directory)
            if self.over_nfs() and not self._lists_attributes:
                log.info("%s: shards are asked for their stamps one by one", self._directory)
        return bool(self._lists_attributes)

    def lists_signatures(self) -> bool:
        """Whether a file has, in a listing, the signature that it has on the server."""
        return not self.over_nfs() or self.lists_attributes()

    def distrust_listings(self, reason: str) -> None:
        """From here on ``lists_attributes`` is False."""
        self._lists_attributes = False
        log.info("%s: shards are asked for their stamps one by one: %s", self._directory, reason)

    def refresh_dentry(self, path: str) -> None:
        """Make the NFS client read its dentry for this existing name anew."""
        directory, name = os.path.split(path)
        for _ in range(TRIES if self.over_nfs() else 0):
            if any(found == name for found, *_ in self.list(directory)[2]):
                break

    def revalidate_parent(self, path: str) -> bool:
        """After a miss: revalidate the file's directory. True if the caller has to look again.

        FileNotFoundError if the whole store is gone, as when its file system was unmounted: that
        isn't the absence of a key.
        """
        shard, name = os.path.split(path)
        found = self.may_contain(shard, name, strict=True)
        if found is Contains.NO_DIRECTORY:
            # The client may also remember wrongly, from within one tick, that the shard is missing.
            there = self.may_contain(self._directory, os.path.basename(shard))
            if there is Contains.NO_DIRECTORY:
                raise failure(errno.ENOENT, self._directory)
            if there is Contains.MAYBE:
                found = self.may_contain(shard, name, strict=True)
        return found is Contains.MAYBE

    def may_contain(self, directory: str, name: str, strict: bool = False) -> Contains:
        """Revalidate the directory. Whether it may contain this name.

        With ``strict`` only answers count that the server gave after this call began.
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
        """Forget what was seen, as another directory has the store's path now."""
        self._racy.clear()

    def _read_names(self, directory: str, name: str, strict: bool) -> Contains:
        """Whether the directory may have this name. It is read if a change may repeat its ctime."""
        descriptor = os.open(directory, DIRECTORY_FLAGS)
        try:
            stamp = os.fstat(descriptor).st_ctime_ns
            self.clock.observe(stamp)
            passed = self.clock.is_past(stamp)
            if passed and self._racy.get(directory) != stamp:
                return Contains.MAYBE
            self._racy[directory] = stamp
            # If another process of this host is just reading the directory, the client doesn't drop
            # that reading but waits for it. It may have begun before this call, and then it proves
            # nothing, whether it has the name or not. Only the second drop makes the client ask.
            found = _read_anew(descriptor, name)
            if not passed and (strict or not found):
                found = _read_anew(descriptor, name)
            if passed:
                self._racy.pop(directory, None)
            return Contains.MAYBE if found else Contains.NO
        finally:
            os.close(descriptor)

    # --- transient errors -----------------------------------------------------------------------

    def retry_stale(self, call: Callable[[str], T], path: str) -> T:
        """The call's result for this path; the call is repeated while it meets a stale handle.

        Before each repetition the path's directory is revalidated: until then the client of NFSv4.1
        and later goes on using the stale handle. If the file is under a lease, this waits for it.
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
        """If this errno means that the file is under a lease, wait until the lease has ended.

        True if the caller may try again. False for other errnos, if the file isn't a regular one,
        and after ``_LEASE_SECONDS``. Opening the file with O_NONBLOCK makes the system ask the
        holder for the lease. Other errors end the wait: the caller's next try meets them.
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
        """Prepare another try, after ``number`` earlier ones: revalidate the path's directory.

        A revalidation within one tick of a change may leave the handle stale, so later tries first
        wait for the tick to pass.
        """
        if number > 2:
            time.sleep(_PAUSE)
        if path != self._directory:
            self.revalidate(os.path.dirname(path))
