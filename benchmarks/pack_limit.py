"""Up to which size do values belong into the pack? Openings over NFS, with the limit off and on.

It runs in the laboratory's guest (see tests/lab and bulk_nfs.py), on NFSv4.2, by default with 1 ms
a round trip. For each size a store of so many values as make up --total bytes is opened eagerly by
a client that knows nothing of it:

    loose     each value from its file
    packing   the same, and they are written into a pack on the way: what the first opener pays
    packed    from the pack: what every later one pays

"packing pays after" is how many later openings win back what the first one paid more.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from functools import partial

import nfsdict
import nfsdict.index.pack
from in_guest import run_in_guest
from lab.configuration import Configuration
from lab.laboratory import Bench, Lab
from timing import duration, table

SETTLE = 4.0


def opened(lab: Lab, limit: int, count: int) -> float:
    nfsdict.index.pack.PACKED = limit
    lab.remount("a", "")
    start = time.perf_counter()
    d = nfsdict.NfsDict[bytes]("store", lab.a)
    seconds = time.perf_counter() - start
    assert len(d) == count
    return seconds


def row(lab: Lab, size: int, count: int, rtt: float, rounds: int) -> list[str]:
    store: nfsdict.NfsDict[bytes]
    with nfsdict.NfsDict("store", lab.server, lazy=True, durable=False) as store:
        store.update({str(number): bytes(size) for number in range(count)})
    time.sleep(SETTLE)
    seen: dict[str, list[float]] = {"loose": [], "packing": [], "packed": []}
    lab.delay(rtt)
    for _ in range(rounds):
        for hint in store.path.glob("_*"):
            hint.unlink()
        opened(lab, 0, count)  # writes the index
        seen["loose"].append(opened(lab, 0, count))
        for hint in store.path.glob("_*"):
            hint.unlink()
        seen["packing"].append(opened(lab, 1 << 40, count))
        seen["packed"].append(opened(lab, 1 << 40, count))
    lab.delay(0)
    store.clear()
    loose, packing, packed = map(statistics.median, seen.values())
    pays = (packing - loose) / (loose - packed) if packed < loose else float("inf")
    cells = [duration(one / count) for one in (loose, packing, packed)]
    return [f"{size / 1024:g} KiB", f"{count}", *cells, f"{loose / packed:.1f}x", f"{pays:.1f}"]


def inside(sizes: list[int], total: int, rtt: float, rounds: int) -> None:
    bench = Bench()
    rows = []
    for size in sizes:
        with bench.lab(Configuration(version="4.2", size_mb=512)) as lab:
            rows.append(row(lab, size, min(2000, total // size), rtt, rounds))
    heads = ["value", "keys", "loose", "packing", "packed", "loose / packed", "packing pays after"]
    print(table(heads, rows))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sizes = [1 << power for power in (8, 10, 12, 14, 15, 16, 18, 20)]
    parser.add_argument("--sizes", type=int, nargs="+", default=sizes)
    parser.add_argument("--total", type=int, default=32 << 20, help="bytes (%(default)s)")
    parser.add_argument("--rtt", type=float, default=1, help="ms (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    arguments = options.sizes, options.total, options.rtt, options.rounds
    return run_in_guest(partial(inside, *arguments), 3600)


if __name__ == "__main__":
    sys.exit(main())
