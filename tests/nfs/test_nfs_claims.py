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
    assert worked.calls.total <= 15 * len(keys), worked.calls  # 14.4 at load 12
    left = list((store.path / ".nfsdict-leases").iterdir())
    assert len(left) == 1  # of the last scan


@pytest.mark.nfs(version=("3", "4.2"), timeout=SECONDS)
def test_a_task_that_was_done_within_a_tick_of_the_clock_is_not_done_again(
    lab: Lab, package
) -> None:
    """Another process of the host has looked at its file between two changes in that tick: so the
    client remembers that it is there, and sees no later change of the directory."""
    names = [f"store {number}" for number in range(60)]
    for name in names:
        package.NfsDict(name, lab.server, durable=False)["task"] = 1
    time.sleep(SETTLED)
    for name in names:
        package.NfsDict(name, lab.server, durable=False).pack()
    opened = {name: [package.NfsDict(name, lab.a) for _ in range(3)] for name in names}
    same = []
    for name in names:
        [file] = lab.server.glob(f"{name}/??/*.pkl")
        seen = lab.a / file.relative_to(lab.server)
        (file.parent / "one").touch()
        tick = file.parent.stat().st_ctime_ns
        seen.lstat()
        file.unlink()
        if file.parent.stat().st_ctime_ns == tick:
            same.append(name)
    assert same
    time.sleep(0.3)
    for name in same:
        opened[name][0]._values.look(package.core.digest("task"))  # it lists: its clock is behind
    assert [name for name in same for d in opened[name][1:] if d.claim() is not None] == []


@pytest.mark.nfs(version=("3", "4.2"))
def test_a_task_takes_10_calls_and_14_where_the_leases_changed_in_the_same_tick(
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
    assert calls[5].total <= 10, calls
    assert calls[-1].total <= 14, calls
