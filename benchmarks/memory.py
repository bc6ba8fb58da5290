"""Memory of a lazily opened store: what its keys cost, before any value is loaded.

A store of KEYS entries is made and opened once, so that its index is settled. Then one process
for each contender measures how much its resident memory (VmRSS of /proc/self/status) grows when
it makes a plain dict of the same keys, opens the store lazily and goes through its keys, or lets
release 0.2.1 do so from an index of its own. VmRSS, not tracemalloc: it sees what C code takes
and what fragmentation keeps. "peak" is the growth of VmHWM, what was needed on the way.
Linux only. A million keys are a million files: about 5 GB of a tmpfs.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import pickle
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from timing import table

# Until then nfsdict takes what was just written for too fresh to be proven by a directory's mtime.
SETTLE = 4.0
CONTENDERS = ("dict", "0.2.1, lazy", "nfsdict, lazy")


class Growth(NamedTuple):
    """KiB that a process grew by: afterwards, and at most."""

    resident: int
    peak: int


def key_names(count: int) -> Iterator[str]:
    return (f"experiment/{number % 16}/{number:07d}" for number in range(count))


def build(base: Path, count: int) -> None:
    """A store of ``count`` entries with a settled index, and release 0.2.1's index beside it."""
    import nfsdict

    store: nfsdict.NfsDict[None]
    with nfsdict.NfsDict("store", base, lazy=True, durable=False) as store:
        store.update((key, None) for key in key_names(count))
    time.sleep(SETTLE)
    with nfsdict.NfsDict("store", base, lazy=True) as store:
        assert len(store) == count
    (base / "store" / "_index.pkl").write_bytes(pickle.dumps(list(key_names(count))))


def memory_now() -> Growth:
    gc.collect()
    status = Path("/proc/self/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    return Growth(*(int(fields[name].split()[0]) for name in ("VmRSS", "VmHWM")))


def grow(contender: str, base: Path, count: int) -> Growth:
    """Hold the keys in this process and say what that took."""
    if contender == "dict":
        before = memory_now()
        keys = dict.fromkeys(key_names(count))
    else:
        if contender == "0.2.1, lazy":
            import release021

            package = release021.load()
        else:
            import nfsdict as package
        before = memory_now()
        keys = package.NfsDict("store", base, lazy=True)
    assert sum(1 for _ in keys) == count
    after = memory_now()
    return Growth(after.resident - before.resident, after.peak - before.resident)


def measure(directory: Path | None, count: int) -> dict[str, Growth]:
    """Each contender's growth in a fresh process of its own, over one store in ``directory``."""

    def fresh(function: Callable[..., Any], *arguments: object) -> Any:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            return pool.submit(function, *arguments).result()

    with tempfile.TemporaryDirectory(prefix="nfsdict-memory-", dir=directory) as name:
        fresh(build, Path(name), count)
        seen = {contender: fresh(grow, contender, Path(name), count) for contender in CONTENDERS}
    rows = [
        [
            contender,
            f"{growth.resident / 1024:.0f} MiB ({growth.resident / seen['dict'].resident:.2f}x)",
            f"{growth.peak / 1024:.0f} MiB ({growth.peak / seen['dict'].peak:.2f}x)",
        ]
        for contender, growth in seen.items()
    ]
    print(f"\nmemory of {count} keys\n\n{table(['', 'resident', 'peak'], rows)}", flush=True)
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dir", type=Path, help="where the store goes (default: a temporary one)")
    parser.add_argument("--keys", type=int, default=1_000_000)
    options = parser.parse_args()
    measure(options.dir, options.keys)


if __name__ == "__main__":
    main()
