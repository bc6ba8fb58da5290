"""Commands on entries: ls, get, set, del."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from typing import Any

from .. import CorruptValueError, NfsDictError
from ..errors import described
from .output import DONE, emit, emit_json, encode, no_such_key
from .stores import chosen, kind_of, reading, writing


def add_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    added = command("ls", list_keys, "List the keys, sorted, one to a line.")
    added.add_argument(
        "--json", action="store_true", help="one JSON array: exact, keys with newlines included"
    )

    added = command(
        "get",
        get,
        "Print a value.\n\n"
        "Text and bytes are written as they are, with nothing added (but a newline after\n"
        "text on a terminal), anything else as Python's repr.",
    )
    added.add_argument("key", metavar="KEY")
    added.add_argument("--json", action="store_true", help="print the value as JSON, in one line")

    added = command(
        "set",
        set_value,
        "Store a value: text, or bytes where the serializer is bytes.\n\n"
        "The store is made if it is not there, of pickles unless --serializer says else.\n"
        "Arguments that begin with a hyphen go after `--`.",
    )
    added.add_argument("key", metavar="KEY")
    added.add_argument("value", metavar="VALUE", help="- reads it from standard input, exactly")
    added.add_argument("--json", action="store_true", help="VALUE is JSON and is stored decoded")

    added = command("del", delete, "Delete a key.")
    added.add_argument("key", metavar="KEY")


def list_keys(arguments: argparse.Namespace) -> int:
    keys = sorted(reading(arguments))
    if arguments.json:
        emit_json(keys)
    else:
        emit(b"".join(encode(key) + b"\n" for key in keys))
    return DONE


def get(arguments: argparse.Namespace) -> int:
    store = reading(arguments)
    try:
        value = store[arguments.key]
    except (CorruptValueError, OSError):
        raise
    except Exception as error:  # unpickling runs the code of the value's class
        if arguments.key not in store:
            return no_such_key(arguments)
        raise NfsDictError(f"can't load the value: {described(error)}") from error
    if arguments.json:
        emit_json(value)
    elif isinstance(value, str):
        # Only for a terminal: for a script nothing is added, so that `get | set -` copies exactly.
        emit(encode(value) + (b"\n" if sys.stdout.isatty() else b""))
    elif isinstance(value, (bytes, bytearray)):
        emit(value)
    else:
        emit(encode(repr(value)) + b"\n")
    return DONE


def set_value(arguments: argparse.Namespace) -> int:
    serializer = chosen(arguments)
    data = os.fsencode(arguments.value) if arguments.value != "-" else sys.stdin.buffer.read()
    if arguments.json:
        value = json.loads(data, parse_constant=no_json)
    else:
        value = as_value(data, serializer)
    check_key(arguments.key, serializer)
    with writing(arguments) as store:
        store[arguments.key] = value
    return DONE


def as_value(data: bytes, serializer: Any) -> Any:
    """Bytes as a value that `get` turns into these bytes again: text, if need be."""
    kind = kind_of(serializer)
    if kind == "bytes":
        return data
    if kind == "json":
        return data.decode()  # JSON has only text: other bytes than UTF-8 are an error
    # Bytes that aren't UTF-8 become lone surrogates, as in the program's arguments.
    return data.decode("utf-8", "surrogateescape")


def check_key(key: str, serializer: Any) -> None:
    """ValueError if the key is no text, in a store of JSON."""
    if kind_of(serializer) == "json":
        os.fsencode(key).decode()


def no_json(constant: str) -> Any:
    """Called by ``json.loads`` for NaN and the infinities."""
    raise ValueError(f"{constant} is no JSON")


def delete(arguments: argparse.Namespace) -> int:
    with writing(arguments, create=False) as store:
        try:
            del store[arguments.key]
        except CorruptValueError:
            raise
        except KeyError:
            return no_such_key(arguments)
    return DONE
