"""`watch` and `refresh_every` between two clients: what is told, how old values get, the cost."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from lab.laboratory import Lab
from support.proof import VERSIONS
from support.settling import SETTLED

BOTH = ("3", "4.2")
KEYS = [f"key {number}" for number in range(300)]


@pytest.fixture
def there(package, lab: Lab):
    there = package.NfsDict("store", lab.b, durable=False)
    there.update(dict.fromkeys(KEYS, 0))
    return there


@pytest.mark.nfs(version=VERSIONS)
def test_two_watches_and_refresh_are_told_of_each_change(package, lab: Lab, there) -> None:
    here = package.NfsDict("store", lab.a, durable=False, refresh_every=0.05)
    watches = [here.watch(0.02) for _ in range(2)]
    for number in range(20):
        replaced, removed, new = KEYS[number], KEYS[100 + number], f"new {number}"
        there[replaced] = number + 1
        del there[removed]
        there[new] = number
        for watch in watches:
            told: set[str] = set()
            while not {replaced, removed, new} <= told:
                told |= next(watch)
        assert {replaced, removed, new} <= here.refresh()
        assert here[replaced] == number + 1 and here[new] == number and removed not in here
    here.close()


@pytest.mark.nfs(version=BOTH, rtt_ms=1)
def test_a_cached_read_is_no_older_than_that_and_a_refresh(package, lab: Lab, there) -> None:
    """It gives at least what another host had written when the last refresh began that ended."""
    here = package.NfsDict("store", lab.a, durable=False, refresh_every=0.3)
    refreshes: list[tuple[float, float]] = []
    scan = here._scanner.scan

    def timed() -> None:
        begin = time.monotonic()
        scan()
        refreshes.append((begin, time.monotonic()))

    here._scanner.scan = timed
    written = [(0.0, 0)]
    reads: list[tuple[float, int]] = []
    while len(refreshes) < 15:
        there[KEYS[0]] = number = len(written)
        written.append((time.monotonic(), number))
        begin = refreshes[-1][0] if refreshes else 0.0
        reads.append((begin, here[KEYS[0]]))
    here.close()
    assert len({value for _, value in reads}) > 5
    for begin, value in reads:
        assert value >= max(number for when, number in written if when <= begin)


@pytest.mark.nfs(version=VERSIONS)
def test_a_look_of_a_watch_costs_a_refresh(package, lab: Lab, there) -> None:
    most = 4 if lab.configuration.version == "3" else 6
    time.sleep(SETTLED)
    here = package.NfsDict("store", lab.a, durable=False)
    time.sleep(SETTLED)
    looks, scan = [], here._scanner.scan

    def counted() -> None:
        scan()
        looks.append(1)

    for _ in range(3):
        here.refresh()
    here._scanner.scan = counted
    watch = here.watch(0.1)
    with lab.rpcs("a") as rpcs:
        watching = threading.Thread(target=list, args=[watch])
        watching.start()
        while len(looks) < 10:
            time.sleep(0.01)
        here.close()
        watching.join()
    rpcs.pop("DELEGRETURN", None)  # of what the opening has read
    assert rpcs.total <= most * len(looks), (len(looks), rpcs)


@pytest.mark.nfs(version=BOTH)
def test_a_watch_rides_out_a_withdrawn_export(package, lab: Lab, there, caplog) -> None:
    here = package.NfsDict("store", lab.a, durable=False, refresh_every=0.1)
    with ThreadPoolExecutor(1) as pool:
        told = pool.submit(next, here.watch(0.1))
        lab.unexport()
        while caplog.text.count("can't refresh") < 2:  # of the watch, and of the thread
            time.sleep(0.05)
        lab.export()
        there[KEYS[0]] = "new"
        assert told.result(60) == {KEYS[0]}
    assert here[KEYS[0]] == "new"
    assert caplog.text.count("can't refresh") == 2
    here.close()
