"""The command ls: which keys there are, and what their files are like."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Iterable
from typing import Any

from .. import EntryInfo, NfsDict
from ..wording import binary, printable
from .output import DIM, DONE, emit_each, encode, json_array, painter
from .stores import reading

# Larger first, newer first.
_ORDERS: dict[str, Callable[[EntryInfo], Any]] = {
    "age": lambda info: (-info.modified.timestamp(), info.key),
    "size": lambda info: (-info.size, info.key),
    "key": lambda info: info.key,
}


def add_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    added = command(
        "ls",
        list_keys,
        "List the keys, or those that begin with PREFIX, one to a line.\n\n"
        "They are sorted, and for that all are listed before the first is printed. With\n"
        "--sort none each is printed as it is found, and memory doesn't grow.",
    )
    added.add_argument("prefix", metavar="PREFIX", nargs="?", default="")
    added.add_argument(
        "-l",
        dest="long",
        action="store_true",
        help="also size in bytes and time of the last write: three fields with tabs between them, "
        "and for people columns and local time on a terminal",
    )
    added.add_argument(
        "--sort",
        choices=[*_ORDERS, "none"],
        default="key",
        help="age: the newest first; size: the largest first (default: %(default)s)",
    )
    added.add_argument(
        "--json",
        action="store_true",
        help="one JSON array: exact, keys with newlines included; with -l of objects, with key, "
        "path, size, modified, packed",
    )


def list_keys(arguments: argparse.Namespace) -> int:
    lines = _lines(reading(arguments), arguments)
    emit_each(json_array(lines) if arguments.json else lines)
    return DONE


def _lines(store: NfsDict[Any], arguments: argparse.Namespace) -> Iterable[bytes]:
    prefix = arguments.prefix
    line_of_key = _json_of_key if arguments.json else _line_of_key()
    if arguments.sort == "key" and not arguments.long:  # no file need be looked at
        return map(line_of_key, sorted(key for key in store if key.startswith(prefix)))

    def line_of_its_key(info: EntryInfo) -> bytes:
        return line_of_key(info.key)

    line_of: Callable[[EntryInfo], bytes] = line_of_its_key
    if arguments.long:
        line_of = _json_of if arguments.json else _line_of()
    infos = store.infos(prefix)
    if arguments.sort == "none":
        return map(line_of, infos)
    order = _ORDERS[arguments.sort]
    return [line for _, line in sorted((order(info), line_of(info)) for info in infos)]


def _json_of_key(key: str) -> bytes:
    return json.dumps(key).encode()


def _json_of(info: EntryInfo) -> bytes:
    fields = dataclasses.asdict(info)
    fields.update(path=str(info.path), modified=info.modified.isoformat())
    return json.dumps(fields).encode()


def _line_of_key() -> Callable[[str], bytes]:
    key_of = printable if sys.stdout.isatty() else str
    return lambda key: encode(f"{key_of(key)}\n")


def _line_of() -> Callable[[EntryInfo], bytes]:
    if not sys.stdout.isatty():
        return lambda info: encode(f"{info.size}\t{info.modified.isoformat()}\t{info.key}\n")
    paint = painter(sys.stdout)

    def line(info: EntryInfo) -> bytes:
        about = f"{binary(info.size):>9} {info.modified.astimezone():%Y-%m-%d %H:%M:%S}"
        return encode(f"{paint(about, DIM)} {printable(info.key)}\n")

    return line
