"""What a task of a work list costs over NFS, for one worker and for many: calls to the server.

It runs in the laboratory's guest (see tests/lab): a Linux NFS server and two clients of it, with a
tmpfs export. Half of the workers are on each client, threads of a few processes, each with a
dictionary of its own. They begin together, each task is empty, and there are 50 for each worker;
the store was packed before. Calls are those of both clients, taken from /proc/self/mountstats, from
the first claim until each worker was told that there is nothing left to do; openings aren't among
them. "each" is how many tasks the worker with the fewest and that with the most has done.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from functools import partial

import nfsdict
from in_guest import run_in_guest
from lab.configuration import Configuration
from lab.laboratory import Bench, Lab
from support.work_list import TASKS_EACH, work_off
from timing import table

WORKERS = (1, 20, 200)


def measured(lab: Lab, workers: int, limit: float) -> list[str]:
    """One row: so many workers do all tasks."""
    keys = [f"task {number}" for number in range(TASKS_EACH * workers)]
    store = nfsdict.NfsDict("store", lab.a)
    store.update(dict.fromkeys(keys, "what to do"))
    store.pack()
    worked = work_off(lab, workers, limit)
    assert Counter(key for one in worked.done for key in one) == Counter(keys)
    each = sorted(map(len, worked.done))
    row = [f"v{lab.configuration.version}", f"{workers}", f"{len(keys)}"]
    row += [f"{worked.calls.total / len(keys):.1f}", f"{each[0]} to {each[-1]}"]
    most = sorted(worked.calls.items(), key=lambda item: -item[1])
    shares = [(name, number / len(keys)) for name, number in most]
    return [*row, ", ".join(f"{name} {share:.1f}" for name, share in shares if share >= 0.05)]


def inside(versions: list[str], workers: list[int], limit: float) -> None:
    bench = Bench()
    rows = []
    for version in versions:
        for number in workers:
            with bench.lab(Configuration(version=version)) as lab:
                rows.append(measured(lab, number, limit))
                print(*rows[-1], file=sys.stderr, flush=True)
    print(table(["NFS", "workers", "tasks", "calls a task", "each", "of these"], rows))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--versions", nargs="+", default=["3", "4.2"])
    parser.add_argument("--workers", type=int, nargs="+", default=WORKERS)
    parser.add_argument("--limit", type=float, default=1800, metavar="SECONDS")
    options = parser.parse_args()
    inside_it = partial(inside, options.versions, options.workers, options.limit)
    return run_in_guest(inside_it, 2 * len(options.workers) * options.limit)


if __name__ == "__main__":
    sys.exit(main())
