"""Claims between two clients of a real server: who works on what, and what a task costs."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from lab.laboratory import Lab
from support.proof import FACTOR
from support.settling import SETTLED
from support.work_list import TASKS_EACH, work_off

WORKERS = 40 * FACTOR
SECONDS = 120 + 10 * WORKERS


@pytest.mark.nfs(version=("3", "4.2"), timeout=SECONDS)
def test_many_workers_do_each_task_once_for_few_calls(lab: Lab, package) -> None:
    keys = [f"task {number}" for number in range(TASKS_EACH * WORKERS)]
    store = package.NfsDict("store", lab.a)
    store.update(dict.fromkeys(keys, 1))
    store.pack()
    worked = work_off(lab, WORKERS, SECONDS)
    assert Counter(key for one in worked.done for key in one) == Counter(keys)
    assert all(worked.done), "they spread"
    assert worked.calls.total <= 14 * len(keys), worked.calls
    left = list((store.path / ".nfsdict-leases").iterdir())
    assert len(left) == 1  # of the last scan


@pytest.mark.nfs(version=("3", "4.2"))
def test_a_task_takes_9_calls_and_13_where_the_leases_changed_in_the_same_tick(
    lab: Lab, package
) -> None:
    """The listing of the leases is asked for again there: its stamp proves nothing."""
    package.NfsDict("store", lab.a).update({f"task {number}": number for number in range(100)})
    time.sleep(SETTLED)
    d = package.NfsDict("store", lab.a)
    with d.claim(), d.claim():
        pass
    calls = []
    for _ in range(20):
        with lab.rpcs("a") as used, d.claim():
            pass
        calls.append(used)
    calls.sort(key=lambda used: used.total)
    assert calls[5].total <= 9, calls
    assert calls[-1].total <= 13, calls
