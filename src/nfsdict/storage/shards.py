"""Shards: the directories that hold the value files, listed, and known to be unchanged.

And the root that holds these, which another host can put another one in the place of.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from ..core import read_stamps
from ..layout import (
    NEW_DIRECTORY,
    NO_STAMP,
    SHARDS,
    TEMPORARY,
    Stamp,
    is_private,
    mtime_of,
    stamp_of,
    value_names,
)
from .files import Files, give_bits
from .mounts import NFS, mounted_as
from .nfs import NfsRules, check_absent, is_directory

_SHARD_NAMES = frozenset(SHARDS)


class Listing(NamedTuple):
    """One shard directory, listed with attributes."""

    stamp: Stamp
    """as the server gave it after revalidation and before the listing"""
    signatures: dict[str, bytes]
    """of each value file, by digest; zeros, which no file has, where it can't be told"""
    temporary: dict[str, int]
    """paths of temporary files, and their times in ns: mtime, or when a value was taken"""
    unrecognized: list[str]
    """paths of what is neither"""


class Shards:
    """The shards of one store, for value files of one extension. Safe for threads."""

    def __init__(self, rules: NfsRules, files: Files, extension: str) -> None:
        self._rules = rules
        self._files = files
        self._directory = files.directory
        self._value_name = value_names(re.escape(extension))
        # The root's stamp, and the shards that it held then; None while that could come again.
        self._settled: tuple[Stamp, list[str]] | None = None
        self.root: tuple[int, int] | None = None
        """device and inode of the directory that ``find_root`` found last, None if there was none
        or it couldn't be told"""
        self._inner: bool | None = None  # what _parent_over_nfs found out

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
                    self._rules.revalidate(directory)
            # In one that only lets through, the client remembers names for its own time.
            with suppress(PermissionError):
                self._rules.may_contain(*os.path.split(self._directory))
        status = self._files.status()
        root = None if status is None else (status.st_dev, status.st_ino)
        if root != self.root:
            self.root = root
            self._settled = None
            self._rules.forget()

    def _above(self) -> list[str]:
        """The directories above the parent that are of the same file system, from the top."""
        above: list[str] = []
        directory = os.path.dirname(self._directory)
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
            parent = os.path.dirname(self._directory)
            status = self._files.status()
            with suppress(OSError):
                kind = mounted_as(parent)
                other = status is not None and os.stat(parent).st_dev != status.st_dev
                self._inner = kind in NFS and not other
        return bool(self._inner)

    def path_of(self, shard: str) -> str:
        """Where this shard directory is, or would be."""
        return f"{self._directory}/{shard}"

    def present(self) -> list[str]:
        """The shard directories that exist, in order. One GETATTR while none is made or removed.

        Listed with their attributes: on NFS that spares a LOOKUP for each afterwards.
        FileNotFoundError if the whole store is gone, OSError if one of them can't be reached.
        """
        if self._settled and [self._settled[0]] == read_stamps([self._directory]):
            return self._settled[1]
        mtime, ctime, entries = self._rules.list(self._directory)
        settled = self._rules.clock.is_past(max(mtime, ctime))
        found = {name for name, mode, _, _ in entries if self._is_shard(name, mode)}
        if self._files.mode is not None and self._files.may_change:
            for name, mode, _, _ in entries:
                if name in found and stat.S_ISDIR(mode) and self._files.bits & ~mode:
                    # As somebody makes it who gives no mode. Who isn't its owner can't help it.
                    with suppress(OSError):
                        give_bits(self.path_of(name), self._files.bits)
        shards = [shard for shard in SHARDS if shard in found]
        self._settled = (Stamp(mtime, ctime), shards) if settled else None
        return shards

    def _is_shard(self, name: str, mode: int) -> bool:
        """Whether what has this name and mode is a shard directory, or a link to one. OSError if
        that can't be told: a link may lead to a disk that isn't mounted."""
        if name not in _SHARD_NAMES:
            return False
        if stat.S_ISLNK(mode) or not mode:
            return is_directory(self.path_of(name))
        return stat.S_ISDIR(mode)

    def prefetch(self) -> None:
        """Learn of all shards together, see ``NfsRules.prefetch``."""
        self._rules.prefetch(self._directory)

    def stamps(self, shards: Sequence[str]) -> list[Stamp | None]:
        """The shard directories' stamps, by the server's word; None where there is none."""
        stamps: list[Stamp | None] = []
        paths = list(map(self.path_of, shards))
        latest = 0
        for path, times in zip(paths, read_stamps(paths)):
            if isinstance(times, tuple):
                stamp = Stamp(*times)
                latest = max(latest, stamp.ctime)
                stamps.append(stamp)
            else:
                status = self._rules.revalidate(path)
                if status is None:
                    check_absent(path)
                stamps.append(None if status is None else stamp_of(status))
        self._rules.clock.observe(latest)
        return stamps

    def list(self, shard: str) -> Listing:
        """The shard directory's files with their attributes; none if it isn't there."""
        try:
            mtime, ctime, entries = self._rules.list(self.path_of(shard))
        except FileNotFoundError:
            check_absent(self.path_of(shard))
            return Listing(NO_STAMP, {}, {}, [])
        listing = Listing(Stamp(mtime, ctime), {}, {}, [])
        for file, mode, signature, ctime in entries:
            name = self._value_name.fullmatch(file)
            # A mode of 0 can't be told: only reading can tell whether it is a value file.
            if name and (stat.S_ISREG(mode) or not mode) and file.startswith(shard):
                listing.signatures[name[1]] = signature
                continue
            path = os.path.join(self.path_of(shard), file)
            if stat.S_ISREG(mode) and file.startswith(TEMPORARY):
                # A rename shows in the ctime alone: what was taken is as old as the taking.
                changed = mtime_of(signature)
                listing.temporary[path] = ctime if is_private(path) else min(changed, ctime)
            else:
                listing.unrecognized.append(path)
        return listing

    def root_files(self) -> dict[str, bytes]:
        """The signatures of what lies beside the shards, by name."""
        return {
            name: signature
            for name, mode, signature, _ in self._rules.list(self._directory)[2]
            if not self._is_shard(name, mode)
        }

    def temporary_files(self) -> dict[str, int]:
        """Paths of temporary files beside the index and of directories that never got their names,
        and their mtimes in ns.

        An mtime that lies ahead may be none, see ``Exclusive``: the ctime is taken.
        """
        return {
            os.path.join(self._directory, name): min(mtime_of(signature), ctime)
            for name, mode, signature, ctime in self._rules.list(self._directory)[2]
            if name.startswith(TEMPORARY)
            and (stat.S_ISDIR(mode) if name.startswith(NEW_DIRECTORY) else stat.S_ISREG(mode))
        }
