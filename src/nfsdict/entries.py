"""Entries: value files as keys and values. A file that holds no entry is reported here, once."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any, Callable, NamedTuple, TypeVar

from .builtin_serializer import Damaged, Foreign
from .content import Content, Data, fingerprint
from .core import digest
from .errors import CorruptValueError, contained, described
from .layout import UNKNOWN, same_but_for_ctime
from .locks import decoding
from .serializers import Serializer
from .storage.files import Found
from .storage.values import ValueFiles

A = TypeVar("A")
T = TypeVar("T")

log = logging.getLogger("nfsdict")


class Entry(NamedTuple):
    """One value file: key, value, and the signature and bytes that they were read from."""

    key: str
    value: Any
    signature: bytes
    data: Data
    """the file's bytes"""
    fingerprint_of: Callable[[Content | Data], int]

    @property
    def fingerprint(self) -> int:
        """The fingerprint of the file's bytes; see ``Entries.fingerprint``."""
        return self.fingerprint_of(self.data)


def _as_it_is(value: Any) -> Any:
    return value


def _never(value: Any) -> bool:
    return False


class Entries:
    """The entries of a store, by the keys that their files hold. Safe for threads."""

    def __init__(self, values: ValueFiles, serializer: Serializer) -> None:
        self._values = values
        self.path_of = values.path_of
        self.dumps: Callable[[Any], Content] = getattr(serializer, "parts", serializer.dumps)
        self.freeze: Callable[[Any], Any] = getattr(serializer, "freeze", _as_it_is)
        self.changes: Callable[[Any], bool] = getattr(serializer, "changes", _never)
        # A hash to tell whole contents apart within this process, equal however they are split. A
        # serializer that has checksums in its contents may take it from those.
        self.fingerprint: Callable[[Content | Data], int] = getattr(
            serializer, "fingerprint", fingerprint
        )
        self._loads: Callable[[Any], Any] = serializer.loads
        self._loads_whole = getattr(serializer, "loads_verified", serializer.loads)
        # The signature under which a damaged file was reported, by path: each damaged content is
        # logged once, however often it is read.
        self._reported: dict[str, bytes] = {}

    def find_entry(self, hexdigest: str, key: str, fresh: bool = False) -> Entry | None:
        """The entry of the key with this digest; None if it has no file. See ``ValueFiles.find``.

        Raises CorruptValueError if this file is damaged, OSError if it can't be read, and whatever
        a pickled object's own code raises; if that is another entry's CorruptValueError, then as
        RuntimeError.
        """
        content = self._values.find(hexdigest, fresh)
        return None if content is None else self._load_anew(hexdigest, content, key)

    def load_taken(self, hexdigest: str, content: Found) -> Entry:
        """The entry of this digest, from a file that was taken. Raises as ``find_entry``."""
        try:
            return self._load(hexdigest, content)
        except CorruptValueError as error:
            self._report(error)
            raise

    def load_foreign(self, hexdigest: str, data: bytes) -> Entry:
        """The entry of this digest that these bytes hold, which come from outside of the store.

        Raises as ``find_entry``; damage isn't logged. SystemExit of a value's code is a
        RuntimeError."""
        return contained(self._load, hexdigest, (data, UNKNOWN))

    def read_entries(
        self, hexdigests: Sequence[str], keep: Callable[[str, Entry | Exception | None], T]
    ) -> list[T]:
        """What ``keep`` returns for each digest and its entry.

        It gets None if there is no file, or the error, which isn't raised. What a value's code
        raises that is no Exception, such as SystemExit, is a RuntimeError here. A value is decoded
        after the one before was dropped, unless that is part of what ``keep`` returned.
        """
        contents = self._values.read_many(hexdigests)
        return [
            keep(hexdigest, self._entry_or_error(hexdigest, content))
            for hexdigest, content in zip(hexdigests, contents)
        ]

    def read_keys(self, hexdigests: Sequence[str]) -> dict[str, tuple[str, bytes]]:
        """Key and signature of each of these files, by digest, as it was read. Left out are files
        that are gone, and those that are damaged or can't be read, which is logged."""
        found: dict[str, tuple[str, bytes]] = {}

        def note(hexdigest: str, entry: Entry | Exception | None) -> None:
            if isinstance(entry, Entry):
                found[hexdigest] = entry.key, entry.signature
            elif entry is not None and not isinstance(entry, CorruptValueError):  # that was logged
                log.warning("can't read %s: %s", self.path_of(hexdigest), described(entry))

        self.read_entries(hexdigests, note)
        return found

    def _entry_or_error(
        self, hexdigest: str, content: Found | OSError | None
    ) -> Entry | Exception | None:
        if not isinstance(content, tuple):
            return content
        try:
            return contained(self._load_anew, hexdigest, content)
        except Exception as error:  # a pickle runs anybody's code
            return error

    def _load_anew(self, hexdigest: str, content: Found, asked: str | None = None) -> Entry:
        """The entry in this digest's file. If it looks damaged, and the file system may have shown
        another file's bytes or too few of them, the file is read again past its cache."""
        try:
            return self._load(hexdigest, content, asked)
        except CorruptValueError as error:
            again = self._values.read_past_cache(hexdigest)
            if again is None or isinstance(again, OSError):
                self._report(error)
                raise
        try:
            return self._load(hexdigest, again, asked)
        except CorruptValueError as error:
            self._report(error)
            raise

    def _report(self, error: CorruptValueError) -> None:
        """Log that a file is damaged, once for each damaged content.

        The ctime doesn't count: ``pop`` renames a file and may rename it back.
        """
        if not same_but_for_ctime(self._reported.get(error.path, b""), error.signature):
            self._reported[error.path] = error.signature
            advice = "open the store with its key" if error.foreign else "set its key, or repair()"
            log.warning("%s: %s", error, advice)

    def unpack(self, packed: dict[str, bytes]) -> dict[str, Any]:
        """Decode packed files, given by key: the values, by key.

        Those that can't be decoded are left out; callers read them from their files.
        """
        try:
            pairs = contained(self._decode, self._load_all, packed.values())
            if list(pairs) == list(packed):
                return dict(zip(packed, pairs.values()))  # the index has these keys already
        except Exception:  # a pickle runs anybody's code
            pass
        values = {}
        for key, data in packed.items():
            try:
                found, value = contained(self._decode, self._loads, data)
            except Exception:
                continue
            if found == key:
                values[key] = value
        return values

    def _load_all(self, contents: Iterable[bytes]) -> dict[str, Any]:
        return dict(map(self._loads_whole, contents))

    def _decode(self, loads: Callable[[A], T], data: A) -> T:
        """Run the serializer, which can run any code: if that code scans this store, nothing
        happens, see ``locks.decoding``."""
        lock = decoding(self._values.directory)
        if lock.locked():
            return loads(data)
        with lock:
            return loads(data)

    def _load(self, hexdigest: str, content: Found, asked: str | None = None) -> Entry:
        """The entry in this digest's file; ``asked`` is the key that was asked for, if any."""
        data, signature = content

        def corrupt(reason: str, foreign: bool = False) -> CorruptValueError:
            return CorruptValueError(
                self._values.path_of(hexdigest), reason, signature, asked, foreign
            )

        try:
            pair = self._decode(self._loads, data)
        except Damaged as error:
            raise corrupt(str(error), isinstance(error, Foreign)) from error
        except CorruptValueError as error:  # of another entry, which the value's code reads
            raise RuntimeError(f"its code raises {described(error)}") from error
        try:
            key, value = pair
        except (TypeError, ValueError):
            raise corrupt("it holds no pair of key and value") from None
        if not isinstance(key, str):
            raise corrupt(f"its key is of type {type(key).__name__}")
        if key != asked and digest(key) != hexdigest:
            raise corrupt(f"it holds another key: {key!r:.200}")
        return Entry(key, value, signature, data, self.fingerprint)
