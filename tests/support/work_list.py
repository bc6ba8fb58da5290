"""Many workers on one list of tasks, on two clients of a server, and what they ask it for."""

from __future__ import annotations

import json
import time
from typing import NamedTuple

from lab.laboratory import Lab
from lab.rpcs import Rpcs

TASKS_EACH = 50
_PROCESSES = 4

# Many threads in few processes: each has a dictionary of its own, that knows nothing of others.
_WORK = """
    import json, sys
    from concurrent.futures import ThreadPoolExecutor
    from nfsdict import NfsDict

    stores = [NfsDict("store", sys.argv[1], workers=1) for _ in range(int(sys.argv[2]))]
    done = [[] for _ in stores]

    def work(store, mine):
        while (task := store.claim()) is not None:
            with task:
                mine.append(task.key)

    print(flush=True)
    sys.stdin.readline()
    with ThreadPoolExecutor(len(stores)) as pool:
        list(pool.map(work, stores, done))  # an error of one ends the process with it
    print(json.dumps(done))
"""


class Worked(NamedTuple):
    """What came of it."""

    calls: Rpcs
    """of both clients, without those of opening the store"""
    done: list[list[str]]
    """by each worker: the keys of its tasks"""
    seconds: float


def work_off(lab: Lab, workers: int, seconds: float) -> Worked:
    """Have so many workers, half of them on each client, do all tasks of the dictionary "store".

    subprocess.TimeoutExpired if they take longer than ``seconds``.
    """
    number = min(workers, _PROCESSES)
    processes = [
        lab.spawn(_WORK, (lab.a, lab.b)[one % 2], workers // number) for one in range(number)
    ]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    begin = time.perf_counter()
    with lab.rpcs("a") as a, lab.rpcs("b") as b:
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        outputs = [process.communicate(timeout=seconds) for process in processes]
    elapsed = time.perf_counter() - begin
    for process, (_, errors) in zip(processes, outputs):
        assert process.returncode == 0, errors
    calls = Rpcs({name: a.get(name, 0) + b.get(name, 0) for name in {**a, **b}})
    return Worked(calls, [one for output, _ in outputs for one in json.loads(output)], elapsed)
