"""What a command tells on standard error while it works: how far it is, and what it decides."""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from importlib.util import find_spec
from types import TracebackType
from typing import Any

from .. import CorruptValueError
from .advice import NoSuchKeyError, advised
from .output import ERROR, NO, complain


def options() -> argparse.ArgumentParser:
    """The options of all commands, as a parent of their parsers."""
    parent = argparse.ArgumentParser(add_help=False)
    parent.add_argument(
        "-v",
        "--verbose",
        action="count",
        default=0,
        help="tell on standard error what takes long and what is decided; -vv: each call, its "
        "milliseconds, and on NFS the calls to the server meanwhile",
    )
    parent.add_argument(
        "--no-progress",
        action="store_true",
        help="no progress bar (there is one on a terminal only, with the extra "
        "nfsdict[progress] and without -v)",
    )
    return parent


def shows_progress(arguments: argparse.Namespace) -> bool:
    """Whether long work shows tqdm's bar, which is on standard error."""
    if arguments.no_progress or arguments.verbose or sys.stderr is None:
        return False
    return sys.stderr.isatty() and find_spec("tqdm") is not None


class Telling(logging.Handler):
    """While it is entered, warnings and log records of nfsdict are printed, a line each: records
    of warnings, and more if ``verbose`` asks for it."""

    def __init__(self, verbose: int) -> None:
        super().__init__()
        self._log = logging.getLogger("nfsdict")
        self._asked = [logging.WARNING, logging.INFO, logging.DEBUG][min(verbose, 2)]
        self._warnings = warnings.catch_warnings()

    def __enter__(self) -> Telling:
        self._warnings.__enter__()
        warnings.showwarning = _show
        self._before = self._log.level
        self._log.setLevel(self._asked)
        self._log.addHandler(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._log.removeHandler(self)
        self._log.setLevel(self._before)
        self._warnings.__exit__(kind, error, traceback)

    def emit(self, record: logging.LogRecord) -> None:
        kind = "warning: " if record.levelno >= logging.WARNING else ""
        told = record.args[0] if isinstance(record.args, tuple) and record.args else None
        if not isinstance(told, CorruptValueError):
            complain(f"{kind}{record.getMessage()}")
        elif told.key is None:  # else it was asked for, and the error is raised too
            complain(f"{kind}{advised(told)}")

    def error(self, error: Exception) -> int:
        """Print the error that ends the command, and return the exit status."""
        return complain(advised(error), NO if isinstance(error, NoSuchKeyError) else ERROR)


def _show(message: Warning | str, *_: Any, **__: Any) -> None:
    """Replaces ``warnings.showwarning``, without the place in the code."""
    complain(f"warning: {message}")
