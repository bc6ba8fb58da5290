"""What each operation costs on NFS: calls to the server, and time at 0, 1 and 5 ms round trip.

It runs in the laboratory's guest (see tests/lab): a Linux NFS server and its client, a tmpfs export
and a network that delays each round trip. Calls are taken from /proc/self/mountstats, as the
most frequent number over the rounds; times are medians, and hold what a slow guest's one
processor needs for client and server together. nfsdict and release 0.2.1 take turns in each round.
Both use the same keys in shards that exist, made long enough before for their times to be old.
refresh() finds nothing changed. The misses of 0.2.1 are cheaper because it believes
what the client remembers: a key that another host has written since stays missing there.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import nfsdict
import release021
from in_guest import run_in_guest
from lab.configuration import Configuration
from lab.laboratory import Bench, Lab
from timing import duration, table

VERSIONS = ("3", "4.2")
ROUND_TRIPS = (0, 1, 5)
SHARDS = 256
Operations = dict[str, Callable[[Any, str, int], object]]


def delete(d: Any, key: str, number: int) -> None:
    del d[key]


def put(d: Any, key: str, number: int) -> None:
    d[key] = number


OPERATIONS: Operations = {
    "put, new": lambda d, key, number: put(d, f"{key} {number}", number),
    "put, overwriting": put,
    "delete": lambda d, key, number: delete(d, f"{key} {number}", number),
    "miss, first time": lambda d, key, number: d.get(f"{key} missing {number}"),
    "miss, again": lambda d, key, number: d.get(f"{key} missing {number}"),
    "cached read": lambda d, key, number: d[key],
    "get(fresh=True)": lambda d, key, number: d.get(key, fresh=True),
    "add": lambda d, key, number: d.add(f"{key} added {number}", number),
    f"refresh(), {SHARDS} shards": lambda d, key, number: d.refresh(),
}
ONLY_HERE = ("get(fresh=True)", "add", f"refresh(), {SHARDS} shards")


def measured(lab: Lab, rounds: int) -> list[list[str]]:
    contenders = {"nfsdict": nfsdict.NfsDict("new", lab.a)}
    contenders["0.2.1"] = release021.load().NfsDict("old", str(lab.a))
    for d in contenders.values():
        for number in range(8 * SHARDS):
            d[str(number)] = number
    time.sleep(4)
    contenders["nfsdict"].refresh()
    keys = {name: [str(number) for number in range(rounds)] for name in contenders}
    rows = []
    for operation, call in OPERATIONS.items():
        if operation.startswith("miss, first"):
            time.sleep(4)
        row = [f"v{lab.configuration.version}", operation]
        for name, d in contenders.items():
            if name == "0.2.1" and operation in ONLY_HERE:
                row += ["", *["" for _ in ROUND_TRIPS]]
                continue
            calls: list[int] = []
            times: list[list[float]] = []
            for rtt_ms in ROUND_TRIPS:
                lab.delay(rtt_ms)
                times.append([])
                first = ROUND_TRIPS.index(rtt_ms) * rounds
                for number, key in enumerate(keys[name]):
                    with lab.rpcs("a") as rpcs:
                        start = time.perf_counter()
                        call(d, key, first + number)
                        times[-1].append(time.perf_counter() - start)
                    calls.append(rpcs.total)
            lab.delay(0)
            row += [str(statistics.mode(calls))]
            row += [duration(statistics.median(some)) for some in times]
        rows.append(row)
    return rows


def inside(rounds: int) -> None:
    bench = Bench()
    rows = []
    for version in VERSIONS:
        with bench.lab(Configuration(version=version)) as lab:
            rows += measured(lab, rounds)
    trips = [f"{rtt} ms" for rtt in ROUND_TRIPS]
    heads = ["NFS", "operation", "RPCs", *trips, "0.2.1: RPCs", *trips]
    print(table(heads, rows))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=20, help="for each operation (%(default)s)")
    options = parser.parse_args()
    return run_in_guest(partial(inside, options.rounds), 600)


if __name__ == "__main__":
    sys.exit(main())
