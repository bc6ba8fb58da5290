"""Files: the value files of one store, read, replaced and removed. The base of ``Store``."""

from __future__ import annotations

import errno
import os
import stat
import struct
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import TypeVar

from ..content import Content, holds
from ..core import read_files, value_path, write_file, write_files
from ..errors import UncertainWriteError
from .nfs import NEW_DIRECTORY, STALE, TEMPORARY, TRIES, TRUSTED, Directories, failure

T = TypeVar("T")
Found = tuple[bytes, bytes]
"""A file's bytes, and the signature of the descriptor that they were read from."""

_SIGNATURE = struct.Struct("<QQqq")
_CTIME = 24  # where it begins
_LAST = (1 << 63) - 1  # the time of what has one that 64 bits don't hold
_NANOSECONDS = _LAST - _LAST % 1_000_000_000
# With the last two Linux's client answers a rename over a file that it has open, and can't put
# aside as another host has just removed it (fs/nfs/dir.c, nfs_rename); nothing was done.
_TRANSIENT = (errno.ENOENT, errno.ESTALE, errno.EBUSY, errno.ETXTBSY)
# After these rename and link have done nothing, where that is ``TRUSTED``. ENOENT, too, can come
# from a lost reply.
REFUSED = frozenset(
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
        errno.EEXIST,
        errno.ENOSYS,
        errno.ENOTSUP,
        errno.EOPNOTSUPP,
        errno.ESTALE,
        errno.EBUSY,
        errno.ETXTBSY,
    }
)
# What file systems without hard links answer.
NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK)
# A whole file that isn't under its key, of which the name tells the key's digest.
PRIVATE = TEMPORARY + "taken-"
# What isn't a regular file gives these when it is read, and is no value.
_NO_FILE = (errno.EISDIR, errno.ELOOP, errno.ENXIO)
# Seconds after each rename that fails where none is trusted: on SMB a file that was refused to be
# replaced was gone 50 ms later, and the next rename succeeded.
_PAUSES = (0.01, 0.05, 0.1, 0.2, 0.4)


def _held(moment: int) -> int:
    return moment if -_NANOSECONDS <= moment < _NANOSECONDS else _LAST


def times_of(status: os.stat_result) -> tuple[int, int]:
    """Mtime and ctime in ns, as the core gives them."""
    return _held(status.st_mtime_ns), _held(status.st_ctime_ns)


def signature_of(status: os.stat_result) -> bytes:
    """Inode, size, mtime and ctime in ns, as the core gives them."""
    return _SIGNATURE.pack(status.st_ino, status.st_size, *times_of(status))


def file_size(signature: bytes) -> int:
    """Bytes in the file."""
    return int.from_bytes(signature[8:16], "little")


def mtime_of(signature: bytes) -> int:
    """The mtime in ns."""
    return int.from_bytes(signature[16:_CTIME], "little", signed=True)


def latest_of(signature: bytes) -> int:
    """The later one of mtime and ctime in ns."""
    return max(mtime_of(signature), int.from_bytes(signature[_CTIME:], "little", signed=True))


def same_but_for_ctime(one: bytes, other: bytes) -> bool:
    """Whether one signature may be the other one's file, renamed or linked since: that sets its
    ctime. Any file may have it that was written in place, and given its mtime again."""
    return one[:_CTIME] == other[:_CTIME]


def is_transient(result: bytes | OSError) -> bool:
    """Whether the write failed transiently: its shard is missing or stale, or another host has just
    removed the target."""
    if not isinstance(result, OSError) or isinstance(result, UncertainWriteError):
        return False
    return result.errno in _TRANSIENT


class Files(Directories):
    """Value files, by digest. Safe for threads."""

    def __init__(self, directory: str, extension: str, mode: int | None, durable: bool) -> None:
        super().__init__(directory, mode, durable)
        self.extension = extension
        # What ``_syncs`` gives, where it is known that renames are trusted.
        self._synced: bool | None = None

    def path(self, key: str) -> str:
        """Where the key's value file is, or would be."""
        return value_path(self.directory, key, self.extension)

    def path_of(self, digest: str) -> str:
        """The same, for a key of which only the digest is known."""
        return f"{self.directory}/{digest[:2]}/{digest}{self.extension}"

    @staticmethod
    def digest_of(path: str) -> str:
        """The digest of a value file's key."""
        return os.path.basename(path)[:64]

    # --- reading -------------------------------------------------------------------------------

    def read(self, paths: Sequence[str]) -> list[Found | OSError | None]:
        """Each file's content, None where there is none, or what stopped it from being read.

        The directories are taken as they are remembered: for names out of a fresh listing.
        """
        contents: list[Found | OSError | None] = []
        for path, content in zip(paths, read_files(list(paths))):
            for number in range(TRIES):
                if not isinstance(content, int):
                    break
                if content in STALE:
                    self._after_stale(path, number)
                elif not self._unleased(content, path):
                    break
                [content] = read_files([path])
            if not isinstance(content, int):
                contents.append(content)
            else:
                contents.append(None if content == errno.ENOENT else failure(content, path))
        return contents

    def find(self, key: str, fresh: bool = False) -> Found | None:
        """The content of the key's file; None means that it isn't there, by the server's word.

        With ``fresh`` the directory is revalidated first, as NFSv4.1 and later open a file that
        another host has unlinked. Else it is revalidated after a miss.
        """
        path = self.path(key)
        if fresh and not self.revalidate_parent(path):
            return None
        [content] = self.read([path])
        if content is None and not fresh and self.revalidate_parent(path):
            [content] = self.read([path])
        if isinstance(content, OSError):
            raise content
        return content

    def look(self, name: str) -> bytes | None:
        """The signature of this digest's file, None if it has none.

        The directory is revalidated first: lstat can answer from the attribute cache for a file
        that is gone. What isn't a regular file is no value file.
        """
        path = self.path_of(name)
        if not self.revalidate_parent(path):
            return None
        try:
            status = self.retry_stale(os.lstat, path)
        except FileNotFoundError:
            return None
        return signature_of(status) if stat.S_ISREG(status.st_mode) else None

    def _is_there(self, path: str) -> bool:
        """Whether lstat finds it. Unlike ``os.path.lexists`` it takes no error for absence."""
        try:
            self.retry_stale(os.lstat, path)
        except FileNotFoundError:
            return False
        return True

    # --- writing -------------------------------------------------------------------------------

    def _trusted(self) -> bool:
        """Whether a rename or link that is refused has certainly done nothing."""
        return self._mounted_as(self.directory) in TRUSTED

    def _syncs(self) -> bool:
        """Whether a directory is to be synced after a change in it."""
        synced = self._durable and not self._synchronous(self.directory)
        if self._trusted():
            self._synced = synced
        return synced

    def private_name(self, name: str) -> str:
        """A new name for a whole file of this digest, in its shard, that nobody else has. What has
        it is given back by ``repair``, of a dictionary with the same extension. It doesn't end like
        a value file's, so that who looks for those doesn't find it."""
        shard = os.path.dirname(self.path_of(name))
        return f"{shard}/{PRIVATE}{name}{self.extension}-{os.urandom(12).hex()}"

    def put(self, name: str, data: Content) -> bytes:
        """Replace the file of this digest; atomic, durable on return. The new signature.

        UncertainWriteError if it can't be known whether the new content is there; after any other
        OSError it isn't. No temporary file stays behind.

        Where a refused rename may have done something (see ``TRUSTED``) the new content is under a
        private name until a value is seen under the key. A process that is killed leaves it there,
        and an UncertainWriteError says so if nothing lies under the key: ``repair`` gives it back,
        unless the key has a value by then. So a write that was never acknowledged may be done by a
        later ``repair``, also of a key that was deleted in between.
        """
        path = f"{self.directory}/{name[:2]}/{name}{self.extension}"
        if self._synced is None:
            self._syncs()
        synced = self._synced
        if synced is None and self._trusted():
            synced = self._syncs()
        outcome: bytes | tuple[int, int] | OSError
        if synced is None:
            [outcome] = self._published([(path, data)])
        else:
            outcome = write_file(path, data, self._mode, self._durable, synced)
        if type(outcome) is bytes:
            if self._file_system == "nfs":
                self.times.observe(mtime_of(outcome))
            return outcome
        [result] = self.retry_writes([(path, data)], [outcome])
        if isinstance(result, OSError):
            raise result
        return result

    def write(self, entries: Iterable[tuple[str, Content]]) -> list[bytes | OSError]:
        """As ``put``, for many (digest, content): signature or error of each.

        Each directory is made durable once, if the digests are in order.
        """
        files = [(self.path_of(name), data) for name, data in entries]
        return self.retry_writes(files, self._published(files))

    def write_once(
        self, files: list[tuple[str, Content]], exclusive: bool = False
    ) -> list[bytes | tuple[int, int]]:
        return write_files(files, self._mode, self._durable, self._syncs(), exclusive)

    def _published(
        self, files: list[tuple[str, Content]], exclusive: bool = False
    ) -> Sequence[bytes | tuple[int, int] | OSError]:
        """As ``write_once``, by way of private names where a rename isn't trusted."""
        if exclusive or self._trusted():
            return self.write_once(files, exclusive)
        outcomes = [self._publish(path, data) for path, data in files]
        done = [i for i, outcome in enumerate(outcomes) if isinstance(outcome, bytes)]
        for i, failed in self.sync_parents([(i, os.path.dirname(files[i][0])) for i in done]):
            outcomes[i] = failed
        return outcomes

    def _publish(self, path: str, data: Content) -> bytes | tuple[int, int] | OSError:
        private = self.private_name(self.digest_of(path))
        [outcome] = write_files([(private, data)], self._mode, self._durable, False, False)
        if not isinstance(outcome, bytes):
            with suppress(OSError):
                self.sweep(private)  # the reply to a rename may have been lost
            return 0, outcome[1]
        number = errno.EIO
        there: Found | OSError | None = None
        for pause in _PAUSES:
            try:
                os.replace(private, path)
                return outcome
            except OSError as error:
                number = error.errno or errno.EIO
            time.sleep(pause)
            there = self._lies_there(path)
            with suppress(OSError):
                if not self._is_there(private):  # it was carried out, or repair gave it back
                    if isinstance(there, tuple) and holds(there[0], data):
                        return there[1]
                    return UncertainWriteError(number, os.strerror(number), path)
        if isinstance(there, tuple) or (there and there.errno in _NO_FILE):
            with suppress(OSError):
                self.sweep(private)
            return 0, number
        told = f"{os.strerror(number)}; the new value is in {private}, repair() gives it back"
        return UncertainWriteError(number, told, path)

    def _lies_there(self, path: str) -> Found | OSError | None:
        """What this file holds, None if it isn't there by the server's word."""
        try:
            found = self.revalidate_parent(path)
        except OSError as error:
            return error
        return self.read([path])[0] if found else None

    def retry_writes(
        self,
        files: list[tuple[str, Content]],
        outcomes: Sequence[bytes | tuple[int, int] | OSError],
        exclusive: bool = False,
    ) -> list[bytes | OSError]:
        """Turn outcomes into signatures or errors, and retry what failed transiently."""
        results = [
            self._result(*file, outcome, exclusive) for file, outcome in zip(files, outcomes)
        ]
        for _ in range(TRIES):
            again = [i for i, result in enumerate(results) if is_transient(result)]
            shards = [os.path.dirname(files[i][0]) for i in again]
            refused = {shard: self._renew(shard) for shard in dict.fromkeys(shards)}
            for i, shard in zip(again, shards):
                results[i] = refused[shard] or results[i]
            again = [i for i, shard in zip(again, shards) if not refused[shard]]
            if not again:
                break
            for i, outcome in zip(again, self._published([files[i] for i in again], exclusive)):
                results[i] = self._result(*files[i], outcome, exclusive)
        return results

    def _result(
        self,
        path: str,
        data: Content,
        outcome: bytes | tuple[int, int] | OSError,
        exclusive: bool,
    ) -> bytes | OSError:
        """The signature, or what a write that failed at some step comes to."""
        if not isinstance(outcome, tuple):
            return outcome
        step, number = outcome
        if step == 0 or (step == 1 and number in REFUSED and self._trusted()):
            return failure(number, path)
        if step == 1 and exclusive and number in REFUSED:
            # What an ``add``, which replaces nothing, may have done lies there.
            there = self._lies_there(path)
            if there is None or number in (errno.EEXIST, *NO_LINKS):
                return failure(number, path)  # at the latter ``add`` itself looks
            if isinstance(there, tuple) and not holds(there[0], data):
                return failure(errno.EEXIST, path)
        if step == 1 and not exclusive:
            # Rename failed, or its reply was lost: what lies there tells.
            [content] = self.read([path])
            if isinstance(content, tuple) and holds(content[0], data):
                return content[1]
        return UncertainWriteError(number, os.strerror(number), path)

    def _renew(self, shard: str) -> OSError | None:
        """Make sure that the client knows a shard directory here. What stands against it."""
        try:
            if self._revalidate(shard) is None:
                self._make_directory(shard)
        except OSError as error:
            return error
        return None

    def sync_parents(self, changed: Iterable[tuple[T, str]]) -> Iterator[tuple[T, OSError]]:
        """Make the directories of these changes durable; give each that may not be."""
        if not self._durable:
            return
        by_shard: dict[str, list[T]] = {}
        for what, shard in changed:
            by_shard.setdefault(shard, []).append(what)
        for shard, whats in by_shard.items():
            try:
                self._sync_directory(shard)
            except FileNotFoundError:
                continue  # with all that was in it
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
        # What somebody else has removed just now is to be gone for good as well.
        gone = [i for i, outcome in enumerate(outcomes) if not isinstance(outcome, OSError)]
        for i, failed in self.sync_parents([(i, os.path.dirname(paths[i])) for i in gone]):
            outcomes[i] = failed
        return outcomes

    def _remove(self, path: str) -> bool:
        try:
            self.retry_stale(os.unlink, path)
        except FileNotFoundError:
            if not self.revalidate_parent(path):
                return False
            try:
                self.retry_stale(os.unlink, path)
            except FileNotFoundError:
                return False
        return True

    def clock(self) -> int:
        """The server's time in ns: the mtime of a file just made there."""
        temporary = os.path.join(self.directory, TEMPORARY + os.urandom(12).hex())
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                moment = os.fstat(descriptor).st_mtime_ns
            finally:
                os.close(descriptor)
        finally:
            self.sweep(temporary)  # also after an open that failed: its reply may have been lost
        self.times.observe(moment)
        return moment

    def sweep(self, path: str) -> None:
        """Remove a temporary file, or an empty directory that never got its name."""
        new = os.path.basename(path).startswith(NEW_DIRECTORY)
        with suppress(FileNotFoundError):
            (os.rmdir if new else os.unlink)(path)
