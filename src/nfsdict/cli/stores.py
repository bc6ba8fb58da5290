"""The store that a command is about: its serializer found, opened for reading or for writing."""

from __future__ import annotations

import argparse
import os
from typing import Any

from .. import NfsDict, NfsDictError
from ..arguments import store_directory
from ..kinds import kinds_in
from ..serializers import KNOWN
from .telling import shows_progress

AUTO = "auto"


def chosen(arguments: argparse.Namespace) -> Any:
    """The serializer that the user named, or else the one that the store's files show."""
    if arguments.serializer == AUTO:
        arguments.serializer = found(store_directory(arguments.name, arguments.base_dir))
    return arguments.serializer


def found(directory: str) -> str:
    """The name of the serializer whose value files the store has; pickle if it has none."""
    try:
        kinds = kinds_in(directory)
    except FileNotFoundError:
        kinds = {}
    names = {serializer.extension: name for name, serializer in KNOWN.items()}
    if not kinds:
        return "pickle"
    if len(kinds) == 1 and kinds.keys() <= names.keys():
        [extension] = kinds
        return names[extension]
    there = ", ".join(f"{count} or more of {kind}" for kind, count in sorted(kinds.items()))
    known = [f"--serializer {names[kind]}" for kind in sorted(kinds) if kind in names]
    advice = " or ".join(known) or "Python: this command knows only " + ", ".join(names)
    raise NfsDictError(
        f"{directory} holds value files of several serializers, or of one that "
        f"isn't known here: {there}. Use {advice}"
    )


def reading(arguments: argparse.Namespace) -> NfsDict[Any]:
    """The store, opened read-only; FileNotFoundError if there is none."""
    store = NfsDict[Any](
        arguments.name,
        arguments.base_dir,
        chosen(arguments),
        lazy=True,
        read_only=True,
        progress_bar=shows_progress(arguments),
    )
    os.stat(store.path)  # a mistyped name is an error, not an empty store
    return store


def writing(arguments: argparse.Namespace) -> NfsDict[Any]:
    """The store, opened for writing and made if it doesn't exist."""
    return NfsDict[Any](
        arguments.name,
        arguments.base_dir,
        chosen(arguments),
        lazy=True,
        progress_bar=shows_progress(arguments),
    )
