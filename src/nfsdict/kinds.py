"""Kinds: which serializers have entries in a store, according to the names of its files."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress

from .errors import WrongSerializerError
from .layout import is_damaged, value_names
from .parallel import in_parallel
from .serializers import EXTENSION, KNOWN
from .storage import Storage

_VALUE_NAME = value_names(EXTENSION.pattern)
# What backup tools and editors append to the names of copies that they leave. A ``~`` or a leading
# dot is in no value file's name anyway.
_COPY = re.compile(r".+\.(bak|backup|copy|old|orig|part|rej|save|swp|tmp)[-_.0-9]*", re.IGNORECASE)
# After this many value files the rest of the store isn't looked at.
_SAMPLE = 1000


class Kinds:
    """Checks once whether a dictionary has a serializer that its store was written with."""

    def __init__(self, storage: Storage, workers: int) -> None:
        self._storage = storage
        self._workers = workers
        self.checked = False
        """whether the check was made and raised nothing"""

    def check_serializer(self, any_known: bool) -> None:
        """Raise WrongSerializerError if only other serializers have entries in the store.

        If an entry of this serializer is known (``any_known``), the disk isn't asked. Else shards
        are listed until one has an entry of this serializer: in a store that is in use mostly one
        shard, in one without such an entry each shard directory that exists, 256 at most. If a
        directory can't be listed, the check is skipped.
        """
        if not (any_known or self.checked):
            with suppress(OSError):
                self._look()
        self.checked = True

    def _look(self) -> None:
        """Raise if all shards were listed and only other serializers' files were found."""
        others: Counter[str] = Counter()
        shards = self._storage.shards
        with closing(in_parallel(shards.list, shards.present(), self._workers)) as listings:
            for listing in listings:
                if listing.signatures:
                    return
                others.update(_extensions(listing.unrecognized, self._storage.extension))
        if others:
            advice = " or ".join(map(argument_for, sorted(others)))
            raise WrongSerializerError(
                self._storage.directory, self._storage.extension, dict(others), advice
            )


def kinds_in(directory: str) -> dict[str, int]:
    """The extensions of the value files in a store, and how many of each were seen.

    After 1000 files the rest isn't looked at.
    """
    storage = Storage(directory, "", mode=None, durable=False)
    found: Counter[str] = Counter()
    for shard in storage.shards.present():
        found.update(_extensions(storage.shards.list(shard).unrecognized, ""))
        if sum(found.values()) >= _SAMPLE:
            break
    return dict(found)


def argument_for(extension: str) -> str:
    """What to pass as ``serializer`` for value files with this extension, in words."""
    for name, serializer in KNOWN.items():
        if extension == serializer.extension:
            return f"serializer={name!r}"
        if extension == f"{serializer.extension}.signed":
            return f"serializer=nfsdict.signed({name!r}, key=...)"
    return f"the serializer whose extension is {extension!r}"


def _extensions(paths: Iterable[str], own: str) -> Iterator[str]:
    """The extensions of those paths that may be another serializer's value files.

    ``own``: this serializer's extension.
    """
    for path in paths:
        shard, file = os.path.split(path)
        name = _VALUE_NAME.fullmatch(file)
        if not name or not file.startswith(os.path.basename(shard)):
            continue
        if name[2] != own and not _is_copy(name[2]):
            yield name[2]


def _is_copy(extension: str) -> bool:
    """Whether a file with this extension was moved aside by ``repair``, or is a backup copy."""
    return is_damaged(extension) or _COPY.fullmatch(extension) is not None
