"""What the command prints, and the exit statuses."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any

DONE, NO, ERROR = 0, 1, 2  # exit statuses as grep's: an error differs from an absent key


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


def emit_json(value: object) -> None:
    emit(json.dumps(value, allow_nan=False).encode() + b"\n")


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


def no_such_key(arguments: argparse.Namespace) -> int:
    return complain(f"no such key: {arguments.key!r}", NO)


def complain(problem: object, status: int = ERROR) -> int:
    print(f"nfsdict: {problem}", file=sys.stderr)
    return status


def tell(message: Warning | str, *_: Any, **__: Any) -> None:
    """Replaces ``warnings.showwarning``: prints one line, without the place in the code."""
    complain(f"warning: {message}")


def discard_output() -> None:
    """Redirect standard output to the null device, so that flushing its buffer can't fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
