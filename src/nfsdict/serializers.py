"""Serializers: pickle with an integrity trailer, JSON, raw bytes, buffers, or a user's own."""

from __future__ import annotations

import json
import pickle
import re
import struct
import zlib
from typing import Any, Literal, Protocol, Union, runtime_checkable

from .buffers import Buffers
from .builtin_serializer import BuiltinSerializer, Damaged
from .content import SMALL, Content, Data, size_of
from .core import crc32
from .errors import text_of
from .opcodes import pickle_flaw

# What an extension, the end of a file name, must look like.
EXTENSION = re.compile(r"\.[A-Za-z0-9][A-Za-z0-9_.-]*")


@runtime_checkable
class Serializer(Protocol):
    """A serializer: any object with these three attributes.

    ``extension`` is the end of its value files' names, such as ``".pkl"``. ``dumps`` gets the pair
    ``(key, value)`` and returns ``bytes``. ``loads`` returns that pair, as a sequence of two, or
    raises ValueError for bytes that ``dumps`` can't have made. Both are called from several threads
    at once. To pickle or copy a dictionary, its serializer must be picklable.
    """

    @property
    def extension(self) -> str: ...

    def dumps(self, obj: Any, /) -> bytes: ...

    def loads(self, data: bytes, /) -> Any: ...


SerializerName = Literal["pickle", "json", "bytes", "buffers"]
AnySerializer = Union[SerializerName, Serializer]
"""A built-in serializer's name, or a serializer."""


class Pickle(BuiltinSerializer):
    """Pickle with a CRC-32 after its STOP opcode, where ``pickle.loads`` doesn't look.

    Any reader of plain pickles can read these files, and plain pickles are read here. A plain
    pickle ends in STOP, which is the byte of a full stop; one with a trailer ends in ``_MAGIC``,
    which ends in another byte. So the two are never confused, and bytes with neither end are
    damaged.
    """

    extension = ".pkl"
    _MAGIC = b"nfsdict\x01"
    _TRAILER = struct.Struct(f"<I{len(_MAGIC)}s")  # CRC-32, magic
    # Protocol 5 is the newest that Python 3.9, the oldest supported, reads.
    _PROTOCOL = 5

    # For bytes, or a view of them, whose checksum was already found right.
    loads_verified = staticmethod(pickle.loads)

    def parts(self, obj: Any, /) -> Content:
        body = pickle.dumps(obj, self._PROTOCOL)
        trailer = self._TRAILER.pack(zlib.crc32(body), self._MAGIC)
        return body + trailer if len(body) < SMALL else [body, trailer]

    def loads(self, data: bytes, /) -> Any:
        flaw = self._flaw_at_the_end(data)
        if flaw:
            raise Damaged(flaw)
        try:
            return self.loads_verified(data)
        except Exception as error:
            # The bytes tell whether they are damaged, or the code of a value's class has failed.
            flaw = self.flaw(data)
            if flaw:
                raise Damaged(flaw) from error
            raise

    def flaw(self, data: bytes, /) -> str | None:
        flaw = self._flaw_at_the_end(data)
        # With a trailer the checksum was right, so the bytes are those that were written.
        return flaw or (None if data.endswith(self._MAGIC) else pickle_flaw(data))

    def _flaw_at_the_end(self, data: bytes) -> str | None:
        if not data.endswith(self._MAGIC):
            if data.endswith(pickle.STOP):
                return None
            return "cut short or overwritten" if data else "the file is empty"
        end = len(data) - self._TRAILER.size
        if end > 0:
            body = memoryview(data)[:end]
            if self._TRAILER.unpack_from(data, end)[0] == zlib.crc32(body):
                return None
        return "the checksum doesn't match"


class Json(BuiltinSerializer):
    """JSON text ``[key, value]`` in UTF-8, which a person may edit. It has no checksum.

    NaN and the infinities, which JSON doesn't have, are refused with ValueError; files of release
    0.2.1 that hold them are still read. Lone surrogates are written as escapes. If a high surrogate
    is followed by a low one, JSON would read their escapes as one character. Such a text is written
    as release 0.2.1 does, in bytes that aren't valid UTF-8.

    Beside a large value and its file's content, memory holds the text, as the ``json`` module
    writes and reads no less than a whole ``str``.

    What this process can't decode is no damage: the errors of Python's limits on an integer's
    digits (ValueError) and on nesting (RecursionError) come out as they are.
    """

    extension = ".json"
    _PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
    _PLAIN = (str, int, float, bool, type(None))

    def __init__(self, indent: int | str | None = None, sort_keys: bool = False) -> None:
        if isinstance(indent, str) and indent.strip(" \t"):
            raise ValueError(f"indent is a number, or blanks and tabs, not {indent!r}")
        self._indent = indent
        self._sort_keys = sort_keys

    def __repr__(self) -> str:
        return f"json_format(indent={self._indent!r}, sort_keys={self._sort_keys!r})"

    def changes(self, value: Any, /) -> bool:
        rest = [value]
        while rest:
            one = rest.pop()
            kind = type(one)
            if kind is dict:
                if any(type(key) is not str for key in one):
                    return True
                rest.extend(one.values())
            elif kind is list:
                rest.extend(one)
            elif kind not in self._PLAIN:  # a tuple, or of a class derived from one of JSON's types
                return True
        return False

    def parts(self, obj: Any, /) -> Content:
        text = json.dumps(
            obj,
            ensure_ascii=False,
            allow_nan=False,
            indent=self._indent,
            sort_keys=self._sort_keys,
        )
        if self._indent is not None:
            text += "\n"
        try:
            return text.encode()
        except UnicodeEncodeError:
            paired = self._PAIR.search(text)
            return text.encode("utf-8", "surrogatepass" if paired else "backslashreplace")

    def loads(self, data: bytes, /) -> Any:
        try:
            return json.loads(data)
        except ValueError as error:
            flaw = self.flaw(data)
            if flaw:
                raise Damaged(flaw) from error
            raise

    def flaw(self, data: bytes, /) -> str | None:
        try:
            # Digits stay text: how many of them may be converted is no matter of the bytes.
            json.loads(data, parse_int=str)
        except ValueError as error:
            return f"no JSON: {error}"
        except RecursionError:
            pass  # nobody knows
        return None


class Bytes(BuiltinSerializer):
    """Raw values: ``bytes``, or a ``bytearray`` or a ``memoryview`` of bytes, kept as ``bytes``.

    The file is a header, the key's UTF-8 and the value. The header: ``nfsb``, then in little-endian
    a CRC-32 of all that follows it, and the length of the key.
    """

    extension = ".bin"
    _MAGIC = b"nfsb"
    _CHECKSUM = struct.Struct("<I")
    _LENGTH = struct.Struct("<I")
    _CHECKED = len(_MAGIC) + _CHECKSUM.size  # where the checked part begins
    _KEY = _CHECKED + _LENGTH.size  # where the key begins

    def freeze(self, value: Any, /) -> bytes:
        """A copy of the value as ``bytes``: a buffer's owner may change or release it later."""
        if type(value) is bytes:
            return value
        if isinstance(value, (bytes, bytearray, memoryview)):
            view = memoryview(value)
            if view.format in ("B", "b", "c") and view.ndim == 1 and view.c_contiguous:
                return bytes(view)
        # An array would be read back as bytes, and no longer as an array.
        raise TypeError(
            f"the bytes serializer takes bytes, bytearray or a memoryview of bytes, "
            f"not {type(value).__name__}: of an array, give it bytes(a) or a.tobytes()"
        )

    def parts(self, obj: Any, /) -> Content:
        key, value = obj
        value = self.freeze(value)
        encoded = key.encode("utf-8", "surrogatepass")
        start = self._LENGTH.pack(len(encoded)) + encoded
        checksum = self._CHECKSUM.pack(crc32(value, crc32(start)))
        header = self._MAGIC + checksum + start
        return header + value if len(value) < SMALL else [header, value]

    def loads(self, data: bytes, /) -> Any:
        flaw = self.flaw(data)
        if flaw:
            raise Damaged(flaw)
        return self.loads_verified(data)

    def loads_verified(self, data: bytes | memoryview, /) -> Any:
        """As ``loads``, for bytes, or a view, whose checksum or HMAC was already found right."""
        view = memoryview(data)
        if len(view) < self._KEY:
            raise Damaged("cut short")
        end = self._KEY + self._LENGTH.unpack_from(view, self._CHECKED)[0]
        if end > len(view):
            raise Damaged("its key runs past its end")
        try:
            key = str(view[self._KEY : end], "utf-8", "surrogatepass")
        except UnicodeDecodeError as error:
            raise Damaged(f"its key is no text: {error}") from error
        return key, bytes(view[end:])

    def flaw(self, data: bytes, /) -> str | None:
        if len(data) < self._KEY or not data.startswith(self._MAGIC):
            return "cut short or overwritten" if data else "the file is empty"
        checksum = crc32(memoryview(data)[self._CHECKED :])
        if self._CHECKSUM.unpack_from(data, len(self._MAGIC))[0] != checksum:
            return "the checksum doesn't match"
        return None

    def fingerprint(self, content: Content | Data, /) -> int:
        """The hash of the size and of the header, which has the checksum of all that follows."""
        start = content[0] if isinstance(content, list) else content
        return hash((size_of(content), bytes(start[: self._KEY])))


class _Custom:
    """A user's serializer. A ValueError from its ``loads`` counts as a report of damage."""

    def __init__(self, serializer: Serializer) -> None:
        self.extension = serializer.extension
        self._dumps = serializer.dumps
        self._loads = serializer.loads

    def dumps(self, obj: Any, /) -> bytes:
        data = self._dumps(obj)
        if not isinstance(data, bytes):
            raise TypeError(f"the serializer's dumps gave {type(data).__name__}, not bytes")
        return data

    def loads(self, data: bytes, /) -> Any:
        try:
            return self._loads(data)
        except ValueError as error:
            raise Damaged(text_of(error)) from error


# A user's own extension must match none of these, in upper or lower case: some file systems don't
# tell the two apart.
_TAKEN = {
    r"^\.nfsdict": "the index's files",
    r"\.damaged-": "files that repair() moves aside",
    r"\.signed$": "what nfsdict.signed() writes",
}
# The longest extension. A value file's name has 64 digits more, a pack's 38 characters more, and
# repair() appends 21.
_LONGEST = 64

KNOWN: dict[str, Serializer] = {
    "pickle": Pickle(),
    "json": Json(),
    "bytes": Bytes(),
    "buffers": Buffers(),
}


def json_format(*, indent: int | str | None = None, sort_keys: bool = False) -> Serializer:
    """A variant of the serializer ``"json"``, for files that people read and edit.

    It reads the files that ``"json"`` writes, and the other way round, so one store can have both.

    Args:
        indent: begin a line for each item, indented by this number of blanks, or by this text of
            blanks and tabs; None writes one line.
        sort_keys: write the keys of each object in order.

    Raises:
        ValueError: ``indent`` is a text with other characters than blanks and tabs.
    """
    return Json(indent, sort_keys)


def serializer_named(serializer: AnySerializer) -> Serializer:
    """The serializer of this name, or the user's own, checked. ValueError lists known names."""
    if isinstance(serializer, str):
        if serializer not in KNOWN:
            raise ValueError(f"unknown serializer {serializer!r}; known are {', '.join(KNOWN)}")
        return KNOWN[serializer]
    if not isinstance(serializer, Serializer):
        raise ValueError(
            f"{serializer!r} is no serializer: one of {', '.join(KNOWN)}, "
            "or an object with extension, dumps and loads"
        )
    if isinstance(serializer, BuiltinSerializer):
        return serializer
    extension = serializer.extension
    if not isinstance(extension, str) or not EXTENSION.fullmatch(extension):
        raise ValueError(f"{extension!r} can't end a file name; try one like '.npy'")
    for part, owner in _TAKEN.items():
        if re.search(part, extension, re.IGNORECASE):
            raise ValueError(f"{extension!r} is for {owner}; try one like '.npy'")
    if len(extension) > _LONGEST:
        raise ValueError(f"an extension has {_LONGEST} characters at most: {extension!r}")
    return _Custom(serializer)
