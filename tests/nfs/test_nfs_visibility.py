"""What one host finished writing, the next one finds: two clients of a real server.

All but what changes files behind the server's back is tried on other servers too.
"""

from __future__ import annotations

import importlib
import os
import pickle
import random
import time
from collections.abc import Callable, Iterator

import pytest

from lab.laboratory import Lab
from support.proof import FACTOR, VERSIONS
from support.settling import SETTLED

# How long readers race with a writer, and how long on others than Linux's NFS server.
SECONDS = float(os.environ.get("NFSDICT_RACE_SECONDS", "10"))
SHORT_SECONDS = 4 * FACTOR
CLOCK_REALTIME_COARSE = 5  # of Linux, by which its file systems stamp; ``time`` has no name for it


READS: dict[str, Callable] = {
    "[]": lambda d, key: d[key],
    "get": lambda d, key: d.get(key),
    "in": lambda d, key: key in d and "new",
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
@pytest.mark.nfs(version=VERSIONS, export=("tmpfs", "ext4"))
@pytest.mark.shared
def test_a_key_that_was_missed_is_found_once_another_host_wrote_it(lab: Lab, a, b, read) -> None:
    here, there = a(lazy=True), b(lazy=True)
    for number in range(20):
        key = f"key {number}"
        assert key not in here
        assert here.get(key) is None
        there[key] = "new"
        assert read(here, key) == "new"


@pytest.mark.nfs(version=VERSIONS, export=("tmpfs", "ext4"))
@pytest.mark.shared
def test_a_fresh_get_misses_what_another_host_deleted(lab: Lab, a, b) -> None:
    here, there = a(), b()
    for number in range(20):
        key = f"key {number}"
        there[key] = "old"
        assert here[key] == "old"
        del there[key]
        assert here[key] == "old"  # without a system call, and so unaware
        assert here.get(key, "none", fresh=True) == "none"
        assert key not in here


@pytest.mark.parametrize("change", ["delete", "replace"])
@pytest.mark.nfs(version=VERSIONS, export=("tmpfs", "ext4"))
@pytest.mark.shared
def test_a_fresh_get_is_not_served_from_a_file_that_lost_its_name(lab: Lab, a, b, change) -> None:
    """The file lives on under another name, as in a pop under way, so its handle is good."""
    here, there = a(), b()
    for number in range(10):
        key = f"key {number}"
        there[key] = "old"
        assert here[key] == "old"
        [path] = lab.server.glob("store/*/*.pkl")
        os.link(path, lab.server / f"other {number}")
        if change == "delete":
            del there[key]
            assert here.get(key, "none", fresh=True) == "none"
        else:
            there[key] = "new"
            assert here.get(key, fresh=True) == "new"
        there.clear()


@pytest.mark.nfs(version=VERSIONS, export=("tmpfs", "ext4"))
@pytest.mark.shared
def test_a_fresh_get_misses_what_another_host_took(lab: Lab, a, b) -> None:
    here, there = a(), b()
    for number in range(20):
        key = f"key {number}"
        there[key] = "old"
        assert here[key] == "old"
        assert there.pop(key) == "old"
        assert here.get(key, "none", fresh=True) == "none"


@pytest.mark.parametrize("change", ["delete", "replace"])
@pytest.mark.nfs(version=VERSIONS, export=("tmpfs", "ext4"))
@pytest.mark.shared
def test_setdefault_goes_by_what_the_server_has(lab: Lab, a, b, change) -> None:
    """The client remembers a file that lost its name and lives on under another one."""
    there = b()
    for number in range(10):
        key = f"key {number}"
        there[key] = "old"
        assert a(lazy=True)[key] == "old"
        [path] = lab.server.glob("store/*/*.pkl")
        os.link(path, lab.server / f"other {number}")
        if change == "delete":
            del there[key]
        else:
            there[key] = "new"
        expected = "default" if change == "delete" else "new"
        assert a(lazy=True).setdefault(key, "default") == expected
        assert there.get(key, fresh=True) == expected
        del there[key]


@pytest.mark.nfs(version=VERSIONS, export=("tmpfs", "ext4"))
@pytest.mark.shared
def test_a_fresh_get_sees_what_another_host_replaced(lab: Lab, a, b) -> None:
    here, there = a(), b()
    there["key"] = 0
    for number in range(1, 50):
        assert here["key"] == number - 1
        there["key"] = number
        assert here.get("key", fresh=True) == number


@pytest.mark.nfs(version=VERSIONS, export=("tmpfs", "ext4"))
@pytest.mark.shared(timeout=400)
def test_refresh_sync_and_a_new_dictionary_see_all_that_another_host_did(lab: Lab, a, b) -> None:
    # Where no stamp is believed each look lists all.
    count, turns = (60, 5) if lab.configuration.server == "knfsd" else (12, 2)
    there = b()
    there.update({f"key {number}": "old" for number in range(count)})
    refreshed, synced, lazy = a(), a(), a(lazy=True)
    assert len(lazy) == count
    for turn in range(turns):
        keys = sorted(there)
        changed = {f"new {turn}", *keys[:10]}
        there[f"new {turn}"] = turn
        for key in keys[:5]:
            there[key] = ("replaced", turn)
        for key in keys[5:10]:
            del there[key]
        assert refreshed.refresh() == changed
        assert refreshed.refresh() == set()
        assert lazy.refresh() >= changed
        synced.sync()
        expected = dict(there)
        assert dict(refreshed) == expected
        assert dict(synced) == expected
        assert dict(lazy) == expected
        assert dict(a()) == expected


def in_one_tick(lab: Lab, shard: str, first: Callable, second: Callable) -> bool:
    """Do both as a tick begins, and tell whether the server's clock left the shard's times alone in
    between."""
    directory = lab.server / "store" / shard
    tick = time.clock_gettime_ns(CLOCK_REALTIME_COARSE)
    while time.clock_gettime_ns(CLOCK_REALTIME_COARSE) == tick:
        pass
    first()
    before = directory.stat()
    second()
    after = directory.stat()
    return (before.st_mtime_ns, before.st_ctime_ns) == (after.st_mtime_ns, after.st_ctime_ns)


class Copies:
    """Puts what B prepared in place within one tick: files made elsewhere, renamed on the server.

    A put over NFS takes longer than a tick of some clocks. What is renamed is what B's put wrote.
    """

    def __init__(self, package, lab: Lab, there) -> None:
        self._digest = importlib.import_module("nfsdict.core").digest
        self._there = there
        self._shard = lab.server / "store" / "00"
        self._aside = lab.server / "aside"
        self._aside.mkdir()

    def pairs(self) -> Iterator[tuple[str, str]]:
        """New keys of the shard, by two. Few pairs meet in a tick on a busy machine, so many."""
        numbers = map(str, range(400_000))
        keys = (key for key in numbers if self._digest(key)[:2] == self._shard.name)
        for first, second in zip(keys, keys):
            for key in (first, second):
                self._there[key] = f"value of {key}"
                self.remove(key)
            yield first, second

    def put(self, key: str) -> None:
        os.rename(self._aside / self._name(key), self._shard / self._name(key))

    def remove(self, key: str) -> None:
        os.rename(self._shard / self._name(key), self._aside / self._name(key))

    def _name(self, key: str) -> str:
        return f"{self._digest(key)}.pkl"

    def settle(self) -> None:
        """Let what was done so far be older than any tick."""
        time.sleep(0.05)


RACY_READS: dict[str, Callable] = {
    "[]": lambda d, key: d[key],
    "get": lambda d, key: d.get(key),
    "in": lambda d, key: key in d and f"value of {key}",
    "fresh": lambda d, key: d.get(key, fresh=True),
}


@pytest.mark.parametrize("pause", [0, 0.5], ids=["at once", "later"])
@pytest.mark.parametrize("read", RACY_READS.values(), ids=RACY_READS)
@pytest.mark.nfs(version=("3", "4.2"), export=("tmpfs", "ext4"))
def test_a_miss_between_two_changes_of_one_tick_is_not_remembered(
    lab: Lab, package, a, b, read, pause
) -> None:
    """A misses a key between two changes in one tick; whenever it asks again it finds it."""
    copies = Copies(package, lab, b(lazy=True))
    here = a(lazy=True)
    racy = 0
    for first, second in copies.pairs():
        copies.settle()

        def miss(first=first, second=second):
            copies.put(first)
            assert here.get(second) is None

        if in_one_tick(lab, "00", miss, lambda second=second: copies.put(second)):
            racy += 1
            time.sleep(pause)
            assert read(here, second) == f"value of {second}"
            if racy == 3:
                return
    pytest.fail(f"only {racy} pairs of changes met in one tick")


@pytest.mark.parametrize("how", ["refresh", "sync", "new", "lazy refresh"])
@pytest.mark.nfs(version=("3", "4.2"), export=("tmpfs", "ext4"))
def test_a_listing_between_two_changes_of_one_tick_is_not_remembered(
    lab: Lab, package, a, b, how
) -> None:
    """A lists the shard between two changes in one tick; whatever lists it next sees both."""
    copies = Copies(package, lab, b(lazy=True))
    here = a(lazy=how == "lazy refresh")
    len(here)
    shard = lab.a / "store" / "00"
    racy = 0
    put: set[str] = set()
    for first, second in copies.pairs():
        copies.settle()

        def look(first=first):
            copies.put(first)
            os.listdir(shard)

        put |= {first, second}
        if in_one_tick(lab, "00", look, lambda second=second: copies.put(second)):
            racy += 1
            copies.settle()
            if how == "sync":
                here.sync()
            elif how == "new":
                here = a()
            else:
                assert {first, second} <= here.refresh()
            assert dict(here) == {key: f"value of {key}" for key in put}
            # And the other way round: what is gone is gone.
            copies.settle()

            def look_again(first=first):
                copies.remove(first)
                os.listdir(shard)

            if in_one_tick(lab, "00", look_again, lambda second=second: copies.remove(second)):
                copies.settle()
                if how == "sync":
                    here.sync()
                elif how == "new":
                    here = a()
                else:
                    assert here.refresh() >= {first, second}
                put -= {first, second}
                assert set(here) == put
            else:
                put -= {first, second}
            if racy == 3:
                return
    pytest.fail(f"only {racy} pairs of changes met in one tick")


@pytest.mark.filterwarnings("ignore::UserWarning")  # of nordirplus on version 3
@pytest.mark.parametrize("options", ["", "nordirplus", "rsize=4096"])
@pytest.mark.nfs(version=VERSIONS)
def test_a_sync_finds_what_was_edited_in_place(lab: Lab, package, options) -> None:
    """In a directory of many listing pages, whose files' attributes the client remembers. A packed
    value is taken only if the listing has its file's signature, by the server's word."""
    digest = importlib.import_module("nfsdict.core").digest
    keys = [key for key in map(str, range(300_000)) if digest(key)[:2] == "00"]
    values = dict.fromkeys(keys, 0)
    with package.NfsDict("store", lab.server, lazy=True, durable=False) as there:
        there.update(values)
    time.sleep(SETTLED)
    assert package.NfsDict("store", lab.server, durable=False).pack().packed == len(keys)
    lab.remount("a", options)
    here = package.NfsDict("store", lab.a)
    for number in range(1, 4):
        here.sync()
        assert dict(here) == values
        for key in keys[number :: 1 + len(keys) // 20]:
            values[key] = number
            name = digest(key)
            with open(lab.server / "store" / name[:2] / f"{name}.pkl", "wb") as file:
                file.write(pickle.dumps((key, number)))
        here.sync()
        assert dict(here) == values, number


@pytest.mark.nfs(version=("3", "4.2"), export=("tmpfs", "ext4"))
def test_a_key_renamed_away_in_one_tick_is_missed_by_a_fresh_get(lab: Lab, package, a, b) -> None:
    """As ``pop`` on another host does it: the file lives on under its private name."""
    copies = Copies(package, lab, b(lazy=True))
    here = a(lazy=True)
    racy = 0
    for first, second in copies.pairs():
        copies.put(second)
        copies.settle()

        def read(first=first, second=second):
            copies.put(first)
            assert here.get(second, fresh=True) == f"value of {second}"

        if in_one_tick(lab, "00", read, lambda second=second: copies.remove(second)):
            racy += 1
            copies.settle()
            assert here.get(second, fresh=True) is None
            if racy == 3:
                return
    pytest.fail(f"only {racy} pairs of changes met in one tick")


@pytest.mark.nfs(version=VERSIONS)
def test_shards_made_in_one_tick_are_all_listed(lab: Lab, package, a, b) -> None:
    """A lists the root between two that are made."""
    here = a()
    root = lab.server / "store"
    racy = 0
    for number in range(0, 100, 2):
        names = [f"{number:02x}", f"{number + 1:02x}"]
        time.sleep(0.05)
        (root / names[0]).mkdir()
        before = root.stat().st_ctime_ns
        os.listdir(lab.a / "store")
        here._storage.shards.present()
        (root / names[1]).mkdir()
        racy += root.stat().st_ctime_ns == before
        assert set(names) <= set(here._storage.shards.present())
    assert racy >= 3


@pytest.mark.nfs(version=VERSIONS)
@pytest.mark.shared
def test_wait_for_returns_what_another_host_writes(lab: Lab, a) -> None:
    here = a()
    writer = """
        import sys, time, nfsdict
        there = nfsdict.NfsDict("store", sys.argv[1])
        sys.stdin.readline()
        time.sleep(0.5)
        there["key"] = "value"
    """
    with pytest.raises(TimeoutError):
        here.wait_for("key", timeout=0.1)
    process = lab.spawn(writer, lab.b)
    process.stdin.write("\n")
    process.stdin.flush()
    assert here.wait_for("key", timeout=30) == "value"
    _, errors = process.communicate()
    assert process.returncode == 0, errors


WRITER = """
    import random, sys, time, nfsdict
    there = nfsdict.NfsDict("store", sys.argv[1], lazy=True)
    keys = sys.argv[3:]
    end = time.monotonic() + float(sys.argv[2])
    number = 0
    while time.monotonic() < end or number < 30:
        number += 1
        key = random.choice(keys)
        if random.random() < 0.25:
            there.pop(key, None) if random.random() < 0.5 else there.__delitem__(key)
            there.add(key, (key, number, "a" * (number % 3000)))
        else:
            there[key] = (key, number, "p" * (number % 3000))
    print(number)
"""


@pytest.mark.nfs(version=VERSIONS, export="ext4", timeout=240 + int(2 * SECONDS))
@pytest.mark.shared(timeout=240 + 2 * SHORT_SECONDS)
def test_readers_meet_whole_values_only_while_another_host_writes(lab: Lab, a, b) -> None:
    keys = [f"key {number}" for number in range(5)]
    there = b()
    there.update({key: (key, 0, "") for key in keys})
    readers = [a(), a(lazy=True)]
    seconds = SECONDS if lab.configuration.server == "knfsd" else SHORT_SECONDS
    writer = lab.spawn(WRITER, lab.b, seconds, *keys)
    latest = {(id(d), key): 0 for d in readers for key in keys}
    seen = set()
    reads = 0
    while writer.poll() is None:
        for here in readers:
            key = random.choice(keys)
            how = random.random()
            if how < 0.7:
                value = here.get(key, fresh=True)
            elif how < 0.9:
                value = here.get(key)
            else:
                here.refresh()
                value = here.get(key)
            reads += 1
            if value is None:
                continue
            of, number, filling = value
            assert of == key
            assert filling in ("a" * (number % 3000), "p" * (number % 3000))
            # One writer, so what is read never goes back.
            assert number >= latest[id(here), key]
            latest[id(here), key] = number
            seen.add(value)
    output, errors = writer.communicate()
    assert writer.returncode == 0, errors
    print(f"{output.strip()} writes, {reads} reads, {len(seen)} different values")
    assert len(seen) > min(20, seconds)
    time.sleep(0.1)
    there.refresh()
    for here in readers:
        here.refresh()
        assert dict(here) == dict(there)
