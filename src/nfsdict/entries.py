"""Entries: value files as keys and values. A file that can't be one is reported here, once."""

from __future__ import annotations

import errno
import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

from .core import digest
from .directories import failure
from .errors import CorruptValueError
from .files import Content
from .serializers import Damaged, Foreign, Serializer
from .store import Store

log = logging.getLogger("nfsdict")


class Entry(NamedTuple):
    """What one value file holds."""

    key: str
    value: Any
    signature: bytes
    data: bytes
    """the file's bytes"""

    @property
    def fingerprint(self) -> int:
        """Hash of the file's bytes, good within this process."""
        return hash(self.data)


class Entries:
    """The entries of a store, by the keys that their files hold. Safe for threads."""

    def __init__(self, store: Store, serializer: Serializer) -> None:
        self._store = store
        self.dumps = serializer.dumps
        self._loads = serializer.loads
        self._loads_whole = getattr(serializer, "loads_whole", serializer.loads)
        # Which damaged content of a file was reported: one record each, however often it is read.
        self._reported: dict[str, bytes] = {}

    def find(self, key: str, fresh: bool = False) -> Entry | None:
        """The key's entry, None if it has no file. See ``Store.find``.

        Raises CorruptValueError for a damaged file, OSError if it can't be read, and what a
        pickled object's own code raises.
        """
        path = self._store.path(key)
        content = self._store.find(key, fresh)
        return None if content is None else self._load(path, content, key)

    def take(self, name: str) -> Entry | None:
        """Take the entry of this digest from the store, None if there is none. See ``Store.take``.

        It is given back if it can't be read, or not be removed; errors are those of ``find`` and
        ``Store.discard``.
        """
        private = self._store.take(name)
        if private is None:
            return None
        path = self._store.path_of(name)
        try:
            content = self._store.read_taken(private)
            if content is None:
                return None  # swept as old by somebody's repair
            if isinstance(content, OSError):
                raise failure(content.errno or errno.EIO, path)
            entry = self._load(path, content)
            self._store.discard(private)
        except BaseException:
            self._store.give_back(private)
            raise
        return entry

    def read(self, digests: Sequence[str]) -> list[Entry | Exception | None]:
        """The entries under these digests: None where there is no file, or what went wrong."""
        paths = [self._store.path_of(name) for name in digests]
        entries: list[Entry | Exception | None] = []
        for path, content in zip(paths, self._store.read(paths)):
            if not isinstance(content, tuple):
                entries.append(content)
                continue
            try:
                entries.append(self._load(path, content))
            except Exception as error:  # a pickle runs anybody's code
                entries.append(error)
        return entries

    def unpack(self, packed: dict[str, bytes]) -> dict[str, Any]:
        """The values of these bytes by key, which were files of entries when they were packed.

        Those that can't be read here are left out: they are to be read from their files.
        """
        try:
            pairs = dict(map(self._loads_whole, packed.values()))
            if list(pairs) == list(packed):
                return dict(zip(packed, pairs.values()))  # the index has these keys already
        except Exception:  # a pickle runs anybody's code
            pass
        values = {}
        for key, data in packed.items():
            try:
                found, value = self._loads(data)
            except Exception:
                continue
            if found == key:
                values[key] = value
        return values

    def _load(self, path: str, content: Content, asked: str | None = None) -> Entry:
        """The entry in a file; ``asked`` is the key that was asked for, if one was."""
        data, signature = content

        def corrupt(reason: str, foreign: bool = False) -> CorruptValueError:
            error = CorruptValueError(path, reason, signature, asked, foreign)
            if self._reported.get(path) != signature:
                self._reported[path] = signature
                log.warning("%s", error)
            return error

        try:
            pair = self._loads(data)
        except Damaged as error:
            raise corrupt(str(error), isinstance(error, Foreign)) from error
        try:
            key, value = pair
        except (TypeError, ValueError):
            raise corrupt("it holds no pair of key and value") from None
        if not isinstance(key, str):
            raise corrupt(f"its key is of type {type(key).__name__}")
        if self._store.path_of(digest(key)) != path:
            raise corrupt(f"it holds another key: {key!r:.200}")
        return Entry(key, value, signature, data)
