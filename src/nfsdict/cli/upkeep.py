"""Commands on a whole store: verify, repair, pack."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable

from .output import DONE, NO, show
from .stores import reading, writing


def add_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    for name, run, text in (
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
