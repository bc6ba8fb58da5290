"""Exactly one winner: processes on two clients of a real server, in one race after another."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lab.laboratory import Lab
from support.racing import SECONDS, left, opened, race, race_setdefault, rounds_on

pytestmark = [
    pytest.mark.nfs(version=("3", "4.2"), timeout=SECONDS),
    pytest.mark.shared(timeout=SECONDS),
    # The options of FUSE can't be seen, whatever they are.
    pytest.mark.filterwarnings("ignore:.*is not safe with the options"),
]

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
    check_adds(lab, race(lab, tmp_path, ADD, 4, links=False))


def test_exactly_one_setdefault_sets_and_all_return_its_value(lab: Lab, tmp_path: Path) -> None:
    race_setdefault(lab, tmp_path)


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
