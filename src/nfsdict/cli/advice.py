"""What a command tells on standard error: errors, warnings and log records, a line each."""

from __future__ import annotations

import errno
import logging
import warnings
from types import TracebackType
from typing import Any

from .. import CorruptValueError, NfsDictError, ReadOnlyError, WrongSerializerError
from ..errors import text_of
from ..serializers import KNOWN
from .output import ERROR, NO, complain

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


class Telling(logging.Handler):
    """While it is entered, warnings and log records of nfsdict are printed, a line each.

    An error that was logged before it is raised is printed once.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._warnings = warnings.catch_warnings()
        self._logged: Any = None

    def __enter__(self) -> Telling:
        self._warnings.__enter__()
        warnings.showwarning = _show
        logging.getLogger("nfsdict").addHandler(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        logging.getLogger("nfsdict").removeHandler(self)
        self._warnings.__exit__(kind, error, traceback)

    def emit(self, record: logging.LogRecord) -> None:
        if record.msg == "%s" and isinstance(record.args, tuple):  # an error, and nothing else
            [self._logged] = record.args
            complain(advised(self._logged))
        else:
            complain(record.getMessage())

    def error(self, error: Exception) -> int:
        """Print the error that ends the command, and return the exit status."""
        status = NO if isinstance(error, NoSuchKeyError) else ERROR
        return status if error is self._logged else complain(advised(error), status)


def _show(message: Warning | str, *_: Any, **__: Any) -> None:
    """Replaces ``warnings.showwarning``, without the place in the code."""
    complain(f"warning: {message}")


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
