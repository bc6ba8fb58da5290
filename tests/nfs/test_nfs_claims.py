"""Claims between two clients of a real server: who works on what, and what a task costs."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from lab.laboratory import Lab
from support.proof import FACTOR

# 50 tasks a worker, however many there are.
WORKERS = 20 * FACTOR
TASKS = 50 * WORKERS
PROCESSES = 4
SECONDS = 120 + TASKS // 5

# Many dictionaries in few processes: each is a worker of its own, and knows nothing of the others.
WORK = """
    import json, sys
    from nfsdict import NfsDict

    base, workers = sys.argv[1], int(sys.argv[2])
    workers = [NfsDict("store", base, workers=1) for _ in range(workers)]
    done = []
    while workers:
        tasks = [worker.claim() for worker in workers]
        workers = [worker for worker, task in zip(workers, tasks) if task is not None]
        for task in filter(None, tasks):
            with task:
                done.append(task.key)
    print(json.dumps(done))
"""


@pytest.mark.nfs(version=("3", "4.2"), timeout=SECONDS)
def test_workers_do_each_task_once_for_14_calls(lab: Lab, package) -> None:
    store = package.NfsDict("store", lab.a)
    store.update({f"task {number}": number for number in range(TASKS)})
    store.pack()
    with lab.rpcs("a") as a, lab.rpcs("b") as b:
        processes = [
            lab.spawn(WORK, (lab.a, lab.b)[number % 2], WORKERS // PROCESSES)
            for number in range(PROCESSES)
        ]
        done = []
        for process in processes:
            output, errors = process.communicate(timeout=SECONDS)
            assert process.returncode == 0, errors
            done.extend(json.loads(output))
    print(json.dumps({name: dict(counts) for name, counts in (("a", a), ("b", b))}))
    assert Counter(done) == Counter(f"task {number}" for number in range(TASKS))
    assert (a.total + b.total) / TASKS <= 14
    assert list(Path(lab.export, "store", ".nfsdict-leases").iterdir()) == []


@pytest.mark.nfs(version=("3", "4.2"))
def test_a_task_takes_so_many_calls(lab: Lab, package) -> None:
    d = package.NfsDict("store", lab.a)
    d.update({f"task {number}": number for number in range(100)})
    with d.claim(), d.claim():
        pass
    with lab.rpcs("a") as claiming:
        task = d.claim()
    with lab.rpcs("a") as finishing, task:
        pass
    print(claiming, finishing)
    assert claiming.total <= 9
    assert finishing.total <= 3
