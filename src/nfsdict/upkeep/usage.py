"""Usage: what the keys of each prefix take, as ``du`` tells it of directories."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ..layout import file_size, is_index_file
from ..storage import Storage
from .infos import EntryInfo

_MOST = 100_000  # prefixes: their counts are all in memory


@dataclass
class Taken:
    """What some files take."""

    bytes: int = 0
    """in the files: the file system may round each up to a block"""
    files: int = 0
    """each is one inode"""

    def add(self, size: int) -> None:
        self.bytes += size
        self.files += 1


@dataclass
class Usage:
    """What the keys of a store take."""

    keys: Taken = field(default_factory=Taken)
    """all that begin with the prefix asked for"""
    prefixes: dict[str, Taken] = field(default_factory=dict)
    """by prefix, which ends with the separator; deeper ones count in those above them, too"""


def usage(infos: Iterable[EntryInfo], prefix: str, separator: str, depth: int) -> Usage:
    """Count these entries, whose keys begin with ``prefix``, by what comes after it.

    Args:
        separator: divides keys into parts; not empty.
        depth: prefixes of so many parts at most have counts of their own.

    Raises:
        ValueError: an empty separator, a negative depth, or more than 100,000 prefixes.
    """
    if not separator:
        raise ValueError("the separator can't be empty")
    if depth < 0:
        raise ValueError(f"depth must be at least 0, not {depth}")
    found = Usage()
    for info in infos:
        found.keys.add(info.size)
        for one in _prefixes(info.key, len(prefix), separator, depth):
            if one not in found.prefixes:
                if len(found.prefixes) == _MOST:
                    raise ValueError(
                        f"there are more than {_MOST:,} prefixes: ask for a smaller depth, "
                        "another separator, or what is below one prefix"
                    )
                found.prefixes[one] = Taken()
            found.prefixes[one].add(info.size)
    return found


def _prefixes(key: str, start: int, separator: str, depth: int) -> Iterator[str]:
    end = start
    for _ in range(depth):
        end = key.find(separator, end)
        if end < 0:
            return
        end += len(separator)
        yield key[:end]


@dataclass
class Overhead:
    """What a store takes beside its value files."""

    index: Taken
    """manifest and packs"""
    directories: int
    """the store's and the shards', each an inode"""


def overhead(storage: Storage) -> Overhead:
    """Temporary and damaged files, which ``stats`` counts, aren't part of it. OSError if the
    store's directory can't be listed."""
    index = Taken()
    for name, signature in storage.shards.root_files().items():
        if is_index_file(name):
            index.add(file_size(signature))
    return Overhead(index, directories=1 + len(storage.shards.present()))
