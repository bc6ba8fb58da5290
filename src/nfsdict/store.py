"""Store: the value files of one directory. Paths and the rules of NFS are known here alone.

What a Linux NFS client does, and what is done about it:

- It remembers that a name was missing, for up to a minute. So a miss counts only after the
  directory was revalidated, which opening it does (close-to-open consistency, nfs(5)).
- A file or a directory that another host replaced or removed gives ESTALE, or EBADF while reading
  after an NFSv4 server's restart. Both are met by starting again from the path.
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
import re
import stat
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Callable, NamedTuple, TypeVar

from .core import read_files, value_path, write_files
from .errors import UncertainWriteError

T = TypeVar("T")
Content = tuple[bytes, bytes]
"""A file's bytes, and the signature of the descriptor that they were read from."""

SHARDS = [f"{number:02x}" for number in range(256)]
_DIRECTORY_FLAGS = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)
_TEMPORARY = ".nfsdict-"
_SIGNATURE = struct.Struct("<QQq")
_STALE = (errno.ESTALE, errno.EBADF)
# A file replaced without pause can be stale at each try; so often in a row is no accident.
_TRIES = 10
# After these rename and unlink have certainly done nothing. ENOENT is looked into.
_REFUSED = frozenset(
    getattr(errno, name)
    for name in [
        "EACCES",
        "EPERM",
        "EROFS",
        "ENOSPC",
        "EDQUOT",
        "EISDIR",
        "ENOTDIR",
        "EXDEV",
        "ENAMETOOLONG",
        "ELOOP",
        "EMLINK",
        "ENOTEMPTY",
    ]
    if hasattr(errno, name)
)
# What file systems without an fsync for directories answer.
_NO_DIRECTORY_SYNC = frozenset((errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP))


class Listing(NamedTuple):
    """One shard directory, listed with attributes."""

    stamp: int
    """mtime in ns, as the server gave it after revalidation and before the listing"""
    signatures: dict[str, bytes]
    """of each value file, by digest"""
    temporary: dict[str, int]
    """paths of temporary files, and their mtimes in ns"""
    strangers: list[str]
    """paths of what is neither"""


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


class Store:
    """The files of one store, by key. Safe for threads; it holds no state but its settings.

    ``mode`` is the permission bits for files, None for what the umask leaves; directories get the
    same and x where r is. ``durable`` is whether a write or delete returns only when it would
    survive a power cut.
    """

    def __init__(self, directory: str, extension: str, mode: int | None, durable: bool) -> None:
        self.directory = directory
        self.extension = extension
        self._mode = mode
        self._durable = durable
        # Windows has no descriptor for a directory. None: not asked yet.
        self._synchronous: bool | None = True if os.name == "nt" else None
        name = re.escape(extension)
        self._value_name = re.compile(rf"([0-9a-f]{{64}}){name}")
        self._index = os.path.join(directory, f"_index.nfsdict-{extension[1:]}")
        self._old_index = os.path.join(directory, f"_index{extension}")

    # --- paths ---------------------------------------------------------------------------------

    def path(self, key: str) -> str:
        """Where the key's value file is, or would be."""
        return value_path(self.directory, key, self.extension)

    def path_of(self, digest: str) -> str:
        """The same, for a key of which only the digest is known."""
        return os.path.join(self._shard(digest[:2]), digest + self.extension)

    def _shard(self, shard: str) -> str:
        return os.path.join(self.directory, shard)

    def _temporary(self, directory: str) -> str:
        # 96 random bits: unique over hosts, containers, processes, threads and forks.
        return os.path.join(directory, _TEMPORARY + os.urandom(12).hex())

    def check(self) -> None:
        """FileNotFoundError or NotADirectoryError unless the store's directory is there."""
        if not stat.S_ISDIR(os.stat(self.directory).st_mode):
            raise failure(errno.ENOTDIR, self.directory)

    # --- directories ---------------------------------------------------------------------------

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

    def _sync_directory(self, path: str) -> None:
        if self._synchronous is None:
            self._synchronous = mounted_as(self.directory).startswith("nfs")
        if self._synchronous:
            return
        descriptor = os.open(path, _DIRECTORY_FLAGS)
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
            descriptor = self._again(lambda path: os.open(path, _DIRECTORY_FLAGS), path)
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
        for _ in range(_TRIES - 1):
            try:
                return call(path)
            except OSError as error:
                if error.errno not in _STALE:
                    raise
            if path != self.directory:
                self._revalidate(os.path.dirname(path))
        return call(path)

    # --- reading -------------------------------------------------------------------------------

    def read(self, paths: Sequence[str]) -> list[Content | OSError | None]:
        """Each file's content, None where there is none, or what stopped it from being read.

        The directories are taken as they are remembered: for names out of a fresh listing.
        """
        contents: list[Content | OSError | None] = []
        for path, content in zip(paths, read_files(paths)):
            for _ in range(_TRIES):
                if content not in _STALE:
                    break
                self._revalidate(os.path.dirname(path))
                [content] = read_files([path])
            if not isinstance(content, int):
                contents.append(content)
            else:
                contents.append(None if content == errno.ENOENT else failure(content, path))
        return contents

    def find(self, key: str, fresh: bool = False) -> Content | None:
        """The content of the key's file; None means that it isn't there, by the server's word.

        With ``fresh`` the directory is revalidated first, as NFSv4.1 and later open a file that
        another host has unlinked. Else it is revalidated after a miss.
        """
        path = self.path(key)
        shard = os.path.dirname(path)
        if fresh and not self._look_again(shard):
            return None
        [content] = self.read([path])
        if content is None and not fresh and self._look_again(shard):
            [content] = self.read([path])
        if isinstance(content, OSError):
            raise content
        return content

    def exists(self, key: str) -> bool:
        """Whether the key has a file. Revalidates as ``find`` does; reads nothing."""
        path = self.path(key)
        try:
            self._again(os.lstat, path)
        except FileNotFoundError:
            if not self._look_again(os.path.dirname(path)):
                return False
            try:
                self._again(os.lstat, path)
            except FileNotFoundError:
                return False
        return True

    # --- writing -------------------------------------------------------------------------------

    def write(self, entries: Sequence[tuple[str, bytes]]) -> list[bytes | OSError]:
        """Replace the files of these (key, content); each atomic, all durable on return.

        The outcome of each is its file's signature or an OSError: UncertainWriteError if it can't
        be known whether the new content is there. No temporary file stays behind.
        """
        outcomes: list[bytes | OSError] = [failure(errno.ESTALE, self.directory)] * len(entries)
        paths = [self.path(key) for key, _ in entries]
        shards = [os.path.dirname(path) for path in paths]
        pending = list(range(len(entries)))
        for _ in range(_TRIES):
            files = [(self._temporary(shards[i]), paths[i], entries[i][1]) for i in pending]
            again = []
            for i, outcome in zip(pending, write_files(files, self._mode, self._durable)):
                if isinstance(outcome, bytes):
                    outcomes[i] = outcome
                    continue
                renaming, number = outcome
                outcomes[i] = failure(number, paths[i])
                if number == errno.ESTALE or (number == errno.ENOENT and not renaming):
                    again.append(i)
                elif renaming and number not in _REFUSED:
                    outcomes[i] = self._lies_there(paths[i], entries[i][1], number)
            if not again:
                break
            pending = again
            for shard in {shards[i] for i in pending}:
                try:
                    self._renew(shard)
                except OSError as error:
                    for i in pending:
                        if shards[i] == shard:
                            outcomes[i] = error
                    pending = [i for i in pending if shards[i] != shard]
        written = [i for i, outcome in enumerate(outcomes) if isinstance(outcome, bytes)]
        for i, error in self._settle([(i, shards[i]) for i in written]):
            outcomes[i] = error
        return outcomes

    def _renew(self, shard: str) -> None:
        """Make the shard directory if it is missing; reach it anew if another took its place."""
        if self._revalidate(shard) is None:
            self._make_directory(shard)

    def _lies_there(self, path: str, data: bytes, number: int) -> bytes | OSError:
        """What a failed rename came to: ENOENT, say, when its first reply was lost."""
        [content] = self.read([path])
        if isinstance(content, tuple) and content[0] == data:
            return content[1]
        return UncertainWriteError(number, os.strerror(number), path)

    def _settle(self, changed: Iterable[tuple[T, str]]) -> Iterator[tuple[T, OSError]]:
        """Make the directories of these changes durable; give each that may not be."""
        if not self._durable:
            return
        by_shard: dict[str, list[T]] = {}
        for what, shard in changed:
            by_shard.setdefault(shard, []).append(what)
        for shard, whats in by_shard.items():
            try:
                self._sync_directory(shard)
            except OSError as error:
                number = error.errno or errno.EIO
                for what in whats:
                    yield what, UncertainWriteError(number, os.strerror(number), shard)

    def remove(self, paths: Sequence[str]) -> list[bool | OSError]:
        """Unlink these value files, durably. For each whether it was there, or what went wrong.

        False after a lost reply too: the file is gone, and who removed it can't be told.
        """
        outcomes: list[bool | OSError] = []
        for path in paths:
            try:
                outcomes.append(self._remove(path))
            except OSError as error:
                outcomes.append(error)
        gone = [i for i, outcome in enumerate(outcomes) if outcome is True]
        for i, error in self._settle([(i, os.path.dirname(paths[i])) for i in gone]):
            outcomes[i] = error
        return outcomes

    def _remove(self, path: str) -> bool:
        try:
            self._again(os.unlink, path)
        except FileNotFoundError:
            if not self._look_again(os.path.dirname(path)):
                return False
            try:
                self._again(os.unlink, path)
            except FileNotFoundError:
                return False
        return True

    # --- the whole store -----------------------------------------------------------------------

    def shards(self) -> list[str]:
        """The shard directories that exist, in order.

        Listed with their attributes: on NFS that spares a LOOKUP for each afterwards.
        """
        found = set()
        for entry in self._entries(self.directory):
            try:
                if entry.name in _SHARD_NAMES and stat.S_ISDIR(entry.stat().st_mode):
                    found.add(entry.name)
            except FileNotFoundError:
                continue
        return [shard for shard in SHARDS if shard in found]

    def stamp(self, shard: str) -> int | None:
        """The shard directory's mtime in ns, by the server's word; None if it isn't there."""
        return self._revalidate(self._shard(shard))

    def list(self, shard: str) -> Listing:
        """The shard directory's files with their attributes."""
        return self._again(lambda path: self._list(path, shard), self._shard(shard))

    def _list(self, directory: str, shard: str) -> Listing:
        stamp = self._revalidate(directory)
        listing = Listing(stamp or 0, {}, {}, [])
        if stamp is None:
            return listing
        for entry in self._entries(directory):
            path = os.path.join(directory, entry.name)
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            name = self._value_name.fullmatch(entry.name)
            regular = stat.S_ISREG(status.st_mode)
            if name and regular and entry.name.startswith(shard):
                listing.signatures[name[1]] = _SIGNATURE.pack(
                    status.st_ino, status.st_size, status.st_mtime_ns
                )
            elif regular and entry.name.startswith(_TEMPORARY):
                listing.temporary[path] = status.st_mtime_ns
            else:
                listing.strangers.append(path)
        return listing

    def _entries(self, directory: str) -> Iterator[os.DirEntry[str]]:
        with os.scandir(directory) as entries:
            yield from entries

    def clock(self) -> int:
        """The server's time in ns: the mtime of a file just made there."""
        temporary = self._temporary(self.directory)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            return os.fstat(descriptor).st_mtime_ns
        finally:
            os.close(descriptor)
            os.unlink(temporary)

    def temporary_files(self) -> dict[str, int]:
        """Paths of temporary files beside the index, and their mtimes in ns."""
        found = {}
        for entry in self._entries(self.directory):
            if entry.name.startswith(_TEMPORARY):
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if stat.S_ISREG(status.st_mode):
                    found[os.path.join(self.directory, entry.name)] = status.st_mtime_ns
        return found

    def sweep(self, path: str) -> None:
        """Remove a temporary file."""
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass

    def set_aside(self, path: str) -> str:
        """Rename a value file to a name beside it that no scan takes, 0.2.1's neither."""
        aside = f"{path}.damaged-{os.urandom(6).hex()}"
        os.rename(path, aside)
        return aside

    # --- the index -----------------------------------------------------------------------------

    def read_index(self) -> bytes | None:
        """The index file's content, None if there is none. OSError if it can't be read."""
        [content] = self.read([self._index])
        if isinstance(content, OSError):
            raise content
        return content and content[0]

    def write_index(self, data: bytes) -> None:
        """Replace the index file, atomically."""
        [outcome] = write_files(
            [(self._temporary(self.directory), self._index, data)], self._mode, self._durable
        )
        if not isinstance(outcome, bytes):
            raise failure(outcome[1], self._index)

    def remove_old_index(self) -> None:
        """Unlink release 0.2.1's index, which it believes when it opens: it scans then."""
        try:
            os.unlink(self._old_index)
        except FileNotFoundError:
            pass


_SHARD_NAMES = frozenset(SHARDS)
