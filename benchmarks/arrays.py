"""An array of 500 MB: put and got by nfsdict beside np.save and np.load, in time and in memory.

np.save writes a file under another name, syncs it, renames it and syncs the directory: as durable
as a put. Files are read out of the operating system's cache, by a get past nfsdict's own. Memory is
what a fresh process has resident at most, above what it had before: the array is there already when
it is written.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import statistics
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import nfsdict
from timing import duration, interleave, ratio, seconds, table

ROWS = ("np.save, np.load", "buffers", "buffers, signed")


def save(path: Path, array: Any) -> None:
    temporary = path.with_suffix(".new")
    with open(temporary, "wb") as file:
        np.save(file, array)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    directory = os.open(path.parent, os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)


def opened(row: str, base: Path) -> Any:
    signed = nfsdict.signed("buffers", key=bytes(32))
    serializer: Any = signed if row == "buffers, signed" else row
    return nfsdict.NfsDict(row.replace(" ", ""), base, serializer, lazy=True)


def calls(row: str, base: Path) -> tuple[Callable[[Any], Any], Callable[[], Any]]:
    """What writes an array, and what reads it."""
    if row == ROWS[0]:
        path = base / "array.npy"
        return partial(save, path), partial(np.load, path)
    d = opened(row, base)
    return partial(d.__setitem__, "array"), partial(d.get, "array", fresh=True)


def made(size: int) -> Any:
    return np.random.default_rng(1).random(size // 8)


def turn(row: str, base: Path, array: Any) -> tuple[float, float]:
    """The seconds that writing and reading take."""
    write, read = calls(row, base)
    write(array)  # as does every later one, it replaces a file
    return seconds(lambda: write(array)), seconds(read)


def peak(row: str, base: Path, size: int, writes: bool) -> float:
    """The most MB above what was resident before, in the process that calls it."""
    write, read = calls(row, base)
    write(np.arange(9.0))
    read()
    array = made(size)
    if not writes:
        write(array)
        del array, write, read
        _, read = calls(row, base)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    kept = write(array) if writes else read()
    most = resident("VmHWM") - before
    del kept
    return most


def resident(name: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024 / 1e6
    raise LookupError(name)


def measure(base: Path, size: int, rounds: int) -> None:
    array = made(size)
    seen = interleave({row: partial(turn, row, base, array) for row in ROWS}, rounds)
    del array

    def fresh(row: str, writes: bool) -> float:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            return pool.submit(peak, row, base, size, writes).result()

    rows = []
    for row in ROWS:
        cells = []
        for which in (0, 1):
            ours, peers = ([took[which] for took in seen[name]] for name in (row, ROWS[0]))
            cells.append(f"{duration(statistics.median(ours))} ({ratio(ours, peers):.2f}x)")
        cells += [f"{fresh(row, writes):.0f} MB" for writes in (True, False)]
        rows.append([row, *cells])
    print(table(["", "put", "get", "put: memory", "get: memory"], rows))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dir", type=Path, help="where it goes (default: a temporary one)")
    parser.add_argument("--size", type=int, default=500_000_000, help="bytes of the array")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    base = Path(tempfile.mkdtemp(prefix="nfsdict-arrays-", dir=options.dir))
    try:
        print(f"{options.size} bytes in {base}; {options.rounds} rounds\n")
        measure(base, options.size, options.rounds)
    finally:
        shutil.rmtree(base)


if __name__ == "__main__":
    main()
