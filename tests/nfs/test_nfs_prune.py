"""Prune between two clients of a real server: what goes, what stays, what it costs."""

from __future__ import annotations

import errno
import importlib
import json
import os
import time

import pytest

from lab.laboratory import Lab
from support.settling import SETTLED

pytestmark = pytest.mark.nfs(version=("3", "4.2"), timeout=240)

OLD = [f"old {number:03}" for number in range(100)]
NEW = [f"new {number:03}" for number in range(20)]
HALF = OLD[::2]
LATE = OLD[1::10]
DAY = 86400

# Replaces half of what is old, puts new entries, and says what was acknowledged.
WRITE = """
    import json, random, sys, time
    import nfsdict
    d = nfsdict.NfsDict("store", sys.argv[1], lazy=True)
    keys = json.loads(sys.argv[2])
    written, end = {}, time.monotonic() + 3
    print(flush=True)
    while len(written) < len(keys) or time.monotonic() < end:
        for key in random.sample(keys, len(keys)):
            value = f"{random.randrange(10**9):09}"
            d[key] = value
            written[key] = value
    print(json.dumps(written))
"""

# Prunes as another host, and is slow at it.
PRUNE = """
    import sys, time
    import nfsdict, nfsdict.storage.processes, nfsdict.upkeep.prune
    from nfsdict.storage.exclusive import Exclusive
    nfsdict.storage.processes._this_host = lambda: "b"
    nfsdict.upkeep.prune._LEASE_SECONDS = nfsdict.upkeep.prune._GROUP = 3
    take = Exclusive.take
    def slow(self, *names):
        print(flush=True)
        time.sleep(0.3)
        return take(self, *names)
    Exclusive.take = slow
    nfsdict.NfsDict("store", sys.argv[1], lazy=True, workers=1).prune(max_items=0)
"""


def fill(package, lab: Lab):
    """A's dictionary, with a hundred entries of yesterday, all of one size."""
    d = package.NfsDict("store", lab.a)
    d.update(dict.fromkeys(OLD, "yesterday"))
    yesterday = time.time() - DAY
    for key in OLD:
        os.utime(d.path_of(key), (yesterday, yesterday))
    time.sleep(SETTLED)
    return d


def replaced_late(package, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Have the other host replace each of LATE when it has been chosen, just before it gets a
    private name. Those that weren't yet, by digest."""
    exclusive = importlib.import_module("nfsdict.storage.exclusive").Exclusive
    digest = importlib.import_module("nfsdict.core").digest
    take, other = exclusive.take, package.NfsDict("store", lab.b, lazy=True)
    late = {digest(key): key for key in LATE}

    def replace_and_take(self, hexdigest: str, private: str) -> bool:
        if hexdigest in late:
            other[late.pop(hexdigest)] = "just now!"
        return take(self, hexdigest, private)

    monkeypatch.setattr(exclusive, "take", replace_and_take)
    return late


@pytest.mark.parametrize("limit", ["age", "items", "bytes"])
def test_what_the_other_host_writes_meanwhile_stays(
    lab: Lab, package, limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And all else goes: it was written before, and the limits leave room for no more. What is LATE
    is replaced when it has been chosen, just before it gets a private name."""
    d, late = fill(package, lab), replaced_late(package, lab, monkeypatch)
    keys = [*HALF, *NEW, *LATE]
    size = d.info(OLD[0]).size
    limits = {
        "age": {"max_age": DAY / 2},
        "items": {"max_items": len(keys)},
        "bytes": {"max_bytes": len(keys) * size},
    }[limit]
    writer = lab.spawn(WRITE, lab.b, json.dumps([*HALF, *NEW]))
    assert writer.stdout is not None
    assert writer.stdout.readline() == "\n"
    replaced = pruned = 0
    working = again = True
    while working or again:  # what was replaced stays, though the limit isn't reached then
        working = writer.poll() is None
        report = d.prune(**limits)
        again = report.replaced > 0
        replaced += report.replaced
        pruned += report.removed
        assert report.failed == {}
    output, errors = writer.communicate()
    assert writer.returncode == 0, errors
    there = package.NfsDict("store", lab.b)
    # The limit can be kept before the last ones of LATE are chosen.
    values = {key: "yesterday" if key in late.values() else "just now!" for key in LATE}
    assert dict(there) == {**json.loads(output), **values}
    assert replaced >= len(LATE) - len(late) > 0
    assert pruned >= len(OLD) - len(HALF) - len(LATE)
    d.refresh()
    assert dict(d) == dict(there)
    assert list(lab.server.glob("store/*/.nfsdict-*")) == []


@pytest.mark.filterwarnings("ignore::UserWarning")  # of nordirplus on version 3
@pytest.mark.parametrize("linked", [False, True])
def test_where_listings_bring_no_attributes(
    lab: Lab, package, linked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the other host replaces just before it gets a private name stays. Also if the file that
    the client knows lives on, as in a backup of hard links."""
    lab.remount("a", "nordirplus")
    d, late = fill(package, lab), replaced_late(package, lab, monkeypatch)
    for file in lab.server.glob("store/??/*.pkl") if linked else ():
        os.link(file, lab.server / file.name)
    report = d.prune(max_items=0)
    assert report.failed == {}
    assert (report.removed, report.replaced, late) == (len(OLD) - len(LATE), len(LATE), {})
    assert dict(package.NfsDict("store", lab.b)) == dict.fromkeys(LATE, "just now!")
    assert list(lab.server.glob("store/*/.nfsdict-*")) == []


def test_a_removal_takes_2_calls_and_a_shard_some_listings(lab: Lab, package) -> None:
    d = fill(package, lab)
    shards = len({d.path_of(key).parent for key in OLD})
    with lab.rpcs("a") as looking:
        assert d.prune(max_items=40, dry_run=True).removed == 60
    with lab.rpcs("a") as rpcs:
        assert d.prune(max_items=40).removed == 60
    listings = "READDIRPLUS" if lab.configuration.version == "3" else "READDIR"
    # Of these two may be of where the leases are, as long as one could be made in the tick of the
    # last change there.
    assert looking[listings] <= 4 * shards
    assert looking.total <= 7 * shards + 10
    assert (rpcs["RENAME"], rpcs["REMOVE"]) == (60, 63)  # with the lease, and two probes of time
    assert rpcs[listings] <= 6 * shards
    assert rpcs.total <= 2 * 60 + 11 * shards + 10


def test_a_second_pruner_is_refused_and_one_that_was_killed_taken_over(lab: Lab, package) -> None:
    d = fill(package, lab)
    one = lab.spawn(PRUNE, lab.b)
    assert one.stdout is not None
    for _ in range(6):
        one.stdout.readline()
    with pytest.raises(OSError, match="another process prunes this store") as caught:
        d.prune(max_items=0)
    assert caught.value.errno == errno.EBUSY
    one.kill()
    one.wait()
    end = time.monotonic() + 60
    while d.leases():
        assert time.monotonic() < end
        time.sleep(0.2)
    begin = time.monotonic()
    report = d.prune(max_items=0)
    assert time.monotonic() - begin >= 3
    assert (report.left, report.failed) == (0, {})
    assert 80 <= report.removed < 100
    # At most the one that it was just taking has a private name, from where it is given back.
    assert len(list(lab.server.glob("store/*/.nfsdict-taken-*"))) <= 1
    assert len(package.NfsDict("store", lab.b)) == 0
    d.refresh()
    assert dict(d) == {}
