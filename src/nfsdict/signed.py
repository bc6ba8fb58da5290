"""Signed: a serializer around another one that reads only files written with its key."""

from __future__ import annotations

from typing import Any

from .builtin_serializer import BuiltinSerializer, Damaged, Foreign
from .content import SMALL, Content, Data, fingerprint, size_of
from .serializers import AnySerializer, Serializer, serializer_named

_MAGIC = b"nfsdmac\x01"
_CODE = 32  # bytes of HMAC-SHA-256
_TRAILER = _CODE + len(_MAGIC)
# Part of what is signed, so that data signed with the same key for another purpose is refused.
_PREFIX = b"nfsdict signed value 1\0"
_SHORTEST_KEY = 16


def signed(serializer: AnySerializer = "pickle", *, key: bytes) -> Serializer:
    """A serializer that refuses files that weren't written with this key, before decoding them.

    Each value file has the bytes that ``serializer`` makes, then their HMAC-SHA-256 (RFC 2104) and
    eight bytes that identify the format. The HMAC is checked before anything is unpickled, also for
    bytes from a pack. If it doesn't match, CorruptValueError is raised. The entry's key is signed
    too, so a file that was moved under another key's name is refused. If a file may be whole but
    signed with another key, ``verify`` counts it as unreadable, not as damaged, and ``repair``
    leaves it in place: opening a store with the wrong key loses no files. The files' extension is
    the serializer's own and ``.signed``, as in ``.pkl.signed``. So signed and unsigned values are
    never confused, even in one directory.

    Somebody who can write to the store but doesn't have the key can still remove entries, put back
    an older file of the same entry, copy an entry from another store with the same key and
    serializer (so use one key for each store), read everything, and fill the disk. Somebody who has
    the key can write anything, also pickles that run code.

    Args:
        serializer: a serializer's name or a serializer, as for ``NfsDict``.
        key: at least 16 random bytes, such as ``secrets.token_bytes(32)``. Keep it where only
            people who may write can read it. A pickled dictionary contains it; no ``repr`` shows
            it.

    Raises:
        TypeError: a key that isn't ``bytes``.
        ValueError: a key that is too short; a ``serializer`` that isn't one.
    """
    if not isinstance(key, bytes):
        raise TypeError(f"the key is bytes, not {type(key).__name__}")
    if len(key) < _SHORTEST_KEY:
        raise ValueError(f"the key has {len(key)} bytes, at least {_SHORTEST_KEY} are needed")
    return _Signed(serializer, key)


class _Signed(BuiltinSerializer):
    def __init__(self, serializer: AnySerializer, key: bytes) -> None:
        from hmac import compare_digest, new  # OpenSSL, and most programs sign nothing

        self._serializer = serializer
        self._key = key
        self._begin, self._same = new, compare_digest
        self._inner = inner = serializer_named(serializer)
        self.extension = f"{inner.extension}.signed"
        # Signed too, so that one serializer refuses bytes that another has signed.
        self._prefix = _PREFIX + inner.extension.encode() + b"\0"
        self._freeze = getattr(inner, "freeze", super().freeze)
        self._parts = getattr(inner, "parts", inner.dumps)
        self.aligned = getattr(inner, "aligned", False)
        # The trailer comes last, so the inner serializer finds its checksums where it put them.
        self.fingerprint = getattr(inner, "fingerprint", fingerprint)
        # After the HMAC the inner checksum needs no check. This class has no ``loads_verified``
        # itself: anybody can compute a pack's checksum, so bytes from a pack go through ``loads``.
        self._loads = inner.loads
        self._loads_whole = getattr(inner, "loads_verified", None)

    def freeze(self, value: Any, /) -> Any:
        return self._freeze(value)

    def changes(self, value: Any, /) -> bool:
        return isinstance(self._inner, BuiltinSerializer) and self._inner.changes(value)

    def parts(self, obj: Any, /) -> Content:
        content = self._parts(obj)
        parts = [content] if isinstance(content, bytes) else content
        trailer = self._code(*parts) + _MAGIC
        return [*parts, trailer] if size_of(content) >= SMALL else b"".join((*parts, trailer))

    def loads(self, data: Data, /) -> Any:
        flaw = self._flaw_at_the_end(data)
        if flaw:
            raise Damaged(flaw)
        body = memoryview(data)[:-_TRAILER]
        if self._same(data[-_TRAILER : -len(_MAGIC)], self._code(body)):
            # Without ``loads_verified`` (JSON, a user's own) a serializer takes only ``bytes``.
            return self._loads_whole(body) if self._loads_whole else self._loads(bytes(body))
        flaw = self._flaw(bytes(body))
        if flaw:
            raise Damaged(flaw)
        raise Foreign("it was signed with another key, or changed")

    def flaw(self, data: Data, /) -> str | None:
        return self._flaw_at_the_end(data) or self._flaw(bytes(data[:-_TRAILER]))

    @staticmethod
    def _flaw_at_the_end(data: Data) -> str | None:
        if len(data) >= _TRAILER and data[-len(_MAGIC) :] == _MAGIC:
            return None
        return "it isn't signed, or was cut short" if data else "the file is empty"

    def _flaw(self, body: bytes) -> str | None:
        # A user's own serializer can't be asked without running it.
        return self._inner.flaw(body) if isinstance(self._inner, BuiltinSerializer) else None

    def _code(self, *parts: bytes | memoryview) -> bytes:
        # hmac.digest takes 2 GiB at most.
        code = self._begin(self._key, self._prefix, "sha256")
        for part in parts:
            code.update(part)
        return code.digest()

    def __repr__(self) -> str:
        return f"signed({self._serializer!r}, key=...)"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._serializer, self._key)
