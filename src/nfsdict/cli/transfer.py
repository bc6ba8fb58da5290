"""Commands that move entries: export, import, copy, migrate."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any

from .. import ExportReport, NfsDict, NfsDictError, TransferReport
from ..serializers import KNOWN, AnySerializer
from ..storage.shards import remove_empty
from ..upkeep.migrate import KINDS, Foreign
from .files import standard_input, whole_file
from .output import DONE, NO, complain, show
from .signals import end_on_signals
from .stores import (
    AUTO,
    NAMING,
    add_serializer,
    add_store,
    base_and_name_of,
    chosen,
    is_empty,
    reading,
    writing,
)

if TYPE_CHECKING:
    from ..upkeep.archive import Archive
    from ..upkeep.transfer import Source

_PRINTS = (
    "Prints how many entries were written, were there with the same content, were kept;\n"
    "how many of those written have other values in a store of JSON, which has lists for\n"
    "tuples and text for other keys of a dict (-v names them); and which were left out."
)
_AGAIN = "Interrupted, it can be run again: what is the same isn't written anew."


def add_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    added = command(
        "export",
        export,
        "Write all entries into a tar, while others go on writing.\n\n"
        "Its last member says how many they are and their digest, so that import sees whether\n"
        "it is whole. FILE gets its name when it is. `tar -x` in an empty directory makes a\n"
        "store of it. Entries that can't be read here are left out, and named.",
    )
    added.add_argument("file", metavar="FILE", help="- writes to standard output")
    added.add_argument(
        "--jsonl",
        action="store_true",
        help='write lines {"key": …, "value": …} instead; for stores of JSON',
    )
    added.add_argument("--json", action="store_true", help="the counts as one JSON object")

    added = command(
        "import",
        import_,
        "Take over the entries of an archive that export has written.\n\n"
        "The store is made if it is not there, with the serializer of the archive. From a file\n"
        "that is cut short or damaged nothing is taken. Standard input is taken in batches of\n"
        "64 MiB, or of 65,536 entries: if it is cut short or damaged, those before are taken,\n"
        "and it says how many entries they have; of the batch that was under way nothing is.\n"
        "Import the whole archive then. A new store to which nothing came is removed, unless the\n"
        "archive has no entry.\n"
        f"{_AGAIN}\n{_PRINTS}\n\n{NAMING}",
        over=(),
    )
    added.add_argument("file", metavar="FILE", help="- reads standard input")
    add_store(added)
    _add_options(added)
    added.add_argument(
        "--jsonl",
        action="store_true",
        help='read lines {"key": …, "value": …} instead; for stores of JSON',
    )

    added = command(
        "copy",
        copy,
        "Copy the entries of one store into another, while others go on writing.\n\n"
        "DST is made if it is not there, with the serializer and the key of SRC unless other\n"
        f"ones are named. {_AGAIN}\n{_PRINTS}\n\n{NAMING}",
        over=(),
    )
    added.add_argument("source", metavar="SRC", help="a store: see below")
    added.add_argument("name", metavar="DST", help="a store: see below")
    added.add_argument("--base-dir", metavar="DIR", help="where stores are kept: see below")
    add_serializer(added, "from-")
    add_serializer(added, "to-")
    _add_options(added)

    added = command(
        "migrate",
        migrate,
        "Copy what another program has kept into a store.\n\n"
        "PATH is what shelve.open gets, a directory of diskcache, a file of sqlitedict, the\n"
        "directory of a joblib.Memory, or a folder of pickles. Keys that aren't text become\n"
        "their repr; those of sqlitedict with several tables are TABLE/KEY, of joblib\n"
        "MODULE/FUNCTION/HASH, of pickles the path in the folder without .pkl or .pickle.\n"
        f"Reading them runs code, if they are pickles. {_AGAIN}\n{_PRINTS}\n\n{NAMING}",
        over=(),
    )
    added.add_argument("kind", metavar="KIND", choices=list(KINDS), help="|".join(KINDS))
    added.add_argument("path", metavar="PATH")
    add_store(added)
    _add_options(added)


def _add_options(added: argparse.ArgumentParser) -> None:
    """What all commands have that write into a store."""
    added.add_argument(
        "--keep-existing", action="store_true", help="leave keys alone that have an entry"
    )
    added.add_argument("--json", action="store_true", help="the counts as one JSON object")


def export(arguments: argparse.Namespace) -> int:
    store = reading(arguments)
    if arguments.file == "-":
        if sys.stdout.isatty() and not arguments.jsonl:
            raise NfsDictError("no archive is written to a terminal: name a file, or pipe it on")
        report = store.export_to(sys.stdout.buffer, jsonl=arguments.jsonl)
    else:
        end_on_signals()
        with whole_file(arguments.file) as file:
            report = store.export_to(file, jsonl=arguments.jsonl)
    return _told(report, arguments, quiet=arguments.file == "-")


def import_(arguments: argparse.Namespace) -> int:
    with _opened(arguments.file) as file:
        given: IO[bytes] | Archive = file
        if arguments.jsonl:
            _default(arguments, "json")
        else:
            from ..upkeep.archive import Archive

            given = Archive(file)
            _default(arguments, _name_of(given.extension))
        options = {"keep_existing": arguments.keep_existing, "jsonl": arguments.jsonl}
        report = _taken(arguments, lambda store: store.import_from(given, **options))
    return _told(report, arguments)


def copy(arguments: argparse.Namespace) -> int:
    of_source = argparse.Namespace(**vars(arguments))
    of_source.name = arguments.source
    of_source.serializer = arguments.from_serializer
    of_source.key_file = arguments.from_key_file
    source = reading(of_source)
    arguments.serializer, arguments.key_file = arguments.to_serializer, arguments.to_key_file
    if arguments.serializer == AUTO and arguments.key_file is None:
        arguments.key_file = arguments.from_key_file
        _default(arguments, chosen(of_source))
    return _copied(arguments, source)


def migrate(arguments: argparse.Namespace) -> int:
    source = Foreign(arguments.kind, arguments.path)
    return _copied(arguments, source)


def _copied(arguments: argparse.Namespace, source: Source) -> int:
    keep = arguments.keep_existing
    report = _taken(arguments, lambda store: store.copy_from(source, keep_existing=keep))
    return _told(report, arguments)


def _taken(
    arguments: argparse.Namespace, take: Callable[[NfsDict[Any]], TransferReport]
) -> TransferReport:
    """Open the store for writing, and have ``take`` put entries into it. If an exception ends that,
    or entries were left out, and nothing came to a store that wasn't there before, its directory is
    removed, and those above that were made for it."""
    end_on_signals()
    path, made = os.path.join(*base_and_name_of(arguments)), []
    while not os.path.lexists(path):
        made.append(path)
        path = os.path.dirname(path)
    report = None
    try:
        with writing(arguments) as store:
            report = take(store)
        return report
    finally:
        if made and (report is None or report.failed):
            with suppress(OSError):  # the system removes no directory that has anything in it
                remove_empty(made[0])
                for path in made[1:]:
                    os.rmdir(path)


@contextmanager
def _opened(path: str) -> Iterator[IO[bytes]]:
    if path == "-":
        yield standard_input()
    else:
        with open(path, "rb") as file:
            yield file


def _default(arguments: argparse.Namespace, serializer: AnySerializer) -> None:
    """Let the store have this serializer if the user names none and it has no entry yet."""
    if arguments.serializer == AUTO and is_empty(arguments):
        arguments.serializer = serializer


def _name_of(extension: str) -> Any:
    """The name of the built-in serializer of this extension, signed or not. Of another one the
    store is asked, and if need be the user."""
    bare = extension[: -len(".signed")] if extension.endswith(".signed") else extension
    return next((name for name, one in KNOWN.items() if one.extension == bare), AUTO)


def _told(
    report: ExportReport | TransferReport, arguments: argparse.Namespace, quiet: bool = False
) -> int:
    if not quiet:
        show(dataclasses.asdict(report), arguments)
    else:
        for path, reason in report.failed.items():
            complain(f"left out {path}: {reason}")
    changed = isinstance(report, TransferReport) and report.changed
    return NO if report.failed or changed else DONE
