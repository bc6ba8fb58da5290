"""Content: the bytes for a value file, in one piece or as a list of parts that aren't joined.

A large value is written from the serializer's own parts, so that memory holds no joined copy of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Union

Content = Union[bytes, list[bytes]]
"""``bytes``, or a list of them that follow one another"""

# For fewer bytes, joining costs less than handling a second part.
SMALL = 1 << 16


def size_of(content: Content) -> int:
    """The number of bytes."""
    return len(content) if isinstance(content, bytes) else sum(map(len, content))


def whole(content: Content) -> bytes:
    """The content in one piece."""
    return content if isinstance(content, bytes) else b"".join(content)


def fingerprint(content: Content) -> int:
    """A 64-bit hash to tell contents apart within this process. Equal however they are split."""
    if type(content) is bytes and len(content) < SMALL:  # as nearly always
        return hash(content)
    if size_of(content) < SMALL:
        return hash(whole(content))
    # Piece by piece, so that other threads can get the GIL in between.
    return hash(tuple(map(hash, _pieces([content] if isinstance(content, bytes) else content))))


def _pieces(parts: list[bytes]) -> Iterator[bytes]:
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
            yield part[at : at + SMALL]
        rest = part[end:]
    yield rest


def holds(data: bytes, content: Content) -> bool:
    """Whether these bytes equal the content."""
    if isinstance(content, bytes):
        return data == content
    at = 0
    for part in content:
        if not data.startswith(part, at):  # compares without a copy
            return False
        at += len(part)
    return at == len(data)
