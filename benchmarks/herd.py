"""Many processes on two hosts at once: calls to the server in all, the longest wait, throughput.

It runs in the laboratory's guest (see tests/lab): a Linux NFS server, two clients of it, a tmpfs
export and a network of 1 ms a round trip. The guest has one processor for the server, both clients
and all processes, so that times say little of what many machines would take; calls say more. Half
of the processes work on each client. All have started and imported what they need, and then begin
together; both clients were mounted just before, with nothing cached.

    open, read all    a settled store: others have opened it since it was changed
    refresh, close    all have opened the store; then 100 keys were replaced
    watch, 10 s       each process watches the settled store, nothing changes: 11 looks
    put               each process puts 50 new keys of its own, one after another

Contenders are nfsdict, release 0.2.1, and a program that itself reads all files, or writes them
under another name, syncs, closes and renames them. Calls are taken from /proc/self/mountstats of
both clients; of WRITEs a process that writes the index alone makes two or three. What would take
these contenders hours in the guest is left out, see --most.
"""

from __future__ import annotations

import argparse
import itertools
import pickle
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import nfsdict
from in_guest import run_in_guest
from lab.configuration import Configuration
from lab.laboratory import Bench, Lab
from timing import duration, table

SETTLE = 4.0
CHANGED = 100
PUTS = 50
PROCESSES = (2, 8, 32)

PROCESS = """
import os, pickle, sys, threading, time
who, base, kind, work, count = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5])
if kind == "0.2.1":
    sys.path.insert(0, sys.argv[6])
    import release021
    NfsDict = release021.load().NfsDict
elif kind == "nfsdict":
    from nfsdict import NfsDict

def read_all():
    found = {}
    for shard in os.scandir(base + "/store"):
        if len(shard.name) == 2:
            for file in os.scandir(shard.path):
                with open(file.path, "rb", buffering=0) as opened:
                    key, value = pickle.loads(opened.read())
                found[key] = value
    return found

def write(number):
    directory = f"{base}/puts {kind}/{number % 256:02x}"
    temporary = f"{directory}/tmp-{who}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT, 0o666)
    os.write(descriptor, pickle.dumps((f"{who} {number}", f"{number:100d}")))
    os.fsync(descriptor)
    os.close(descriptor)
    os.rename(temporary, f"{directory}/{who} {number}")

def opened_and_read():
    d = read_all() if kind == "files" else NfsDict("store", base)
    assert len(dict(d.items())) == count

def refreshed():
    assert len(d.refresh()) == count
    d.close()

def watched():
    threading.Timer(10.5, d.close).start()
    assert list(d.watch(1.0)) == []

def put():
    for number in range(count):
        if kind == "files":
            write(number)
        else:
            d[f"{who} {number}"] = f"{number:100d}"

if work in ("refresh, close", "watch, 10 s"):
    d = NfsDict("store", base)
elif work == "put" and kind != "files":
    d = NfsDict(f"puts {kind}", base, lazy=True)
actions = {"open, read all": opened_and_read, "refresh, close": refreshed}
action = {**actions, "watch, 10 s": watched, "put": put}[work]
print("ready", flush=True)
sys.stdin.readline()
begin = time.perf_counter()
action()
print(time.perf_counter() - begin, flush=True)
sys.stdin.readline()
"""


class Seen(NamedTuple):
    calls: int
    writes: int
    received: int
    """bytes, by both clients"""
    longest: float


def herd(
    lab: Lab,
    kind: str,
    work: str,
    processes: int,
    count: int,
    before: Callable[[], None] = lambda: None,
) -> Seen:
    """So many processes at once. ``before`` is called when all are ready."""
    for client in "ab":
        lab.remount(client, "")
    here = Path(__file__).parent
    running = [
        lab.spawn(PROCESS, f"{number} of {processes}", client, kind, work, count, here)
        for number, client in zip(range(processes), itertools.cycle([lab.a, lab.b]))
    ]
    pipes = [(one.stdin, one.stdout) for one in running]

    def answer(number: int) -> str:
        out = pipes[number][1]
        line = out.readline() if out else ""
        if not line:
            raise RuntimeError(running[number].communicate()[1])
        return line

    for number in range(processes):
        answer(number)
    before()
    already = received(lab)
    with lab.rpcs("a") as a, lab.rpcs("b") as b:
        for into, _ in pipes:
            if into:
                into.write("\n")
                into.flush()
        longest = max(float(answer(number)) for number in range(processes))
    for one in running:
        one.communicate("\n")
    writes = a.get("WRITE", 0) + b.get("WRITE", 0)
    return Seen(a.total + b.total, writes, received(lab) - already, longest)


def received(lab: Lab) -> int:
    """How many bytes of replies both clients have got, by /proc/self/mountstats."""
    total, here = 0, False
    for line in Path("/proc/self/mountstats").read_text().splitlines():
        words = line.split()
        if line.startswith("device "):
            here = words[4] in (str(lab.a.parent), str(lab.b.parent))
        elif here and len(words) > 8 and words[0].rstrip(":").isupper():
            total += int(words[5])
    return total


def entries(count: int) -> dict[str, str]:
    return {f"experiment/{number % 16}/{number:06d}": f"{number:100d}" for number in range(count)}


def build(lab: Lab, count: int) -> nfsdict.NfsDict[str]:
    """The store, on the server's own file system, with the indexes of both."""
    with nfsdict.NfsDict("store", lab.server, lazy=True, durable=False) as store:
        store.update(entries(count))
    time.sleep(SETTLE)
    store = nfsdict.NfsDict("store", lab.server, durable=False)
    print(f"v{lab.configuration.version}, {count} keys: {store.pack()}", file=sys.stderr)
    (store.path / "_index.pkl").write_bytes(pickle.dumps(list(entries(count))))
    return store


def rows_of(lab: Lab, keys: int, most: int) -> list[list[str]]:
    rows = []
    store = build(lab, keys)
    lab.delay(1)

    def change() -> None:
        store.update(dict.fromkeys(list(entries(CHANGED)), f"{time.monotonic()}"))
        time.sleep(SETTLE)

    def measure(
        kind: str, work: str, processes: int, count: int, **more: Callable[[], None]
    ) -> None:
        seen = herd(lab, kind, work, processes, count, **more)
        done = processes * count
        row = [f"v{lab.configuration.version}", f"{keys}", work, f"{processes}", kind]
        row += [f"{seen.calls}", f"{seen.calls / processes:.0f}", f"{seen.writes}"]
        row += [f"{seen.received / processes / 1024:.0f} KiB"]
        row += [duration(seen.longest)]
        rows.append([*row, "" if work.startswith("watch") else f"{done / seen.longest:.0f}"])
        print(*rows[-1], file=sys.stderr, flush=True)

    for processes in PROCESSES:
        measure("nfsdict", "open, read all", processes, keys)
    for processes in PROCESSES:
        measure("nfsdict", "refresh, close", processes, CHANGED, before=change)
    for processes in PROCESSES:
        measure("nfsdict", "watch, 10 s", processes, keys)
    for kind in ("0.2.1", "files"):
        for processes in PROCESSES:
            if processes * keys <= most:
                measure(kind, "open, read all", processes, keys)
    for kind in ("nfsdict", "0.2.1", "files"):
        for shard in range(256):
            (lab.server / f"puts {kind}" / f"{shard:02x}").mkdir(parents=True)
        for processes in PROCESSES:
            measure(kind, "put", processes, PUTS)
    lab.delay(0)
    return rows


def inside(versions: list[str], sizes: list[int], most: int) -> None:
    bench = Bench()
    rows = []
    for version in versions:
        for keys in sizes:
            with bench.lab(Configuration(version=version, size_mb=512)) as lab:
                rows += rows_of(lab, keys, most)
    heads = [
        "NFS",
        "keys",
        "work",
        "processes",
        "by",
        "RPCs",
        "each",
        "WRITEs",
        "received, each",
        "longest",
    ]
    print(table([*heads, "keys a second, in all"], rows))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--versions", nargs="+", default=["3", "4.2"])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 20_000])
    most = "release 0.2.1 and plain files read at most so many keys, in all (%(default)s)"
    parser.add_argument("--most", type=int, default=40_000, help=most)
    options = parser.parse_args()
    inside_it = partial(inside, options.versions, options.sizes, options.most)
    return run_in_guest(inside_it, 7200)


if __name__ == "__main__":
    sys.exit(main())
