"""Leases and the doctor's meeting between two clients of other file systems."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from lab.laboratory import Lab
from support.proof import FACTOR
from support.racing import left

PROCESSES = 4
TURNS = 15 * FACTOR  # of each process
SECONDS = 600 + 60 * FACTOR  # on GlusterFS the doctors need minutes, beside other guests

pytestmark = [
    pytest.mark.shared(timeout=SECONDS),
    # The options of FUSE can't be seen, whatever they are.
    pytest.mark.filterwarnings("ignore:.*is not safe"),
]

# Both clients have one kernel, but are to be two hosts.
TAKE_TURNS = """
    import os, sys
    import nfsdict, nfsdict.storage.processes
    host = "a" if "/a/" in sys.argv[1] else "b"
    nfsdict.storage.processes._this_host = lambda: host
    d = nfsdict.NfsDict("store", sys.argv[1], lazy=True)
    log, number = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND), int(sys.argv[3])
    for _ in range(number):
        with d.lease("key", 30) as lease:
            os.write(log, b"%d begins\\n" % os.getpid())
            os.write(log, b"%d ends\\n" % os.getpid())
            assert lease.held
"""


def test_what_another_client_holds_is_listed_and_refused(lab: Lab, a, b) -> None:
    mine, theirs = a(lazy=True), b(lazy=True)
    assert theirs.leases() == []
    for _ in range(3):
        with mine.lease("key", 60):
            [info] = theirs.leases()
            assert info.key == "key"
            with pytest.raises(TimeoutError), theirs.lease("key", 60, timeout=0):
                pass
        assert theirs.leases() == []
        with theirs.lease("key", 60, timeout=30):
            assert [info.key for info in mine.leases()] == ["key"]
    assert [file for file in left(lab) if file.parent.name == ".nfsdict-leases"] == []


def test_processes_of_two_clients_take_turns(lab: Lab, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.touch()
    clients = [lab.a, lab.b] * (PROCESSES // 2)
    processes = [lab.spawn(TAKE_TURNS, client, log, TURNS) for client in clients]
    for process in processes:
        _, errors = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, errors
    turns = [line.split() for line in log.read_text().splitlines()]
    assert len(turns) == 2 * PROCESSES * TURNS
    for (one, begins), (another, ends) in zip(turns[::2], turns[1::2]):
        assert (one, begins, ends) == (another, "begins", "ends")


MEET = """
    import sys
    from nfsdict.cli import main
    from nfsdict.doctor import speed

    speed._ROUNDS = 3
    sys.exit(main(["doctor", *sys.argv[1:]]))
"""


def test_two_doctors_meet(lab: Lab) -> None:
    first = lab.spawn(MEET, lab.a, "--peer", "--seconds", "2", "--json")
    line = first.stderr.readline()
    second = lab.spawn(MEET, lab.b, *line.split()[-2:], "--json")
    told, _ = first.communicate(timeout=SECONDS)
    second.communicate(timeout=SECONDS)
    findings = json.loads(told)["findings"]
    found = {one["probe"]: one for one in findings if one["section"] == "peer"}
    print(*(f"{one['verdict']} {name}: {one['seen']}" for name, one in found.items()), sep="\n")
    assert [name for name, one in found.items() if one["verdict"] == "FAIL"] == []
    for what in ("add", "pop", "lease"):
        assert found[f"races of `{what}`"]["figures"]["races"] > 0
    assert [name for name in os.listdir(lab.server) if name.startswith(".nfsdict-doctor")] == []
