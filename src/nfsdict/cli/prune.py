"""The command that keeps a store within limits: prune."""

from __future__ import annotations

import argparse
import dataclasses
import re
import signal
from collections.abc import Callable
from typing import TypeVar

from ..upkeep.limits import Limits
from ..upkeep.prune import Prune
from .output import DONE, NO, show
from .signals import end
from .stores import writing

T = TypeVar("T")

TEXT = """\
Remove the entries that were written first, until the limits are kept.

What counts is when an entry was written, by the server's clock; not when it was last
read, which leaves no trace. Give at least one of the first four options. An entry that
is written anew meanwhile stays, and so does one whose lease somebody holds, as a worker
does. One process prunes a store at a time. Ctrl-C, SIGTERM and --time-limit end it with
all consistent: run it again to go on.

Durations are 30d, 12h, 90m, 45s or seconds; sizes are bytes, or 50G with K, M, G or T,
each 1024 of the one before. With --dry-run nothing is removed, and the same is printed.

Prints how many entries were removed and are kept, with the bytes in their files; how
many are left that were to be removed; how many stay as they are leased or were replaced, so
that a limit may not be reached; how many couldn't be removed, and why.
"""

_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)([KMGT]?)")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def add_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    added = command("prune", prune, TEXT)
    added.add_argument("--max-age", metavar="DURATION", help="keep nothing that is older")
    added.add_argument("--max-bytes", metavar="SIZE", help="keep so many bytes of files at most")
    added.add_argument("--max-items", metavar="N", help="keep so many entries at most")
    added.add_argument(
        "--min-free-inodes", metavar="N", help="leave room on the file system for so many files"
    )
    added.add_argument(
        "--prefix", metavar="P", default="", help="only keys that begin with P count"
    )
    added.add_argument(
        "--time-limit", metavar="DURATION", help="begin no more removals after so long"
    )
    added.add_argument("--dry-run", action="store_true", help="say what would be removed")
    added.add_argument("--json", action="store_true", help="one JSON object")


def prune(arguments: argparse.Namespace) -> int:
    limits = Limits(
        _parsed(arguments, "max_age", duration),
        _parsed(arguments, "max_items", number),
        _parsed(arguments, "max_bytes", size),
        _parsed(arguments, "min_free_inodes", number),
        arguments.prefix,
        _parsed(arguments, "time_limit", duration),
    )
    signal.signal(signal.SIGTERM, end)
    with writing(arguments, create=False) as store:
        pruning = store._pruning(limits, arguments.dry_run)
        try:
            pruning.run()
        except (KeyboardInterrupt, SystemExit):
            if pruning.decided:
                _tell(pruning, arguments)
            raise
    return _tell(pruning, arguments)


def _tell(pruning: Prune, arguments: argparse.Namespace) -> int:
    show(dataclasses.asdict(pruning.report), arguments)
    return DONE if pruning.report.complete else NO


def _parsed(arguments: argparse.Namespace, name: str, parse: Callable[[str], T]) -> T | None:
    """The option's value, None if it wasn't given. ValueError, which names the option, if it can't
    be understood."""
    text = getattr(arguments, name)
    try:
        return None if text is None else parse(text)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"--{name.replace('_', '-')}: {error}") from None


def duration(text: str) -> float:
    """Seconds: 30d, 12h, 90m, 45s, or a plain number."""
    found = _DURATION.fullmatch(text)
    if not found:
        raise ValueError(f"{text!r} is no duration such as 30d, 12h, 90m or 45s")
    return float(found[1]) * _SECONDS[found[2]]


def size(text: str) -> int:
    """Bytes: a plain number, or one with K, M, G or T."""
    found = _SIZE.fullmatch(text)
    if not found:
        raise ValueError(f"{text!r} is no size such as 50G, 200M or 4096")
    return int(float(found[1]) * 1024 ** ("KMGT".find(found[2]) + 1 if found[2] else 0))


def number(text: str) -> int:
    if not re.fullmatch(r"\d+", text):
        raise ValueError(f"{text!r} is no whole number")
    return int(text)
