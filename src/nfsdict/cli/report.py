"""The command that writes a page about a store: report."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable
from contextlib import nullcontext
from importlib.util import find_spec

from .. import NfsDictError
from ..entries import Entries
from ..serializers import serializer_named
from ..storage import Storage
from ..upkeep.report.facts import gather
from .files import whole_file
from .output import DONE
from .signals import end_on_signals
from .stats import name_of_serializer
from .stores import chosen, reading

_WORKERS = 16  # as many as a dictionary's, by default

TEXT = """\
Write a page about a store: sizes, ages, shards, packs, damage, latency, as pictures.

The page is one file of HTML that loads nothing. FILE is replaced as a whole when
the page is complete, and stays as it was if that fails. To time a put and a get, the
command makes a store in a private directory inside NAME, and removes it again; where
nothing can be written, the page says so. It needs the extra `nfsdict[report]`.
"""


def add_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    added = command("report", report, TEXT)
    added.add_argument(
        "-o", "--output", metavar="FILE", required=True, help="where to write it; - prints it"
    )
    added.add_argument(
        "--verify",
        action="store_true",
        help="read every file, and tell which ones are damaged; may take long",
    )
    added.add_argument(
        "--no-latency",
        action="store_true",
        help="write nothing in the store, and time nothing",
    )


def report(arguments: argparse.Namespace) -> int:
    for name in ("jinja2", "matplotlib"):
        if find_spec(name) is None:
            raise NfsDictError(f"report needs {name}: pip install 'nfsdict[report]'")
    end_on_signals()
    store = reading(arguments)
    serializer = serializer_named(chosen(arguments))
    storage = Storage(str(store.path), serializer.extension, mode=None, durable=False)
    entries = Entries(storage.values, serializer)
    output = arguments.output
    with nullcontext(sys.stdout.buffer) if output == "-" else whole_file(output) as file:
        facts = gather(
            store,
            name_of_serializer(serializer),
            storage,
            entries,
            _WORKERS,
            timed=not arguments.no_latency,
            verified=arguments.verify,
        )
        # Else it tells of caches that it can't write in this user's home.
        logging.getLogger("matplotlib").setLevel(logging.ERROR)
        from ..upkeep.report.page import page  # takes packages that no other command needs

        file.write(page(facts))
    return DONE
