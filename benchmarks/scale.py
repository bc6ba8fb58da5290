"""Cost against size: stores of ten thousand to a million keys, values of 100 bytes.

For each size a store is built, aged and packed, and release 0.2.1's index is laid beside it. Then
each work is done in a process of its own:

    lazy + len      open lazily, and count the keys
    eager           open, all values read
    refresh         after opening eagerly, with nothing changed; in all, not for a key
    refresh 100     after 100 puts by somebody else; in all
    sync            read everything again, after opening eagerly
    close           after one put, opened eagerly; in all, and the bytes that were written for it
    memory          what the resident set grew by (VmRSS), lazily and eagerly opened

Contenders take turns; times are medians over rounds, ratios are of one round. Garbage collection
is on, as in a user's program, and its share of an eager opening is given. --plot draws the costs
for one key. A million keys are a million files: about 5 GB of a tmpfs.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import pickle
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from memory import key_names, memory_now
from timing import duration, ratio, table

SETTLE = 4.0
OURS, OLD = "nfsdict", "0.2.1"
PER_KEY = ("lazy + len", "eager", "sync")
IN_ALL = ("refresh", "close", "refresh 100")


class Seen(NamedTuple):
    seconds: float
    extra: float = 0
    """the share of garbage collection, or bytes"""


class Collections:
    """Seconds spent in garbage collection inside the `with`."""

    def __enter__(self) -> Collections:
        self.seconds = 0.0
        gc.callbacks.append(self._note)
        return self

    def _note(self, phase: str, _info: dict[str, int]) -> None:
        now = time.perf_counter()
        if phase == "start":
            self._began = now
        else:
            self.seconds += now - self._began

    def __exit__(self, *_: object) -> None:
        gc.callbacks.remove(self._note)


def contender(name: str) -> Any:
    if name == OURS:
        import nfsdict

        return nfsdict.NfsDict
    import release021

    return release021.load().NfsDict


def build(base: Path, count: int) -> None:
    import nfsdict

    store: nfsdict.NfsDict[str]
    with nfsdict.NfsDict("store", base, lazy=True, durable=False) as store:
        store.update((key, f"{key:>100}") for key in key_names(count))
    time.sleep(SETTLE)
    assert nfsdict.NfsDict("store", base, durable=False).pack().packed == count
    (base / "store" / "_index.pkl").write_bytes(pickle.dumps(list(key_names(count))))


def timed(action: Callable[[], Any]) -> Seen:
    with Collections() as collections:
        start = time.perf_counter()
        result = action()
        seconds = time.perf_counter() - start
    del result
    return Seen(seconds, collections.seconds / seconds)


def index_files(base: Path) -> dict[Path, tuple[int, int]]:
    found = {}
    for path in base.glob("store/_*.nfsdict-*"):
        status = path.stat()
        found[path] = status.st_mtime_ns, status.st_size
    return found


def measure(work: str, name: str, base: Path, count: int) -> Seen:
    """One piece of work, in a process that has done nothing else."""
    dictionary = contender(name)

    def counted() -> Any:
        store = dictionary("store", base, lazy=True)
        assert len(store) == count
        return store

    if work == "lazy + len":
        seen = timed(counted)
    elif work == "eager":
        seen = timed(lambda: dictionary("store", base))
    elif work == "memory, lazy":
        before = memory_now().resident
        store = dictionary("store", base, lazy=True)
        assert sum(1 for _ in store) == count
        return Seen(0, memory_now().resident - before)
    elif work == "memory, eager":
        before = memory_now().resident
        store = dictionary("store", base)
        return Seen(0, memory_now().resident - before)
    else:
        store = dictionary("store", base)
        assert len(store) == count
        if work == "sync":
            seen = timed(store.sync)
        elif work == "refresh":
            store.refresh()
            seen = timed(store.refresh)
        elif work == "refresh 100":
            other = dictionary("store", base, lazy=True, durable=False)
            keys = list(key_names(count))[:: count // 100][:100]
            for key in keys:
                other[key] = f"{key:>100}"
            seen = timed(store.refresh)
        else:
            [key] = key_names(1)
            store[key] = f"{key:>100}"
            before_close = index_files(base)
            seen = timed(store.close)
            changed = index_files(base).items() - before_close.items()
            return Seen(seen.seconds, sum(size for _, (_, size) in changed))
    return seen


def plain_memory(count: int) -> Seen:
    before = memory_now().resident
    plain = {key: f"{key:>100}" for key in key_names(count)}
    grown = memory_now().resident - before
    assert len(plain) == count
    return Seen(0, grown)


def apart(function: Callable[..., Seen], *arguments: Any) -> Seen:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


def sized(base: Path, count: int, rounds: int) -> dict[tuple[str, str], list[Seen]]:
    build(base, count)
    seen: dict[tuple[str, str], list[Seen]] = {}
    works = [(work, name) for work in PER_KEY for name in (OURS, OLD)]
    for number in range(rounds):
        for work, name in works if number % 2 else reversed(works):
            seen.setdefault((work, name), []).append(apart(measure, work, name, base, count))
    for work in ("memory, lazy", "memory, eager"):
        for name in (OURS, OLD):
            seen[work, name] = [apart(measure, work, name, base, count)]
    seen["memory, eager", "dict"] = [apart(plain_memory, count)]
    for work in IN_ALL:  # what changes the store comes last
        for _ in range(rounds):
            seen.setdefault((work, OURS), []).append(apart(measure, work, OURS, base, count))
            time.sleep(SETTLE)
    return seen


def report(results: dict[int, dict[tuple[str, str], list[Seen]]]) -> None:
    def middle(some: list[Seen]) -> float:
        return statistics.median(one.seconds for one in some)

    sizes = [f"{count:,}" for count in results]
    rows = []
    for work in PER_KEY:
        for name in (OURS, OLD):
            costs = [duration(middle(seen[work, name]) / n) for n, seen in results.items()]
            rows.append([f"{work}, a key", name, *costs])
        ratios = []
        for seen in results.values():
            ours, old = ([one.seconds for one in seen[work, name]] for name in (OURS, OLD))
            ratios.append(f"{ratio(old, ours):.1f}x")
        rows.append(["", "0.2.1 / nfsdict", *ratios])
    for work in IN_ALL:
        costs = [duration(middle(seen[work, OURS])) for seen in results.values()]
        rows.append([f"{work}, in all", OURS, *costs])
    written = [max(one.extra for one in seen["close", OURS]) for seen in results.values()]
    rows.append(["close, bytes written", OURS, *(f"{size:,.0f}" for size in written)])
    shares = [max(one.extra for one in seen["eager", OURS]) for seen in results.values()]
    rows.append(["eager, garbage collection", OURS, *(f"{share:.1%}" for share in shares)])
    for work in ("memory, lazy", "memory, eager"):
        for name in (OURS, OLD, "dict"):
            cells = [
                f"{seen[work, name][0].extra * 1024 / count:.0f} B"
                for count, seen in results.items()
                if (work, name) in seen
            ]
            if cells:
                rows.append([f"{work}, a key", name, *cells])
    print(table(["work", "", *(f"{size} keys" for size in sizes)], rows))


def plot(results: dict[int, dict[tuple[str, str], list[Seen]]], path: Path) -> None:
    from matplotlib import pyplot

    # Okabe and Ito's colours, which colour-blind readers can tell apart.
    colours = dict(zip(PER_KEY, ("#0072B2", "#D55E00", "#009E73")))
    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    for work in PER_KEY:
        for name, line in ((OURS, "o-"), (OLD, "s--")):
            costs = [
                statistics.median(one.seconds for one in seen[work, name]) / count * 1e6
                for count, seen in results.items()
            ]
            axes.plot(list(results), costs, line, color=colours[work], label=f"{work}, {name}")
    axes.set(xscale="log", yscale="log", xlabel="keys in the store", ylabel="µs for one key")
    axes.grid(which="major", alpha=0.3)
    axes.legend(ncols=2, fontsize="small")
    figure.tight_layout()
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dir", type=Path, help="where stores go (default: a temporary one)")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--plot", type=Path, metavar="FILE.png")
    options = parser.parse_args()
    results = {}
    for count in options.sizes:
        name = tempfile.mkdtemp(prefix="nfsdict-scale-", dir=options.dir)
        try:
            results[count] = sized(Path(name), count, options.rounds)
        finally:
            shutil.rmtree(name)
    report(results)
    if options.plot:
        plot(results, options.plot)


if __name__ == "__main__":
    main()
