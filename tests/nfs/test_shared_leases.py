"""Leases and the doctor's meeting between two clients of other file systems."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from lab.laboratory import Lab
from support.lease_turns import take_turns
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
    take_turns(lab, tmp_path, PROCESSES, TURNS, 30, SECONDS)


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
