"""Content: the bytes for a value file, in one piece or as a list of parts that aren't joined.

A large value is written from the serializer's own parts, so that memory holds no joined copy of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import eq
from typing import Union

Content = Union[bytes, list[Union[bytes, memoryview]]]
"""``bytes``, or a list of parts that follow one another; a view has one dimension, of bytes"""
Data = Union[bytes, memoryview]
"""the bytes of a file that was read"""

# For fewer bytes, joining costs less than handling a second part.
SMALL = 1 << 16


def size_of(content: Content | Data) -> int:
    """The number of bytes."""
    return sum(map(len, content)) if isinstance(content, list) else len(content)


def whole(content: Content) -> bytes:
    """The content in one piece."""
    return content if isinstance(content, bytes) else b"".join(content)


def fingerprint(content: Content | Data) -> int:
    """A 64-bit hash to tell contents apart within this process. Equal however they are split."""
    if type(content) is bytes and len(content) < SMALL:  # as nearly always
        return hash(content)
    parts = content if isinstance(content, list) else [content]
    if size_of(content) < SMALL:
        return hash(b"".join(parts))
    # Piece by piece, so that other threads can get the GIL in between.
    return hash(tuple(map(hash, _pieces(parts))))


def _pieces(parts: Sequence[Data]) -> Iterator[bytes]:
    """The bytes in pieces of ``SMALL`` bytes, the last one smaller."""
    rest = b""
    for part in parts:
        start = SMALL - len(rest)
        if len(part) < start:
            rest += part
            continue
        yield rest + part[:start]
        end = len(part) - (len(part) - start) % SMALL
        for at in range(start, end, SMALL):
            yield bytes(part[at : at + SMALL])
        rest = bytes(part[end:])
    yield rest


def holds(data: Data, content: Content | Data) -> bool:
    """Whether these bytes equal the content."""
    if isinstance(data, bytes) and isinstance(content, bytes):
        return data == content
    parts = content if isinstance(content, list) else [content]
    # Equal views are compared byte by byte, and slowly; pieces are not.
    return len(data) == size_of(content) and all(map(eq, _pieces([data]), _pieces(parts)))
