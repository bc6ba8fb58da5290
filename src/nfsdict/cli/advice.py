"""Errors in a line, with what to do."""

from __future__ import annotations

import errno

from .. import CorruptValueError, NfsDictError, ReadOnlyError, WrongSerializerError
from ..errors import text_of
from ..serializers import KNOWN

_BY_ERRNO = {
    errno.EROFS: "mount it for writing, or run this where it is",
    errno.ENOSPC: "make room there, or have the store elsewhere, and run this again",
    errno.EDQUOT: "make room in the quota, and run this again",
    errno.EACCES: "ask the owner of the files for permission, or run this as a user who has it",
    errno.EPERM: "ask the owner of the files for permission, or run this as a user who has it",
}


class NoSuchKeyError(NfsDictError):
    """The command is about a key that isn't there."""

    def __init__(self, key: str, more: str = "") -> None:
        super().__init__(key, more)

    def __str__(self) -> str:
        key, more = self.args
        return f"no such key: {key!r}{more}"


def advised(error: BaseException) -> str:
    """The error's text, and what to do, where that is known."""
    advice = _advice(error)
    return f"{text_of(error)}; {advice}" if advice else text_of(error)


def _advice(error: BaseException) -> str | None:
    if isinstance(error, CorruptValueError):
        if error.foreign:
            return "name the key that it was signed with by --key-file"
        return "`nfsdict set` and `del` replace or remove it, `nfsdict repair` moves it aside"
    if isinstance(error, WrongSerializerError):
        names = [name for name, one in KNOWN.items() if one.extension in error.found]
        return f"on the command line --serializer {' or '.join(names)}" if names else None
    if isinstance(error, OSError) and not isinstance(error, ReadOnlyError):
        return _BY_ERRNO.get(error.errno or 0)
    return None
