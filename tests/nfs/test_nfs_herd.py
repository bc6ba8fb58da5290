"""Many processes on two clients at once: what they cost the server together, and who writes."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from lab.laboratory import Lab
from support.settling import SETTLED

BOTH = ("3", "4.2")
MANY = {f"experiment/{number % 16}/{number:06d}": f"{number:100d}" for number in range(1000)}

PROCESS = """
    import sys, nfsdict
    base, count = sys.argv[1], int(sys.argv[2])
    d = nfsdict.NfsDict("store", base) if {opened_before} else None
    print("ready", flush=True)
    sys.stdin.readline()
    {work}
    print("done", flush=True)
    sys.stdin.readline()
"""
READ = "d = nfsdict.NfsDict('store', base); assert len(dict(d.items())) == count"
REFRESH = "assert len(d.refresh()) == count; d.close()"


def herd(
    lab: Lab,
    processes: int,
    work: str,
    count: int,
    before: Callable[[], None] | None = None,
) -> dict[str, int]:
    """The calls to the server, by name, that so many processes make that do this at once."""
    for client in "ab":
        lab.remount(client, "")
    code = PROCESS.format(work=work, opened_before=before is not None)
    running = [lab.spawn(code, (lab.a, lab.b)[number % 2], count) for number in range(processes)]
    for process in running:
        assert process.stdout.readline() == "ready\n", process.communicate()[1]
    if before:
        before()
    with lab.rpcs("a") as a, lab.rpcs("b") as b:
        for process in running:
            process.stdin.write("\n")
            process.stdin.flush()
        for process in running:
            assert process.stdout.readline() == "done\n", process.communicate()[1]
    for process in running:
        assert process.communicate("\n") == ("", "")
    return {name: a.get(name, 0) + b.get(name, 0) for name in a.keys() | b.keys()}


@pytest.fixture
def there(package, lab: Lab):
    """The server's own dictionary of a store that no client knows of yet."""
    there = package.NfsDict("store", lab.server, durable=False)
    there.update(MANY)
    time.sleep(SETTLED)
    there.pack()
    return there


@pytest.mark.nfs(version=BOTH, timeout=400)
def test_32_processes_open_a_settled_store_and_read_all_with_500_calls(lab: Lab, there) -> None:
    calls = herd(lab, 32, READ, len(MANY))
    assert sum(calls.values()) <= 500, calls
    assert calls.get("WRITE", 0) == 0


@pytest.mark.nfs(version=BOTH, timeout=400)
def test_of_those_that_see_a_change_one_writes_the_index(lab: Lab, there) -> None:
    changed = dict.fromkeys(list(MANY)[:40], "changed")

    def change() -> None:
        there.update(changed)
        time.sleep(SETTLED)

    packs = set(lab.server.glob("store/_pack*"))
    calls = herd(lab, 8, REFRESH, len(changed), before=change)
    assert len(set(lab.server.glob("store/_pack*")) - packs) == 1
    assert calls["WRITE"] == 2, calls  # a pack and the manifest
    assert list(lab.server.glob("store/.nfsdict*")) == []


@pytest.mark.nfs(version=BOTH, timeout=400)
def test_of_those_that_read_a_store_without_index_one_writes_it(package, lab: Lab) -> None:
    """Also if it is too large to be held in memory until it is known who writes."""
    large = {str(number): f"{number:8000d}" for number in range(250)}
    there = package.NfsDict("store", lab.server, durable=False, lazy=True)
    there.update(large)
    time.sleep(SETTLED)

    def without_index(processes: int) -> dict[str, int]:
        for hint in lab.server.glob("store/_*"):
            hint.unlink()
        return herd(lab, processes, READ, len(large))

    alone, together = without_index(1)["WRITE"], without_index(8)
    assert alone > 5
    assert together["WRITE"] < 1.5 * alone, (alone, together)
    assert len(list(lab.server.glob("store/_pack*"))) == 1
    assert list(lab.server.glob("store/.nfsdict*")) == []
