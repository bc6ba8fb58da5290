"""Commands that count what a store holds: stats, du."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

from .. import BACKEND, __version__
from ..doctor.report import Figures
from ..doctor.room import room
from ..entries import Entries
from ..serializers import Serializer, serializer_named
from ..storage import Storage
from ..upkeep import stats as rooms
from ..upkeep.usage import overhead, usage
from ..wording import binary, printable
from .output import DONE, NO, complain, emit, emit_json, encode
from .stores import chosen, kind_of, reading

_WORKERS = 16  # as many as a dictionary's, by default


def add_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    added = command(
        "stats",
        stats,
        "Show what a store holds and how large it is.\n\n"
        "Counts files by listing them. No value is read, but those of the ten largest, if the\n"
        "index doesn't know their keys. Values that are damaged are found by verify.",
    )
    added.add_argument("--json", action="store_true", help="one JSON object")

    added = command(
        "du",
        du,
        "Show what the keys take, by prefix: bytes and files, each of which is an inode.\n\n"
        "As du does for directories: keys are divided into parts by a separator, and each\n"
        "prefix counts all keys that begin with it. The largest comes first. Bytes are those in\n"
        "the files; the file system may round each file up to a block. A value is only read if\n"
        "the index doesn't know its key. A quota shows in what is free where the file system\n"
        "counts by it. If no key begins with PREFIX that is an error; --json prints zeros then.",
    )
    added.add_argument("prefix", metavar="PREFIX", nargs="?", default="", help="only these keys")
    added.add_argument(
        "--depth",
        "-d",
        type=int,
        default=1,
        metavar="N",
        help="prefixes of so many parts at most, after PREFIX (default: %(default)s)",
    )
    added.add_argument(
        "--separator", default="/", metavar="TEXT", help="what divides keys (default: %(default)s)"
    )
    added.add_argument("--json", action="store_true", help="one JSON object")


def stats(arguments: argparse.Namespace) -> int:
    store = reading(arguments)
    serializer = serializer_named(chosen(arguments))
    storage = Storage(str(store.path), serializer.extension, mode=None, durable=False)
    found = rooms.stats(storage, Entries(storage.values, serializer), _WORKERS)
    report = {
        "path": str(store.path),
        "serializer": name_of_serializer(serializer),
        **dataclasses.asdict(found),
        "leases": [dataclasses.asdict(lease) for lease in store.leases()],
        **space(str(store.path)),
        "backend": BACKEND,
        "version": __version__,
    }
    if arguments.json:
        emit_json(report)
    else:
        _show_stats(found, report)
    return DONE


def name_of_serializer(serializer: Serializer) -> str:
    """A built-in one's name, another one's extension; with the word if it is signed."""
    extension = serializer.extension
    name = kind_of(serializer)
    if not name:
        return extension
    return f"signed {name}" if extension.endswith(".signed") else name


def space(path: str) -> Figures:
    """Free and total bytes and inodes, by name; None where the file system gives no number."""
    return {name: number for one in room(path, None) for name, number in one.figures.items()}


def _show_stats(found: rooms.StoreStats, report: dict[str, Any]) -> None:
    index = sum(one.bytes for one in found.index.values())
    rows = [
        ("path", report["path"]),
        ("serializer", report["serializer"]),
        ("keys", f"{found.keys:,}, in {found.shards} of 256 directories"),
        ("bytes", f"{binary(found.bytes)}, and {binary(index)} of index"),
        ("oldest write", _time(found.oldest)),
        ("newest write", _time(found.newest)),
        ("packs", f"{len(found.packs)}, with the values of {found.packed:,} keys"),
        ("leases", f"{len(report['leases'])} held"),
        ("other files", f"{found.other_files}, of these {found.temporary} temporary"),
        ("damaged", f"{found.damaged} put aside by repair"),
        *_free(report),
    ]
    _columns(rows)
    if found.packs:
        emit(b"\npacks, the lowest first\n")
        _table(
            ("bytes", "keys", "values", "their bytes", "gone", "written", "name"),
            [
                (
                    binary(found.index[name].bytes) if name in found.index else "gone",
                    f"{one.keys:,}",
                    f"{one.values:,}",
                    binary(one.value_bytes),
                    f"{one.tombstones:,}",
                    _time(found.index[name].modified if name in found.index else None),
                    name,
                )
                for name, one in found.packs.items()
            ],
        )
    if found.largest:
        emit(b"\nlargest values\n")
        _table(
            ("bytes", "written", "key"),
            [(binary(one.bytes), _time(one.modified), name_of(one)) for one in found.largest],
        )


def name_of(value: rooms.LargeValue) -> str:
    """Its key, or the path if that isn't known."""
    return value.path if value.key is None else printable(value.key)


def _time(moment: str | None) -> str:
    return "-" if moment is None else f"{moment[:10]} {moment[11:19]}"


def _free(figures: Figures) -> list[tuple[str, str]]:
    free = inodes = "the file system gives no number"
    if figures["total_bytes"] is not None:
        free = f"{binary(figures['free_bytes'])} of {binary(figures['total_bytes'])}"
    if figures["total_inodes"] is not None:
        inodes = f"{figures['free_inodes']:,} of {figures['total_inodes']:,}"
    return [("free", free), ("free inodes", inodes)]


def du(arguments: argparse.Namespace) -> int:
    store = reading(arguments)
    prefix = arguments.prefix
    found = usage(store.infos(prefix), prefix, arguments.separator, arguments.depth)
    extension = serializer_named(chosen(arguments)).extension
    beside = overhead(Storage(str(store.path), extension, mode=None, durable=False))
    figures = space(str(store.path))
    inodes = found.keys.files + beside.index.files + beside.directories
    if arguments.json:
        report = {
            "path": str(store.path),
            "prefix": prefix,
            **dataclasses.asdict(found.keys),
            "prefixes": {name: dataclasses.asdict(one) for name, one in found.prefixes.items()},
            "index_bytes": beside.index.bytes,
            "index_files": beside.index.files,
            "directories": beside.directories,
            "inodes": inodes,
            **figures,
        }
        emit_json(report)
        return DONE
    if prefix and not found.keys.files:
        return complain(f"no such key: none begins with {prefix!r}", NO)
    taken = sorted(found.prefixes.items(), key=lambda one: (-one[1].bytes, one[0]))
    rows = [(binary(one.bytes), f"{one.files:,}", printable(name)) for name, one in taken]
    whole = printable(prefix) if prefix else "all keys"
    rows.append((binary(found.keys.bytes), f"{found.keys.files:,}", whole))
    _table(("bytes", "files", "prefix"), rows)
    emit(b"\n")
    _columns(
        [
            ("index", f"{binary(beside.index.bytes)} in {beside.index.files} files"),
            ("inodes", f"{inodes:,}: these files, the index's, {beside.directories} directories"),
            *_free(figures),
        ]
    )
    return DONE


def _columns(rows: Iterable[tuple[str, str]]) -> None:
    """Names and what they stand for, aligned."""
    rows = list(rows)
    width = max(len(name) for name, _ in rows) + 2
    for name, text in rows:
        emit(encode(f"{name:{width}}{text}\n"))


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    """Columns aligned at the right, but the last."""
    rows = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        cells = [f"{cell:>{width}}" for cell, width in zip(row[:-1], widths)]
        emit(encode("  ".join([*cells, row[-1]]) + "\n"))
