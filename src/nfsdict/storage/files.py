"""Files: directories and files of one store by their paths, made, read, written, made durable."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import TypeVar

from ..content import Content, Data
from ..core import prepare_files, publish_files, read_aligned, read_files, write_files
from ..errors import UncertainWriteError, failure
from ..layout import (
    NEW_DIRECTORY,
    UNKNOWN,
    free_inodes,
    is_named,
    random_name,
    signature_of,
    temporary_name,
    whole_seconds,
)
from ..opening import with_open
from .coherence import NO_NAMES, Coherence
from .directories import DIRECTORY_FLAGS, is_directory
from .handles import read_past_handles, stale, status_of
from .passing import PAUSES, TRIES, passes, tell_of_retries
from .refusals import NO_LINKS

T = TypeVar("T")
Found = tuple[Data, bytes]
"""A file's bytes, and the signature of the descriptor that they were read from."""
WRITE_FLAGS = os.O_WRONLY | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
WRITE_FLAGS |= getattr(os, "O_BINARY", 0)
# Errors of file systems that have no fsync for directories.
_NO_DIRECTORY_SYNC = frozenset((errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP))
# Errors of mkdir, and of renaming a directory, where the name is taken.
_TAKEN = frozenset((errno.EEXIST, errno.ENOTEMPTY))
# Seconds to wait until the server's clock ticks. On Linux it does 100 to 1000 times a second.
_TICKS = (0.0, 0.002, 0.004, 0.008, 0.016)


def give_bits(path: str, bits: int) -> None:
    """Add permission bits to a directory. A symbolic link under this name isn't followed."""
    if os.name == "nt":
        os.chmod(path, bits)
        return

    def add(descriptor: int) -> None:
        # Its own bits are kept: without them chmod would clear a setgid bit from the parent.
        os.fchmod(descriptor, stat.S_IMODE(os.fstat(descriptor).st_mode) | bits)

    with_open(path, DIRECTORY_FLAGS | os.O_NOFOLLOW, add)


def _make_with_bits(path: str, bits: int) -> None:
    """Make the directory with these bits: under a temporary name, which is then renamed.

    mkdir drops the bits that the umask takes. Made in place, the directory would lack them
    until they are added. If one is there already, rename(2) replaces it if it is empty, and
    leaves it otherwise. A process that is killed here leaves an empty directory under the
    temporary name; if it lies in a store, ``repair`` sweeps it.
    """
    new = os.path.join(os.path.dirname(path), NEW_DIRECTORY + random_name())
    try:
        try:
            os.mkdir(new, bits)
        except FileExistsError:  # our mkdir was carried out and its reply lost
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
        raise failure(error.errno or errno.EIO, path) from error


class Files:
    """The files and directories of one store, by path. Safe for threads.

    ``mode`` has the permission bits for files; directories get the same, and x where r is. None
    leaves all to the umask. ``durable``: whether changes survive a power cut. ``aligned``: whether
    large files are read by ``read_aligned``.
    """

    def __init__(
        self,
        rules: Coherence,
        directory: str,
        mode: int | None,
        durable: bool,
        aligned: bool = False,
    ) -> None:
        self._rules = rules
        self.directory = directory
        self.mode = mode
        self.durable = durable
        self._aligned = aligned
        self.may_change = False
        """whether the store was opened to be written"""

    # --- directories ---------------------------------------------------------------------------

    def check_directory(self) -> None:
        """FileNotFoundError or NotADirectoryError unless the store's directory is there."""
        if not stat.S_ISDIR(os.stat(self.directory).st_mode):
            raise failure(errno.ENOTDIR, self.directory)

    def status(self) -> os.stat_result | None:
        """The attributes of the store's directory; None on any error. The caller revalidates."""
        try:
            return os.stat(self.directory)
        except OSError:
            return None

    def missing(self) -> list[str]:
        """The store's directory and its parents, as far as they aren't there, the deepest first.
        From here on the mount is known: the one that holds the deepest that is there."""
        missing = []
        path = self.directory
        while not is_directory(path):
            missing.append(path)
            path, name = os.path.split(path)
            if not name:
                break
        self._rules.mounted.mount(path)
        return missing

    def create(self, missing: list[str]) -> None:
        """Make these directories, of ``missing``, unless another process was faster.

        NotADirectoryError if a file is in the way. If the store's directory lacks bits of ``mode``,
        its owner gives it them. From here on the store may be changed.
        """
        path = self.directory
        try:
            for path in reversed(missing):
                self.make_directory(path)
        except FileExistsError as error:
            raise failure(errno.ENOTDIR, path) from error
        if self.bits and not missing:
            with suppress(OSError):  # only its owner may
                if self.bits & ~os.stat(self.directory).st_mode:
                    give_bits(self.directory, self.bits)
        self.may_change = True

    def make_directory(self, path: str) -> None:
        """Make a directory, durably. It is no error if it exists: another process was faster, or
        the reply to our own mkdir was lost."""
        self._make(path)
        if self.durable:
            self.sync_directory(os.path.dirname(path))

    @property
    def bits(self) -> int:
        """The permission bits that directories must have: none without a ``mode``."""
        mode = self.mode or 0
        return mode | (mode & 0o444) >> 2

    def _make(self, path: str) -> None:
        """Make the directory. Where another host is just making it, GlusterFS's client can know
        that it exists and not find it: that passes."""
        for pause in PAUSES:
            try:
                if self.mode is None:
                    os.mkdir(path)
                else:
                    _make_with_bits(path, self.bits)
                return
            except OSError as error:
                if is_directory(path):
                    return
                if error.errno not in _TAKEN or self._is_other(path):
                    raise
                refusal = error
            time.sleep(pause)
            self._rules.look_up_anew(path)
        raise refusal

    def _is_other(self, path: str) -> bool:
        """Whether this is there and no directory."""
        status = self._known_status(path)
        return status is not None and not stat.S_ISDIR(status.st_mode)

    def sync_directory(self, path: str) -> None:
        """fsync a directory, unless its file system needs or has no such fsync."""
        if self._rules.mounted.synchronous(path):
            return

        def sync(descriptor: int) -> None:
            try:
                os.fsync(descriptor)
            except OSError as error:
                if error.errno not in _NO_DIRECTORY_SYNC:
                    raise

        with_open(path, DIRECTORY_FLAGS, sync)

    def sync_parents(self, changed: Iterable[tuple[T, str]]) -> Iterator[tuple[T, OSError]]:
        """Make changes durable: fsync the directory of each (change, directory), each once.

        Yields the changes that may not be durable, with the error.
        """
        if not self.durable:
            return
        by_shard: dict[str, list[T]] = {}
        for what, shard in changed:
            by_shard.setdefault(shard, []).append(what)
        for shard, whats in by_shard.items():
            try:
                self.sync_directory(shard)
            except FileNotFoundError:
                continue  # it was removed, and the changes with it
            except OSError as error:
                number = error.errno or errno.EIO
                for what in whats:
                    yield what, UncertainWriteError(number, os.strerror(number), shard)

    # --- files ---------------------------------------------------------------------------------

    def read_paths(self, paths: Sequence[str]) -> list[Found | OSError | None]:
        """Each file's content; None if there is no file, or the error if it can't be read.

        The directories aren't revalidated, so an NFS client may report a file that was just made as
        missing. Names out of a fresh listing need no more.
        """
        contents: list[Found | OSError | None] = []
        cut, asks_by_handles = self._rules.kind.whole_seconds, self._rules.kind.asks_by_handles
        for path, content in zip(paths, self._read(list(paths))):
            for number in range(TRIES):
                if not isinstance(content, int):
                    break
                if not passes(self._rules, content, path, number):
                    break
                [content] = self._read([path])
            if number:
                tell_of_retries(number, path)
            if not isinstance(content, int):
                contents.append((content[0], whole_seconds(content[1])) if cut else content)
            else:
                failed = stale if content == errno.ESTALE and asks_by_handles else failure
                contents.append(None if content == errno.ENOENT else failed(content, path))
        return contents

    def _read(self, paths: list[str]) -> Sequence[Found | int]:
        """Each file's content and signature, or the errno. Where these may be of two files, as one
        has replaced the other meanwhile, that is ESTALE."""
        read = read_aligned if self._aligned else read_files
        if self._rules.kind.asks_by_handles:
            return read_past_handles(read, paths)
        if not self._rules.kind.fstats_by_name:
            return read(paths)
        contents: list[Found | int] = []
        for path in paths:
            try:
                before = signature_of(os.lstat(path))
            except OSError:
                before = UNKNOWN
            [found] = read([path])
            same = isinstance(found, int) or found[1] == before
            contents.append(found if same else errno.ESTALE)
        return contents

    def is_there(self, path: str) -> bool:
        """Whether lstat finds the path. Other errors are raised: ``os.path.lexists`` would take
        them for absence."""
        return self._known_status(path) is not None

    def lstat(self, path: str) -> os.stat_result:
        """As ``os.lstat``, by the server's word also where the client asks by handles. The caller
        revalidates the directory."""
        ask = status_of if self._rules.kind.asks_by_handles else os.lstat
        return self._rules.retry_stale(ask, path)

    def _known_status(self, path: str) -> os.stat_result | None:
        """As the client knows it; None if it knows of no such name."""
        try:
            return self._rules.retry_stale(os.lstat, path)
        except FileNotFoundError:
            return None

    def syncs(self) -> bool:
        """Whether a directory must be fsynced after a change in it."""
        return self.durable and not self._rules.mounted.synchronous(self.directory)

    def write_once(
        self, files: list[tuple[str, Content]], exclusive: bool = False, sync: bool = True
    ) -> list[bytes | tuple[int, int]]:
        """The core's ``write_files`` with this store's options. Failures aren't retried.

        Without ``sync`` the directories aren't fsynced; the caller uses ``sync_parents``.
        """
        made = write_files(files, self.mode, self.durable, sync and self.syncs(), exclusive)
        if self._rules.kind.whole_seconds:
            return [whole_seconds(one) if isinstance(one, bytes) else one for one in made]
        return made

    def prepare(
        self, files: list[tuple[str, Content]], made: list[tuple[str, bytes] | int]
    ) -> None:
        """The core's ``prepare_files`` with this store's options."""
        prepare_files(files, made, self.mode, self.durable)

    def publish(self, files: list[tuple[str, str]]) -> list[tuple[int, int] | None]:
        """The core's ``publish_files`` with this store's options."""
        return publish_files(files, self.syncs())

    def await_tick(self, time_ns: int) -> bool:
        """Wait until the server's clock shows a later time than this, 30 ms at most. Whether it
        does: clocks of some file systems tick every second. OSError if it can't be told."""
        for pause in _TICKS:
            time.sleep(pause)
            if self.probe_clock() > time_ns:
                return True
        return False

    def probe_clock(self) -> int:
        """The server's time in ns: the mtime of a file made for this and removed again."""
        temporary = os.path.join(self.directory, temporary_name())
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            time_ns = with_open(temporary, flags, os.fstat, 0o600).st_mtime_ns
        finally:
            self.sweep(temporary)  # even if open failed: it may be the reply that was lost
        self._rules.clock.observe(time_ns)
        return time_ns

    def can_link(self) -> bool:
        """Whether a hard link is one: two names of one file, which tells that it has two. Tried
        with files made for this and removed again. OSError if it can't be told."""
        one, two = (os.path.join(self.directory, temporary_name()) for _ in range(2))
        try:
            with_open(one, os.O_WRONLY | os.O_CREAT | os.O_EXCL, os.fstat, 0o600)
            os.link(one, two)
            links = [(status.st_ino, status.st_nlink) for status in map(os.lstat, (one, two))]
            return links[0] == links[1] and links[0][1] == 2
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            return False
        finally:
            for path in (one, two):
                self.sweep(path)

    def free_inodes(self) -> int | None:
        """How many files more the file system has room for; None if it doesn't tell."""
        if not hasattr(os, "statvfs"):
            return None
        return free_inodes(os.statvfs(self.directory))

    def server_time_ns(self) -> int:
        """The server's time; a lower bound of it if nothing can be written."""
        if self.may_change:
            with suppress(OSError):
                return self.probe_clock()
        return self._rules.clock.lower_bound()

    def remove(self, path: str) -> None:
        """Remove a file. FileNotFoundError if it is gone.

        Where it can linger (see ``Kind.lingers``), the name of a key, or a private one, is first
        given up for a temporary one, where nobody finds the value and from where ``repair`` gives
        it back to nobody: with that it is done. Then the file is removed again, 1.3 s long, until
        no listing has it; if it is still there, ``repair`` removes it.
        """
        if not (self._rules.kind.lingers and is_named(path)):
            os.unlink(path)
            return
        shard = os.path.dirname(path)
        temporary = os.path.join(shard, temporary_name())
        try:
            os.rename(path, temporary)
        except OSError:
            if not self.is_there(temporary):
                raise
        for pause in PAUSES:
            with suppress(OSError):
                os.unlink(temporary)
            with suppress(OSError):
                if os.path.basename(temporary) not in self._rules.names(shard, NO_NAMES, True)[1]:
                    break
            time.sleep(pause)

    def sweep(self, path: str) -> None:
        """Remove a temporary file, or an empty directory that never got its name."""
        new = os.path.basename(path).startswith(NEW_DIRECTORY)
        with suppress(FileNotFoundError):
            (os.rmdir if new else self.remove)(path)
