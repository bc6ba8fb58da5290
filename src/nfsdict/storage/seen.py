"""Seen: what is known of directories over NFS, each at one ctime.

Two changes of a directory in one tick of the server's clock bear one ctime, so an NFS client can't
tell the second. If any process of its host looked up a name between the two, the client goes on
believing the answer, for all processes of the host, until the directory changes again. Reading the
directory once no later change can bear that ctime mends what the client remembers of the names that
are there (fs/nfs/dir.c, nfs_prime_dcache). Of a name that isn't there it may still remember a file:
only the names that were read tell.
"""

from __future__ import annotations

import enum
from array import array
from bisect import bisect_left
from collections.abc import Iterable


class Contains(enum.Enum):
    """Whether a directory contains a name, by the server's word."""

    MAYBE = enum.auto()
    """a look at the name tells"""
    UNREAD = enum.auto()
    """a look at the name tells if it finds it, as nothing is known of the directory"""
    NO = enum.auto()
    NO_DIRECTORY = enum.auto()


class Known(enum.IntEnum):
    """How much is known of a directory at its present ctime; each includes those before it."""

    RACY = enum.auto()
    """this dictionary looked while a later change could bear the same ctime"""
    NOTHING = enum.auto()
    """other processes of the host may have looked then"""
    LISTED = enum.auto()
    """it was read since, so a name that the client doesn't find isn't there"""
    NAMES = enum.auto()
    """and its names are known"""


class Names:
    """The names in a directory, by a hash of each: 8 bytes a name. Two names share one once in
    2**64 pairs."""

    def __init__(self, names: Iterable[str]) -> None:
        self._hashes = array("q", sorted(map(hash, names)))

    def __contains__(self, name: object) -> bool:
        place = bisect_left(self._hashes, hash(name))
        return self._hashes[place : place + 1] == array("q", [hash(name)])


class Seen:
    """What one dictionary knows of the directories of its store, by path. Safe for threads: what
    one notes replaces what another one noted, as both are true."""

    def __init__(self) -> None:
        self._directories: dict[str, tuple[int, Known, Names | None]] = {}

    def known(self, directory: str, ctime: int) -> tuple[Known, Names | None]:
        """How much is known of the directory at this ctime; its names, if they are."""
        then, known, names = self._directories.get(directory, (None, Known.NOTHING, None))
        return (known, names) if then == ctime else (Known.NOTHING, None)

    def note(
        self, directory: str, ctime: int, known: Known, names: Iterable[str] | None = None
    ) -> None:
        """Note what is known of the directory at this ctime."""
        if known > Known.RACY and self.known(directory, ctime)[0] > known:
            return
        self._directories[directory] = ctime, known, None if names is None else Names(names)

    def forget(self) -> None:
        """Forget all, as another directory has the store's path now."""
        self._directories.clear()
