"""Errors in a line, with what to do."""

from __future__ import annotations

import errno
import os
import stat

from .. import CorruptValueError, NfsDictError, ReadOnlyError, WrongSerializerError
from ..errors import text_of
from ..serializers import KNOWN

_BY_ERRNO = {
    errno.EROFS: "mount it for writing, or run this where it is",
    errno.ENOSPC: "make room there, or have the store elsewhere, and run this again",
    errno.EDQUOT: "make room in the quota, and run this again",
}
_NO_PERMISSION = (errno.EACCES, errno.EPERM)


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
        if error.errno in _NO_PERMISSION:
            return _who_may(error.filename)
        return _BY_ERRNO.get(error.errno or 0)
    return None


def _who_may(path: object) -> str:
    """Who asked for what this user may not do, and whom to ask: the owner of the file, or of the
    directory that should have it, or that should give it up."""
    ask = "ask the owner of the files"
    if isinstance(path, str) and hasattr(os, "geteuid"):
        path = os.path.abspath(path)
        while not (status := _refusing(path)) and path != os.path.dirname(path):
            path = os.path.dirname(path)
        if status:
            ask = (
                f"user {_user(os.geteuid())} may not: ask {_user(status.st_uid)}, owner of {path},"
            )
    return f"{ask} for permission, or run this as a user who has it"


def _refusing(path: str) -> os.stat_result | None:
    """The status of what can be the one that refuses: it is there, and is no file that may be read,
    as files are replaced and not written to."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    effective = os.access in os.supports_effective_ids
    may_read = os.access(path, os.R_OK, effective_ids=effective)
    return None if stat.S_ISREG(status.st_mode) and may_read else status


def _user(number: int) -> str:
    import pwd  # which Windows lacks

    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)
