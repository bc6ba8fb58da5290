"""Values to bytes and back: pickle with an integrity trailer, JSON, raw bytes, or a user's own."""

from __future__ import annotations

import json
import pickle
import re
import struct
import zlib
from typing import Any, Literal, Protocol, Union, runtime_checkable

from .content import SMALL, Content, whole
from .errors import text_of
from .opcodes import pickle_flaw

# A file name's end.
EXTENSION = re.compile(r"\.[A-Za-z0-9][A-Za-z0-9_.-]*")


class Damaged(ValueError):
    """These bytes aren't what ``dumps`` made."""


class Foreign(Damaged):
    """These bytes may be whole, and be what a serializer with another key made."""


@runtime_checkable
class Serializer(Protocol):
    """What a serializer is: any object with these three.

    ``extension`` ends the names of its value files, such as ``".pkl"``. ``dumps`` gets the pair
    ``(key, value)``, ``loads`` gives it back as a sequence of two, or raises ValueError for bytes
    that ``dumps`` can't have made. Both are called from several threads at once. A dictionary that
    is to be pickled or copied needs a serializer that can be pickled.
    """

    @property
    def extension(self) -> str: ...

    def dumps(self, obj: Any, /) -> bytes: ...

    def loads(self, data: bytes, /) -> Any: ...


SerializerName = Literal["pickle", "json", "bytes"]
AnySerializer = Union[SerializerName, Serializer]
"""What names a serializer: a known one's name, or one."""


class BuiltinSerializer:
    """Base of the built-in serializers: only ``Damaged`` means that the bytes are damaged."""

    extension: str

    def freeze(self, value: Any, /) -> Any:
        """The value that is to be kept in memory of one that is assigned, before it is written.

        TypeError for one that ``dumps`` can't take, so far as a look at it tells.
        """
        return value

    def parts(self, obj: Any, /) -> Content:
        """What ``dumps`` gives, a large value not copied to be in one piece."""
        raise NotImplementedError

    def dumps(self, obj: Any, /) -> bytes:
        return whole(self.parts(obj))

    def flaw(self, data: bytes, /) -> str | None:
        """What shows that ``dumps`` can't have made these bytes, or None if nothing does. Runs no
        code that they name."""
        raise NotImplementedError


class Pickle(BuiltinSerializer):
    """Pickle with a CRC-32 after its STOP opcode, where ``pickle.loads`` doesn't look.

    Any reader of plain pickles reads these files, and plain pickles are read here. A plain one
    ends in STOP, a full stop; one with a trailer ends in ``_MAGIC``, which doesn't, so that the two
    are never confused and nothing else is taken for whole.
    """

    extension = ".pkl"
    _MAGIC = b"nfsdict\x01"
    _TRAILER = struct.Struct(f"<I{len(_MAGIC)}s")  # CRC-32, magic
    # Protocol 5 is the newest that Python 3.9, the oldest supported, reads.
    _PROTOCOL = 5

    # For bytes, or a view of them, whose checksum was compared already.
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
            # Either damage, or the code of a value's class, which is no damage: the bytes tell.
            flaw = self.flaw(data)
            if flaw:
                raise Damaged(flaw) from error
            raise

    def flaw(self, data: bytes, /) -> str | None:
        flaw = self._flaw_at_the_end(data)
        # With a checksum that is right the bytes are those that were written.
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

    NaN and the infinities, which JSON doesn't have, are refused; files of release 0.2.1 that hold
    them are read. Lone surrogates are written as escapes. Only a high one with a low one after it
    can't be: JSON takes their escapes for one character. They are written as release 0.2.1 does, in
    bytes that are no UTF-8.
    """

    extension = ".json"
    _PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")

    def __init__(self, indent: int | str | None = None, sort_keys: bool = False) -> None:
        if isinstance(indent, str) and indent.strip(" \t"):
            raise ValueError(f"indent is a number, or blanks and tabs, not {indent!r}")
        self._indent = indent
        self._sort_keys = sort_keys

    def __repr__(self) -> str:
        return f"json_format(indent={self._indent!r}, sort_keys={self._sort_keys!r})"

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
        except (ValueError, RecursionError) as error:
            raise Damaged(f"no JSON: {error}") from error

    def flaw(self, data: bytes, /) -> str | None:
        try:
            self.loads(data)
        except Damaged as error:
            return str(error)
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
    _KEY = _CHECKED + _LENGTH.size  # where the key does

    def freeze(self, value: Any, /) -> bytes:
        """The value as it is now: a buffer's owner may change it later, or release it."""
        if type(value) is bytes:
            return value
        if isinstance(value, (bytes, bytearray, memoryview)):
            view = memoryview(value)
            if view.format in ("B", "b", "c") and view.ndim == 1 and view.c_contiguous:
                return bytes(view)
        # An array would be read back as something else than was assigned.
        raise TypeError(
            f"the bytes serializer takes bytes, bytearray or a memoryview of bytes, "
            f"not {type(value).__name__}: of an array, give it bytes(a) or a.tobytes()"
        )

    def parts(self, obj: Any, /) -> Content:
        key, value = obj
        value = self.freeze(value)
        encoded = key.encode("utf-8", "surrogatepass")
        start = self._LENGTH.pack(len(encoded)) + encoded
        checksum = self._CHECKSUM.pack(zlib.crc32(value, zlib.crc32(start)))
        header = self._MAGIC + checksum + start
        return header + value if len(value) < SMALL else [header, value]

    def loads(self, data: bytes, /) -> Any:
        flaw = self.flaw(data)
        if flaw:
            raise Damaged(flaw)
        return self.loads_verified(data)

    def loads_verified(self, data: bytes | memoryview, /) -> Any:
        """For bytes, or a view of them, whose checksum or signature was compared already."""
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
        checksum = zlib.crc32(memoryview(data)[self._CHECKED :])
        if self._CHECKSUM.unpack_from(data, len(self._MAGIC))[0] != checksum:
            return "the checksum doesn't match"
        return None


class _Custom:
    """A user's serializer, its ValueError taken as the report of damage."""

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


# A user's own extension is none of these, in any case: some file systems know only one.
_TAKEN = {
    r"^\.nfsdict": "the index's files",
    r"\.damaged-": "files that repair() moves aside",
    r"\.signed$": "what nfsdict.signed() writes",
}
# The name of a value file has 64 digits more, that of a pack 38, and what repair() appends has 21.
_LONGEST = 64

KNOWN: dict[str, Serializer] = {"pickle": Pickle(), "json": Json(), "bytes": Bytes()}


def json_format(*, indent: int | str | None = None, sort_keys: bool = False) -> Serializer:
    """The serializer ``"json"``, which writes files for people who read and edit them.

    It reads what ``"json"`` writes and the other way round: both are of one store.

    Args:
        indent: begin a line for each item, indented by so many blanks, or by this text of blanks
            and tabs; None writes one line.
        sort_keys: write the keys of each object in order.

    Raises:
        ValueError: an ``indent`` that isn't blank.
    """
    return Json(indent, sort_keys)


def serializer_named(serializer: AnySerializer) -> Serializer:
    """The serializer of that name, or the user's own. ValueError lists the known names."""
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
