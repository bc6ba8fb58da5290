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
    pack              more than 3 s after that; what only nfsdict has
    open, packed      by the other client, after that
    open, lazy        and the first d[k] after it
    refresh           of what was opened, nothing changed; what only nfsdict has
    refresh, 100      the same after 100 puts by another host

Calls are taken from /proc/self/mountstats. A ratio is the median over rounds in which both take
turns. --plot draws calls against keys. Without an index, `sync` and `update` of release 0.2.1 are
measured with the first size only, as they take minutes with the others.
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
CHANGED = 100
OURS = "nfsdict"
CONTENDERS: dict[str, ModuleType] = {OURS: nfsdict, "0.2.1": release021.load()}


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


def opened(lab: Lab, contender: str, store: str = "store", **options: Any) -> tuple[Seen, Any]:
    """Open the store on a client that knows nothing of it."""
    lab.remount("a", "")
    return timed(lab, lambda: CONTENDERS[contender].NfsDict(store, lab.a, **options))


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
    store = f"new {contender} {time.monotonic_ns()}"
    d = CONTENDERS[contender].NfsDict(store, lab.a)
    seen, _ = timed(lab, lambda: d.update(entries(count)))
    if contender != OURS:
        return {"update": seen}
    time.sleep(SETTLE)
    packed, _ = timed(lab, d.pack)
    d.close()
    first, d = opened(lab, contender, store)
    assert dict(d) == entries(count)
    return {"update": seen, "pack": packed, "open, packed": first}


def measure_refresh(lab: Lab, contender: str, count: int) -> dict[str, Seen]:
    if contender != OURS:
        return {}
    _, d = opened(lab, contender)
    time.sleep(0.2)  # the youngest change that it has seen is the only clock of the server it knows
    unchanged, found = timed(lab, d.refresh)
    assert not found
    keys = list(entries(count))[:: count // CHANGED][:CHANGED]
    with nfsdict.NfsDict[str]("store", lab.b, lazy=True, durable=False) as other:
        other.update(dict.fromkeys(keys, "changed"))
    changed, found = timed(lab, d.refresh)
    assert set(found) == set(keys)
    return {"refresh": unchanged, "refresh, 100": changed}


Rows = dict[tuple[str, int], dict[str, dict[str, list[Seen]]]]
"""NFS version and number of keys -> work -> contender -> what each round saw."""


def measure(lab: Lab, count: int, rounds: int, large: bool) -> dict[str, dict[str, list[Seen]]]:
    build(lab, count)
    lab.delay(1)
    seen: dict[str, dict[str, list[Seen]]] = {}
    # The last one changes the store.
    for one in (measure_open, measure_sync, measure_update, measure_refresh):
        both = one is measure_open or not large
        if large and one is measure_sync:
            continue
        for number in range(rounds):
            names = list(CONTENDERS) if both else [OURS]
            for name in names if number % 2 else reversed(names):
                for work, took in one(lab, name, count).items():
                    seen.setdefault(work, {}).setdefault(name, []).append(took)
    lab.delay(0)
    return seen


def cells(some: list[Seen], count: int) -> list[str]:
    if not some:
        return ["", "", ""]
    calls = statistics.median(one.calls for one in some)
    seconds = statistics.median(one.seconds for one in some)
    return [f"{calls:.0f}", f"{calls / count:.3f}", duration(seconds)]


def report(found: Rows) -> None:
    rows = []
    for (version, count), seen in found.items():
        for work, by_name in seen.items():
            here, old = (by_name.get(name, []) for name in CONTENDERS)
            times = [[one.seconds for one in some] for some in (old, here)]
            row = [f"v{version}", f"{count}", work, *cells(here, count), *cells(old, count)]
            rows.append([*row, f"{ratio(*times):.1f}x" if old else ""])
    heads = ["RPCs", "a key", "time"]
    print(table(["NFS", "keys", "work", *heads, *(f"0.2.1: {h}" for h in heads), "times"], rows))


def plot(found: Rows, path: Path) -> None:
    from matplotlib import pyplot

    # Okabe and Ito's colours, which colour-blind readers can tell apart; and where the label goes.
    lines = {
        ("update", OURS): ("#E69F00", 8),
        ("open, settled", "0.2.1"): ("#D55E00", -16),
        ("pack", OURS): ("#009E73", 8),
        ("refresh, 100", OURS): ("#CC79A7", -16),
        ("open, settled", OURS): ("#0072B2", 8),
        ("refresh", OURS): ("#000000", 8),
    }
    versions = list(dict.fromkeys(version for version, _ in found))
    figure, axes = pyplot.subplots(1, len(versions), figsize=(9, 4.5), sharey=True, squeeze=False)
    for version, ax in zip(versions, axes[0]):
        sizes = sorted(count for each, count in found if each == version)
        for (work, name), (colour, height) in lines.items():
            calls = [
                statistics.median(one.calls for one in found[version, count][work][name])
                for count in sizes
            ]
            ax.plot(sizes, calls, "o-" if name == OURS else "s--", color=colour)
            ax.annotate(
                f"{work}, {name}",
                (sizes[-1], calls[-1]),
                (-8, height),
                textcoords="offset points",
                ha="right",
                fontsize="small",
                color=colour,
            )
        ax.set(xscale="log", yscale="log", title=f"NFS version {version}", xlabel="keys")
        ax.grid(which="major", alpha=0.3)
    axes[0][0].set_ylabel("calls to the server")
    figure.tight_layout()
    figure.savefig(path, dpi=130)


def inside(sizes: list[int], rounds: int, picture: Path | None) -> None:
    bench = Bench()
    found: Rows = {}
    for version in VERSIONS:
        for number, count in enumerate(sizes):
            with bench.lab(Configuration(version=version, size_mb=512)) as lab:
                found[version, count] = measure(lab, count, 1 if number else rounds, number > 0)
    report(found)
    if picture:
        plot(found, picture)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[2000, 20_000])
    parser.add_argument("--rounds", type=int, default=3, help="at the first size (%(default)s)")
    parser.add_argument("--plot", type=Path, metavar="FILE.png")
    options = parser.parse_args()
    return run_in_guest(partial(inside, options.sizes, options.rounds, options.plot), 3600)


if __name__ == "__main__":
    sys.exit(main())
