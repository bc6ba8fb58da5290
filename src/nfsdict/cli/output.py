"""What the command prints, and the exit statuses."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import IO, Any, Callable

from ..errors import NfsDictError, text_of

DONE, NO, ERROR = 0, 1, 2  # exit statuses as grep's: an error differs from an absent key

# Colours and such, by ECMA-48's numbers.
RED, GREEN, DIM, BOLD_RED = "31", "32", "2", "1;31"
# Lines that are printed one by one wait for others to be printed with them, for so many seconds.
_LAG = 0.2


def encode(text: str) -> bytes:
    """`text` in UTF-8; lone surrogates that stand for other bytes become those bytes again."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # lone surrogates that stand for no byte
        return text.encode("utf-8", "backslashreplace")


def text_or_bytes(value: object, as_json: bool) -> bytes:
    """Text and bytes as they are, anything else as ``repr``; or all as JSON."""
    if as_json:
        return json.dumps(value, allow_nan=False).encode()
    if isinstance(value, (bytes, bytearray)):
        return bytes(value)
    return encode(value if isinstance(value, str) else repr(value))


def emit(data: bytes | bytearray) -> None:
    sys.stdout.buffer.write(data)


def emit_now(data: bytes) -> None:
    """Print it at once. NfsDictError if it can't be: a full disk that gets the output isn't the
    store's."""
    try:
        emit(data)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise NfsDictError(f"the output can't be written: {text_of(error)}") from error


def json_line(value: object) -> bytes:
    return json.dumps(value, allow_nan=False).encode() + b"\n"


def emit_json(value: object) -> None:
    emit(json_line(value))


def emit_each(pieces: Iterable[bytes]) -> None:
    """Print the pieces as they come: the first at once, others not much later."""
    due = 0.0
    for piece in pieces:
        emit(piece)
        now = time.monotonic()
        if now >= due:
            sys.stdout.flush()
            due = now + _LAG


def json_array(items: Iterable[bytes]) -> Iterator[bytes]:
    """What ``emit_json`` prints of a list, in pieces; ``items`` are JSON."""
    before = b"["
    for item in items:
        yield before + item
        before = b", "
    yield b"]\n" if before == b", " else b"[]\n"


def painter(stream: IO[str]) -> Callable[[str, str], str]:
    """A function that gives text a colour, on a terminal alone and not if NO_COLOR is set, as
    https://no-color.org has it."""
    if stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb":
        return lambda text, colour: f"\033[{colour}m{text}\033[m"
    return lambda text, colour: text


def show(report: dict[str, Any], arguments: argparse.Namespace) -> None:
    """Print `report`: as JSON with `--json`, else a line for each field and each of its items."""
    if arguments.json:
        emit_json(report)
        return
    width = max(map(len, report)) + 2
    for name, value in report.items():
        many = isinstance(value, (dict, list))
        emit(encode(f"{name:{width}}{len(value) if many else value}\n"))
        if isinstance(value, dict):
            value = [f"{key}: {detail}" for key, detail in value.items()]
        if many:
            emit(encode("".join(f"  {item}\n" for item in value)))


def complain(problem: object, status: int = ERROR) -> int:
    """Print one line on standard error, whatever the problem's text has, and return `status`."""
    if sys.stderr is not None:
        line = " ".join(str(problem).split("\n"))
        with suppress(OSError):  # there is nobody left to be told
            print(painter(sys.stderr)("nfsdict:", BOLD_RED), line, file=sys.stderr)
    return status


def finish_output() -> None:
    """Print what is left to be printed. If that can't be, it goes to the null device, so that
    Python doesn't fail by it again at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
