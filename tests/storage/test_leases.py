"""A file that somebody has a lease on, as a server's delegations and oplocks are, is waited for."""

from __future__ import annotations

import importlib
import logging
import os
import subprocess
import sys
import time

import pytest

from support.aging import age
from support.index_layout import open_

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="leases are Linux's")

# Takes a lease for writing on each file, and gives it back so long after it was asked for, or at
# once after so many seconds.
HOLDER = """
import fcntl, os, signal, sys, time
seconds, paths = float(sys.argv[1]), sys.argv[2:]
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGIO])
held = [os.open(path, os.O_RDWR) for path in paths]
for descriptor in held:
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print("held", flush=True)
while held:
    signal.sigwait([signal.SIGIO])
    time.sleep(seconds)
    for descriptor in held:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    held = []
print("given back", flush=True)
"""


@pytest.fixture
def leased():
    """Have another process hold leases on these files."""
    holders = []

    def hold(*paths, seconds=0.3):
        command = [sys.executable, "-c", HOLDER, str(seconds), *map(str, paths)]
        holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        holders.append(holder)
        assert holder.stdout.readline() == "held\n"

    yield hold
    for holder in holders:
        holder.kill()
        holder.communicate()


def value_file(d, key):
    digest = importlib.import_module("nfsdict.core").digest
    return d.path / digest(key)[:2] / f"{digest(key)}.pkl"


OPERATIONS = {
    "read": lambda d: d["a"] == 1,
    "fresh": lambda d: d.get("a", fresh=True) == 1,
    "open": lambda d: dict(type(d)(*d._arguments[:2])) == {"a": 1, "b": 2},
    "sync": lambda d: d.sync() or dict(d) == {"a": 1, "b": 2},
    "verify": lambda d: d.verify().ok and d.verify().entries == 2,
    "pop": lambda d: d.pop("a") == 1,
    "put": lambda d: d.__setitem__("a", 3) or d.get("a", fresh=True) == 3,
    "add": lambda d: d.add("a", 3) is False,
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_value_under_a_lease_is_waited_for(opened, leased, caplog, operation):
    caplog.set_level(logging.WARNING, "nfsdict")
    opened().update(a=1, b=2)
    d = opened(lazy=True)
    leased(value_file(d, "a"))
    assert OPERATIONS[operation](d)
    assert caplog.messages == []


def test_index_and_packs_under_a_lease_are_waited_for(nfsdict, tmp_path, leased, reads):
    values = {str(number): number for number in range(9)}
    open_(nfsdict, tmp_path).update(values)
    age(tmp_path)
    open_(nfsdict, tmp_path).close()
    leased(*(tmp_path / "store").glob("_*"))
    del reads[:]
    assert dict(open_(nfsdict, tmp_path)) == values
    assert reads == [], "the pack had them"


def test_the_wait_is_bounded(opened, leased, monkeypatch):
    monkeypatch.setattr(importlib.import_module("nfsdict.storage.passing"), "_LEASE_SECONDS", 0.05)
    opened()["a"] = 1
    d = opened(lazy=True)
    leased(value_file(d, "a"), seconds=30)
    begin = time.monotonic()
    with pytest.raises(BlockingIOError) as caught:
        d["a"]
    assert caught.value.filename == str(value_file(d, "a"))
    assert time.monotonic() - begin < 10


def test_what_is_no_regular_file_is_not_waited_for(opened, monkeypatch):
    """A FIFO that takes the file's place meanwhile neither."""
    opened()["a"] = 1
    d = opened(lazy=True)
    path = value_file(d, "a")
    path.unlink()
    os.mkfifo(path)
    files = importlib.import_module("nfsdict.storage.files")
    original, left = files.read_files, [11]
    monkeypatch.setattr(
        files, "read_files", lambda paths: [left.pop()] if left else original(paths)
    )
    with pytest.raises(OSError) as caught:
        d["a"]
    assert caught.value.filename == str(path)
