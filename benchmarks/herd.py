"""Many processes on two hosts at once: calls to the server in all, the longest wait, throughput.

It runs in the laboratory's guest (see tests/lab): a Linux NFS server, two clients of it, a tmpfs
export and a network of 1 ms a round trip. The guest has one processor for the server, both clients
and all processes, so that times say little of what many machines would take; calls repeat. Half of
the processes work on each client. All have started and imported what they need, and then begin
together; both clients were mounted just before, with nothing cached.

    open, read all    a settled store: others have opened it since it was changed
    refresh           all have opened the store, then 100 keys are replaced; and close
    put               each process puts new keys of its own, one by one

Contenders are nfsdict, release 0.2.1, and a program that reads all files or writes them (open under
another name, write, fsync, close, rename) itself. Calls are taken from /proc/self/mountstats of both
clients. "bytes written" tells how many processes have written the index: each would write as much.
"""

from __future__ import annotations

import argparse
import pickle
import sys
import time
from functools import partial
from typing import NamedTuple

import nfsdict
import release021
from in_guest import run_in_guest
from lab.configuration import Configuration
from lab.laboratory import Bench, Lab
from timing import duration, table

VERSIONS = ("3", "4.2")
SETTLE = 4.0
CHANGED = 100

PROCESS = """
import os, pickle, sys, time
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
    directory = f"{base}/store/{number % 256:02x}"
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

def put():
    for number in range(count):
        if kind == "files":
            write(number)
        else:
            d[f"{who} {number}"] = f"{number:100d}"

if work == "refresh":
    d = NfsDict("store", base)
elif work == "put" and kind != "files":
    d = NfsDict("store", base, lazy=True)
action = {"open, read all": opened_and_read, "refresh": refreshed, "put": put}[work]
print("ready", flush=True)
sys.stdin.readline()
begin = time.perf_counter()
action()
print(time.perf_counter() - begin, flush=True)
sys.stdin.readline()
"""


class Seen(NamedTuple):
    calls: int
    most: list[tuple[str, int]]
    written: int
    longest: float
    entries: int


def herd(lab: Lab, kind: str, work: str, processes: int, count: int, before: object = None) -> Seen:
    """So many processes at once; ``before`` is called when all are ready."""
    for client in "ab":
        lab.remount(client, "")
    path = [release021.__file__.rpartition("/")[0]]
    running = [
        lab.spawn(PROCESS, number, (lab.a, lab.b)[number % 2], kind, work, count, *path)
        for number in range(processes)
    ]
    for process in running:
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise RuntimeError(process.communicate()[1])
    if callable(before):
        before()
    with lab.rpcs("a") as a, lab.rpcs("b") as b:
        for process in running:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        times = []
        for process in running:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise RuntimeError(process.communicate()[1])
            times.append(float(line))
    for process in running:
        process.communicate("\n")
    both = {name: a.get(name, 0) + b.get(name, 0) for name in a.keys() | b.keys()}
    most = sorted(both.items(), key=lambda item: -item[1])
    return Seen(a.total + b.total, most, both.get("WRITE", 0), max(times), count * processes)
