"""Stamps of all shards by one listing of the root: never older than the call that asks for them."""

from __future__ import annotations

import hashlib
import itertools
import logging
import time

import pytest

from lab.laboratory import Lab
from support.proof import VERSIONS
from support.settling import SETTLED

BOTH = ("3", "4.2")
KEYS = [f"key {number}" for number in range(300)]

LISTING = """
import contextlib, os, sys
print("begun", flush=True)
while True:
    with os.scandir(sys.argv[1]) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                entry.stat(follow_symlinks=False)
"""


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


@pytest.fixture
def pair(package, lab: Lab):
    """Two clients' dictionaries of a settled store."""
    there = package.NfsDict("store", lab.b, durable=False)
    there.update(dict.fromkeys(KEYS, 0))
    time.sleep(SETTLED)
    here = package.NfsDict("store", lab.a, durable=False)
    assert len(here) == len(KEYS)
    return here, there


def told_of_each_change(here, there, rounds: int) -> None:
    """Each round another host changes keys of three shards, without a pause."""
    keys = itertools.cycle(KEYS)
    for number in range(1, rounds + 1):
        replaced, removed, added = next(keys), next(keys), f"new {number}"
        there[replaced] = number
        there.pop(removed, None)
        there[added] = number
        found = here.refresh()
        assert {replaced, added} <= found, (number, found)
        assert removed not in here and here[replaced] == here[added] == number
        there[removed] = -number
        assert removed in here.refresh()


@pytest.mark.nfs(version=VERSIONS)
def test_a_refresh_tells_of_each_change(pair) -> None:
    told_of_each_change(*pair, rounds=30)


@pytest.mark.nfs(version=VERSIONS)
def test_what_the_client_remembers_of_the_root_is_not_believed(pair) -> None:
    """A look that found nothing leaves all stamps in its memory, and changes nothing there."""
    here, there = pair
    for number in range(3):
        time.sleep(SETTLED)
        here.refresh()
        assert here.refresh() == set()
        there[KEYS[number]] = number + 1
        assert here.refresh() == {KEYS[number]}


def stamps_are_the_servers(lab: Lab, here, there, rounds: int) -> None:
    shards = here._storage.shards
    for number in range(rounds):
        shards.present_with_stamps()
        changed = KEYS[number % 100 :: 100]
        for key in changed:
            there[key] = number
        found = shards.present_with_stamps()
        for key in changed:
            [file] = (lab.server / "store").glob(f"??/{digest(key)}.pkl")
            status = file.parent.stat()
            assert found[file.parent.name] == (status.st_mtime_ns, status.st_ctime_ns), number


@pytest.mark.nfs(version=VERSIONS)
def test_no_stamp_is_older_than_the_call(lab: Lab, pair) -> None:
    stamps_are_the_servers(lab, *pair, rounds=100)


@pytest.mark.nfs(version=BOTH)
def test_no_stamp_is_older_while_others_list(lab: Lab, pair) -> None:
    listing = [lab.spawn(LISTING, lab.a / "store") for _ in range(3)]
    for process in listing:
        assert process.stdout.readline() == "begun\n"
    stamps_are_the_servers(lab, *pair, rounds=40)
    assert [process.poll() for process in listing] == [None] * 3


@pytest.mark.nfs(version=BOTH)
def test_while_three_processes_of_the_host_list_the_root(lab: Lab, pair) -> None:
    listing = [lab.spawn(LISTING, lab.a / "store") for _ in range(3)]
    for process in listing:
        assert process.stdout.readline() == "begun\n"
    told_of_each_change(*pair, rounds=25)
    assert [process.poll() for process in listing] == [None] * 3


@pytest.mark.nfs(version=BOTH)
@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
def test_an_opening_finds_each_change(package, lab: Lab, pair, lazy) -> None:
    _, there = pair
    for number in range(1, 21):
        there[KEYS[number]] = number
        there[f"new {number}"] = number
        del there[KEYS[100 + number]]
        d = package.NfsDict("store", lab.a, durable=False, lazy=lazy)
        assert len(d) == len(KEYS)
        assert d[KEYS[number]] == d[f"new {number}"] == number
        assert KEYS[100 + number] not in set(d)


@pytest.mark.filterwarnings("ignore::UserWarning")  # of nordirplus on version 3
@pytest.mark.nfs(version=BOTH)
def test_where_listings_bring_no_attributes(package, lab: Lab, pair, caplog) -> None:
    """Then each shard is asked, which is logged once."""
    _, there = pair
    lab.remount("a", "nordirplus")
    with caplog.at_level(logging.INFO, "nfsdict"):
        here = package.NfsDict("store", lab.a, durable=False)
        told_of_each_change(here, there, rounds=10)
    assert caplog.text.count("one by one") == 1
    with lab.rpcs("a") as rpcs:
        here.refresh()
    assert rpcs["GETATTR"] > 150


@pytest.mark.nfs(version=BOTH)
def test_a_root_with_thousands_of_other_entries(package, lab: Lab, pair, caplog) -> None:
    for number in range(2001):
        (lab.server / "store" / f"other {number}").touch()
    here, there = pair
    with caplog.at_level(logging.INFO, "nfsdict"):
        told_of_each_change(here, there, rounds=5)
    assert caplog.text.count("one by one") == 1
