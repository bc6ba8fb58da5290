"""Many keys at once on a local file system, beside release 0.2.1, lmdb and SQLite.

    open, settled   eager, of a store that others have opened since it was changed: nfsdict finds
                    its pack, release 0.2.1 its index
    open, no index  the same without them
    sync            read everything again
    update          of new keys, into an empty store
    clear

Every opening reads all values. lmdb and SQLite (one table; pickled values) are read to the same
dict, by one cursor, and written in one transaction: their best, which no sharing over NFS allows.
"bare files" are as many files, written and renamed from Python and made durable by one syncfs(2)
for all: what the disk takes at least. Files are in the system's caches; what a turn leaves behind
is removed off the clock. What a power cut leaves differs: see "durable". The promises are about a
tmpfs and about a disk: run it with --dir on each.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import os
import pickle
import shutil
import sqlite3
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import lmdb

import nfsdict
import release021
from nfsdict.storage.mountinfo import mount_of
from timing import Seen, duration, interleave, ratio, seconds, table

SETTLE = 4.0
OURS, UNSYNCED, OLD = f"nfsdict ({nfsdict.BACKEND})", "nfsdict, durable=False", "release 0.2.1"
DURABLE = {
    OURS: "yes",
    UNSYNCED: "no",
    OLD: "file fsynced, directory not",
    "lmdb": "yes, all or none",
    "SQLite": "yes, all or none",
    "bare files": "yes, all at the end",
}
Entries = dict[str, dict[str, Any]]


class Bulk:
    """The contenders on one base directory."""

    def __init__(self, base: Path, entries: Entries) -> None:
        self.base = base
        self.entries = entries
        self.numbers = itertools.count()
        self.old = release021.load().NfsDict

    def new(self) -> Path:
        path = self.base / f"{next(self.numbers)}"
        path.mkdir()
        return path

    def build(self) -> None:
        """What is opened later, settled."""
        store: nfsdict.NfsDict[Any]
        for name in ("indexed", "loose"):
            with nfsdict.NfsDict(name, self.base, lazy=True, durable=False) as store:
                store.update(self.entries)
        self.write_lmdb(self.base / "lmdb")
        self.write_sqlite(self.base / "sqlite")
        time.sleep(SETTLE)
        store = nfsdict.NfsDict("indexed", self.base)
        assert store.pack().packed == len(self.entries)
        (store.path / "_index.pkl").write_bytes(pickle.dumps(list(self.entries)))

    def checked(self, read: Callable[[], dict[str, Any]]) -> float:
        found: list[dict[str, Any]] = []
        took = seconds(lambda: found.append(read()))
        assert found[0] == self.entries
        return took

    def open(self, contender: Any, name: str) -> float:
        if name == "loose":
            for hint in self.base.glob("loose/_*"):
                hint.unlink()
        return self.checked(lambda: dict(contender(name, self.base).items()))

    def update(self, contender: Any, **options: Any) -> float:
        base = self.new()
        d = contender("store", base, **options)
        took = seconds(lambda: d.update(self.entries))
        shutil.rmtree(base)
        return took

    def clear(self, contender: Any) -> float:
        base = self.new()
        with nfsdict.NfsDict("store", base, lazy=True, durable=False) as store:
            store.update(self.entries)
        d = contender("store", base)
        took = seconds(d.clear)
        assert not list(base.glob("store/??/*"))
        shutil.rmtree(base)
        return took

    def sync(self, contender: Any) -> float:
        return seconds(contender("indexed", self.base).sync)

    def write_lmdb(self, path: Path) -> float:
        with closing(lmdb.open(str(path), map_size=1 << 32)) as environment:

            def write() -> None:
                with environment.begin(write=True) as transaction:
                    for key, value in self.entries.items():
                        transaction.put(key.encode(), pickle.dumps(value))

            return seconds(write)

    def read_lmdb(self) -> dict[str, Any]:
        with closing(lmdb.open(str(self.base / "lmdb"), map_size=1 << 32)) as environment:
            transaction = environment.begin(buffers=True)
            found = {bytes(key).decode(): pickle.loads(blob) for key, blob in transaction.cursor()}
            transaction.abort()
            return found

    def write_sqlite(self, path: Path) -> float:
        path.mkdir(exist_ok=True)
        with closing(sqlite3.connect(path / "store")) as connection:
            connection.execute("CREATE TABLE entries (key TEXT PRIMARY KEY, value BLOB)")

            def write() -> None:
                with connection:
                    connection.executemany(
                        "INSERT INTO entries VALUES (?, ?)",
                        ((key, pickle.dumps(value)) for key, value in self.entries.items()),
                    )

            return seconds(write)

    def read_sqlite(self) -> dict[str, Any]:
        with closing(sqlite3.connect(self.base / "sqlite" / "store")) as connection:
            rows = connection.execute("SELECT key, value FROM entries")
            return {key: pickle.loads(blob) for key, blob in rows}

    def write_bare(self, path: Path) -> float:
        ready = []
        for key, value in self.entries.items():
            name = hashlib.sha256(key.encode()).hexdigest()
            ready.append((path / name[:2], name, pickle.dumps((key, value))))
        for directory in {directory for directory, _, _ in ready}:
            directory.mkdir(parents=True)

        def write() -> None:
            for directory, name, data in ready:
                temporary = f"{directory}/.{name}"
                descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT, 0o666)
                os.write(descriptor, data)
                os.close(descriptor)
                os.rename(temporary, f"{directory}/{name}")
            subprocess.run(["sync", "--file-system", path], check=True)

        return seconds(write)

    def fresh(self, write: Callable[[Path], float]) -> float:
        base = self.new()
        took = write(base / "store")
        shutil.rmtree(base)
        return took

    def works(self) -> dict[str, dict[str, Callable[[], float]]]:
        ours, old = nfsdict.NfsDict, self.old
        return {
            "open, settled": {
                OURS: partial(self.open, ours, "indexed"),
                OLD: partial(self.open, old, "indexed"),
                "lmdb": partial(self.checked, self.read_lmdb),
                "SQLite": partial(self.checked, self.read_sqlite),
            },
            "open, no index": {
                OURS: partial(self.open, ours, "loose"),
                OLD: partial(self.open, old, "loose"),
            },
            "sync": {OURS: partial(self.sync, ours), OLD: partial(self.sync, old)},
            "update": {
                OURS: partial(self.update, ours),
                UNSYNCED: partial(self.update, ours, durable=False),
                OLD: partial(self.update, old),
                "lmdb": partial(self.fresh, self.write_lmdb),
                "SQLite": partial(self.fresh, self.write_sqlite),
                "bare files": partial(self.fresh, self.write_bare),
            },
            "clear": {OURS: partial(self.clear, ours), OLD: partial(self.clear, old)},
        }


def report(seen: Seen, count: int, where: str) -> None:
    rows = []
    for contender, durable in DURABLE.items():
        cells = []
        for times in seen.values():
            if contender in times:
                one = duration(statistics.median(times[contender]) / count)
                cells.append(f"{one} ({ratio(times[contender], times[OURS]):.2g}x)")
            else:
                cells.append("")
        rows.append([contender, *cells, durable])
    print(table(["time a key", *seen, "durable"], rows))

    def promise(text: str, times: dict[str, list[float]], one: str, other: str, bound: str) -> None:
        rows.append([text, bound, f"{ratio(times[one], times[other]):.2f}"])

    rows = []
    memory = where == "tmpfs"
    opened, updated = seen["open, settled"], seen["update"]
    if memory:
        promise("open, settled: 0.2.1 / nfsdict", opened, OLD, OURS, "at least 8")
        promise("open, settled: nfsdict / lmdb", opened, OURS, "lmdb", "at most 2")
        promise("open, settled: nfsdict / SQLite", opened, OURS, "SQLite", "at most 2")
    bound = "at least 2.5" if memory else "at least 5"
    promise("update: 0.2.1 / nfsdict", updated, OLD, OURS, bound)
    print(f"\n{table(['promise', 'target', 'seen'], rows)}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dir", type=Path, help="where stores go (default: a temporary one)")
    parser.add_argument("--keys", type=int, default=5000)
    parser.add_argument("--size", type=int, default=100, help="bytes of text in a value")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    text = "x" * options.size
    entries: Entries = {
        f"experiment/{number % 16}/{number:06d}": {"number": number, "text": text}
        for number in range(options.keys)
    }
    with tempfile.TemporaryDirectory(prefix="nfsdict-bulk-", dir=options.dir) as name:
        where = mount_of(name).type
        print(
            f"{options.keys} keys, {options.size} bytes of text each, on {where};"
            f" {options.rounds} rounds; time for one key, and how many times nfsdict's\n"
        )
        bulk = Bulk(Path(name), entries)
        bulk.build()
        seen = {
            work: interleave(contenders, options.rounds)
            for work, contenders in bulk.works().items()
        }
        report(seen, options.keys, where)


if __name__ == "__main__":
    main()
