"""What the command takes on a store of very many entries: prune, ls, du and stats.

A store of so many entries, packed, is made on the file system of --dir. Each command runs once, in
a process of its own: how long until its first line and until its end, its processor time, and the
most memory that it had (``ru_maxrss``). The last one removes a tenth of the entries. What the
system had cached before isn't dropped. A million entries are a million files: about 5 GB.

Linux only, where ``ru_maxrss`` is in KiB.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from timing import table

# Until then what was just written is too fresh to be packed by a directory's mtime.
SETTLE = 4.0


def build(base: Path, count: int) -> None:
    import nfsdict

    store: nfsdict.NfsDict[int]
    with nfsdict.NfsDict("store", base, lazy=True, durable=False) as store:
        store.update((f"experiment/{number % 16}/{number:07d}", number) for number in range(count))
        time.sleep(SETTLE)
        store.pack()


def run(base: Path, arguments: Sequence[str]) -> list[str]:
    """The row of this command."""
    name, *options = arguments
    words = [sys.executable, "-m", "nfsdict", name, "--base-dir", str(base), "store", *options]
    start = time.perf_counter()
    process = subprocess.Popen(words, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    first = time.perf_counter() - start
    while process.stdout.read(1 << 20):
        pass
    _, status, used = os.wait4(process.pid, 0)
    whole = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, words
    cpu = used.ru_utime + used.ru_stime
    memory = f"{used.ru_maxrss / 1024:.0f} MiB"
    return [" ".join(arguments), f"{first:.1f} s", f"{whole:.1f} s", f"{cpu:.1f} s", memory]


def measure(directory: Path | None, count: int) -> None:
    kept = str(count - count // 10)
    commands = [
        ("ls", "--sort", "none"),
        ("ls",),
        ("du",),
        ("stats",),
        ("prune", "--max-items", kept, "--dry-run"),
        ("prune", "--max-items", kept),
    ]
    with tempfile.TemporaryDirectory(prefix="nfsdict-prune-", dir=directory) as name:
        # By a process that ends: what it has in memory would count for those that come of this one.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            pool.submit(build, Path(name), count).result()
        rows = [run(Path(name), arguments) for arguments in commands]
    head = ["nfsdict", "first line", "end", "processor", "memory"]
    print(f"\n{count} entries, load {os.getloadavg()[0]:.0f}\n\n{table(head, rows)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dir", type=Path, help="where the store goes (default: a temporary one)")
    parser.add_argument("--entries", type=int, default=1_000_000)
    options = parser.parse_args()
    measure(options.dir, options.entries)


if __name__ == "__main__":
    main()
