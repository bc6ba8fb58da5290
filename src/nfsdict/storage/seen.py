"""Seen: what is known of directories over NFS, each at one ctime.

Two changes of a directory in one tick of the server's clock bear one ctime, so an NFS client can't
tell the second. If any process of its host looked up a name between the two, the client goes on
believing the answer, for all processes of the host, until the directory changes again. Reading the
directory once no later change can bear that ctime mends what the client remembers of the names that
are there (fs/nfs/dir.c, nfs_prime_dcache). Of a name that isn't there it may still remember a file:
only the names that were read tell. Git's index has the same problem ("racy Git").
"""

from __future__ import annotations

import enum
from array import array
from bisect import bisect_left
from collections.abc import Iterable


class Contains(enum.Enum):
    """Whether a directory contains a name."""

    MAYBE = enum.auto()
    """a look at the name tells, by the server's word"""
    UNREAD = enum.auto()
    """it does if it finds the name; if not, the directory has to be read"""
    NO = enum.auto()
    """it doesn't, by the server's word"""
    NO_DIRECTORY = enum.auto()
    """nor is there such a directory"""


class Known(enum.IntEnum):
    """How much is known of a directory at its present ctime, from the least to the most."""

    RACY = enum.auto()
    """less than nothing: this dictionary looked while a later change could bear that ctime"""
    NOTHING = enum.auto()
    """this dictionary didn't; other processes of the host may have"""
    LISTED = enum.auto()
    """it was read since, so a name that the client doesn't find isn't there"""
    NAMES = enum.auto()
    """and which names it has is known, so one that the client finds and that is none of them isn't
    there either"""


class NameSet:
    """The names in a directory, as a hash of each: 8 bytes a name. Two names share one once in
    2**64 pairs."""

    def __init__(self, names: Iterable[str]) -> None:
        self._hashes = array("q", sorted(map(hash, names)))

    def __contains__(self, name: object) -> bool:
        place = bisect_left(self._hashes, hash(name))
        return self._hashes[place : place + 1] == array("q", [hash(name)])


class Seen:
    """What one dictionary knows of the directories of its store, by path. Safe for threads: at
    worst something true is forgotten, and the directory read once more."""

    def __init__(self) -> None:
        self._directories: dict[str, tuple[int, Known, NameSet | None]] = {}

    def known(self, directory: str, ctime: int) -> tuple[Known, NameSet | None]:
        """How much is known of the directory at this ctime; its names, if they are."""
        then, known, names = self._directories.get(directory, (None, Known.NOTHING, None))
        return (known, names) if then == ctime else (Known.NOTHING, None)

    def note_racy(self, directory: str, ctime: int) -> None:
        """This dictionary looks there while a later change could bear this ctime."""
        self._directories[directory] = ctime, Known.RACY, None

    def note_listed(self, directory: str, ctime: int) -> None:
        """The directory was read when no later change could bear this ctime."""
        if self.known(directory, ctime)[0] is not Known.NAMES:
            self._directories[directory] = ctime, Known.LISTED, None

    def note_names(self, directory: str, ctime: int, names: Iterable[str]) -> None:
        """It was read then, and had these names."""
        self._directories[directory] = ctime, Known.NAMES, NameSet(names)

    def forget(self) -> None:
        """Forget all, as another directory has the store's path now."""
        self._directories.clear()
