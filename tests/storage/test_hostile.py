"""What others may plant in a store that they can write to: it costs a key at most, and says so."""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib
import logging
import os
import pickle
import signal
import socket
import stat
import subprocess
import sys
import tempfile

import pytest

from support.layout import digest, value_file

SECONDS = 20
GOOD = {f"good {number}": number for number in range(3)}
VICTIM = "victim"


# --- what is planted -------------------------------------------------------------------------


def plant_link(path, outside):
    path.symlink_to(outside / "file")


def plant_dangling(path, outside):
    path.symlink_to(outside / "nothing")


def plant_loop(path, outside):
    path.symlink_to(path)


def plant_link_to_directory(path, outside):
    path.symlink_to(outside)


def plant_hard_link(path, outside):
    os.link(outside / "file", path)


def plant_fifo(path, outside):
    os.mkfifo(path)


def plant_socket(path, outside):
    with (
        tempfile.TemporaryDirectory(dir=path.parent) as short,
        socket.socket(socket.AF_UNIX) as server,
    ):
        # A socket's path is short.
        here = os.open(short, os.O_RDONLY)
        server.bind(f"/proc/self/fd/{here}/s")
        os.close(here)
        os.rename(os.path.join(short, "s"), path)


def plant_directory(path, outside):
    path.mkdir()


def plant_full_directory(path, outside):
    path.mkdir()
    (path / "file").write_bytes(b"content")


def plant_terabyte(path, outside):
    path.touch()
    os.truncate(path, 1 << 40)


def plant_empty(path, outside):
    path.touch()


def plant_noise(path, outside):
    path.write_bytes(os.urandom(100_000))


PLANTS = {
    name[len("plant_") :]: plant
    for name, plant in list(globals().items())
    if name.startswith("plant_")
}


# --- what is done ----------------------------------------------------------------------------

OPERATIONS = {
    "[]": lambda d: d[VICTIM],
    "get": lambda d: d.get(VICTIM),
    "fresh": lambda d: d.get(VICTIM, fresh=True),
    "in": lambda d: VICTIM in d,
    "put": lambda d: d.__setitem__(VICTIM, "ours"),
    "add": lambda d: d.add(VICTIM, "ours"),
    "setdefault": lambda d: d.setdefault(VICTIM, "ours"),
    "del": lambda d: d.__delitem__(VICTIM),
    "pop": lambda d: d.pop(VICTIM),
    "update": lambda d: d.update({VICTIM: "ours", "other": 1}),
    "clear": lambda d: d.clear(),
    "list": lambda d: list(d.items()),
    "sync": lambda d: d.sync(),
    "refresh": lambda d: d.refresh(),
    "verify": lambda d: d.verify(),
    "repair": lambda d: d.repair(grace=0),
    "pack": lambda d: d.pack(),
    "close": lambda d: d.close(),
}


@contextlib.contextmanager
def bounded():
    """As a test that waits for ever says nothing."""

    def late(*_):
        raise AssertionError(f"not done after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def tree(path):
    """All that is below, with what it holds."""
    return {
        str(one.relative_to(path)): (one.lstat().st_mode, one.is_file() and one.read_bytes())
        for one in sorted(path.rglob("*"))
    }


@pytest.fixture
def outside(tmp_path):
    """What lies beside the store, and is none of its business."""
    outside = tmp_path / "outside"
    (outside / "00").mkdir(parents=True)
    (outside / "file").write_bytes(pickle.dumps((VICTIM, "from outside")))
    (outside / "00" / "file").write_bytes(b"content")
    os.chmod(outside / "file", 0o640)
    return outside


@pytest.fixture
def base(nfsdict, tmp_path):
    """A store with a few good keys."""
    nfsdict.NfsDict("store", tmp_path, durable=False).update(GOOD)
    return tmp_path


@pytest.fixture
def quick(nfsdict, monkeypatch):
    """``pack`` waits for nothing."""
    repack = importlib.import_module("nfsdict.repack")
    monkeypatch.setattr(repack.time, "sleep", lambda seconds: None)


def done(nfsdict, base, operation, lazy, caplog):
    """Open and act. What came of it: an outcome, or an error that is no bug."""
    caplog.set_level(logging.WARNING, "nfsdict")
    with bounded():
        try:
            with nfsdict.NfsDict("store", base, durable=False, lazy=lazy) as d:
                return OPERATIONS[operation](d)
        except (OSError, nfsdict.NfsDictError) as error:
            return error


@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("plant", PLANTS)
def test_planted_as_a_value(nfsdict, base, outside, quick, caplog, plant, operation, lazy):
    path = value_file(base, VICTIM)
    path.parent.mkdir()
    PLANTS[plant](path, outside)
    before = tree(outside)
    kept = {} if operation == "clear" else GOOD
    outcome = done(nfsdict, base, operation, lazy, caplog)
    if plant != "hard_link":
        assert outcome != "from outside"
    if isinstance(outcome, KeyError):  # an error says which file, and no damage is absence
        assert isinstance(outcome, nfsdict.CorruptValueError)
        assert str(path) in str(outcome)
    if isinstance(outcome, OSError) and not isinstance(outcome, nfsdict.BatchError):
        assert outcome.filename in (str(path), str(path.parent))
    assert tree(outside) == before
    assert not list(base.glob("store/**/.nfsdict-*"))
    with bounded():
        again = nfsdict.NfsDict("store", base, durable=False)
        assert {key: again[key] for key in kept} == kept
        assert set(again) - {VICTIM, "other"} == kept.keys()
        if operation in ("put", "update") and not isinstance(outcome, Exception):
            assert again[VICTIM] == "ours"


NO_FILES = ["link", "dangling", "loop", "link_to_directory", "fifo", "socket", "directory"]
LOOKS = {
    "[]": lambda d: d[VICTIM],
    "get": lambda d: d.get(VICTIM),
    "fresh": lambda d: d.get(VICTIM, fresh=True),
    "in": lambda d: VICTIM in d,
    "info": lambda d: d.info(VICTIM),
    "add": lambda d: d.add(VICTIM, "ours"),
    "setdefault": lambda d: d.setdefault(VICTIM, "ours"),
    "pop": lambda d: d.pop(VICTIM, None),
}


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("plant", NO_FILES)
def test_what_has_the_place_of_a_value_is_not_taken_for_absence(
    nfsdict, base, outside, plant, look
):
    """Somebody moved a large value to another disk, say, and left a link, which isn't followed."""
    path = value_file(base, VICTIM)
    path.parent.mkdir()
    PLANTS[plant](path, outside)
    d = nfsdict.NfsDict("store", base, lazy=True)
    with pytest.raises(OSError) as raised:
        LOOKS[look](d)
    assert raised.value.filename == str(path)
    assert d.verify().unrecognized == [str(path)]


SHARD = digest(VICTIM)[:2]


def foreign(base, path, outside):
    """What the store is not to reach through this path."""
    return {
        "link": lambda: path.symlink_to(outside / "00"),
        "dangling": lambda: path.symlink_to(outside / "nothing"),
        "loop": lambda: path.symlink_to(path),
        "file": lambda: path.write_bytes(b"content"),
        "fifo": lambda: os.mkfifo(path),
    }


@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("kind", ["dangling", "loop", "file", "fifo"])
def test_planted_as_a_shard(nfsdict, base, outside, quick, caplog, kind, operation, lazy):
    """All keys that would lie there are lost, and no others. Nobody knows what the directory holds
    that had its place, so what goes over the whole store says so."""
    shard = base / "store" / SHARD
    foreign(base, shard, outside)[kind]()
    before = tree(outside)
    outcome = done(nfsdict, base, operation, lazy, caplog)
    assert tree(outside) == before
    assert stat.S_IFMT(shard.lstat().st_mode) != stat.S_IFDIR
    if isinstance(outcome, OSError) and not isinstance(outcome, nfsdict.BatchError):
        assert str(shard) in outcome.filename
    if operation != "close":
        assert isinstance(outcome, OSError)
    with bounded():
        again = nfsdict.NfsDict("store", base, durable=False, lazy=True)
        assert {key: again[key] for key in GOOD} == GOOD


# --- names that nobody can write to before they are used -------------------------------------


@pytest.mark.parametrize("plant", PLANTS)
def test_planted_under_temporary_names(nfsdict, base, outside, plant):
    """They are no keys, and stop nothing."""
    shards = sorted(base.glob("store/??"))
    for shard in shards:
        for name in (".nfsdict-" + "0" * 24, f".nfsdict-taken-{digest(VICTIM)}-{'0' * 24}"):
            PLANTS[plant](shard / name, outside)
    before = tree(outside)
    with bounded():
        d = nfsdict.NfsDict("store", base, durable=False)
        assert dict(d) == GOOD
        d[VICTIM] = "ours"
        d.sync()
        assert dict(d) == GOOD | {VICTIM: "ours"}
        d.repair(grace=0)
        assert dict(d) == GOOD | {VICTIM: "ours"}
        d.clear()
        assert dict(d) == {} and tree(outside) == before


ZEROS = """
#include <string.h>
int getentropy(void *bytes, size_t size)
{
    memset(bytes, 0, size);
    return 0;
}
"""

PUT_AND_ADD = """
import os, sys, nfsdict

os.urandom = bytes
d = nfsdict.NfsDict("store", sys.argv[1], durable=False)
for act in d.__setitem__, d.add:
    try:
        act("victim", "ours")
    except OSError as error:
        print(error.errno, error.filename)
assert "victim" not in d
"""


@pytest.fixture
def zeros(nfsdict, tmp_path):
    """Environment of a process whose random bytes are zeros."""
    if nfsdict.BACKEND == "pure":
        return os.environ
    source, library = tmp_path / "zeros.c", tmp_path / "zeros.so"
    source.write_text(ZEROS)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    return {**os.environ, "LD_PRELOAD": str(library)}


@pytest.mark.skipif(sys.platform != "linux", reason="replaces getentropy(3)")
def test_a_temporary_name_that_was_guessed(base, outside, zeros):
    """A link there isn't followed: what it points to is somebody else's."""
    shard = value_file(base, VICTIM).parent
    shard.mkdir()
    (shard / (".nfsdict-" + "00" * 12)).symlink_to(outside / "file")
    before = tree(outside)
    done = subprocess.run(
        [sys.executable, "-c", PUT_AND_ADD, base],
        env=zeros,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line.split(" ", 1) for line in done.stdout.splitlines()]
    assert [int(number) for number, _ in lines] == [errno.ELOOP] * 2
    assert all(path.startswith(str(shard)) for _, path in lines)
    assert tree(outside) == before


INDEX = [
    "_index.nfsdict-pkl",
    "_index.pkl",
    ".nfsdict-claim-index-pkl",
    "_pack.nfsdict-pkl-" + 24 * "0",
]


@pytest.mark.parametrize("name", INDEX)
@pytest.mark.parametrize("plant", PLANTS)
def test_planted_in_the_place_of_the_index(nfsdict, base, outside, quick, monkeypatch, plant, name):
    """It costs time, as having none does."""
    # A regular file is taken for a claim of somebody for a minute.
    monkeypatch.setattr(
        importlib.import_module("nfsdict.storage.index_files"), "INDEX_CLAIM_NS", -1
    )
    for path in base.glob("store/_*"):
        path.unlink()
    PLANTS[plant](base / "store" / name, outside)
    before = tree(outside)
    with bounded():
        for lazy in (False, True):
            with nfsdict.NfsDict("store", base, durable=False, lazy=lazy) as d:
                assert dict(d) == GOOD
                d[VICTIM] = 1
                del d[VICTIM]
                d.sync()
        d.verify()
        d.repair()
        with contextlib.suppress(OSError):
            d.pack()
        d.clear()
    assert tree(outside) == before
    del d
    gc.collect()  # PyPy, late: what it logs when it is flushed would be in another test's log


# --- names that only look like one -----------------------------------------------------------


def test_names_that_are_no_value_files(nfsdict, base):
    good = value_file(base, "good 0")
    name = good.name
    odd = [
        name.upper(),
        name + ".bak",
        "x" + name,
        name[1:],
        name.replace(".pkl", ".json"),
        name[:-4],
        name[:2] + "/../" + name + "~",
        ".pkl",
        "\n" + name,
    ]
    for other in odd:
        good.with_name(os.path.basename(other)).write_bytes(good.read_bytes())
    # A file of another shard's key.
    (base / "store" / "zz").mkdir()
    (base / "store" / "zz" / name).write_bytes(good.read_bytes())
    elsewhere = base / "store" / ("00" if name[:2] != "00" else "01")
    elsewhere.mkdir(exist_ok=True)
    (elsewhere / name).write_bytes(good.read_bytes())
    d = nfsdict.NfsDict("store", base, durable=False)
    assert dict(d) == GOOD
    d.repair(grace=0)
    d.clear()
    assert len(list(base.glob("store/**/*.*"))) >= len(odd) + 2 - len(GOOD)


@pytest.mark.parametrize(
    "name", ["..", "../other", "a/../../other", "/etc", "", ".", "a\0b", "a/../b"]
)
def test_a_name_that_tries_to_leave(nfsdict, base, name):
    with pytest.raises(ValueError, match="name"):
        nfsdict.NfsDict(name, base)
    assert [path.name for path in base.iterdir() if path.name != "outside"] == ["store"]
