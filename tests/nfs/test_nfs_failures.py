"""What fails on a real NFS: an error is never absence, and nothing acknowledged is lost."""

from __future__ import annotations

import errno
import importlib
import os
import pickle
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.laboratory import Lab
from support.layout import digest, value_file
from support.proof import FACTOR

BOTH = ("3", "4.2")


def temporary(lab: Lab) -> list[Path]:
    """What is left under temporary names.

    Linux's client renames a file that is unlinked while it is open, and removes it after the last
    close without anybody waiting for that: such files get a few seconds to go.
    """
    end = time.monotonic() + 5
    while True:
        found = [*lab.server.glob("store/.nfs*"), *lab.server.glob("store/*/.nfs*")]
        ours = [path for path in found if path.name.startswith(".nfsdict")]
        if ours or not found or time.monotonic() > end:
            return found
        time.sleep(0.05)


# --- the server goes and comes back ----------------------------------------------------------

LOAD = """
    import os, sys, nfsdict
    base, who, end, progress = sys.argv[1:]
    d = nfsdict.NfsDict("store", base, lazy=True)
    number = 0
    while not os.path.exists(end):
        number += 1
        d[f"{who} put {number % 10}"] = number
        assert d.add(f"{who} added {number}", number), number
        assert d.get(f"{who} put {number % 10}", fresh=True) == number
        if number > 5:
            assert d.pop(f"{who} added {number - 5}") == number - 5
        if number > 15:
            del d[f"{who} put {(number + 1) % 10}"]
        with open(progress, "w") as file:
            file.write(str(number))
"""


class Worker:
    """A process that changes keys of its own, round after round."""

    def __init__(self, lab: Lab, base: Path, who: str, end: Path) -> None:
        self.who = who
        self._progress = end.with_name(who)
        self._process = lab.spawn(LOAD, base, who, end, self._progress)

    def rounds(self) -> int:
        """How many it has finished."""
        try:
            return int(self._progress.read_text() or 0)
        except FileNotFoundError:
            return 0

    def wait_for(self, rounds: int) -> None:
        while self.rounds() < rounds:
            assert self._process.poll() is None, self._process.communicate()[1]
            time.sleep(0.02)

    def left(self) -> dict[str, int]:
        """What it has in the store, now that it has been told to end."""
        _, errors = self._process.communicate()
        assert self._process.returncode == 0, errors
        last = self.rounds()
        missing = (last + 1) % 10
        entries = {f"{self.who} added {number}": number for number in range(last - 4, last + 1)}
        for number in range(last - 9, last + 1):
            if number % 10 != missing:
                entries[f"{self.who} put {number % 10}"] = number
        return entries


@pytest.mark.nfs(version=BOTH, export="ext4", timeout=300)
def test_a_restart_under_load_loses_nothing_on_a_hard_mount(lab: Lab, a, b, tmp_path: Path) -> None:
    end = tmp_path / "end"
    workers = [
        Worker(lab, base, who, end)
        for who, base in (("a1", lab.a), ("a2", lab.a), ("b1", lab.b), ("b2", lab.b))
    ]
    for worker in workers:
        worker.wait_for(16)
    for _ in range(3 if lab.configuration.version == "3" else 1):
        lab.stop_server()
        time.sleep(0.3)
        rounds = [worker.rounds() for worker in workers]
        lab.start_server()
        for worker, before in zip(workers, rounds):
            worker.wait_for(before + 3)
    end.touch()
    expected: dict[str, int] = {}
    for worker in workers:
        expected |= worker.left()
    assert dict(a()) == expected
    assert dict(b()) == expected
    assert temporary(lab) == []


def each_call(d, old: list[str], new: list[str]) -> dict[str, Callable[[], object]]:
    """Calls that must ask the server, each for a key of its own."""
    return {
        "[]": lambda: d[old[0]],
        "get": lambda: d.get(old[1]),
        "fresh": lambda: d.get(old[2], fresh=True),
        "in": lambda: new[0] in d,
        "put": lambda: d.__setitem__(old[3], "new"),
        "add": lambda: d.add(new[1], "new"),
        "setdefault": lambda: d.setdefault(new[2], "new"),
        "pop": lambda: d.pop(old[4], None),
        "delete": lambda: d.__delitem__(old[5]),
        "clear": lambda: d.clear(),
        "refresh": lambda: d.refresh(),
        "sync": lambda: d.sync(),
    }


def refusals(calls: dict[str, Callable[[], object]]) -> dict[str, OSError]:
    """What each raised; a call that did not fail, or that raised KeyError, fails the test."""
    refused = {}
    for name, call in calls.items():
        with pytest.raises(OSError) as caught:  # noqa: PT012
            call()
            pytest.fail(f"{name} did not fail")
        assert not isinstance(caught.value, KeyError), name
        refused[name] = caught.value
    return refused


@pytest.mark.nfs(version=("3", "4.2") if FACTOR > 1 else "3", timeout=400)  # a minute and more
def test_a_soft_mount_raises_oserror_and_recovers(lab: Lab, a, b) -> None:
    lab.remount("b", "soft,timeo=4,retrans=1")
    old = [f"old {number}" for number in range(8)]
    new = [f"new {number}" for number in range(4)]
    a().update(dict.fromkeys(old, "old"))
    here = b(lazy=True)
    assert here[old[6]] == "old"
    lab.stop_server()
    refused = refusals(each_call(here, old, new))
    # ESTALE: of a directory that it couldn't revalidate, Linux's client says no more on the way to
    # one that is mounted (fs/nfs/dir.c, nfs_weak_revalidate).
    assert {error.errno for error in refused.values()} <= {
        errno.EIO,
        errno.ETIMEDOUT,
        errno.ESTALE,
    }
    assert here[old[6]] == "old"  # what is cached needs no server
    lab.start_server()
    deadline = time.monotonic() + 60
    while True:
        try:
            here["after"] = "new"
            break
        except OSError:
            assert time.monotonic() < deadline
    here.sync()
    # What was tried while the server was down was done or not; anything else is as it was.
    for d in (a(), here, b()):
        found = dict(d)
        assert found.pop("after") == "new"
        for key in (old[0], old[1], old[2], old[6], old[7]):
            assert found.pop(key) == "old"
        assert found.pop(old[3]) in ("old", "new")
        assert set(found) <= {old[4], old[5], new[1], new[2]}
        assert {old[4], old[5]} <= set(found)


@pytest.mark.nfs(version=BOTH)
def test_an_export_withdrawn_is_a_permission_error(lab: Lab, a, b) -> None:
    old = [f"old {number}" for number in range(8)]
    there = a()
    there.update(dict.fromkeys(old, "old"))
    here = b(lazy=True)
    lab.unexport()
    refused = refusals(each_call(here, old, [f"new {number}" for number in range(4)]))
    lab.export()
    assert {error.errno for error in refused.values()} <= {errno.EACCES, errno.ESTALE}
    assert all(
        isinstance(error, PermissionError)
        for error in refused.values()
        if error.errno == errno.EACCES
    )
    assert errno.EACCES in {error.errno for error in refused.values()}
    assert {key: here[key] for key in old} == dict.fromkeys(old, "old")
    here.sync()
    assert dict(here) == dict.fromkeys(old, "old")


# --- stale handles ---------------------------------------------------------------------------


@pytest.mark.nfs(version=("3", "4.0", "4.1", "4.2"))
def test_a_file_replaced_since_it_was_looked_up_is_opened_anew(lab: Lab, a, b) -> None:
    there = b()
    there["key"] = 0
    for number in range(1, 30):
        assert a(lazy=True)["key"] == number - 1
        os.stat(value_file(lab.a, "key"))
        there["key"] = number


@pytest.mark.nfs(version=BOTH, timeout=300)
def test_a_stale_handle_met_while_reading_is_opened_anew(
    lab: Lab, a, b, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is replaced on the server between open and read, and the server restarted."""
    pure = importlib.import_module("nfsdict._pure")
    monkeypatch.setattr(
        importlib.import_module("nfsdict.storage.files"), "read_files", pure.read_files
    )
    b()["key"] = "old" * 50_000
    path = value_file(lab.server, "key")
    copy = path.with_name("copy")
    copy.write_bytes(pickle.dumps(("key", "new")))
    here = a(lazy=True)
    read = os.read
    failed = []

    def stale(descriptor: int, size: int) -> bytes:
        monkeypatch.setattr(os, "read", read)
        os.rename(copy, path)
        lab.restart_server()
        try:
            return read(descriptor, size)
        except OSError as error:
            failed.append(error.errno)
            raise

    monkeypatch.setattr(os, "read", stale)
    assert here["key"] == "new"
    assert failed in ([errno.ESTALE], [errno.EBADF])


SHARD_CALLS: dict[str, Callable] = {
    "[]": lambda d, key: d[key] == "new",
    "get": lambda d, key: d.get(key) == "new",
    "fresh": lambda d, key: d.get(key, fresh=True) == "new",
    "in": lambda d, key: key in d,
    "put": lambda d, key: d.__setitem__(key, "newer") is None,
    "add": lambda d, key: d.add(key, "newer") is False,
    "setdefault": lambda d, key: d.setdefault(key, "newer") == "new",
    "pop": lambda d, key: d.pop(key) == "new",
    "delete": lambda d, key: d.__delitem__(key) is None,
    "refresh": lambda d, key: key in d.refresh(),
    "sync": lambda d, key: d.sync() is None,
    "clear": lambda d, key: d.clear() is None,
    "verify": lambda d, key: d.verify().ok,
}


@pytest.mark.parametrize("restarted", [False, True], ids=["", "restarted"])
@pytest.mark.nfs(version=BOTH, timeout=300)
def test_a_shard_directory_removed_and_made_again_by_another_host(
    lab: Lab, a, b, restarted
) -> None:
    there = b()
    heres = {}
    for name in SHARD_CALLS:
        here = a()
        here[f"first {name}"] = "old"
        heres[name] = here
    shards = {digest(f"first {name}")[:2]: name for name in SHARD_CALLS}
    # A key of the same shard for each.
    keys = {}
    for number in range(100_000):
        name = shards.get(digest(str(number))[:2])
        if name is not None:
            keys.setdefault(name, str(number))
    for here in heres.values():
        here.refresh()
        for name in SHARD_CALLS:
            os.listdir(value_file(lab.a, keys[name]).parent)
    descriptors = [os.open(path, os.O_RDONLY) for path in lab.server.glob("store/??")]
    for shard in shards:
        shutil.rmtree(lab.b / "store" / shard)
    for key in keys.values():
        there[key] = "new"
    for descriptor in descriptors:
        os.close(descriptor)
    if restarted:
        lab.restart_server()
    for name, call in SHARD_CALLS.items():
        for key in keys.values():
            there[key] = "new"
        assert call(heres[name], keys[name]), name
    there.sync()
    assert dict(there) == dict.fromkeys(keys.values(), "new")


# --- no space --------------------------------------------------------------------------------


@pytest.mark.nfs(version=BOTH, size_mb=4)
def test_a_full_server_keeps_the_old_value_and_writing_goes_on_once_there_is_space(
    lab: Lab, a, b
) -> None:
    here, there = a(), b()
    here["key"] = "old"
    here["filler"] = bytes(2 << 20)
    big = bytes(3 << 20)
    for write in (
        lambda: here.__setitem__("key", big),
        lambda: here.__setitem__("none", big),
        lambda: here.add("none", big),
        lambda: here.update({"key": big, "none": big}),
    ):
        with pytest.raises(OSError) as caught:
            write()
        assert caught.value.errno == errno.ENOSPC
        assert here["key"] == "old"
        assert here.get("key", fresh=True) == "old"
        assert there.get("key", fresh=True) == "old"
        assert "none" not in here
        assert temporary(lab) == []
    del here["filler"]
    here["key"] = big
    assert there.get("key", fresh=True) == big


# --- damage ----------------------------------------------------------------------------------


@pytest.mark.nfs(version=("3", "4.0", "4.1", "4.2"))
def test_a_damaged_index_costs_nothing_and_a_damaged_value_one_key(lab: Lab, a, b) -> None:
    there = b()
    there.update({f"key {number}": number for number in range(30)})
    damages = {
        "empty": lambda file: file.write_bytes(b""),
        "short": lambda file: file.write_bytes(file.read_bytes()[:-5]),
        "random": lambda file: file.write_bytes(os.urandom(500)),
        "gone": lambda file: file.unlink(),
    }
    for kind in ("_index", "_pack"):
        for name, damage in damages.items():
            a().close()
            hints = list(lab.server.glob(f"store/{kind}.nfsdict-pkl*"))
            assert hints
            for hint in hints:
                damage(hint)
            there[f"{kind} {name}"] = name
            assert dict(a()) == dict(there)
    junk = lab.server / "junk"
    junk.write_bytes(b"junk")
    junk.replace(value_file(lab.server, "key 3"))
    expected = dict(there)
    del expected["key 3"]
    here = a()
    assert dict(here.items()) == expected
    with pytest.raises(KeyError, match="damaged"):
        here["key 3"]
    assert set(here.repair().quarantined) == {str(value_file(lab.a, "key 3"))}
    assert dict(a()) == expected
