"""Commands on a whole store: stats, verify, repair, pack."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable

from .. import BACKEND, __version__
from ..serializers import serializer_named
from ..storage import Storage
from ..upkeep.stats import stats as count
from .output import DONE, NO, show
from .stores import chosen, reading, writing


def add_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    for name, run, text in (
        ("stats", stats, "Show what a store holds and how large it is."),
        ("verify", verify, "Examine every file of a store and change nothing."),
        (
            "repair",
            repair,
            "Sweep old temporary files, set damaged values aside, rebuild the index.",
        ),
        (
            "pack",
            pack,
            "Write the index, and all small values into one file, for those who open the store.\n\n"
            "Openers do so themselves when it pays. Prints how many values are packed, how many\n"
            "are left to their files, and how many of those changed within the last seconds.",
        ),
    ):
        added = command(name, run, text)
        added.add_argument("--json", action="store_true", help="one JSON object")


def stats(arguments: argparse.Namespace) -> int:
    store = reading(arguments)
    extension = serializer_named(chosen(arguments)).extension
    found = count(Storage(str(store.path), extension, mode=None, durable=False), workers=16)
    report = {
        "path": str(store.path),
        "keys": len(store),
        **dataclasses.asdict(found),
        "backend": BACKEND,
        "version": __version__,
    }
    show(report, arguments)
    return DONE


def verify(arguments: argparse.Namespace) -> int:
    report = reading(arguments).verify()
    show(dataclasses.asdict(report), arguments)
    return DONE if report.ok else NO


def repair(arguments: argparse.Namespace) -> int:
    with writing(arguments, create=False) as store:
        done = store.repair()
    found = dataclasses.asdict(done.report)
    done_here = {
        "removed": done.removed,
        "quarantined": done.quarantined,
        "failed": done.failed,
    }
    show({**found, **done_here}, arguments)
    return NO if done.report.unreadable or done.failed else DONE


def pack(arguments: argparse.Namespace) -> int:
    with writing(arguments, create=False) as store:
        show(store.pack()._asdict(), arguments)
    return DONE
