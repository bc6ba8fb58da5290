"""The command watch: the keys that others change."""

from __future__ import annotations

import argparse
import os
import select
import stat
import sys
from collections.abc import Callable
from contextlib import closing
from threading import Thread
from typing import Any

from .. import NfsDict
from ..wording import printable
from .output import GREEN, RED, emit, emit_json, encode, painter
from .stores import reading


def add_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    added = command(
        "watch",
        watch,
        "Print a line for each key that others change, until Ctrl-C.\n\n"
        "A line has `set` or `del`, a tab and the key; of changes of a key between two looks\n"
        "the last one is told. A look over NFS costs what `refresh` costs, 4 calls while\n"
        "nothing changes.",
    )
    added.add_argument(
        "--interval",
        type=float,
        default=1.0,
        metavar="SECONDS",
        help="from one look to the next (default: %(default)g)",
    )
    added.add_argument("--json", action="store_true", help="one JSON object a line: key, present")


def watch(arguments: argparse.Namespace) -> int:
    store = reading(arguments)
    paint = painter(sys.stdout)
    human = sys.stdout.isatty()
    with closing(store.watch(arguments.interval)) as changes:
        _end_with_reader(store)
        for keys in changes:
            for key in sorted(keys):
                present = key in store
                if arguments.json:
                    emit_json({"key": key, "present": present})
                else:
                    done = paint("set", GREEN) if present else paint("del", RED)
                    emit(encode(f"{done}\t{printable(key) if human else key}\n"))
            sys.stdout.flush()
    raise BrokenPipeError  # nothing else ends the loop


def _end_with_reader(store: NfsDict[Any]) -> None:
    """End the store's watch when the reader of the output goes away, although nothing is written
    then. GNU's ``tail -f`` does the same."""
    output = sys.stdout.fileno()
    mode = os.fstat(output).st_mode
    if hasattr(select, "poll") and (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        poll = select.poll()
        poll.register(output, 0)  # errors alone

        def wait() -> None:
            poll.poll()
            store.close()

        Thread(target=wait, daemon=True).start()
