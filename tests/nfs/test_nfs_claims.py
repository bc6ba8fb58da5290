"""Claims between two clients of a real server: who works on what, and what a task costs."""

from __future__ import annotations

import json
import time
from collections import Counter

import pytest

from lab.laboratory import Lab
from support.proof import FACTOR

# How long after a change its time can still come again, as the index sees it (git's "racy").
SETTLED = 3.5
# 50 tasks a worker, however many there are.
WORKERS = 20 * FACTOR
TASKS = 50 * WORKERS
PROCESSES = 4
SECONDS = 120 + TASKS // 5

# Many threads in few processes: each has a dictionary of its own, that knows nothing of others.
WORK = """
    import json, os, sys, threading, time
    from nfsdict import NfsDict

    base, workers, gate = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    stores = [NfsDict("store", base, workers=1) for _ in range(workers)]
    done = []

    def work(store):
        while (task := store.claim()) is not None:
            with task:
                done.append(task.key)

    print(flush=True)
    while not os.path.exists(gate):
        time.sleep(0.01)
    threads = [threading.Thread(target=work, args=[store]) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(done))
"""


@pytest.mark.nfs(version=("3", "4.2"), timeout=SECONDS)
def test_workers_on_two_clients_do_each_task_once(lab: Lab, package, tmp_path) -> None:
    store = package.NfsDict("store", lab.a)
    store.update({f"task {number}": number for number in range(TASKS)})
    store.pack()
    gate = tmp_path / "gate"
    with lab.rpcs("a") as a, lab.rpcs("b") as b:
        processes = [
            lab.spawn(WORK, (lab.a, lab.b)[number % 2], WORKERS // PROCESSES, gate)
            for number in range(PROCESSES)
        ]
        for process in processes:
            process.stdout.readline()
    opening = a.total + b.total
    with lab.rpcs("a") as a, lab.rpcs("b") as b:
        gate.touch()
        done = []
        for process in processes:
            output, errors = process.communicate(timeout=SECONDS)
            assert process.returncode == 0, errors
            done.extend(json.loads(output))
    calls = {name: a.get(name, 0) + b.get(name, 0) for name in {**a, **b}}
    print(json.dumps({"opening": opening, **calls}))
    assert Counter(done) == Counter(f"task {number}" for number in range(TASKS))
    assert sum(calls.values()) / TASKS <= 20  # the fewer workers, the more of it are scans
    left = list((store.path / ".nfsdict-leases").iterdir())
    assert len(left) == 1  # of the last scan


@pytest.mark.nfs(version=("3", "4.2"))
def test_a_task_takes_at_most_11_calls(lab: Lab, package) -> None:
    package.NfsDict("store", lab.a).update({f"task {number}": number for number in range(100)})
    time.sleep(SETTLED)
    d = package.NfsDict("store", lab.a)
    with d.claim(), d.claim():
        pass
    with lab.rpcs("a") as claiming:
        task = d.claim()
    with lab.rpcs("a") as finishing, task:
        pass
    assert claiming.total + finishing.total <= 11, (claiming, finishing)
