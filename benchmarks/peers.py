"""nfsdict and its peers in one run, over one store shape.

Every peer stores the same KEYS entries, one call for each (never a bulk call, which some have
and some have not). A value is a small dict with SIZE bytes of text; each peer pickles it.
One turn of a peer, in an empty directory:

    put        d[k] = v for every key, close
    overwrite  the same keys with other values, close
               (a pause: nfsdict does not yet believe a directory's mtime that is too fresh)
    first      open, read all entries into a dict, close: what a reader pays after a writer
    again      the same once more, nothing having changed in between
    get        d[k] for every key in random order, close
    delete     del d[k] for every key in random order, close

"first" and "again" are the cold opens; in the other phases the store is opened before the
clock starts. Opening is done in the same process, with the operating system's caches warm.
nfsdict and release 0.2.1 hold values in memory; the others read and unpickle at each get, and so
does nfsdict with cache_bytes=0.
What a power cut leaves differs between peers, and with it what a put costs: see "durable".

Times are medians over rounds in which the peers take turns; a ratio is the median over rounds
of peer / nfsdict, so that 2.0x means twice nfsdict's time.
"""

from __future__ import annotations

import argparse
import dbm
import pickle
import random
import shelve
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import diskcache
import lmdb
import sqlitedict
import zict

import nfsdict
import release021
from timing import duration, interleave, ratio, seconds, table

Opener = Callable[[Path], "AbstractContextManager[MutableMapping[str, Any]]"]
PHASES = ("put", "overwrite", "first", "again", "get", "delete")


class Peer(NamedTuple):
    open: Opener
    durable: str


class Lmdb(MutableMapping[str, Any]):
    """lmdb as a mapping: pickled values, one transaction for each write."""

    def __init__(self, directory: Path) -> None:
        self.environment = lmdb.open(str(directory), map_size=1 << 32)

    def __getitem__(self, key: str) -> Any:
        with self.environment.begin(buffers=True) as transaction:
            blob = transaction.get(key.encode())
            if blob is None:
                raise KeyError(key)
            return pickle.loads(blob)

    def __setitem__(self, key: str, value: Any) -> None:
        with self.environment.begin(write=True) as transaction:
            transaction.put(key.encode(), pickle.dumps(value))

    def __delitem__(self, key: str) -> None:
        with self.environment.begin(write=True) as transaction:
            if not transaction.delete(key.encode()):
                raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        with self.environment.begin() as transaction:
            for key in transaction.cursor().iternext(values=False):
                yield key.decode()

    def __len__(self) -> int:
        return int(self.environment.stat()["entries"])

    def items(self) -> Any:
        # The fast way to read all: one transaction, one cursor.
        with self.environment.begin(buffers=True) as transaction:
            for key, blob in transaction.cursor():
                yield bytes(key).decode(), pickle.loads(blob)

    def close(self) -> None:
        self.environment.close()


@contextmanager
def open_diskcache(directory: Path, **settings: Any) -> Iterator[MutableMapping[str, Any]]:
    with closing(diskcache.Cache(str(directory), eviction_policy="none", **settings)) as cache:
        yield diskcache.Index.fromcache(cache)


@contextmanager
def open_zict(directory: Path) -> Iterator[MutableMapping[str, Any]]:
    files: MutableMapping[str, bytes] = zict.File(directory)
    yield zict.Func(pickle.dumps, pickle.loads, files)


def open_sqlitedict(directory: Path) -> Any:
    return sqlitedict.SqliteDict(str(directory / "store.sqlite"), autocommit=True)


def open_shelve(directory: Path) -> Any:
    return shelve.open(str(directory / "store"))


def dbm_behind_shelve() -> str:
    """Which dbm this Python's shelve uses: a default of the build, and much of its speed."""
    with tempfile.TemporaryDirectory() as directory:
        path = str(Path(directory) / "store")
        shelve.open(path).close()
        return dbm.whichdb(path) or "unknown"


def all_peers() -> dict[str, Peer]:
    old = release021.load()
    return {
        f"nfsdict ({nfsdict.BACKEND})": Peer(
            lambda path: nfsdict.NfsDict("store", path), "yes: file and directory fsynced"
        ),
        "nfsdict, durable=False": Peer(
            lambda path: nfsdict.NfsDict("store", path, durable=False), "no"
        ),
        "nfsdict, cache_bytes=0": Peer(
            lambda path: nfsdict.NfsDict("store", path, cache_bytes=0),
            "yes: file and directory fsynced",
        ),
        "release 0.2.1": Peer(
            lambda path: old.NfsDict("store", path), "file fsynced, directory not"
        ),
        "diskcache.Index": Peer(open_diskcache, "no: WAL, synchronous=NORMAL"),
        "diskcache.Index, FULL": Peer(
            partial(open_diskcache, sqlite_synchronous=2), "yes: WAL, synchronous=FULL"
        ),
        "zict.File + pickle": Peer(open_zict, "no"),
        "sqlitedict": Peer(open_sqlitedict, "no: synchronous=OFF, committed in a thread"),
        f"shelve ({dbm_behind_shelve()})": Peer(open_shelve, "no"),
        "lmdb": Peer(lambda path: closing(Lmdb(path)), "yes: fdatasync in each commit"),
    }


def turn(peer: Peer, base: Path, keys: list[str], size: int, settle: float) -> dict[str, float]:
    """One peer's seconds for each phase, in a directory of its own."""
    directory = Path(tempfile.mkdtemp(dir=base))
    shuffled = random.Random(len(keys)).sample(keys, len(keys))
    text = "x" * size

    def opened(action: Callable[[MutableMapping[str, Any]], None]) -> float:
        with ExitStack() as stack:
            store = stack.enter_context(peer.open(directory))

            def act_and_close() -> None:  # some peers leave work for close()
                action(store)
                stack.close()

            return seconds(act_and_close)

    def write(version: int, store: MutableMapping[str, Any]) -> None:
        for number, key in enumerate(keys):
            store[key] = {"number": number, "version": version, "text": text}

    def get(store: MutableMapping[str, Any]) -> None:
        for key in shuffled:
            store[key]

    def delete(store: MutableMapping[str, Any]) -> None:
        for key in shuffled:
            del store[key]

    def read_all() -> None:
        with peer.open(directory) as store:
            found = dict(store.items())
        assert len(found) == len(keys)
        assert found[keys[-1]] == {"number": len(keys) - 1, "version": 2, "text": text}

    try:
        took = {
            "put": opened(partial(write, 1)),
            "overwrite": opened(partial(write, 2)),
        }
        time.sleep(settle)
        took |= {
            "first": seconds(read_all),
            "again": seconds(read_all),
            "get": opened(get),
            "delete": opened(delete),
        }
        with peer.open(directory) as store:
            assert len(store) == 0
    finally:
        shutil.rmtree(directory)
    return took


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dir", type=Path, help="where stores go (default: a temporary one)")
    parser.add_argument("--keys", type=int, default=2000)
    parser.add_argument("--size", type=int, default=100, help="bytes of text in a value")
    parser.add_argument(
        "--settle", type=float, default=4.0, help="seconds between writing and opening"
    )
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    keys = [f"experiment/{number % 16}/{number:06d}" for number in range(options.keys)]
    peers = all_peers()
    with tempfile.TemporaryDirectory(prefix="nfsdict-peers-", dir=options.dir) as base:
        print(
            f"{options.keys} keys, {options.size} bytes of text each, in {base};"
            f" {options.rounds} rounds; time for one key, and how many times nfsdict's\n"
        )
        turns = interleave(
            {
                name: partial(turn, peer, Path(base), keys, options.size, options.settle)
                for name, peer in peers.items()
            },
            options.rounds,
        )
    columns = {
        name: {phase: [took[phase] for took in seen] for phase in PHASES}
        for name, seen in turns.items()
    }
    ours = columns[next(iter(peers))]
    rows = []
    for name, column in columns.items():
        cells = [
            f"{duration(statistics.median(column[phase]) / len(keys))}"
            f" ({ratio(column[phase], ours[phase]):.2g}x)"
            for phase in PHASES
        ]
        rows.append([name, *cells, peers[name].durable])
    print(table(["", *PHASES, "durable"], rows))


if __name__ == "__main__":
    main()
