"""Races of processes on two clients of a server."""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path
from textwrap import dedent
from typing import Any

from lab.laboratory import Lab

from .meeting import MEET, WITHOUT_LINKS
from .proof import FACTOR

# For each test and version of NFS, and on other servers; more takes proportionally longer.
ROUNDS = int(os.environ.get("NFSDICT_RACE_ROUNDS", "150"))
SHORT_ROUNDS = ROUNDS // 5 * FACTOR
PROCESSES = 4
SECONDS = 240 + max(ROUNDS // 5, SHORT_ROUNDS * 4)

RACE = """
import json, sys
import nfsdict
base, who, processes, rounds, board = sys.argv[1], *map(int, sys.argv[2:5]), sys.argv[5]
d = nfsdict.NfsDict("store", base, lazy=True, durable=who % 2 == 0)
results = []
"""


def rounds_on(lab: Lab) -> int:
    return ROUNDS if lab.configuration.server == "knfsd" else SHORT_ROUNDS


def race(
    lab: Lab, directory: Path, body: str, part: int = 1, *, links: bool = True
) -> list[list[Any]]:
    """For each round what the body appended to ``results`` in each process. One in so many of the
    rounds are run."""
    rounds = rounds_on(lab) // part
    board = directory / "board"
    board.write_bytes(bytes(8 * PROCESSES))
    code = ("" if links else WITHOUT_LINKS) + RACE + MEET + dedent(body)
    code += "print(json.dumps(results))\n"
    clients = [lab.a, lab.b]
    processes = [
        lab.spawn(code, clients[who % 2], who, PROCESSES, rounds, board) for who in range(PROCESSES)
    ]
    results = []
    for process in processes:
        output, errors = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, errors
        results.append(json.loads(output))
    assert {len(result) for result in results} == {rounds}
    return [list(of_all) for of_all in zip(*results)]


def left(lab: Lab) -> list[Path]:
    """The store's files, without those that a FUSE client keeps until they are closed."""
    files = lab.server.glob("store/*/*")
    return [file for file in files if not file.name.startswith(".fuse_hidden")]


def opened(path: Path) -> Any:
    return importlib.import_module("nfsdict").NfsDict("store", path)


SETDEFAULT = """
for number in range(rounds):
    key = f"key {number}"
    if number % 2:
        assert d.get(key) is None
    meet()
    results.append(d.setdefault(key, who))
"""


def race_setdefault(lab: Lab, directory: Path) -> None:
    """In each round all processes get the value that one of them has set."""
    rounds = race(lab, directory, SETDEFAULT)
    assert all(len(set(values)) == 1 for values in rounds)
    winners = {f"key {number}": values[0] for number, values in enumerate(rounds)}
    assert len(set(winners.values())) > 1
    assert dict(opened(lab.a)) == dict(opened(lab.b)) == winners
