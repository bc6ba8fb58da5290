"""Neighbours: the stores that lie where one was looked for in vain, for the error that says so.

What can't be looked at is left out, and of what is there no more is looked at than a person waits
for: beside a store there may be directories with millions of files.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Iterable
from itertools import islice

from ..layout import is_of_shard, is_of_store, is_shard

# So many directories are looked into, and a shard in each; so many names are taken of each.
_LOOKS = 50
_NAMES = 1000
# So many stores are named.
_NAMED = 5


def may_be_store(directory: str) -> bool:
    """Whether the directory has files of a store, or none at all, as a new store. Hidden files and
    what a file system itself puts there don't count. True if it can't be listed."""
    empty = True
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if _is_of_store(entry):
                    return True
                empty = empty and entry.name.startswith((".", "lost+found"))
    except OSError:
        return True
    return empty


def is_store(directory: str) -> bool:
    """Whether the directory has files of a store, among the first ones that are listed.

    Other programs have directories with the names of shards, such as ``15``: so one is looked into.
    """
    found = [entry for entry in _entries(directory) if _is_of_store(entry)]
    if not all(is_shard(entry.name) for entry in found):
        return True
    names = [one.name for shard in found[:1] for one in _entries(shard.path)]
    return bool(found) and (not names or any(map(is_of_shard, names)))


def _is_of_store(entry: os.DirEntry[str]) -> bool:
    """Whether this is a shard, or another file that only stores have."""
    return is_of_store(entry.name) and (not is_shard(entry.name) or _is_directory(entry))


def no_such_store(base: str, name: str) -> FileNotFoundError:
    """The error for a store that isn't there. It names those that are, the most alike first."""
    found = stores_in(base, name)
    if found:
        and_more = " and more" if len(found) > _NAMED else ""
        told = f"stores in {base!r}: {', '.join(map(repr, found[:_NAMED]))}{and_more}"
    else:
        told = f"there is none in {base!r}" if os.path.isdir(base) else f"there is no {base!r}"
    path = os.path.join(base, name)
    return FileNotFoundError(errno.ENOENT, f"no such store; {told}", path)


def stores_in(base: str, name: str) -> list[str]:
    """The names of stores in this directory, those most like ``name`` first. Stores further below
    are found as deep as that name goes, and in directories that hold no store themselves."""
    found = []
    waiting = deque(_alike(_directories(base, ""), name))
    for _ in range(_LOOKS):
        if not waiting:
            break
        one = waiting.popleft()
        if is_store(os.path.join(base, one)):
            found.append(one)
        elif one.count(os.sep) <= name.count(os.sep):
            waiting.extend(_alike(_directories(base, one), name))
    return _alike(found, name)


def _alike(names: Iterable[str], wanted: str) -> list[str]:
    from difflib import SequenceMatcher  # for this alone

    likeness = SequenceMatcher(b=wanted)

    def unlike(name: str) -> tuple[float, str]:
        likeness.set_seq1(name)
        return -likeness.ratio(), name

    return sorted(names, key=unlike)


def _directories(base: str, below: str) -> list[str]:
    """The directories in ``below``, a path below the base, but for hidden ones."""
    found = []
    for entry in _entries(os.path.join(base, below)):
        if not entry.name.startswith(".") and _is_directory(entry):
            found.append(os.path.join(below, entry.name))
    return found


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _entries(directory: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return list(islice(entries, _NAMES))
    except OSError:
        return []
