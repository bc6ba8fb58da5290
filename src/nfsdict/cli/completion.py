"""Completion for shells: stores and keys, as many as can be found in a moment.

The extra ``nfsdict[completion]`` brings argcomplete, whose shell function starts this command at
each press of the tab key, with what was typed in the environment. ``complete`` answers and ends the
process.
"""

from __future__ import annotations

import argparse
import os
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import argcomplete
from argcomplete.completers import DirectoriesCompleter

from .. import UntrustedPickleWarning
from ..arguments import base_directory
from ..serializers import KNOWN
from ..storage.neighbours import is_store
from .stores import AUTO, reading

# So many seconds an answer takes at most: a server that is gone mustn't hang the shell.
_PATIENCE = 2.0
# So many answers at most, of those that were found first.
_MANY = 1000


def complete(parser: argparse.ArgumentParser) -> None:
    """Answer the shell and end the process."""
    for action in _actions(parser):
        completer = _COMPLETERS.get(action.dest)
        if completer is not None:
            action.completer = completer  # type: ignore[attr-defined]
    argcomplete.autocomplete(parser, always_complete_options=False)


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)


def promptly(find: Callable[[], Iterable[str]], patience: float = _PATIENCE) -> set[str]:
    """What ``find`` yields until it ends, has yielded enough, fails, or the time is over.

    It runs in a thread, which is left behind in a call that doesn't return. A process that waits
    for an NFS server can be ended, and this one ends after its answer.
    """
    found: set[str] = set()

    def gather() -> None:
        try:
            for one in find():
                found.add(one)
                if len(found) >= _MANY:
                    break
        except Exception:  # there is nobody who could be told
            pass

    thread = threading.Thread(target=gather, daemon=True)
    thread.start()
    thread.join(patience)
    return found.copy()  # in one step, as the thread may go on


def _parts(names: Iterable[str], prefix: str) -> Iterator[str]:
    """The names with this prefix, up to the next slash: as shells complete paths."""
    for name in names:
        if name.startswith(prefix):
            before, slash, _ = name[len(prefix) :].partition("/")
            yield f"{prefix}{before}{slash}"


def _keys(prefix: str, parsed_args: argparse.Namespace, **_: Any) -> set[str]:
    def find() -> Iterator[str]:
        # Nobody expects that the tab key runs the code in other people's pickles.
        warnings.simplefilter("error", UntrustedPickleWarning)
        return _parts((info.key for info in reading(parsed_args).infos(prefix)), prefix)

    return promptly(find)


def _stores(prefix: str, parsed_args: argparse.Namespace, **_: Any) -> set[str]:
    """Stores, and other directories with a slash, as stores may be in those."""

    def find() -> Iterator[str]:
        above = os.path.dirname(prefix)
        base = "" if prefix[:1] in ("/", ".", "~") else base_directory(parsed_args.base_dir)
        for entry in os.scandir(os.path.join(base, os.path.expanduser(above))):
            if entry.is_dir() and not entry.name.startswith("."):
                store = os.path.join(above, entry.name)
                yield store if is_store(entry.path) else f"{store}/"

    return promptly(find)


def _serializers(**_: Any) -> list[str]:
    return [AUTO, *KNOWN]


_COMPLETERS: dict[str, Callable[..., Iterable[str]]] = {
    "name": _stores,
    "source": _stores,
    "key": _keys,
    "keys": _keys,
    "prefix": _keys,
    "serializer": _serializers,
    "from_serializer": _serializers,
    "to_serializer": _serializers,
    "base_dir": DirectoriesCompleter(),
    "directory": DirectoriesCompleter(),
}
