"""Kinds: which serializers have entries in a store, told by the names of its files."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress

from .errors import WrongSerializerError
from .layout import is_damaged, value_names
from .serializers import EXTENSION, KNOWN
from .storage import Storage

_VALUE_NAME = value_names(EXTENSION.pattern)
# So many shard directories without any value file are looked into before a store is taken for one
# without entries: digests are spread evenly, so that hardly any is empty where there are some.
_EMPTY = 8
# Of a store with more value files than that, a part is taken for the whole.
_SAMPLE = 1000


class Kinds:
    """Whether one dictionary has the serializer that its store was written with. Looked at once."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.checked = False
        """whether it was looked at, and found right"""

    def check_serializer(self, any_known: bool) -> None:
        """Raise WrongSerializerError if others have entries here, and this serializer has none.

        Nothing is asked of the disk where an entry of this serializer is known. Else this lists a
        shard directory that has one, or a few that have none; what can't be listed says nothing.
        """
        if not (any_known or self.checked):
            with suppress(OSError):
                self._look()
        self.checked = True

    def _look(self) -> None:
        """Raise if all shards were listed, and files of others alone were found."""
        others: Counter[str] = Counter()
        empty = 0
        for shard in self._storage.shards.present():
            listing = self._storage.shards.list(shard)
            if listing.signatures:
                break
            others.update(_extensions(listing.unrecognized, self._storage.extension))
            empty += not others
            if empty == _EMPTY:
                break
        else:
            if others:
                advice = " or ".join(map(argument_for, sorted(others)))
                raise WrongSerializerError(
                    self._storage.directory, self._storage.extension, dict(others), advice
                )


def kinds_in(directory: str) -> dict[str, int]:
    """The extensions of the value files in a store, and how many of each were seen."""
    storage = Storage(directory, "", mode=None, durable=False)
    found: Counter[str] = Counter()
    for shard in storage.shards.present():
        found.update(_extensions(storage.shards.list(shard).unrecognized, ""))
        if sum(found.values()) >= _SAMPLE:
            break
    return dict(found)


def argument_for(extension: str) -> str:
    """What to pass as ``serializer`` for files that end like this."""
    for name, serializer in KNOWN.items():
        if extension == serializer.extension:
            return f"serializer={name!r}"
        if extension == f"{serializer.extension}.signed":
            return f"serializer=nfsdict.signed({name!r}, key=...)"
    return f"the serializer whose extension is {extension!r}"


def _extensions(paths: Iterable[str], own: str) -> Iterator[str]:
    """Of those paths that may be value files of another serializer than that with ``own``."""
    for path in paths:
        shard, file = os.path.split(path)
        name = _VALUE_NAME.fullmatch(file)
        if not name or not file.startswith(os.path.basename(shard)):
            continue
        if name[2] != own and not _is_copy(name[2]):
            yield name[2]


def _is_copy(extension: str) -> bool:
    """Whether it is that of a file that ``repair`` moved aside, or of somebody's backup copy."""
    if is_damaged(extension):
        return True
    inner = extension[: -len(".signed")] if extension.endswith(".signed") else extension
    return any(inner.startswith(f"{known.extension}.") for known in KNOWN.values())
