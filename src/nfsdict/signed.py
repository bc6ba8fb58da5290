"""Signed: a serializer around another one, which reads only what was written with its key."""

from __future__ import annotations

import hmac
from typing import Any

from .content import SMALL, Content, size_of
from .serializers import (
    AnySerializer,
    BuiltinSerializer,
    Damaged,
    Foreign,
    Serializer,
    serializer_named,
)

_MAGIC = b"nfsdmac\x01"
_CODE = 32  # bytes of HMAC-SHA-256
_TRAILER = _CODE + len(_MAGIC)
# What else is signed with the same key, for another purpose, is no value file.
_PREFIX = b"nfsdict signed value 1\0"
_SHORTEST_KEY = 16


def signed(serializer: AnySerializer = "pickle", *, key: bytes) -> Serializer:
    """A serializer that refuses what wasn't written with this key, before it is looked at.

    Each value file is what ``serializer`` makes, and after that an HMAC-SHA-256 (RFC 2104) of it
    and eight bytes that tell the format. It is checked before anything is unpickled, for bytes
    out of a pack as well. What doesn't pass is refused: CorruptValueError. As the key of the entry
    is among what is signed, a file moved under another key's name is refused too. A file that may
    be whole, and signed with another key, is no damage to ``verify`` but unreadable, and ``repair``
    leaves it where it is: a store opened with the wrong key keeps its files.
    The files end in ``.pkl.signed`` where the serializer's own do in ``.pkl``, so that signed and
    unsigned values are never taken for each other, also in one directory.

    Who can write to the store but has no key can still remove entries, put back an older file of
    the same entry, copy an entry of another store that has the same key and serializer (use a key
    for each store), read everything, and fill the disk. Who has the key can write anything,
    pickles that run code included.

    Args:
        serializer: a serializer's name or a serializer, as for ``NfsDict``.
        key: at least 16 random bytes, such as ``secrets.token_bytes(32)``, kept where only those
            can read it who may write. A pickled dictionary holds it; no ``repr`` shows it.

    Raises:
        TypeError: a key that isn't ``bytes``.
        ValueError: a key that is too short; a serializer that is none.
    """
    if not isinstance(key, bytes):
        raise TypeError(f"the key is bytes, not {type(key).__name__}")
    if len(key) < _SHORTEST_KEY:
        raise ValueError(f"the key has {len(key)} bytes, at least {_SHORTEST_KEY} are needed")
    return _Signed(serializer, key)


class _Signed(BuiltinSerializer):
    def __init__(self, serializer: AnySerializer, key: bytes) -> None:
        self._serializer = serializer
        self._key = key
        self._inner = inner = serializer_named(serializer)
        self.extension = f"{inner.extension}.signed"
        # Nor are the bytes of one serializer to be read by another.
        self._prefix = _PREFIX + inner.extension.encode() + b"\0"
        self._freeze = getattr(inner, "freeze", super().freeze)
        self._parts = getattr(inner, "parts", inner.dumps)
        # A checksum inside has nothing to add. There is no ``loads_verified`` here: bytes out of a
        # pack, whose checksum anybody can compute, go through ``loads``.
        self._loads = inner.loads
        self._loads_whole = getattr(inner, "loads_verified", None)

    def freeze(self, value: Any, /) -> Any:
        return self._freeze(value)

    def parts(self, obj: Any, /) -> Content:
        content = self._parts(obj)
        parts = [content] if isinstance(content, bytes) else content
        trailer = self._code(*parts) + _MAGIC
        return [*parts, trailer] if size_of(content) >= SMALL else b"".join((*parts, trailer))

    def loads(self, data: bytes, /) -> Any:
        flaw = self._flaw_at_the_end(data)
        if flaw:
            raise Damaged(flaw)
        body = memoryview(data)[:-_TRAILER]
        if hmac.compare_digest(data[-_TRAILER : -len(_MAGIC)], self._code(body)):
            # A user's own, and JSON's, take ``bytes`` alone.
            return self._loads_whole(body) if self._loads_whole else self._loads(bytes(body))
        flaw = self._flaw(bytes(body))
        if flaw:
            raise Damaged(flaw)
        raise Foreign("it was signed with another key, or changed")

    def flaw(self, data: bytes, /) -> str | None:
        return self._flaw_at_the_end(data) or self._flaw(data[:-_TRAILER])

    @staticmethod
    def _flaw_at_the_end(data: bytes) -> str | None:
        if len(data) >= _TRAILER and data.endswith(_MAGIC):
            return None
        return "it isn't signed, or was cut short" if data else "the file is empty"

    def _flaw(self, body: bytes) -> str | None:
        # Of a user's own serializer nothing can be told without running it.
        return self._inner.flaw(body) if isinstance(self._inner, BuiltinSerializer) else None

    def _code(self, *parts: bytes | memoryview) -> bytes:
        # hmac.digest takes 2 GiB at most.
        code = hmac.new(self._key, self._prefix, "sha256")
        for part in parts:
            code.update(part)
        return code.digest()

    def __repr__(self) -> str:
        return f"signed({self._serializer!r}, key=...)"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._serializer, self._key)
