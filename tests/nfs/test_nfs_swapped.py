"""Another host puts another directory in the place of the store's: who looks at all sees it."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.laboratory import Lab
from support.proof import FACTOR, VERSIONS

FIRST = {**{f"key {number}": "first" for number in range(20)}, "only first": 1}
SECOND = {**{f"key {number}": "second" for number in range(10, 30)}, "only second": 2}

# ext4 has a change counter that counts on, tmpfs only its times.
EXPORTS = ("tmpfs", "ext4") if FACTOR > 1 else "tmpfs"


@pytest.fixture
def swap(package, lab: Lab) -> Callable[[], None]:
    """B, to whom both stores belong, puts the second one in the place of the first, and back."""
    for name, values in (("store", FIRST), ("second", SECOND)):
        package.NfsDict(name, lab.b).update(values)

    def swap() -> None:
        os.rename(lab.b / "store", lab.b / "third")
        os.rename(lab.b / "second", lab.b / "store")
        os.rename(lab.b / "third", lab.b / "second")

    return swap


def refreshed(open_, running):
    running.refresh()
    return dict(running)


def synced(open_, running):
    running.sync()
    return dict(running)


def cleared_and_synced(open_, running):
    """What is cleared is what was there: the other store keeps all."""
    found = dict(open_(read_only=True))
    running.clear()
    assert dict(running) == dict(open_()) == {}
    running.update(found)
    return found


def counted(open_, running):
    report = running.verify()
    found = dict(open_())
    assert report.entries == len(found)
    return found


def packed(open_, running):
    """What is packed is what was there."""
    packing = running.pack()
    found = dict(open_())
    assert packing.packed == len(found)
    return found


def looked_up(open_, running):
    """By a lazy dictionary, one by one."""
    d = open_(lazy=True)
    return {key: d[key] for key in {**FIRST, **SECOND} if key in d}


OPERATIONS = {
    "refresh": refreshed,
    "sync": synced,
    "clear": cleared_and_synced,
    "verify": counted,
    "pack": packed,
    "open": lambda open_, running: dict(open_()),
    "open read-only": lambda open_, running: dict(open_(read_only=True)),
    "open lazily": lambda open_, running: dict(open_(lazy=True)),
    "open lazily and look up": looked_up,
}


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
@pytest.mark.nfs(version=VERSIONS, export=EXPORTS)
def test_a_store_that_was_swapped(lab: Lab, a, swap, operation, lazy) -> None:
    running = a(lazy=lazy)
    assert dict(running) == FIRST
    here = running
    for turn in range(4 if operation != "pack" else 1):
        swap()
        wanted = SECOND if turn % 2 == 0 else FIRST
        assert OPERATIONS[operation](a, here) == wanted, turn


@pytest.mark.nfs(version=VERSIONS, export=EXPORTS)
def test_a_lazy_dictionary_that_nothing_was_listed_of(lab: Lab, a, swap) -> None:
    for turn in range(4):
        running = a(lazy=True)
        assert running["key 15"] == ("first" if turn % 2 == 0 else "second")
        swap()
        assert len(running) == len(SECOND if turn % 2 == 0 else FIRST)
        assert dict(running) == {
            **(SECOND if turn % 2 == 0 else FIRST),
            "key 15": running["key 15"],
        }


@pytest.mark.parametrize("operation", ["sync", "open", "open lazily and look up", "verify"])
@pytest.mark.nfs(version=VERSIONS)
def test_a_directory_above_that_was_swapped(package, lab: Lab, operation) -> None:
    for name, values in (("one", FIRST), ("two", SECOND)):
        package.NfsDict(f"{name}/project/store", lab.b).update(values)

    def open_(**options):
        return package.NfsDict("one/project/store", lab.a, **options)

    running = open_()
    for turn in range(4):
        os.rename(lab.b / "one", lab.b / "three")
        os.rename(lab.b / "two", lab.b / "one")
        os.rename(lab.b / "three", lab.b / "two")
        wanted = SECOND if turn % 2 == 0 else FIRST
        assert OPERATIONS[operation](open_, running) == wanted, turn


@pytest.mark.nfs(version=VERSIONS)
def test_a_store_that_is_gone(package, lab: Lab, a, swap) -> None:
    running = a()
    assert dict(running) == FIRST
    os.rename(lab.b / "store", lab.b / "third")
    with pytest.raises(FileNotFoundError):
        running.refresh()
    with pytest.raises(FileNotFoundError):
        a(read_only=True)
    assert dict(a()) == {}  # makes a new one
    assert dict(running) == FIRST
    assert len(os.listdir(lab.b / "third")) > 10


@pytest.mark.nfs
def test_a_store_that_is_what_was_mounted(package, lab: Lab) -> None:
    """What lies above it is another file system, whose clock isn't the server's."""
    place = Path(tempfile.mkdtemp(dir="/run"))
    (lab.server / "store").mkdir()
    (place / "store").mkdir()
    subprocess.run(["mount", "--bind", lab.a / "store", place / "store"], check=True)
    try:
        d = package.NfsDict("store", place)
        d["a"] = 1
        seen = d._storage.rules.clock.lower_bound()
        os.utime(place)
        assert d.refresh() == set() and dict(package.NfsDict("store", place)) == {"a": 1}
        assert not d._storage.shards._asks_parent()
        assert seen <= d._storage.rules.clock.lower_bound() < time.time_ns() + 10**9
        lab.run("import sys, nfsdict; nfsdict.NfsDict('store', sys.argv[1])['b'] = 2", lab.b)
        assert d.refresh() == {"b"}
    finally:
        subprocess.run(["umount", "-l", place / "store"], check=True)
