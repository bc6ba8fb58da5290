"""Directories: made, revalidated and made durable as NFS demands. The base of ``Store``.

What a Linux NFS client does, and what is done about it here and in ``store``:

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

import errno
import logging
import os
import stat
import time
from contextlib import suppress
from typing import Callable, TypeVar

from ..core import list_directory
from .clock import ServerClock

log = logging.getLogger("nfsdict")

T = TypeVar("T")

TEMPORARY = ".nfsdict-"
# Directories that aren't ready for their names yet.
NEW_DIRECTORY = TEMPORARY + "directory-"
STALE = (errno.ESTALE, errno.EBADF)
LEASED = (errno.EAGAIN, errno.EWOULDBLOCK)
# The holder of a lease has 45 s to give it back (/proc/sys/fs/lease-break-time), an NFS client that
# holds a delegation the server's lease time, 90 s by default. So long again, for the next holder.
_LEASE_SECONDS = 180
# A file replaced without pause can be stale at each try; so often in a row is no accident.
TRIES = 20
_PAUSE = 0.005
_FLAGS = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)
# For files. A FIFO doesn't block, a link isn't followed.
READ_FLAGS = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
READ_FLAGS |= getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
NFS = ("nfs", "nfs4")
_NO_SYNC_NEEDED = (*NFS, "tmpfs")
# Where a rename or link that is refused has done nothing: NFS, whose server carries it out or not,
# and what this machine's kernel does itself, on a disk or in memory. Not so on SMB, where a rename
# over a file that the same client has open is refused after the old file was unlinked (Linux's
# client, fs/smb/client/inode.c, cifs_rename2). Not known of others, as of what FUSE brings.
_DISKS = ("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "jfs", "nilfs2", "bcachefs")
TRUSTED = frozenset((*NFS, *_DISKS, "vfat", "exfat", "tmpfs", "ramfs", "overlay"))
# Where there is no /proc, or none that may be read.
_NO_PROC = (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM)
# What file systems without an fsync for directories answer.
_NO_DIRECTORY_SYNC = frozenset((errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP))


def failure(number: int, path: str) -> OSError:
    """The OSError, or the subclass of it, that stands for this errno."""
    return OSError(number, os.strerror(number), path)


def mounted_as(path: str) -> str:
    """The type of the file system that holds the path ("nfs4", "ext4"), "" where the system doesn't
    tell. OSError if it can't be found out now, as without a free descriptor.

    On Linux, see proc_pid_mountinfo(5): by the mount's number, as btrfs gives each subvolume a
    device that isn't found there, or by the device where /proc has no such numbers.
    """
    if hasattr(os, "O_PATH"):
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)  # asks no server
        try:
            return _mount_of(os.fstat(descriptor).st_dev, f"/proc/self/fdinfo/{descriptor}")
        finally:
            os.close(descriptor)
    return _mount_of(os.stat(path).st_dev, os.devnull)


def _mount_of(device: int, information: str) -> str:
    """The type of the mount with the number in this file, or of one of this device."""
    found = ""
    try:
        with open(information, encoding="ascii") as lines:
            number = next((line.split()[1] for line in lines if line.startswith("mnt_id:")), "")
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
            for mount in mounts:
                fields, _, file_system = mount.partition(" - ")
                own, _, devices = fields.split()[:3]
                if own == number:
                    return file_system.split()[0]
                if devices == f"{os.major(device)}:{os.minor(device)}":
                    found = found or file_system.split()[0]
    except OSError as error:
        if error.errno not in _NO_PROC:
            raise
    return found


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


def give_bits(path: str, bits: int) -> None:
    """Add permission bits to a directory. A link that somebody puts there isn't followed."""
    if os.name == "nt":
        os.chmod(path, bits)
        return
    descriptor = os.open(path, _FLAGS | os.O_NOFOLLOW)
    try:
        # With those that it has: chmod would clear a setgid bit that the parent gave.
        os.fchmod(descriptor, stat.S_IMODE(os.fstat(descriptor).st_mode) | bits)
    finally:
        os.close(descriptor)


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
        self.times = ServerClock()
        self._file_system: str | None = None
        self._writes = False
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

        NotADirectoryError if a file is in the way. From here on the store may be changed.
        """
        missing = []
        path = self.directory
        while not is_directory(path):
            missing.append(path)
            path, name = os.path.split(path)
            if not name:
                break
        try:
            for path in reversed(missing):
                self._make_directory(path)
        except FileExistsError as error:
            raise failure(errno.ENOTDIR, path) from error
        self._writes = True

    def _make_directory(self, path: str) -> None:
        """mkdir, durable. One that is there already is as good: somebody was faster, or the
        reply to our own call was lost."""
        if self._mode is None:
            try:
                os.mkdir(path)
            except FileExistsError:
                if not is_directory(path):
                    raise
        else:
            self._make_with_bits(path, self._bits)
        if self._durable:
            self._sync_directory(os.path.dirname(path))

    @property
    def _bits(self) -> int:
        """Those of directories. Without a ``mode`` none are asked for."""
        mode = self._mode or 0
        return mode | (mode & 0o444) >> 2

    @staticmethod
    def _make_with_bits(path: str, bits: int) -> None:
        """Make the directory under another name and rename it, so that it never has this one
        without its bits, of which mkdir takes what the umask takes.

        An empty directory is replaced, one that isn't stays (rename(2)). A process that is killed
        here leaves an empty one under the other name: ``repair`` sweeps it in a store.
        """
        new = os.path.join(os.path.dirname(path), NEW_DIRECTORY + os.urandom(12).hex())
        try:
            try:
                os.mkdir(new, bits)
            except FileExistsError:  # the reply to our own call was lost
                if not stat.S_ISDIR(os.lstat(new).st_mode):
                    raise
            if bits & ~os.lstat(new).st_mode:
                give_bits(new, bits)
            os.rename(new, path)
        except BaseException as error:
            with suppress(OSError):
                os.rmdir(new)
            if not isinstance(error, OSError):
                raise
            if not is_directory(path):
                raise failure(error.errno or errno.EIO, path) from error

    def _mounted_as(self, path: str) -> str | None:
        """See ``mounted_as``. None: not found out yet, so that the most careful rules hold."""
        if self._file_system is None:
            with suppress(OSError):
                self._file_system = mounted_as(path)
        return self._file_system

    def _synchronous(self, path: str) -> bool:
        """Whether directory operations here need no fsync, or can't have one (Windows)."""
        return os.name == "nt" or self._mounted_as(path) in _NO_SYNC_NEEDED

    def _over_nfs(self) -> bool:
        """Whether the store is on NFS, whose client may notice changes of a directory only by its
        timestamps."""
        mounted = self._mounted_as(self.directory)
        return mounted is None or mounted in NFS

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

        None if there is no such directory, or a link that leads nowhere: ``check_absent`` tells.
        ``stat`` would answer from the attribute cache, and ``fstat`` of a descriptor held open as
        well.
        """
        if os.name == "nt":
            return os.stat(path) if is_directory(path) else None
        try:
            descriptor = self.retry_stale(lambda path: os.open(path, _FLAGS), path)
        except FileNotFoundError:
            return None
        try:
            status = os.fstat(descriptor)
            self.times.observe(status.st_ctime_ns)
            return status
        finally:
            os.close(descriptor)

    def _listed(self, directory: str) -> tuple[int, int, list[tuple[str, int, bytes, int]]]:
        """Its mtime and ctime, and its entries; see the core's ``list_directory``.

        OSError if it can't be listed.
        """
        found = self._list(directory)
        if self._over_nfs() and not self.times.is_past(found[1]):
            found = self._list(directory)  # see may_contain
        return found

    def _list(self, directory: str) -> tuple[int, int, list[tuple[str, int, bytes, int]]]:
        found = list_directory(directory, self._over_nfs())
        if isinstance(found, int):
            raise failure(found, directory)
        self.times.observe(found[1])
        return found

    def refresh_dentry(self, path: str) -> None:
        """Make the NFS client read its dentry for this existing name anew."""
        directory, name = os.path.split(path)
        for _ in range(TRIES if self._over_nfs() else 0):
            if any(found == name for found, *_ in self.retry_stale(self._listed, directory)[2]):
                break

    def revalidate_parent(self, path: str) -> bool:
        """After a miss: revalidate the file's directory. Whether it is worth looking once more.

        FileNotFoundError if the whole store is gone, an unmounted file system for example:
        that isn't the absence of a key.
        """
        shard, name = os.path.split(path)
        found = self._look_into(shard, name, strict=True)
        if found is None:
            # The shard, too, can be a name that was missed within one tick.
            there = self._look_into(self.directory, os.path.basename(shard))
            if there is None:
                raise failure(errno.ENOENT, self.directory)
            found = there and self._look_into(shard, name, strict=True)
        return bool(found)

    def _look_into(self, directory: str, name: str, strict: bool = False) -> bool | None:
        """Revalidate the directory. Whether it may have this name, None if it isn't there.

        With ``strict`` nothing is believed that was asked for before this call began.
        """
        if not self._over_nfs():
            if self._revalidate(directory) is not None:
                return True
        else:
            try:
                return self.retry_stale(
                    lambda path: self.may_contain(path, name, strict), directory
                )
            except FileNotFoundError:
                pass
        check_absent(directory)
        return None

    def may_contain(self, directory: str, name: str, strict: bool) -> bool:
        descriptor = os.open(directory, _FLAGS)
        try:
            stamp = os.fstat(descriptor).st_ctime_ns
            self.times.observe(stamp)
            passed = self.times.is_past(stamp)
            if passed and self._racy.get(directory) != stamp:
                return True
            self._racy[directory] = stamp
            # What is being read at this moment, for another process of this host, isn't dropped but
            # waited for. It may have been asked for before this call began: then it proves nothing,
            # whether it has the name or not. The second one drops it, and asks the server.
            found = _read_anew(descriptor, name)
            if not passed and (strict or not found):
                found = _read_anew(descriptor, name)
            if passed:
                self._racy.pop(directory, None)
            return found
        finally:
            os.close(descriptor)

    def retry_stale(self, call: Callable[[str], T], path: str) -> T:
        """The call's result for this path, ESTALE ridden out.

        The path alone doesn't help on NFSv4.1 and later: the client goes on using the stale handle
        until its directory was revalidated. A file under a lease is waited for.
        """
        for number in range(TRIES - 1):
            try:
                return call(path)
            except OSError as error:
                if error.errno not in STALE and not self._unleased(error.errno, path):
                    raise
                stale = error.errno in STALE
            if stale:
                self._after_stale(path, number)
        return call(path)

    def _unleased(self, number: int | None, path: str) -> bool:
        """Whether this errno told of a lease on the file, which has ended meanwhile.

        Opening the file without waiting is what makes the system ask for the lease. False for what
        isn't a regular file, and after ``_LEASE_SECONDS``. Any other error is left to the caller's
        next call to meet.
        """
        if number not in LEASED:
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
                if error.errno in LEASED:
                    continue
            return True
        return False

    def _after_stale(self, path: str, number: int) -> None:
        """Before another try, after so many: what was revalidated within one tick of a change may
        be as stale as before, so later tries wait for the tick to pass."""
        if number > 2:
            time.sleep(_PAUSE)
        if path != self.directory:
            self._revalidate(os.path.dirname(path))
