"""Store: the value files of one directory. What lies where is known here alone.

The rules of NFS that it keeps are in ``directories``.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from .core import read_files, value_path, write_files
from .directories import STALE, TRIES, Directories, failure
from .errors import UncertainWriteError

T = TypeVar("T")
Content = tuple[bytes, bytes]
"""A file's bytes, and the signature of the descriptor that they were read from."""

SHARDS = [f"{number:02x}" for number in range(256)]
TEMPORARY = ".nfsdict-"
_SIGNATURE = struct.Struct("<QQq")
_NO_SHARD = (errno.ENOENT, errno.ESTALE)
# After these rename has certainly done nothing. ENOENT, too, can come from a lost reply.
_REFUSED = frozenset(
    {
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.ENOSPC,
        getattr(errno, "EDQUOT", errno.ENOSPC),
        errno.EISDIR,
        errno.ENOTDIR,
        errno.EXDEV,
        errno.ENAMETOOLONG,
        errno.ELOOP,
        errno.EMLINK,
        errno.ESTALE,
    }
)


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


class Store(Directories):
    """The files of one store, by key. Safe for threads; it holds no state but its settings."""

    def __init__(self, directory: str, extension: str, mode: int | None, durable: bool) -> None:
        super().__init__(directory, mode, durable)
        self.extension = extension
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
        return f"{self.directory}/{digest[:2]}/{digest}{self.extension}"

    def _shard(self, shard: str) -> str:
        return os.path.join(self.directory, shard)

    # --- reading -------------------------------------------------------------------------------

    def read(self, paths: Sequence[str]) -> list[Content | OSError | None]:
        """Each file's content, None where there is none, or what stopped it from being read.

        The directories are taken as they are remembered: for names out of a fresh listing.
        """
        contents: list[Content | OSError | None] = []
        for path, content in zip(paths, read_files(list(paths))):
            for _ in range(TRIES):
                if content not in STALE:
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

    def put(self, name: str, data: bytes) -> bytes:
        """Replace the file of this digest; atomic, durable on return. The new signature.

        UncertainWriteError if it can't be known whether the new content is there; after any other
        OSError it isn't. No temporary file stays behind.
        """
        files = [(self.path_of(name), data)]
        [outcome] = self._tried(files)
        if isinstance(outcome, bytes):
            return outcome
        [result] = self._mended(files, [outcome])
        if isinstance(result, OSError):
            raise result
        return result

    def write(self, entries: Iterable[tuple[str, bytes]]) -> list[bytes | OSError]:
        """As ``put``, for many (digest, content): signature or error of each.

        Each directory is made durable once, if the digests are in order.
        """
        files = [(self.path_of(name), data) for name, data in entries]
        return self._mended(files, self._tried(files))

    def _tried(self, files: list[tuple[str, bytes]]) -> list[bytes | tuple[int, int]]:
        synced = self._durable and not self._synchronous(self.directory)
        return write_files(files, self._mode, self._durable, synced)

    def _mended(
        self, files: list[tuple[str, bytes]], outcomes: list[bytes | tuple[int, int]]
    ) -> list[bytes | OSError]:
        """What those outcomes come to, after another try where that is worth one."""
        results = [self._result(*file, outcome) for file, outcome in zip(files, outcomes)]
        for _ in range(TRIES):
            again = []
            for i, result in enumerate(results):
                try:
                    if isinstance(result, OSError) and self._renewed(files[i][0], result):
                        again.append(i)
                except OSError as error:
                    results[i] = error
            if not again:
                break
            for i, outcome in zip(again, self._tried([files[i] for i in again])):
                results[i] = self._result(*files[i], outcome)
        return results

    def _result(self, path: str, data: bytes, outcome: bytes | tuple[int, int]) -> bytes | OSError:
        """The signature, or what a write that failed at some step comes to."""
        if isinstance(outcome, bytes):
            return outcome
        step, number = outcome
        if step == 0 or (step == 1 and number in _REFUSED):
            return failure(number, path)
        if step == 1:
            # Rename failed, or its reply was lost: what lies there tells.
            [content] = self.read([path])
            if isinstance(content, tuple) and content[0] == data:
                return content[1]
        return UncertainWriteError(number, os.strerror(number), path)

    def _renewed(self, path: str, error: OSError) -> bool:
        """Whether a write met no shard directory, or a stale one, and now there is one.

        OSError if there can't be one.
        """
        if isinstance(error, UncertainWriteError) or error.errno not in _NO_SHARD:
            return False
        shard = os.path.dirname(path)
        if self._revalidate(shard) is None:
            self._make_directory(shard)
        return True

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
        for i, failed in self._settle([(i, os.path.dirname(paths[i])) for i in gone]):
            outcomes[i] = failed
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
            elif regular and entry.name.startswith(TEMPORARY):
                listing.temporary[path] = status.st_mtime_ns
            else:
                listing.strangers.append(path)
        return listing

    def _entries(self, directory: str) -> Iterator[os.DirEntry[str]]:
        with os.scandir(directory) as entries:
            yield from entries

    def clock(self) -> int:
        """The server's time in ns: the mtime of a file just made there."""
        temporary = os.path.join(self.directory, TEMPORARY + os.urandom(12).hex())
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
            if entry.name.startswith(TEMPORARY):
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
        [outcome] = self._tried([(self._index, data)])
        if not isinstance(outcome, bytes):
            raise failure(outcome[1], self._index)

    def remove_old_index(self) -> None:
        """Unlink release 0.2.1's index, which it believes when it opens: it scans then."""
        try:
            os.unlink(self._old_index)
        except FileNotFoundError:
            pass


_SHARD_NAMES = frozenset(SHARDS)
