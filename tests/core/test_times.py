"""Files may have times that 64 bits of nanoseconds don't hold: they cost nothing but belief."""

from __future__ import annotations

import importlib
import os
import pickle
import sys
import tempfile
from pathlib import Path

import pytest

from support.layout import value_file
from support.twins import agreed

SECOND = 10**9
# The last second that fits as a whole, the first that doesn't, and what else a tmpfs takes.
SECONDS = [
    9223372035,
    9223372036,
    10**11,
    2**55,
    -9223372036,
    -9223372037,
    -(10**11),
    -(2**55),
]
LAST = 2**63 - 1

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="needs a file system that keeps such times"
)


@pytest.fixture
def shared_memory():
    """A directory on a tmpfs, which keeps any time."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as path:
        yield Path(path)


def set_time(path, second):
    moment = second * SECOND + 999_999_999
    os.utime(path, ns=(moment, moment))
    assert os.stat(path).st_mtime_ns == moment
    return moment if -(2**63) // SECOND < second < 2**63 // SECOND else LAST


def mtime_of(signature):
    return int.from_bytes(signature[16:24], "little", signed=True)


@pytest.mark.parametrize("second", SECONDS)
def test_the_core(twins, shared_memory, second):
    path = shared_memory / "file"
    path.touch()
    wanted = set_time(path, second)
    [(_, signature)] = agreed(twins, lambda twin: twin.read_files([str(path)]))
    assert mtime_of(signature) == wanted
    assert set_time(shared_memory, second) == wanted
    [(mtime, _)] = agreed(twins, lambda twin: twin.read_stamps([str(shared_memory)]))
    assert mtime == wanted
    mtime, _, entries = agreed(twins, lambda twin: twin.list_directory(str(shared_memory), False))
    assert mtime == wanted
    assert [mtime_of(signature) for _, _, signature, _ in entries] == [wanted]


@pytest.mark.parametrize("second", SECONDS)
@pytest.mark.parametrize("lazy", [False, True])
def test_a_store(nfsdict, shared_memory, monkeypatch, lazy, second):
    repack = importlib.import_module("nfsdict.repack")
    monkeypatch.setattr(repack.time, "sleep", lambda seconds: None)

    def open_store():
        return nfsdict.NfsDict("store", shared_memory, durable=False, lazy=lazy)

    with open_store() as d:
        d.update({"k": 1, "l": 2})
    path = value_file(shared_memory, "k")
    for planted in (path, path.parent, path.parent.parent):
        wanted = set_time(planted, second)
        with open_store() as d:
            assert "k" in d and d["k"] == d.get("k", fresh=True) == 1
            d.refresh()
            assert dict(d) == {"k": 1, "l": 2}
            assert d.verify().entries == 2
            d.pack()
        with open_store() as d:
            assert dict(d) == {"k": 1, "l": 2}
    # What such times don't prove isn't believed: a new content is found.
    other = path.with_name("new")
    other.write_bytes(pickle.dumps(("k", 3)))
    other.rename(path)
    if wanted == LAST:
        set_time(path, second)
        set_time(path.parent, second)
        set_time(path.parent.parent, second)
    with open_store() as d:
        assert dict(d) == {"k": 3, "l": 2}
        assert d.repair(grace=0).report.damaged == {}
