"""Buffers: pickle protocol 5 with the memory of arrays beside the pickle, not in it (PEP 574).

NumPy arrays, what is made of them (pandas), and every object that pickles itself with
``pickle.PickleBuffer`` hand out their memory as buffers, which are written from where they lie. A
file is read into one piece of memory, to which the arrays that are made of it refer.

All numbers are little-endian, without sign. The file has a head and then parts: the pickle
first, then its buffers in the order in which it asks for them. Head and parts are each followed by
zeros up to a multiple of 64 bytes, so that each part begins at one, and the file ends at one::

    offset  size
    0       8       magic: "nfsdbuf" and the format's version, one byte, 1
    8       4       CRC-32 of the head from offset 12 on, its zeros included
    12      4       n, the number of parts, 1 at least
    16      24*n    for each part:
      0     8         its size in the file, without the zeros after it
      8     8         its size in memory
      16    4         CRC-32 of what is in the file, the zeros after it included
      20    1         how it is compressed: 0 not at all, and its sizes are equal; 1 zlib
                      (RFC 1950); 2 Zstandard (RFC 8878); 3 LZ4 (its frame format)
      21    3         zeros

The pickle is of ``(key, value)``, in protocol 5, with no buffer inside.
"""

from __future__ import annotations

import pickle
import struct
import sys
import zlib
from collections.abc import Iterator
from typing import Any, Callable, Literal, NamedTuple

from .builtin_serializer import BuiltinSerializer, Damaged
from .content import SMALL, Content, Data
from .core import aligned, crc32

Compression = Literal["zlib", "zstd", "lz4"]

_MAGIC = b"nfsdbuf\x01"
_START = struct.Struct(f"<{len(_MAGIC)}sII")  # magic, CRC-32, number of parts
_CHECKED = len(_MAGIC) + 4  # where the checked part of the head begins
_PART = struct.Struct("<QQIB3x")
_ZEROS = bytes(64)
_PROTOCOL = 5


class _Part(NamedTuple):
    """What the head says of one part."""

    stored: int
    """its size in the file"""
    size: int
    """its size in memory"""
    checksum: int
    method: int


_Codec = tuple[Callable[[Data], bytes], Callable[[Data], bytes]]
"""how to compress, and how to get back what was compressed"""


def _zlib() -> _Codec:
    # Level 1: the numbers of measurements hardly get smaller on the others, which take far longer.
    return lambda data: zlib.compress(data, 1), zlib.decompress


def _zstd() -> _Codec:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd.compress, zstd.decompress


def _lz4() -> _Codec:
    from lz4 import frame

    return frame.compress, frame.decompress


_CODECS: dict[str, Callable[[], _Codec]] = {"zlib": _zlib, "zstd": _zstd, "lz4": _lz4}
# As the table of a file has them; 0 is for what isn't compressed.
_NUMBERS = {name: number for number, name in enumerate(_CODECS, 1)}


def _raw(buffer: pickle.PickleBuffer) -> memoryview:
    """The buffer's bytes. PyPy leaves them their shape, so that ``len`` would count its rows."""
    raw = buffer.raw()
    return raw if raw.ndim == 1 and raw.format == "B" else raw.cast("B")


def _codec(name: str) -> _Codec:
    try:
        return _CODECS[name]()
    except ImportError as error:
        raise ImportError(
            f"values compressed by {name} need a package: pip install 'nfsdict[{name}]'"
        ) from error


def buffers(compress: Compression | None = None) -> Buffers:
    """A serializer for arrays, and for objects that hold arrays: NumPy's, pandas', dicts of them.

    It is pickle with the arrays' memory left out of the pickle and beside it in the file. A put
    writes an array from where it lies, without a copy; a get reads the file with one read, and the
    arrays refer to what was read. In the file, and so in memory, each begins at a multiple of 64
    bytes. Each is checked by a CRC-32 before anything is unpickled. ``"buffers"`` as ``serializer``
    stands for ``buffers()``. Either reads all ``.buf`` files, however they are compressed.

    Arrays that are handed out are read-only, as the dictionary hands out the same ones to all who
    ask: copy one to change it (``d["a"].copy()``). As long as one of a value's arrays is in use, so
    is the memory of the whole file, if that isn't compressed. What was assigned is handed out here
    as it was assigned, as with pickle; change nothing in it, least of all while it is written: a
    file that was written meanwhile may be found damaged.

    Contiguous arrays of numbers lie beside the pickle. Others are copied into it and out of it, and
    aren't read-only: arrays with steps, NumPy's arrays of times and of objects, those of subclasses
    (masked ones, ``np.matrix``, ``np.memmap``), and ``bytes``.

    Pickles run code when they are read: see ``UntrustedPickleWarning``, and put ``signed`` around
    where others can write. ``cache_bytes`` counts the sizes of files, so compressed values take
    more. PyPy and the pure core do the same.

    Args:
        compress: None, or how pickle and buffers are compressed, each for itself: ``"zlib"``;
            ``"zstd"`` with the extra ``nfsdict[zstd]``, before Python 3.14; ``"lz4"`` with the
            extra ``nfsdict[lz4]``. What gets no smaller is kept as it is. A compressed array is
            copied when it is written, and when it is read.

    Raises:
        ImportError: the package is missing; also when a value is read that needs it.
        ValueError: ``compress`` is none of these.
    """
    return Buffers(compress)


class Buffers(BuiltinSerializer):
    extension = ".buf"
    aligned = True

    def __init__(self, compress: Compression | None = None) -> None:
        if compress is not None and compress not in _CODECS:
            raise ValueError(f"compress is None or one of {', '.join(_CODECS)}, not {compress!r}")
        self._compress = compress
        if compress is not None:
            _codec(compress)  # a missing package is an error now, not at the first put

    def __repr__(self) -> str:
        return f"buffers(compress={self._compress!r})"

    def parts(self, obj: Any, /) -> Content:
        beside: list[pickle.PickleBuffer] = []
        body = pickle.dumps(obj, _PROTOCOL, buffer_callback=beside.append)
        table: list[bytes] = []
        contents: list[Data] = []
        for data in (memoryview(body), *map(_raw, beside)):
            method, stored = self._stored(data)
            zeros = _ZEROS[: -len(stored) % 64]
            checksum = crc32(zeros, crc32(stored))
            table.append(_PART.pack(len(stored), len(data), checksum, method))
            contents += (stored, zeros)
        count = len(beside) + 1
        head = _START.pack(_MAGIC, 0, count)[_CHECKED:] + b"".join(table)
        head += _ZEROS[: -(_CHECKED + len(head)) % 64]
        head = _MAGIC + crc32(head).to_bytes(4, "little") + head
        if len(head) + sum(map(len, contents)) < SMALL:
            return b"".join((head, *contents))
        return [head, *contents]

    def _stored(self, data: memoryview) -> tuple[int, Data]:
        """How this part is compressed, and what is written of it."""
        if self._compress is not None:
            compress, _ = _codec(self._compress)
            smaller = compress(data)
            if len(smaller) < len(data):
                return _NUMBERS[self._compress], smaller
        return 0, data

    def loads(self, data: Data, /) -> Any:
        view = aligned(data)
        flaw = self.flaw(view)
        if flaw:
            raise Damaged(flaw)
        return self.loads_verified(view)

    def loads_verified(self, data: Data, /) -> Any:
        """As ``loads``, for bytes, or a view, whose checksum or HMAC was already found right."""
        view = aligned(data)
        body, *beside = [_in_memory(part, stored) for part, stored, _ in _parts(view)]
        # The bytes are those that were written: what is raised now is the error of a value's code.
        return pickle.loads(body, buffers=map(self._handed_out, beside))

    def _handed_out(self, buffer: memoryview) -> Data:
        return buffer

    def flaw(self, data: Data, /) -> str | None:
        try:
            for number, (part, _, padded) in enumerate(_parts(memoryview(data))):
                if crc32(padded) != part.checksum:
                    return f"the checksum of part {number} doesn't match"
        except Damaged as error:
            return str(error)
        return None

    def fingerprint(self, content: Content | Data, /) -> int:
        """The hash of the head, which has the sizes and checksums of all parts."""
        head = memoryview(content[0] if isinstance(content, list) else content)
        count = _START.unpack_from(head)[2] if len(head) >= _START.size else 0
        return hash(bytes(head[: _head_size(count)]))


class WritableBuffers(Buffers):
    """The same, but arrays that are read are copies, which can be changed: for who keeps no values
    in memory, so that each caller gets his own."""

    def _handed_out(self, buffer: memoryview) -> Data:
        return memoryview(bytearray(buffer))


def _head_size(count: int) -> int:
    """The size of the head of a file with so many parts."""
    size = _START.size + count * _PART.size
    return size + -size % 64


def _parts(view: memoryview) -> Iterator[tuple[_Part, memoryview, memoryview]]:
    """The parts, each as it is in the file, without and with the zeros after it.

    Raises Damaged unless the head is whole and the parts make up the rest.
    """
    if len(view) < _START.size or view[: len(_MAGIC)] != _MAGIC:
        raise Damaged("cut short or overwritten" if len(view) else "the file is empty")
    _, checksum, count = _START.unpack_from(view)
    at = _head_size(count)
    if count == 0 or at > len(view) or crc32(view[_CHECKED:at]) != checksum:
        raise Damaged("the checksum of its head doesn't match")
    table = view[_START.size : _START.size + count * _PART.size]
    for part in map(_Part._make, _PART.iter_unpack(table)):
        end = at + part.stored + -part.stored % 64
        if end > len(view):
            raise Damaged("cut short")
        yield part, view[at : at + part.stored], view[at:end]
        at = end
    if at != len(view):
        raise Damaged("bytes follow the end")


def _in_memory(part: _Part, stored: memoryview) -> memoryview:
    """The part as it was before it was compressed, read-only and aligned."""
    if part.method == 0:
        return stored
    for name, number in _NUMBERS.items():
        if number == part.method:
            _, decompress = _codec(name)
            try:
                data = decompress(stored)
            except MemoryError:
                raise
            except Exception as error:  # each package has its own
                raise Damaged(f"not compressed by {name}: {error}") from error
            if len(data) != part.size:
                raise Damaged("a part has another size than its head says")
            return aligned(data)
    raise Damaged("compressed in a way that isn't known here")
