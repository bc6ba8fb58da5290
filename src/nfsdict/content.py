"""Content: what a value file is to hold, in one piece or in parts that nobody joins.

A large value is written as its serializer has it, so that memory holds no second copy for the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Union

Content = Union[bytes, list[bytes]]
"""``bytes``, or a list of them that follow one another"""

# Below, copying costs less than a second part does.
SMALL = 1 << 16


def size_of(content: Content) -> int:
    """How many bytes it has."""
    return len(content) if isinstance(content, bytes) else sum(map(len, content))


def whole(content: Content) -> bytes:
    """In one piece."""
    return content if isinstance(content, bytes) else b"".join(content)


def fingerprint(content: Content) -> int:
    """64 bits that tell it from another one, within this process; the same however it is parted."""
    if type(content) is bytes and len(content) < SMALL:  # as nearly always
        return hash(content)
    if size_of(content) < SMALL:
        return hash(whole(content))
    # Piece by piece, so that other threads get the GIL meanwhile.
    return hash(tuple(map(hash, _pieces([content] if isinstance(content, bytes) else content))))


def _pieces(parts: list[bytes]) -> Iterator[bytes]:
    """Its bytes, in pieces of the same size and a smaller last one."""
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
    """Whether these bytes are that content."""
    if isinstance(content, bytes):
        return data == content
    at = 0
    for part in content:
        if not data.startswith(part, at):  # compares without a copy
            return False
        at += len(part)
    return at == len(data)
