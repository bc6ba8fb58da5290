"""Leases between two clients of a real NFS server: no two hold one, and nobody waits for ever."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from lab.laboratory import Lab
from support.lease_turns import HOSTS, take_turns

PROCESSES = 6
ACQUISITIONS = int(os.environ.get("NFSDICT_ACQUISITIONS", "1000"))
SECONDS = 240 + ACQUISITIONS // 5

pytestmark = pytest.mark.nfs(version=("3", "4.2"), timeout=SECONDS)

HOLD = (
    HOSTS
    + """
    lease = d.lease("key", float(sys.argv[2]))
    print(lease.generation, flush=True)
    for line in sys.stdin:
        print(eval(line), flush=True)
"""
)


def leases(lab: Lab) -> list[str]:
    return [path.name for path in lab.server.glob("store/.nfsdict-leases/*")]


def test_six_processes_take_turns(lab: Lab, tmp_path: Path) -> None:
    each = -(-ACQUISITIONS // PROCESSES)
    take_turns(lab, tmp_path, PROCESSES, each, 5, SECONDS)
    assert leases(lab) == []


class Holder:
    """A process that holds the lease of "key", on one of two hosts."""

    def __init__(self, lab: Lab, client: Path, duration: float) -> None:
        self._process = lab.spawn(HOLD, client, duration)

    def held(self) -> int:
        """Wait until it holds the lease. Its generation."""
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())

    def tell(self, expression: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{expression}\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def send(self, number: int) -> None:
        os.kill(self._process.pid, number)


@pytest.mark.parametrize("killed", [True, False], ids=["killed", "suspended"])
def test_a_holder_that_is_killed_or_suspended_is_taken_over(lab: Lab, killed: bool) -> None:
    one = Holder(lab, lab.a, 3)
    assert one.held() == 1
    one.send(signal.SIGKILL if killed else signal.SIGSTOP)
    begin = time.monotonic()
    another = Holder(lab, lab.b, 3)
    assert another.held() == 2
    assert time.monotonic() - begin >= 3
    assert len(leases(lab)) == 1
    if not killed:
        one.send(signal.SIGCONT)
        assert one.tell("lease.held, lease.release()") == "(False, None)"
    assert another.tell("lease.held") == "True"
    assert another.tell("lease.release()") == "None"
    assert leases(lab) == []


def test_a_holder_keeps_it_while_its_server_restarts(lab: Lab) -> None:
    duration = 15 if lab.configuration.version == "3" else 24  # clients reclaim their state first
    one = Holder(lab, lab.a, duration)
    assert one.held() == 1
    lab.stop_server()
    another = Holder(lab, lab.b, duration)
    time.sleep(1)
    lab.start_server()
    while not [name for name in leases(lab) if name.endswith(".1")]:
        time.sleep(0.1)
    assert one.tell("lease.held") == "True"
    assert one.tell("lease.release()") == "None"
    assert another.held() == 1


def cut_off(host: str, cut: bool) -> None:
    """Whether no packet reaches this address of the server."""
    command = ["ip", "route", "add" if cut else "del", "blackhole", host, "table", "local"]
    subprocess.run(command, check=True)


def test_a_holder_that_is_cut_off_is_taken_over_and_does_no_harm(lab: Lab) -> None:
    one = Holder(lab, lab.b, 3)
    assert one.held() == 1
    cut_off("127.0.0.2", True)
    try:
        another = Holder(lab, lab.a, 60)
        assert another.held() == 2
        assert one.tell("lease.held") == "False"
    finally:
        cut_off("127.0.0.2", False)
    assert one.tell("lease.release()") == "None"
    assert another.tell("lease.held") == "True"
    assert len(leases(lab)) == 1


# --- compute once ----------------------------------------------------------------------------

COMPUTE = (
    HOSTS
    + """
    log = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND)
    def make(key):
        os.write(log, f"{key}\\n".encode())
        time.sleep(0.02)
        return [key, os.getpid()]
    print([d.get_or_create(str(key), lambda: make(key)) for key in range(20)])
    for _ in range(20):
        d.modify("count", lambda value: value + 1, 0)
"""
)


def test_each_value_is_made_once_and_no_modification_is_lost(lab: Lab, a, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.touch()
    processes = [lab.spawn(COMPUTE, client, log) for client in [lab.a, lab.b] * 2]
    outputs = set()
    for process in processes:
        output, errors = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, errors
        outputs.add(output)
    assert len(outputs) == 1
    assert sorted(map(int, log.read_text().split())) == list(range(20))
    assert a()["count"] == 80
    assert leases(lab) == []


# --- calls to the server ---------------------------------------------------------------------


def test_a_lease_costs_few_calls(lab: Lab, a) -> None:
    d = a(lazy=True)
    with d.lease("first"):
        pass
    with lab.rpcs("a") as sent, d.lease("key"):
        pass
    assert sent.total == (7 if lab.configuration.version == "3" else 8), sent


def test_eight_who_wait_on_one_host_ask_three_times_a_second(lab: Lab, a, tmp_path: Path) -> None:
    go_on = tmp_path / "go on"
    code = (
        HOSTS
        + """
    def creator():
        print("begun", flush=True)
        while not os.path.exists(sys.argv[2]):
            time.sleep(0.1)
        return "value"
    print("opened", flush=True)
    print(d.get_or_create("key", creator), flush=True)
"""
    )

    def told(process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        return process.stdout.readline().strip()

    one = lab.spawn(code, lab.a, go_on)
    assert (told(one), told(one)) == ("opened", "begun")
    others = [lab.spawn(code, lab.b, go_on) for _ in range(8)]
    assert [told(other) for other in others] == ["opened"] * 8
    time.sleep(4)
    begin = time.monotonic()
    with lab.rpcs("b") as sent:
        time.sleep(5)
    seconds = time.monotonic() - begin
    assert 0 < sent.total <= 3 * seconds, sent
    go_on.touch()
    assert [told(process) for process in [one, *others]] == ["value"] * 9
