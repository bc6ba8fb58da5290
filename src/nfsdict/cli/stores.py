"""The store that a command is about: found by name or path, its serializer found, and opened."""

from __future__ import annotations

import argparse
import importlib
import os
import stat
import sys
from typing import Any

from .. import NfsDict, NfsDictError, signed
from ..arguments import base_and_name, base_directory, checked_name
from ..errors import described
from ..kinds import kinds_in
from ..serializers import KNOWN, AnySerializer, Serializer, serializer_named
from ..storage.neighbours import is_store
from .telling import shows_progress

AUTO = "auto"
_SIGNED = ".signed"

NAMING = """\
NAME is a store below the base directory, such as `results` or `lab/results`; or a path,
if it begins with a slash, `./`, `../` or `~`. The base directory is that of --base-dir,
or else of the environment variable NFSDICT_BASE_DIR, or else the user's data directory.
"""


def add_store(parser: argparse.ArgumentParser, name: str = "NAME") -> None:
    """Add the arguments that say which store it is, and how it is written."""
    parser.add_argument("name", metavar=name, help="the store: see below")
    parser.add_argument("--base-dir", metavar="DIR", help="where stores are kept: see below")
    add_serializer(parser)


def add_serializer(parser: argparse.ArgumentParser, of: str = "") -> None:
    """Add the options ``--serializer`` and ``--key-file``, with this text before their names."""
    parser.add_argument(
        f"--{of}serializer",
        metavar="NAME",
        default=AUTO,
        help="how the store's values are written: pickle, json, bytes, buffers, or "
        "MODULE:OBJECT for a serializer of your own, from where Python finds modules, or else the "
        "current directory; a class or function is called for it (default: found from the "
        "store's files; pickle for a new store)",
    )
    parser.add_argument(
        f"--{of}key-file",
        metavar="FILE",
        help="the values are signed with the key that is this file's content, to the last byte; "
        "only its owner may be permitted to use the file",
    )


def is_empty(arguments: argparse.Namespace) -> bool:
    """Whether the store isn't there, or has no entry."""
    try:
        return not kinds_in(os.path.join(*base_and_name_of(arguments)))
    except FileNotFoundError:
        return True


def reading(arguments: argparse.Namespace) -> NfsDict[Any]:
    """The store, opened read-only; FileNotFoundError if there is none."""
    return _opened(arguments, create=False, read_only=True)


def writing(arguments: argparse.Namespace, create: bool = True) -> NfsDict[Any]:
    """The store, opened for writing. If there is none, it is made, or without ``create``
    FileNotFoundError is raised."""
    return _opened(arguments, create=create)


def _opened(arguments: argparse.Namespace, **options: Any) -> NfsDict[Any]:
    base, name = base_and_name_of(arguments)
    try:
        options["progress_bar"] = shows_progress(arguments)
        return NfsDict[Any](name, base, chosen(arguments), lazy=True, **options)
    except FileNotFoundError as error:
        if not _is_path(arguments.name) and is_store(name):
            error.strerror = f"{error.strerror}; the one in this directory is ./{name}"
        raise


def base_and_name_of(arguments: argparse.Namespace) -> tuple[str, str]:
    """Where the store is that the user named, as ``NAMING`` says."""
    if not _is_path(arguments.name):
        return base_directory(arguments.base_dir), checked_name(arguments.name)
    if arguments.base_dir is not None:
        raise NfsDictError(f"{arguments.name!r} is a path: --base-dir is for names below it")
    return base_and_name(arguments.name)


def _is_path(name: str) -> bool:
    return os.path.isabs(name) or name.startswith("~") or name.split(os.sep)[0] in (".", "..")


# --- serializers -------------------------------------------------------------------------------


def chosen(arguments: argparse.Namespace) -> AnySerializer:
    """The serializer that the user named, or else the one that the store's files show; ``signed``
    if there is a key."""
    if isinstance(arguments.serializer, str):
        key = None if arguments.key_file is None else _key_in(arguments.key_file)
        arguments.serializer = _chosen(arguments, key)
        arguments.key_file = None  # it has been used
    serializer: AnySerializer = arguments.serializer
    return serializer


def _chosen(arguments: argparse.Namespace, key: bytes | None) -> AnySerializer:
    name: Any = arguments.serializer
    if name == AUTO:
        return _found(os.path.join(*base_and_name_of(arguments)), key)
    serializer = _imported(name) if ":" in name else name
    return serializer if key is None else signed(serializer, key=key)


def kind_of(serializer: AnySerializer) -> str:
    """The name of the built-in serializer of the values, signed or not; "" for another one."""
    extension = serializer_named(serializer).extension
    return _names().get(_bare(extension), "")


def _bare(extension: str) -> str:
    """The extension of what was signed."""
    return extension[: -len(_SIGNED)] if extension.endswith(_SIGNED) else extension


def _names() -> dict[str, str]:
    return {serializer.extension: name for name, serializer in KNOWN.items()}


def _found(directory: str, key: bytes | None) -> AnySerializer:
    """The serializer whose value files the store has; pickle if it has none."""
    try:
        kinds = kinds_in(directory)
    except FileNotFoundError:
        kinds = {}
    known = {one.extension: one for one in KNOWN.values()}
    if key is not None:
        known = {kind + _SIGNED: signed(one, key=key) for kind, one in known.items()}
    if not kinds:
        return KNOWN["pickle"] if key is None else signed(key=key)
    if len(kinds) == 1 and kinds.keys() <= known.keys():
        [extension] = kinds
        return known[extension]
    there = ", ".join(f"{count} or more of {kind}" for kind, count in sorted(kinds.items()))
    raise NfsDictError(
        f"{directory} holds value files of several serializers, or of one that can't be told "
        f"from them: {there}. Use {' or '.join(_option_for(kind, key) for kind in sorted(kinds))}"
    )


def _option_for(extension: str, key: bytes | None) -> str:
    """What to write for value files with this extension."""
    option = f"--serializer {_names().get(_bare(extension), 'MODULE:OBJECT')}"
    if extension.endswith(_SIGNED):
        return f"{option} --key-file FILE"
    return option if key is None else f"{option} without --key-file"


def _imported(name: str) -> Serializer:
    """The serializer ``module:object``, from where Python finds modules, or else from the current
    directory. What isn't one, as a class or function that makes one, is called for it."""
    here = os.getcwd()
    if here not in sys.path and not getattr(sys.flags, "safe_path", False):
        sys.path.append(here)  # last, so that a file there takes no library's place
    module, _, attributes = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for attribute in attributes.split("."):
            found = getattr(found, attribute)
        if isinstance(found, type) or (callable(found) and not isinstance(found, Serializer)):
            found = found()
    except Exception as error:  # also of that module's code
        raise NfsDictError(f"can't get the serializer {name!r}: {described(error)}") from error
    return serializer_named(found)


def _key_in(path: str) -> bytes:
    """The bytes of this file, all of them. NfsDictError if others than its owner may touch it."""
    with open(os.path.expanduser(path), "rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        if mode & 0o077 and os.name != "nt":
            raise NfsDictError(
                f"{path}: others than its owner may use this key (mode {mode:04o}); chmod 600 it"
            )
        return file.read()
