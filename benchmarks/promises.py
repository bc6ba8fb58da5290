"""What nfsdict promises about speed and memory, each promise beside what was seen.

Cached reads and the index are measured as in core.py, memory as in memory.py. Put is d[k] = v of
new keys in a store whose shards exist, against release 0.2.1's, and against the bare system
calls of a durable put, made from Python with contents and targets made beforehand: getrandom
for the temporary name, open, write, fsync, fstat, close, rename, and open, fsync, close of the
directory. (Release 0.2.1 leaves out those last three everywhere, nfsdict where they do nothing,
as on a tmpfs.) What a turn wrote is deleted before the next one, off the clock, so that all
turns write to memory that the machine has in hand, and none pays for its first use.

Run it with --dir on a tmpfs, where the promise about put is made: there the cost is the
program's and not the device's. The exit status is 0 whether or not all are kept, as the machine
has its say too.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import pickle
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import core
import memory
from timing import Seen, measure, ratio, seconds, table


def bare_put(files: Sequence[tuple[str, str, bytes]]) -> None:
    for directory, target, data in files:
        temporary = f"{directory}/.nfsdict-{os.urandom(12).hex()}"
        descriptor = os.open(temporary, core.WRITE_FLAGS, 0o666)
        os.write(descriptor, data)
        os.fsync(descriptor)
        os.fstat(descriptor)
        os.close(descriptor)
        os.rename(temporary, target)
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        os.fsync(descriptor)
        os.close(descriptor)


def put(mappings: dict[str, Any], base: Path, size: int, rounds: int) -> Seen:
    count = 2000
    keys = [f"experiment/{number % 16}/{number:06d}" for number in range(count)]
    value = "x" * size

    def assign(mapping: Any) -> float:
        def loop() -> None:
            for key in keys:
                mapping[key] = value

        took = seconds(loop)
        for key in keys:
            del mapping[key]
        return took

    def system_calls() -> float:
        ready = []
        for key in keys:
            name = hashlib.sha256(key.encode()).hexdigest()
            directory = f"{base}/bare/{name[:2]}"
            ready.append((directory, f"{directory}/{name}.pkl", pickle.dumps((key, value))))
        took = seconds(partial(bare_put, ready))
        for _directory, target, _data in ready:
            os.unlink(target)
        return took

    for number in range(256):
        (base / "bare" / f"{number:02x}").mkdir(parents=True)
    contenders: dict[str, Callable[[], float]] = {"bare calls": system_calls}
    for name, mapping in mappings.items():
        contenders[name] = partial(assign, mapping)
    return measure(f"put of {size} bytes in {base}", {"put": contenders}, count, rounds)


def report(seen: Seen, growth: dict[str, memory.Growth]) -> None:
    """The promises, as the first backend kept them in this run."""
    backend = core.BACKENDS[0]
    rows = []

    def promise(text: str, bound: str, target: float, found: float) -> None:
        kept = found >= target if bound == "at least" else found <= target
        rows.append([text, f"{bound} {target:g}", f"{found:.2f}", "yes" if kept else "NO"])

    for operation in core.CACHED_READS:
        times = seen[operation]
        old = ratio(times["0.2.1"], times[backend])
        promise(f"cached {operation}: 0.2.1 / nfsdict", "at least", 2.5, old)
        plain = ratio(times[backend], times["dict"])
        promise(f"cached {operation}: nfsdict / plain dict", "at most", 2, plain)
    times = seen["put"]
    old = ratio(times["0.2.1"], times[backend])
    promise("put: 0.2.1 / nfsdict", "at least", 2.5, old)
    bare = ratio(times[backend], times["bare calls"])
    promise("put: nfsdict / bare system calls from Python", "at most", 1, bare)
    for text, operation in {"parsed": "parse", "parsed into a dict": "parse and fill"}.items():
        old = ratio(seen[operation]["0.2.1"], seen[operation][backend])
        promise(f"index {text}: 0.2.1 / nfsdict", "at least", 2, old)
    plain = growth["nfsdict, lazy"].resident / growth["dict"].resident
    promise("memory of lazy keys: nfsdict / plain dict", "at most", 1.5, plain)
    print(f"\npromises, {backend} backend\n\n{table(['promise', 'target', 'seen', 'kept'], rows)}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dir", type=Path, help="where stores go (default: a temporary one)")
    parser.add_argument("--size", type=int, default=100, help="bytes in a value (%(default)s)")
    parser.add_argument(
        "--keys",
        type=int,
        default=1_000_000,
        help="in the index, and in the store whose memory is measured (%(default)s)",
    )
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    packages = core.packages()
    with tempfile.TemporaryDirectory(prefix="nfsdict-promises-", dir=options.dir) as name:
        base = Path(name)
        stores = core.stores(packages, base)
        seen = core.cached_reads(stores, options.rounds)
        seen |= put(stores, base, options.size, options.rounds)
    seen |= core.index(packages, options.keys, options.rounds)
    growth = memory.measure(options.dir, options.keys)
    report(seen, growth)


if __name__ == "__main__":
    main()
