"""The core, over both backends, each section against a baseline in the same run.

    key -> path     against one line of Python with hashlib
    cached reads    NfsDict's d[k], get and `in` against a plain dict's, and release 0.2.1's
    index           against 0.2.1's way: a pickled list of keys. "parse" is up to all keys
                    being there, in 0.2.1 as a set; "parse and fill" up to a dict that has a
                    sentinel for each
    files           read_files and write_files, 1,000 at a call, against the same system calls
                    made from Python, paths and contents made beforehand

A table gives the time of one operation and how many times the baseline's it is: the median
over rounds of the ratio within a round, so that below 1 is faster than the baseline. Cached
reads are timed as unrolled statements, so that no loop hides in them.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import os
import pickle
import platform
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import release021
from timing import Seen, measure, seconds, statement

BACKENDS = ["compiled", "pure"] if platform.python_implementation() == "CPython" else ["pure"]
READ_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
WRITE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
CACHED_READS = {"d[k]": "d[{}]", "d.get(k)": "d.get({})", "k in d": "{} in d"}


def load(backend: str) -> ModuleType:
    """The nfsdict package as it is with this backend, its modules not shared with another."""
    for name in [name for name in sys.modules if name.split(".")[0] == "nfsdict"]:
        del sys.modules[name]
    with mock.patch.dict(os.environ, NFSDICT_BACKEND=backend):
        package = importlib.import_module("nfsdict")
        importlib.import_module("nfsdict.core")
    if backend != package.BACKEND:
        raise RuntimeError(f"asked for {backend}, got {package.BACKEND}")
    return package


def packages() -> dict[str, ModuleType]:
    return {backend: load(backend) for backend in BACKENDS}


def stores(packages: dict[str, ModuleType], base: Path) -> dict[str, Any]:
    """A store of release 0.2.1 and one of each backend, by name."""
    contenders = {"0.2.1": release021.load(), **packages}
    return {name: package.NfsDict("store", base / name) for name, package in contenders.items()}


def key_to_path(packages: dict[str, ModuleType], rounds: int) -> Seen:
    keys = [f"experiment/{number % 16}/{number:06d}" for number in range(2000)]
    loops = {
        "digest": "for key in keys: digest(key)",
        "value_path": "for key in keys: value_path('/some/where/store', key, '.pkl')",
    }

    def hash_key(key: str) -> str:
        return hashlib.sha256(key.encode()).hexdigest()

    def join_path(directory: str, key: str, extension: str) -> str:
        name = hashlib.sha256(key.encode()).hexdigest()
        return f"{directory}/{name[:2]}/{name}{extension}"

    contenders = {"hashlib": {"digest": hash_key, "value_path": join_path}}
    for backend, package in packages.items():
        contenders[backend] = {name: getattr(package.core, name) for name in loops}
    operations = {
        name: {
            contender: statement(loop, 20, keys=keys, **{name: functions[name]})
            for contender, functions in contenders.items()
        }
        for name, loop in loops.items()
    }
    return measure("key -> path", operations, 20 * len(keys), rounds)


def cached_reads(mappings: dict[str, Any], rounds: int) -> Seen:
    """Hits in caches that hold ten thousand keys; the same 50 in each."""
    filled = {f"key {number}": number for number in range(10_000)}
    stores = {"dict": dict(filled)}
    for name, mapping in mappings.items():
        # Straight into the cache: how a hit got there is nothing to the hit.
        mapping._cache.update(filled)
        stores[name] = mapping
    names = {f"k{number}": f"key {number * 190}" for number in range(50)}
    operations = {
        operation: {
            contender: statement("; ".join(map(code.format, names)), 4000, d=store, **names)
            for contender, store in stores.items()
        }
        for operation, code in CACHED_READS.items()
    }
    seen = measure("cached reads", operations, 4000 * len(names), rounds)
    for mapping in mappings.values():
        mapping._cache.clear()
    return seen


def index(packages: dict[str, ModuleType], count: int, rounds: int) -> Seen:
    keys = [f"experiment/{number % 16}/{number:07d}" for number in range(count)]
    names = [keys[number::256] for number in range(256)]
    shards = [
        ((1_700_000_000 * 10**9,) * 2, some, bytes(32 * len(some)), bytes(4 * len(some)), 0, 0)
        for some in names
    ]
    pickled = pickle.dumps(keys)
    sentinel = object()

    def old_encode() -> bytes:
        return pickle.dumps(list(dict_of_keys.keys()))

    def old_parse() -> set[str]:
        return set(pickle.loads(pickled))

    def old_fill() -> dict[str, object]:
        cache = {}
        for key in old_parse():
            cache[key] = sentinel
        return cache

    def fill(parse: Callable[[bytes], Any], table: bytes) -> dict[str, object]:
        cache: dict[str, object] = {}
        for _stamp, some, *_rest in parse(table):
            cache.update(dict.fromkeys(some, sentinel))
        return cache

    dict_of_keys = dict.fromkeys(keys)
    table = next(iter(packages.values())).core.encode_table(shards)
    operations: dict[str, dict[str, Callable[[], float]]] = {
        "encode": {"0.2.1": partial(seconds, old_encode)},
        "parse": {"0.2.1": partial(seconds, old_parse)},
        "parse and fill": {"0.2.1": partial(seconds, old_fill)},
    }
    for backend, package in packages.items():
        core = package.core
        operations["encode"][backend] = partial(seconds, partial(core.encode_table, shards))
        operations["parse"][backend] = partial(seconds, partial(core.parse_table, table))
        operations["parse and fill"][backend] = partial(
            seconds, partial(fill, core.parse_table, table)
        )
    return measure(f"index of {count} keys, time for one key", operations, count, rounds)


def bare_read(paths: Sequence[str]) -> None:
    for path in paths:
        descriptor = os.open(path, READ_FLAGS)
        size = os.fstat(descriptor).st_size
        os.read(descriptor, size + 1)
        os.close(descriptor)


def bare_write(files: Sequence[tuple[str, str, bytes]], durable: bool) -> None:
    for temporary, target, data in files:
        descriptor = os.open(temporary, WRITE_FLAGS, 0o666)
        os.write(descriptor, data)
        if durable:
            os.fsync(descriptor)
        os.close(descriptor)
        os.rename(temporary, target)


def files(packages: dict[str, ModuleType], base: Path, size: int, rounds: int) -> Seen:
    count = 1000
    directory = base / "files"
    directory.mkdir()
    chunk = [
        (f"{directory}/.{number}", f"{directory}/{number}", bytes(size)) for number in range(count)
    ]
    paths = [target for _, target, _ in chunk]
    new = [(target, data) for _, target, data in chunk]
    bare_write(chunk, durable=False)
    operations: dict[str, dict[str, Callable[[], float]]] = {
        "read_files": {"bare calls": partial(seconds, partial(bare_read, paths))},
        "write_files": {"bare calls": partial(seconds, partial(bare_write, chunk, True))},
        "not durable": {"bare calls": partial(seconds, partial(bare_write, chunk, False))},
    }
    for backend, package in packages.items():
        read, write = package.core.read_files, package.core.write_files
        assert {content for content, _ in read(paths)} == {bytes(size)}
        operations["read_files"][backend] = partial(seconds, partial(read, paths))
        operations["write_files"][backend] = partial(
            seconds, partial(write, new, None, True, True, False)
        )
        operations["not durable"][backend] = partial(
            seconds, partial(write, new, None, False, False, False)
        )
    return measure(f"files of {size} bytes in {base}", operations, count, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dir", type=Path, help="where files go (default: a temporary one)")
    parser.add_argument("--size", type=int, default=100, help="bytes in a file (%(default)s)")
    parser.add_argument("--keys", type=int, default=1_000_000, help="in the index (%(default)s)")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    loaded = packages()
    with tempfile.TemporaryDirectory(prefix="nfsdict-core-", dir=options.dir) as base:
        key_to_path(loaded, options.rounds)
        cached_reads(stores(loaded, Path(base)), options.rounds)
        files(loaded, Path(base), options.size, options.rounds)
        index(loaded, options.keys, options.rounds)


if __name__ == "__main__":
    main()
