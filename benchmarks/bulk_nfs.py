"""Work on many keys over NFS: calls to the server and times, beside those of release 0.2.1.

It runs in the laboratory's guest (see tests/lab): a Linux NFS server and its client, a tmpfs export
and a network of 1 ms a round trip. The guest has one processor for server, client and program.
Values are about 150 bytes. Every opening is by a client that was mounted just before, with nothing
cached, of one store that both contenders use and whose files are older than 3 s.

    open, settled     eager; others have opened it since it was changed: nfsdict finds its pack,
                      release 0.2.1 its index
    open, no index    eager
    sync, warm        read everything again, just after opening
    update            of new keys, into an empty store
    open, lazy        and the first d[k] after it

Calls are taken from /proc/self/mountstats. A ratio is the median over rounds in which both take
turns.
"""

from __future__ import annotations

import argparse
import pickle
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import nfsdict
import release021
from in_guest import run_in_guest
from lab.configuration import Configuration
from lab.laboratory import Bench, Lab
from timing import duration, ratio, table

VERSIONS = ("3", "4.2")
SETTLE = 4.0
CONTENDERS: dict[str, ModuleType] = {"nfsdict": nfsdict, "0.2.1": release021.load()}


class Seen(NamedTuple):
    calls: int
    seconds: float


def entries(count: int) -> dict[str, str]:
    return {f"experiment/{number % 16}/{number:06d}": f"{number:100d}" for number in range(count)}


def build(lab: Lab, count: int) -> Path:
    """The store, on the server's own file system, with the indexes of both."""
    wanted = entries(count)
    store: nfsdict.NfsDict[str]
    with nfsdict.NfsDict("store", lab.server, lazy=True, durable=False) as store:
        store.update(wanted)
    time.sleep(SETTLE)
    store = nfsdict.NfsDict("store", lab.server, durable=False)
    print(f"v{lab.configuration.version}, {count} keys: {store.pack()}", file=sys.stderr)
    (store.path / "_index.pkl").write_bytes(pickle.dumps(list(wanted)))
    return store.path


def timed(lab: Lab, action: Callable[[], Any]) -> tuple[Seen, Any]:
    with lab.rpcs("a") as rpcs:
        start = time.perf_counter()
        result = action()
        seconds = time.perf_counter() - start
    return Seen(rpcs.total, seconds), result


def opened(lab: Lab, contender: str, **options: Any) -> tuple[Seen, Any]:
    """Open the store on a client that knows nothing of it."""
    lab.remount("a", "")
    return timed(lab, lambda: CONTENDERS[contender].NfsDict("store", lab.a, **options))


def measure_open(lab: Lab, contender: str, count: int) -> dict[str, Seen]:
    seen, d = opened(lab, contender)
    assert dict(d) == entries(count)
    lazy, d = opened(lab, contender, lazy=True)
    key = next(iter(entries(1)))
    first, value = timed(lab, lambda: d[key])
    assert value == entries(1)[key]
    return {"open, settled": seen, "open, lazy": lazy, "then d[k]": first}


def measure_sync(lab: Lab, contender: str, count: int) -> dict[str, Seen]:
    for file in lab.server.glob("store/_*"):
        file.unlink()
    seen, d = opened(lab, contender)
    assert len(d) == count
    synced, _ = timed(lab, d.sync)
    assert dict(d) == entries(count)
    return {"open, no index": seen, "sync, warm": synced}


def measure_update(lab: Lab, contender: str, count: int) -> dict[str, Seen]:
    lab.remount("a", "")
    d = CONTENDERS[contender].NfsDict(f"new {contender} {time.monotonic_ns()}", lab.a)
    seen, _ = timed(lab, lambda: d.update(entries(count)))
    return {"update": seen}


MEASURES = (measure_open, measure_sync, measure_update)


def rows_of(lab: Lab, count: int, rounds: int, measures: Any) -> list[list[str]]:
    build(lab, count)
    lab.delay(1)
    seen: dict[str, dict[str, list[Seen]]] = {}
    for measure in measures:
        for number in range(rounds):
            names = list(CONTENDERS)
            for name in names if number % 2 else reversed(names):
                for work, one in measure(lab, name, count).items():
                    seen.setdefault(work, {}).setdefault(name, []).append(one)
    lab.delay(0)
    rows = []
    for work, by_name in seen.items():
        row = [f"v{lab.configuration.version}", f"{count}", work]
        for some in (by_name[name] for name in CONTENDERS):
            calls = statistics.median(one.calls for one in some)
            row += [
                f"{calls:.0f}",
                f"{calls / count:.3f}",
                duration(statistics.median(one.seconds for one in some)),
            ]
        here, old = ([one.seconds for one in by_name[name]] for name in CONTENDERS)
        rows.append([*row, f"{ratio(old, here):.1f}x"])
        print(*rows[-1], file=sys.stderr, flush=True)
    return rows


def inside(sizes: list[int], rounds: int) -> None:
    bench = Bench()
    rows = []
    for version in VERSIONS:
        for number, count in enumerate(sizes):
            with bench.lab(Configuration(version=version, size_mb=512)) as lab:
                # All of them with the first size, opening with the others.
                measures = MEASURES[:1] if number else MEASURES
                rows += rows_of(lab, count, 1 if number else rounds, measures)
    heads = ["RPCs", "a key", "time"]
    print(table(["NFS", "keys", "work", *heads, *(f"0.2.1: {h}" for h in heads), "times"], rows))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[2000, 20_000])
    parser.add_argument("--rounds", type=int, default=3, help="at the first size (%(default)s)")
    options = parser.parse_args()
    return run_in_guest(partial(inside, options.sizes, options.rounds), 3600)


if __name__ == "__main__":
    sys.exit(main())
