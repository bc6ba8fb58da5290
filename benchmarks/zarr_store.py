"""zarr arrays in a dictionary beside zarr's own LocalStore.

    python benchmarks/zarr_store.py --dir /dev/shm

Writes an array of many chunks, overwrites it and reads it, all of it each time, in stores of both
kinds by turns. The dictionary has the options that its documentation names for zarr (``lazy=True,
cache_bytes=0``), and ``durable=False``, as LocalStore syncs nothing.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import zarr
from zarr.abc.store import Store
from zarr.storage import LocalStore

from nfsdict import NfsDict
from nfsdict.integrations.zarr import NfsDictStore
from timing import measure, seconds

# Bytes of a chunk, how many of them, and whether zarr compresses them (Zstandard, its default).
SHAPES = [
    (4 << 10, 1000, False),
    (64 << 10, 500, False),
    (64 << 10, 500, True),
    (1 << 20, 100, False),
]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dir", type=Path, help="where to write (default: the system's choice)")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    for size, count, compressed in SHAPES:
        with tempfile.TemporaryDirectory(dir=options.dir) as directory:
            compare(Path(directory), size, count, compressed, options.rounds)


def compare(directory: Path, size: int, count: int, compressed: bool, rounds: int) -> None:
    data = np.random.default_rng(0).integers(0, 64, size * count, dtype="u1")
    mapping = NfsDict("dict", directory, "bytes", lazy=True, cache_bytes=0, durable=False)
    stores: dict[str, Store] = {
        "LocalStore": LocalStore(directory / "local"),
        "NfsDictStore": NfsDictStore(mapping),
    }

    def write(store: Store) -> float:
        array = zarr.create_array(
            store,
            shape=data.shape,
            chunks=(size,),
            dtype="u1",
            compressors="auto" if compressed else None,
            overwrite=True,
        )
        return seconds(lambda: array.__setitem__(slice(None), data))

    def overwrite(store: Store) -> float:
        array = zarr.open_array(store)
        return seconds(lambda: array.__setitem__(slice(None), data))

    def read(store: Store) -> float:
        array = zarr.open_array(store)
        found = []
        elapsed = seconds(lambda: found.append(array[:]))
        assert np.array_equal(found[0], data)
        return elapsed

    def by_store(action: Callable[[Store], float]) -> dict[str, Callable[[], float]]:
        return {name: partial(action, store) for name, store in stores.items()}

    title = f"{count} chunks of {size >> 10} KiB{', compressed' if compressed else ''}, a chunk"
    operations = {
        "write": by_store(write),
        "overwrite": by_store(overwrite),
        "read": by_store(read),
    }
    measure(title, operations, count, rounds)


if __name__ == "__main__":
    main()
