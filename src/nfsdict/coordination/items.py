"""Items: what encodings of arguments are made of. ``docs/call-keys.md`` gives them byte by byte.

An item is a tag (one byte), the length of its payload (eight bytes, highest first) and the payload.
So each item ends where its length says, and no two different values are encoded alike.
"""

from __future__ import annotations


class NoEncodingError(TypeError):
    """A value has no encoding; the message says which type it is of, or why."""


def item(tag: bytes, payload: bytes) -> bytes:
    """One item, of its tag and its payload."""
    return tag + len(payload).to_bytes(8, "big") + payload
