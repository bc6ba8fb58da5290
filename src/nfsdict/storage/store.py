"""Store: one directory, whole: its shards, and what is left behind.

It is made of layers: ``nfs``, which knows the rules of NFS, ``values``, ``exclusive`` and
``index_files``.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from ..core import read_stamps
from .index_files import IndexFiles
from .nfs import (
    NEW_DIRECTORY,
    NFS,
    TEMPORARY,
    check_absent,
    give_bits,
    is_directory,
    mounted_as,
)
from .values import mtime_of, same_but_for_ctime, signature_of, times_of

SHARDS = [f"{number:02x}" for number in range(256)]


class Stamp(NamedTuple):
    """A shard directory's times in ns. One that is still the same has had no change since.

    Making, renaming and removing a file in it sets both. ``cp -a``, ``rsync -a``, ``tar`` and
    restores set the mtime back afterwards; the ctime is set by that, and by chmod, and nobody can
    give it another time (inode(7)).
    """

    mtime: int
    ctime: int

    def __bool__(self) -> bool:
        """Whether it is known."""
        return self != NO_STAMP


NO_STAMP = Stamp(0, 0)


class Listing(NamedTuple):
    """One shard directory, listed with attributes."""

    stamp: Stamp
    """as the server gave it after revalidation and before the listing"""
    signatures: dict[str, bytes]
    """of each value file, by digest; zeros, which no file has, where it can't be told"""
    temporary: dict[str, int]
    """paths of temporary files, and their times in ns: mtime, or when a value was taken"""
    strangers: list[str]
    """paths of what is neither"""


class Store(IndexFiles):
    """The files of one store, by key. Safe for threads."""

    def __init__(self, directory: str, extension: str, mode: int | None, durable: bool) -> None:
        super().__init__(directory, extension, mode, durable)
        name = re.escape(extension)
        self._value_name = re.compile(rf"([0-9a-f]{{64}}){name}")
        # The root's mtime and ctime, and what it held then; None while those could come again.
        self._shards: tuple[tuple[int, int], list[str]] | None = None
        self.root: tuple[int, int] | None = None
        """device and inode of the directory that ``find_root`` found last, None if there was none
        or it couldn't be told"""
        self._inner: bool | None = None  # what _parent_over_nfs found out

    def check(self) -> None:
        """FileNotFoundError or NotADirectoryError unless the store's directory is there."""
        self.find_root(whole_path=True)
        super().check()

    def create(self) -> None:
        """Make the store's directory and its parents, unless they are there.

        NotADirectoryError if a file is in the way.
        """
        self.find_root(whole_path=True)
        super().create()
        if self.root is None:
            self.find_root()

    def find_root(self, whole_path: bool = False) -> None:
        """Look up anew which directory has the store's path, and note it as ``root``.

        Another host can put another directory there (``mv``, a restored backup). An NFS client
        goes on with the one that it remembers, whose handle stays good, until it has revalidated
        the parent directory. What was seen in the directories of the other one says nothing then.

        With ``whole_path`` the directories above are looked up as well, one call each.
        """
        if self._parent_over_nfs():
            for directory in self._above() if whole_path else []:
                with suppress(OSError):  # whether the store is there, is asked below
                    self._revalidate(directory)
            # In one that only lets through, the client remembers names for its own time.
            with suppress(PermissionError):
                self._look_into(*os.path.split(self.directory))
        status = self.status()
        root = None if status is None else (status.st_dev, status.st_ino)
        if root != self.root:
            self.root = root
            self._shards = None
            self._racy.clear()

    def _above(self) -> list[str]:
        """The directories above the parent that are of the same file system, from the top."""
        above: list[str] = []
        directory = os.path.dirname(self.directory)
        with suppress(OSError):
            device = os.stat(directory).st_dev
            while directory != os.path.dirname(directory):
                directory = os.path.dirname(directory)
                if os.stat(directory).st_dev != device:
                    break
                above.insert(0, directory)
        return above

    def _parent_over_nfs(self) -> bool:
        """Whether an NFS client stands before the parent directory too. Not where the store's is
        what was mounted: then its parent is of another file system, and has another clock."""
        if self._inner is None:
            parent = os.path.dirname(self.directory)
            status = self.status()
            with suppress(OSError):
                kind = mounted_as(parent)
                other = status is not None and os.stat(parent).st_dev != status.st_dev
                self._inner = kind in NFS and not other
        return bool(self._inner)

    def _shard(self, shard: str) -> str:
        return f"{self.directory}/{shard}"

    def shards(self) -> list[str]:
        """The shard directories that exist, in order. One GETATTR while none is made or removed.

        Listed with their attributes: on NFS that spares a LOOKUP for each afterwards.
        FileNotFoundError if the whole store is gone, OSError if one of them can't be reached.
        """
        if self._shards is not None and [self._shards[0]] == read_stamps([self.directory]):
            return self._shards[1]
        mtime, ctime, entries = self.retry_stale(self._listed, self.directory)
        settled = self.times.is_past(max(mtime, ctime))
        found = {
            name for name, mode, _, _ in entries if name in _SHARD_NAMES and self._is(name, mode)
        }
        if self._mode is not None and self._writes:
            for name, mode, _, _ in entries:
                if name in found and stat.S_ISDIR(mode) and self._bits & ~mode:
                    # As somebody makes it who gives no mode. Who isn't its owner can't help it.
                    with suppress(OSError):
                        give_bits(self._shard(name), self._bits)
        shards = [shard for shard in SHARDS if shard in found]
        self._shards = ((mtime, ctime), shards) if settled else None
        return shards

    def _is(self, shard: str, mode: int) -> bool:
        """Whether what has this name and mode is a shard directory, or a link to one. OSError if
        that can't be told: a link may lead to a disk that isn't mounted."""
        if stat.S_ISLNK(mode) or not mode:
            return is_directory(self._shard(shard))
        return stat.S_ISDIR(mode)

    def prefetch(self) -> None:
        """On NFS, learn of all shards together: that spares each first lookup in one a call."""
        if self._over_nfs():
            # A directory that can't be listed can be good for exact lookups.
            with suppress(OSError):
                self.retry_stale(self._list, self.directory)

    def stamps(self, shards: Sequence[str]) -> list[Stamp | None]:
        """The shard directories' stamps, by the server's word; None where there is none."""
        stamps: list[Stamp | None] = []
        paths = list(map(self._shard, shards))
        latest = 0
        for path, times in zip(paths, read_stamps(paths)):
            if isinstance(times, tuple):
                stamp = Stamp(*times)
                latest = max(latest, stamp.ctime)
                stamps.append(stamp)
            else:
                status = self._revalidate(path)
                if status is None:
                    check_absent(path)
                stamps.append(None if status is None else Stamp(*times_of(status)))
        self.times.observe(latest)
        return stamps

    def list(self, shard: str) -> Listing:
        """The shard directory's files with their attributes; none if it isn't there."""
        try:
            mtime, ctime, entries = self.retry_stale(self._listed, self._shard(shard))
        except FileNotFoundError:
            check_absent(self._shard(shard))
            return Listing(NO_STAMP, {}, {}, [])
        listing = Listing(Stamp(mtime, ctime), {}, {}, [])
        for file, mode, signature, ctime in entries:
            name = self._value_name.fullmatch(file)
            # A mode of 0 can't be told: only reading can tell whether it is a value file.
            if name and (stat.S_ISREG(mode) or not mode) and file.startswith(shard):
                listing.signatures[name[1]] = signature
                continue
            path = os.path.join(self._shard(shard), file)
            if stat.S_ISREG(mode) and file.startswith(TEMPORARY):
                # A rename shows in the ctime alone: what was taken is as old as the taking.
                changed = mtime_of(signature)
                listing.temporary[path] = ctime if self.taken(path) else min(changed, ctime)
            else:
                listing.strangers.append(path)
        return listing

    def temporary_files(self) -> dict[str, int]:
        """Paths of temporary files beside the index and of directories that never got their names,
        and their mtimes in ns.

        An mtime that lies ahead may be none, see ``Exclusive``: the ctime is taken.
        """
        return {
            os.path.join(self.directory, name): min(mtime_of(signature), ctime)
            for name, mode, signature, ctime in self.retry_stale(self._listed, self.directory)[2]
            if name.startswith(TEMPORARY)
            and (stat.S_ISDIR(mode) if name.startswith(NEW_DIRECTORY) else stat.S_ISREG(mode))
        }

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
        self.refresh_dentry(aside)
        if same_but_for_ctime(signature_of(os.lstat(aside)), signature):
            return aside
        self._put_back(aside, path)
        return None


_SHARD_NAMES = frozenset(SHARDS)
