"""Exactly one winner: processes on two clients of a real server, in one race after another."""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path

import pytest

from lab.laboratory import Lab
from support.proof import FACTOR

# For each test and version of NFS, and on other servers; more takes proportionally longer.
ROUNDS = int(os.environ.get("NFSDICT_RACE_ROUNDS", "150"))
SHORT_ROUNDS = 30 * FACTOR
PROCESSES = 4
SECONDS = 240 + max(ROUNDS // 5, SHORT_ROUNDS * 2)

pytestmark = [
    pytest.mark.nfs(version=("3", "4.2"), timeout=SECONDS),
    pytest.mark.shared(timeout=SECONDS),
    # The options of FUSE can't be seen, whatever they are.
    pytest.mark.filterwarnings("ignore:.*is not safe with the options"),
]

# Each round starts when all have come to it: each process counts its rounds in memory that all map.
RACE = """
    import errno, json, mmap, os, struct, sys
    import nfsdict, nfsdict.storage.files

    base, who, processes, rounds, board = sys.argv[1], *map(int, sys.argv[2:5]), sys.argv[5]
    d = nfsdict.NfsDict("store", base, lazy=True, durable=who % 2 == 0)
    memory = mmap.mmap(os.open(board, os.O_RDWR), 8 * processes)
    come = memoryview(memory).cast("q")

    def meet():
        come[who] += 1
        while min(come) < come[who]:
            os.sched_yield()

    def without_links():
        original = nfsdict.storage.files.write_files
        def write_files(files, mode, durable, synced, exclusive):
            if not exclusive:
                return original(files, mode, durable, synced, exclusive)
            there = os.path.isdir(os.path.dirname(files[0][0]))
            return [(1, errno.EPERM) if there else (0, errno.ENOENT)]
        nfsdict.storage.files.write_files = write_files

    results = []
"""


def rounds_on(lab: Lab) -> int:
    return ROUNDS if lab.configuration.server == "knfsd" else SHORT_ROUNDS


def race(lab: Lab, directory: Path, body: str, part: int = 1) -> list[list]:
    """For each round what the body appended to ``results`` in each process. One in so many of the
    rounds are run."""
    rounds = rounds_on(lab) // part
    board = directory / "board"
    board.write_bytes(bytes(8 * PROCESSES))
    code = RACE + body + "\n    print(json.dumps(results))\n"
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


def opened(path: Path):
    return importlib.import_module("nfsdict").NfsDict("store", path)


ADD = """
    for number in range(rounds):
        key = f"key {number}"
        if number % 2:
            assert key not in d  # so that the client remembers the name as missing
        meet()
        results.append(d.add(key, who))
"""


def check_adds(lab: Lab, rounds: list[list]) -> None:
    assert all(sum(won) == 1 for won in rounds)
    winners = {f"key {number}": won.index(True) for number, won in enumerate(rounds)}
    assert len(set(winners.values())) > 1
    assert dict(opened(lab.a)) == dict(opened(lab.b)) == winners
    assert [file for file in left(lab) if file.name.startswith(".")] == []


def test_exactly_one_adds(lab: Lab, tmp_path: Path) -> None:
    check_adds(lab, race(lab, tmp_path, ADD))


def test_exactly_one_adds_where_hard_links_are_refused(lab: Lab, tmp_path: Path) -> None:
    check_adds(lab, race(lab, tmp_path, "    without_links()\n" + ADD, 4))


SETDEFAULT = """
    for number in range(rounds):
        key = f"key {number}"
        if number % 2:
            assert d.get(key) is None
        meet()
        results.append(d.setdefault(key, who))
"""


def test_exactly_one_setdefault_sets_and_all_return_its_value(lab: Lab, tmp_path: Path) -> None:
    rounds = race(lab, tmp_path, SETDEFAULT)
    assert all(len(set(values)) == 1 for values in rounds)
    winners = {f"key {number}": values[0] for number, values in enumerate(rounds)}
    assert len(set(winners.values())) > 1
    assert dict(opened(lab.a)) == dict(opened(lab.b)) == winners


def test_exactly_one_pops(lab: Lab, tmp_path: Path) -> None:
    opened(lab.a).update({f"key {number}": number for number in range(rounds_on(lab))})
    body = """
    for number in range(rounds):
        key = f"key {number}"
        if number % 2:
            assert d[key] == number  # so that the client remembers the file
        meet()
        results.append(d.pop(key, None))
"""
    rounds = race(lab, tmp_path, body)
    for number, values in enumerate(rounds):
        assert sorted(values, key=str) == [number, None, None, None]
    assert len({values.index(number) for number, values in enumerate(rounds)}) > 1
    assert left(lab) == []


def test_one_key_is_added_and_popped_by_exactly_one_again_and_again(
    lab: Lab, tmp_path: Path
) -> None:
    body = """
    for number in range(rounds):
        meet()
        added = d.add("key", [number, who])
        meet()
        results.append([added, d.pop("key", None)])
"""
    rounds = race(lab, tmp_path, body, 2)
    for number, results in enumerate(rounds):
        [adder] = [who for who, (added, _) in enumerate(results) if added]
        assert [value for _, value in results if value is not None] == [[number, adder]]
    assert left(lab) == []


def test_what_is_popped_is_what_the_server_has(lab: Lab) -> None:
    """The client remembers another file of that name, which lives on under another one."""
    mine, theirs = opened(lab.a), opened(lab.b)
    for number in range(10):
        mine["key"] = "old"
        [file] = lab.server.glob("store/??/*.pkl")
        os.link(file, lab.server / f"old {number}")
        theirs["key"] = "new"
        assert mine.pop("key") == "new"
        assert left(lab) == []
