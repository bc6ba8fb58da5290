"""Shards: the directories that hold the value files: listed, or known to be unchanged.

Also the root, the directory that holds the shards: another host can replace it by another one.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from ..core import identify, read_stamps
from ..errors import failure
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
from .coherence import Coherence
from .directories import check_absent
from .file_systems import Lookup
from .files import Files, give_bits
from .mountinfo import mount_of
from .mounts import kind_of
from .seen import Known

_SHARD_NAMES = frozenset(SHARDS)
# With more entries beside the shards a listing costs about as much as asking for each shard.
_MANY = 2000


def remove_empty(directory: str) -> None:
    """Remove a store's directory and its shards, as long as there is nothing in them; OSError if
    there is. Another process that writes to the store meanwhile makes its shard again, unless the
    whole store is gone by then."""
    for name in _SHARD_NAMES.intersection(os.listdir(directory)):
        os.rmdir(f"{directory}/{name}")
    os.rmdir(directory)


class Listing(NamedTuple):
    """One shard directory, listed with attributes."""

    stamp: Stamp
    """as the server gave it after revalidation and before the listing"""
    signatures: dict[str, bytes]
    """of each value file, by digest; zeros, which no file has, if lstat failed"""
    temporary: dict[str, int]
    """paths of temporary files, and their times in ns: mtime, or when a value was taken"""
    unrecognized: list[str]
    """paths of everything else"""
    others: list[int]
    """positions of listed keys that have another file or none, if it was told what is known"""


class Shards:
    """The shards of one store, for value files of one extension. Safe for threads."""

    def __init__(self, rules: Coherence, files: Files, extension: str) -> None:
        self._rules = rules
        self._files = files
        self._directory = files.directory
        self._extension = extension
        self._value_name = value_names(re.escape(extension))
        # The root's stamp and the shards that it held then; None while a change could leave the
        # stamp the same.
        self._settled: tuple[Stamp, list[str]] | None = None
        self.root: tuple[int, int] | None = None
        """device and inode of the directory that ``find_root`` found last; None if it found none,
        or couldn't tell"""
        self._inner: bool | None = None  # the answer of _asks_parent, once it is known

    def find_root(self, whole_path: bool = False) -> None:
        """Look up anew which directory has the store's path, and note it as ``root``.

        Another host can put another directory there (``mv``, a restored backup). Until a client
        revalidates the parent, it goes on using the old directory, whose handle stays good on NFS.
        If the root is another one, what was seen in the old one is forgotten.

        With ``whole_path`` the directories above the parent are looked up too, one call each.
        """
        if self._asks_parent():
            for directory in self._above() if whole_path else []:
                with suppress(OSError):  # ``status`` below tells whether the store is there
                    self._rules.revalidate(directory)
            found = self._identify_anew(Known.NOTHING)
            if isinstance(found, int):  # the parent may be large, so it isn't read in vain
                found = self._identify_anew(Known.LISTED)
        else:
            found = identify(self._directory)
        root = None if isinstance(found, int) else found
        if root != self.root:
            self.root = root
            self._settled = None
            self._rules.forget()

    def _identify_anew(self, need: Known) -> tuple[int, int] | int:
        """Device and inode of the directory that has the store's path, or the errno. ``need``: see
        ``Coherence.may_contain``, of the parent."""
        # If the parent may be searched but not read, the client's memory of its names can't be
        # dropped, and runs out by itself.
        with suppress(PermissionError):
            self._rules.may_contain(*os.path.split(self._directory), need)
        return identify(self._directory)

    def check_root(self) -> None:
        """OSError if nothing has the store's path any more. Asks no server: an NFS client goes on
        with the directory, whatever name another host gives it."""
        found = identify(self._directory)
        if isinstance(found, int):
            raise failure(found, self._directory)

    def _above(self) -> list[str]:
        """The directories above the parent on the same file system, from the top."""
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

    def _asks_parent(self) -> bool:
        """Whether the parent directory is on the same file system as the store's directory, and
        that has to be made to look names up.

        If the store's directory is itself the mount point, its parent belongs to another file
        system, with another clock: False then.
        """
        if self._inner is None:
            parent = os.path.dirname(self._directory)
            status = self._files.status()
            with suppress(OSError):
                kind = kind_of(mount_of(parent))
                other = status is not None and os.stat(parent).st_dev != status.st_dev
                self._inner = kind.lookup is not Lookup.OPEN and not other
        return bool(self._inner)

    def path_of(self, shard: str) -> str:
        """Where this shard directory is, or would be."""
        return f"{self._directory}/{shard}"

    def present(self) -> list[str]:
        """The shard directories that exist, in order. One GETATTR while none is made or removed.

        Else the root is listed with attributes: on NFS that saves a LOOKUP for each shard
        afterwards. FileNotFoundError if the whole store is gone, OSError if a shard can't be
        reached, or something else has its place.
        """
        # ``_settled`` is set only where opening a directory tells its stamp.
        if self._settled and [self._settled[0]] == read_stamps([self._directory]):
            return self._settled[1]
        begun = self._rules.clock.lower_bound()
        mtime, ctime, entries = self._rules.list(self._directory)
        settled = self._rules.settles(max(mtime, ctime), begun)
        found = {name for name, mode, _, _ in entries if self._is_shard(name, mode)}
        self._mend_bits({name: mode for name, mode, _, _ in entries if name in found})
        shards = [shard for shard in SHARDS if shard in found]
        self._settled = (Stamp(mtime, ctime), shards) if settled else None
        return shards

    def _mend_bits(self, shards: dict[str, int]) -> None:
        """Give these shard directories, with their modes, the bits that they lack: a process
        without ``mode`` made them. Only the owner can."""
        if self._files.may_change:
            for name, mode in shards.items():
                if stat.S_ISDIR(mode) and self._files.bits & ~mode:
                    with suppress(OSError):
                        give_bits(self.path_of(name), self._files.bits)

    def _is_shard(self, name: str, mode: int) -> bool:
        """Whether an entry of this name and mode is a shard directory, or a link to one.

        False too if it was just removed. Else, of a shard's name, OSError: something is in the
        place of the directory with the shard's keys, or a link leads to a disk that isn't mounted.
        """
        if name not in _SHARD_NAMES:
            return False
        path = self.path_of(name)
        try:
            if not stat.S_ISDIR(mode) and not stat.S_ISDIR(os.stat(path).st_mode):
                raise failure(errno.ENOTDIR, path)
        except FileNotFoundError:
            check_absent(path)
            return False
        return True

    def prefetch(self) -> None:
        """Have the client look up all shards together, see ``Coherence.prefetch``."""
        self._rules.prefetch(self._directory)

    def stamps(self, shards: Sequence[str]) -> list[Stamp | None]:
        """The shards' stamps, by the server's word; None for a shard that has no directory, and
        NO_STAMP for one whose stamp would prove nothing."""
        if not self._rules.mounted.asks_stamps:
            found = self.present_with_stamps()
            if found is None:
                return [NO_STAMP] * len(shards)
            return [found.get(shard) for shard in shards]
        stamps: list[Stamp | None] = []
        paths = list(map(self.path_of, shards))
        latest = 0
        opened = read_stamps(paths) if self._rules.mounted.opening_asks else [0] * len(paths)
        for path, times in zip(paths, opened):
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

    def present_with_stamps(self) -> dict[str, Stamp] | None:
        """The shard directories that exist, and their stamps, by one listing of the root.

        3 calls to an NFS server, in place of one for each shard. None where a listing
        doesn't bring attributes, or is long, or stamps prove nothing: ``present`` and ``stamps``
        tell then. Errors as of ``present``.
        """
        if not self._rules.mounted.lists_attributes() or not self._rules.mounted.proves_stamps:
            return None
        entries = self._rules.list_twice(self._directory, attributes=True)[2]
        if not self._rules.mounted.lists_attributes():
            return None
        if len(entries) > _MANY:
            self._rules.mounted.distrust_listings(f"{len(entries)} entries lie beside one another")
            return None
        self._mend_bits({name: mode for name, mode, _, _ in entries if name in _SHARD_NAMES})
        found: dict[str, Stamp] = {}
        followed = []
        for name, mode, signature, ctime in entries:
            if name not in _SHARD_NAMES:
                continue
            if stat.S_ISDIR(mode):
                found[name] = Stamp(mtime_of(signature), ctime)
            else:
                followed.append(name)
        # Links, and what couldn't be looked at.
        linked = [name for name in followed if self._is_shard(name, 0)]
        asks = self._rules.mounted.asks_stamps
        stamps = self.stamps(linked) if asks else [NO_STAMP] * len(linked)
        found.update((name, one) for name, one in zip(linked, stamps) if one is not None)
        self._rules.clock.observe(max((stamp.ctime for stamp in found.values()), default=0))
        return found

    def list(self, shard: str, keys: list[str] | None = None, signatures: bytes = b"") -> Listing:
        """The shard directory's files with their attributes; none if the shard doesn't exist.

        If ``keys`` are known, in the order of their digests, with these signatures, the listing
        leaves out the files that still have them.
        """
        keys = keys or []
        try:
            mtime, ctime, entries, others = self._rules.list_changes(
                self.path_of(shard), keys, signatures, self._extension
            )
        except FileNotFoundError:
            check_absent(self.path_of(shard))
            return Listing(NO_STAMP, {}, {}, [], list(range(len(keys))))
        stamp = Stamp(mtime, ctime) if self._rules.mounted.proves_stamps else NO_STAMP
        listing = Listing(stamp, {}, {}, [], others)
        for file, mode, signature, ctime in entries:
            name = self._value_name.fullmatch(file)
            # With a mode of 0, lstat failed: only reading can tell whether it is a value file.
            if name and (stat.S_ISREG(mode) or not mode) and file.startswith(shard):
                listing.signatures[name[1]] = signature
                continue
            path = os.path.join(self.path_of(shard), file)
            if stat.S_ISREG(mode) and file.startswith(TEMPORARY):
                # A taken file's time is when it was taken: the rename set only the ctime.
                changed = mtime_of(signature)
                listing.temporary[path] = ctime if is_private(path) else min(changed, ctime)
            else:
                listing.unrecognized.append(path)
        return listing

    def root_files(self) -> dict[str, bytes]:
        """The signatures of files and directories beside the shards, by name."""
        return {
            name: signature
            for name, mode, signature, _ in self._rules.list(self._directory)[2]
            if not self._is_shard(name, mode)
        }

    def temporary_files(self) -> dict[str, int]:
        """Paths of temporary files in the root, and of shard directories that were never renamed
        to their names, with their mtimes in ns.

        The ctime counts if it is earlier: a later mtime may be no time, see ``Claims``.
        """
        return {
            os.path.join(self._directory, name): min(mtime_of(signature), ctime)
            for name, mode, signature, ctime in self._rules.list(self._directory)[2]
            if name.startswith(TEMPORARY)
            and (stat.S_ISDIR(mode) if name.startswith(NEW_DIRECTORY) else stat.S_ISREG(mode))
        }
