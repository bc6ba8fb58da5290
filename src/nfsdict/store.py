"""Store: one directory, whole: its shards, the index, what is left behind.

It is made of layers: ``directories``, which knows the rules of NFS, ``files`` and ``contests``.
These four alone, and the core, call the operating system about files.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from typing import NamedTuple

from .contests import Contests
from .directories import failure
from .files import TEMPORARY, signature_of

SHARDS = [f"{number:02x}" for number in range(256)]


class Listing(NamedTuple):
    """One shard directory, listed with attributes."""

    stamp: int
    """mtime in ns, as the server gave it after revalidation and before the listing"""
    signatures: dict[str, bytes]
    """of each value file, by digest"""
    temporary: dict[str, int]
    """paths of temporary files, and their times in ns: mtime, or when a value was taken"""
    strangers: list[str]
    """paths of what is neither"""


class Store(Contests):
    """The files of one store, by key. Safe for threads."""

    def __init__(self, directory: str, extension: str, mode: int | None, durable: bool) -> None:
        super().__init__(directory, extension, mode, durable)
        name = re.escape(extension)
        self._value_name = re.compile(rf"([0-9a-f]{{64}}){name}")
        self._index = os.path.join(directory, f"_index.nfsdict-{extension[1:]}")
        self._old_index = os.path.join(directory, f"_index{extension}")
        # The root's mtime and ctime, and what it held then; None while those could come again.
        self._shards: tuple[tuple[int, int], list[str]] | None = None

    def _shard(self, shard: str) -> str:
        return os.path.join(self.directory, shard)

    def shards(self) -> list[str]:
        """The shard directories that exist, in order. One GETATTR while none is made or removed.

        Listed with their attributes: on NFS that spares a LOOKUP for each afterwards.
        FileNotFoundError if the whole store is gone.
        """
        status = self._revalidate(self.directory, forget=True)
        if status is None:
            raise failure(errno.ENOENT, self.directory)
        stamp = status.st_mtime_ns, status.st_ctime_ns
        if self._shards is not None and self._shards[0] == stamp:
            return self._shards[1]
        settled = self.times.passed(max(stamp))
        found = set()
        for entry in self._entries(self.directory):
            try:
                if entry.name in _SHARD_NAMES and stat.S_ISDIR(entry.stat().st_mode):
                    found.add(entry.name)
            except FileNotFoundError:
                continue
        shards = [shard for shard in SHARDS if shard in found]
        self._shards = (stamp, shards) if settled else None
        return shards

    def stamp(self, shard: str) -> int | None:
        """The shard directory's mtime in ns, by the server's word; None if it isn't there."""
        status = self._revalidate(self._shard(shard))
        return status and status.st_mtime_ns

    def list(self, shard: str) -> Listing:
        """The shard directory's files with their attributes; none if it isn't there."""
        try:
            return self._again(lambda path: self._list(path, shard), self._shard(shard))
        except FileNotFoundError:  # removed since it was revalidated
            return Listing(0, {}, {}, [])

    def _list(self, directory: str, shard: str) -> Listing:
        found = self._revalidate(directory, forget=True)
        listing = Listing(found.st_mtime_ns if found else 0, {}, {}, [])
        if found is None:
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
                listing.signatures[name[1]] = signature_of(status)
            elif regular and entry.name.startswith(TEMPORARY):
                # A rename shows in the ctime alone: what was taken is as old as the taking.
                moment = status.st_ctime_ns if self.taken(path) else status.st_mtime_ns
                listing.temporary[path] = moment
            else:
                listing.strangers.append(path)
        return listing

    def _entries(self, directory: str) -> Iterator[os.DirEntry[str]]:
        with os.scandir(directory) as entries:
            yield from entries

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

    def set_aside(self, path: str, signature: bytes) -> str | None:
        """Rename a value file to a name beside it that no scan takes, 0.2.1's neither.

        Unless it isn't the one with this signature: None. One that was replaced between look and
        rename is put back.
        """
        if self.look(self.digest_of(path)) != signature:
            return None
        aside = f"{path}.damaged-{os.urandom(6).hex()}"
        try:
            os.rename(path, aside)
        except FileNotFoundError:
            return None
        if signature_of(os.lstat(aside)) == signature:
            return aside
        self._put_back(aside, path)
        return None

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
