"""What a command tells on standard error while it works: how far it is, and what it decides."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec


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


class _Lines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        kind = "warning: " if record.levelno >= logging.WARNING else ""
        return f"nfsdict: {kind}{record.getMessage()}"


@contextmanager
def logged(verbose: int) -> Iterator[None]:
    """Print the log records of the block: warnings, and more if that was asked for."""
    log, handler = logging.getLogger("nfsdict"), logging.StreamHandler()
    handler.setFormatter(_Lines())
    before = log.level
    log.setLevel([logging.WARNING, logging.INFO, logging.DEBUG][min(verbose, 2)])
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before)
