"""Commands on single entries: get, set, del, path."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from .. import BatchError, CorruptValueError, NfsDict, NfsDictError
from ..errors import described
from ..parallel import in_parallel
from .advice import NoSuchKeyError
from .files import standard_input
from .output import DONE, NO, complain, emit, emit_json, encode
from .stores import chosen, kind_of, reading, writing

_WORKERS = 16  # as many as a dictionary's, by default


def add_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
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

    added = command(
        "del",
        delete,
        "Delete keys: those named, or all with a prefix.\n\n"
        "Keys that are absent are named, and the others deleted. With --prefix it says how\n"
        "many were deleted.",
    )
    added.add_argument("keys", metavar="KEY", nargs="*")
    added.add_argument("--prefix", metavar="P", help="all keys that begin with P")
    added.add_argument(
        "--dry-run", action="store_true", help="say how many it would be, and delete none"
    )

    added = command(
        "path",
        path,
        "Print the path of a key's value file.\n\n"
        "If the key is absent, that is told, with the path that its file would have, and\n"
        "nothing is printed on standard output.",
    )
    added.add_argument("key", metavar="KEY")


def get(arguments: argparse.Namespace) -> int:
    value = value_of(reading(arguments), arguments.key)
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


def value_of(store: NfsDict[Any], key: str) -> Any:
    """The key's value. NoSuchKeyError, or NfsDictError if the value's own code fails."""
    try:
        return store[key]
    except (CorruptValueError, OSError):
        raise
    except Exception as error:  # unpickling runs the code of the value's class
        if key not in store:
            raise NoSuchKeyError(key) from None
        raise NfsDictError(f"can't load the value: {described(error)}") from error


def set_value(arguments: argparse.Namespace) -> int:
    serializer = chosen(arguments)
    data = os.fsencode(arguments.value) if arguments.value != "-" else standard_input().read()
    if arguments.json:
        value = json.loads(data, parse_constant=no_json)
    else:
        value = as_value(data, serializer)
    check_key(arguments.key, serializer)
    with writing(arguments) as store:
        # Asked before, as that is an error if the store has values of another serializer alone.
        _ = arguments.key in store
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
    prefix, dry_run = arguments.prefix, arguments.dry_run
    if bool(arguments.keys) == (prefix is not None):
        raise ValueError("name the keys to delete, or their --prefix")
    if prefix == "":
        raise ValueError("every key has an empty --prefix; nothing was deleted")
    with reading(arguments) if dry_run else writing(arguments, create=False) as store:
        act = store.__contains__ if dry_run else partial(_deleted, store)
        keys = list(dict.fromkeys(arguments.keys)) or [k for k in store if k.startswith(prefix)]
        done: list[bool | OSError] = list(in_parallel(act, keys, _WORKERS))
    if dry_run or prefix is not None:
        emit(f"{done.count(True)} {'would be ' if dry_run else ''}deleted\n".encode())
    failed = {key: error for key, error in zip(keys, done) if isinstance(error, OSError)}
    if failed:
        raise BatchError(failed)
    for key, was_there in zip(keys, done):
        if not (was_there or prefix):
            complain(NoSuchKeyError(key))
    return DONE if all(done) or prefix else NO


def _deleted(store: NfsDict[Any], key: str) -> bool | OSError:
    """Whether the key was there, and is deleted; or why it can't be."""
    try:
        del store[key]
        return True
    except KeyError:
        return False
    except OSError as error:
        return error


def path(arguments: argparse.Namespace) -> int:
    store = reading(arguments)
    found = store.path_of(arguments.key)
    if arguments.key not in store:
        raise NoSuchKeyError(arguments.key, f" (its file would be {found})")
    emit(os.fsencode(found) + b"\n")
    return DONE
