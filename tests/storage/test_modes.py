"""With ``mode``, a group shares a store: no directory is ever there without its bits."""

from __future__ import annotations

import errno
import importlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from support.aging import age
from support.layout import digest, value_file

KEYS = [str(number) for number in range(15)]
GROUP = 2000


def bits(path):
    return stat.S_IMODE(os.lstat(path).st_mode)


def left(base):
    return [str(path) for path in base.glob("**/.nfsdict-*")]


@pytest.fixture(autouse=True)
def umask():
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.fixture
def open_(nfsdict, tmp_path):
    def open_(**options):
        options = {"base_dir": tmp_path, "mode": 0o660, "durable": False, "workers": 1, **options}
        return nfsdict.NfsDict("store", **options)

    return open_


@pytest.mark.parametrize(
    ("mode", "expected"), [(0o660, 0o770), (0o664, 0o775), (0o600, 0o700), (0o640, 0o750)]
)
def test_directories_get_x_where_r_is(open_, tmp_path, mode, expected):
    open_(base_dir=tmp_path / "above", mode=mode)["a"] = 1
    for path in (tmp_path / "above", tmp_path / "above" / "store"):
        assert bits(path) == expected
    assert bits(value_file(tmp_path / "above", "a").parent) == expected
    assert left(tmp_path) == []


def test_a_setgid_bit_is_inherited(open_, tmp_path):
    (tmp_path / "store").mkdir()
    os.chmod(tmp_path / "store", 0o2770)
    open_()["a"] = 1
    assert bits(value_file(tmp_path, "a").parent) == 0o2770


@pytest.mark.parametrize("content", [None, "stranger"], ids=["empty", "not empty"])
def test_somebody_else_was_faster(open_, tmp_path, monkeypatch, content):
    d = open_()
    shard = value_file(tmp_path, "a").parent
    mkdir = os.mkdir

    def slow(path, mode=0o777, **options):
        mkdir(path, mode, **options)
        if not shard.exists():
            mkdir(shard)
            if content:
                (shard / content).touch()

    monkeypatch.setattr(os, "mkdir", slow)
    d["a"] = 1
    assert value_file(tmp_path, "a").exists() and left(tmp_path) == []
    assert content is None or (shard / content).exists()


@pytest.mark.parametrize("number", [errno.EEXIST, errno.ENOTEMPTY])
def test_somebody_else_is_just_making_it(open_, tmp_path, monkeypatch, number):
    """GlusterFS: the name exists, and can't be found for a moment."""
    d = open_()
    rename, refused = os.rename, []

    def being_made(source, target):
        if "-directory-" in os.fspath(source) and len(refused) < 3:
            refused.append(target)
            raise OSError(number, os.strerror(number), source)
        rename(source, target)

    monkeypatch.setattr(os, "rename", being_made)
    d["a"] = 1
    assert bits(value_file(tmp_path, "a").parent) == 0o770 and left(tmp_path) == []
    assert len(refused) == 3


@pytest.mark.parametrize("name", ["mkdir", "rename", "give_bits"])
def test_an_error_leaves_nothing(open_, tmp_path, monkeypatch, name):
    d = open_()
    where = importlib.import_module("nfsdict.storage.files") if name == "give_bits" else os
    original, shard = getattr(where, name), value_file(tmp_path, "a").parent

    def failing(path, *arguments, **options):
        if "-directory-" in os.fspath(path):
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        return original(path, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(where, name, failing)
        with pytest.raises(OSError) as caught:
            d["a"] = 1
    assert caught.value.errno == errno.EIO and caught.value.filename == str(shard)
    assert left(tmp_path) == [] and not shard.exists()
    d["a"] = 1


def test_the_reply_to_a_rename_was_lost(open_, tmp_path, monkeypatch):
    d = open_()
    rename = os.rename

    def lost(source, target):
        rename(source, target)
        if "-directory-" in os.fspath(source):
            raise FileNotFoundError(errno.ENOENT, "no such file", source)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", lost)
        d["a"] = 1
    assert bits(value_file(tmp_path, "a").parent) == 0o770 and left(tmp_path) == []


def test_an_owner_mends_the_bits_of_a_shard(open_, tmp_path):
    """As somebody has made it who gave no mode. Not through a link, and not to read only."""
    open_(mode=None).update(dict.fromkeys(KEYS, 1))
    shards = sorted((tmp_path / "store").glob("??"))
    assert {bits(shard) for shard in shards} == {0o700}
    outside = tmp_path / "outside"
    shards[0].rename(outside)
    shards[0].symlink_to(outside)
    os.chmod(shards[1], 0o2700)
    assert len(open_(read_only=True)) == len(KEYS)
    assert {stat.S_IMODE(bits(shard)) for shard in shards[1:]} == {0o700, 0o2700}
    assert len(open_()) == len(KEYS)
    assert bits(shards[1]) == 0o2770
    assert {bits(shard) for shard in shards[2:]} == {0o770}
    assert bits(outside) == 0o700


@pytest.mark.parametrize("lazy", [False, True])
def test_an_owner_mends_the_bits_of_the_store(open_, tmp_path, lazy):
    """The same: nobody of the group could reach a shard through it."""
    open_(mode=None)["a"] = 1
    store = tmp_path / "store"
    assert bits(store) == 0o700
    open_(read_only=True, lazy=lazy)
    assert bits(store) == 0o700
    os.chmod(store, 0o2701)
    assert open_(lazy=lazy)["a"] == 1
    assert bits(store) == 0o2771
    outside = tmp_path / "outside"
    store.rename(outside)
    os.chmod(outside, 0o700)
    store.symlink_to(outside)
    assert open_(lazy=lazy)["a"] == 1
    assert bits(outside) == 0o700


@pytest.mark.skipif(os.name == "nt" or os.getuid() != 0, reason="only root can be two users")
@pytest.mark.parametrize("lazy", [False, True])
def test_who_does_not_own_the_store_opens_it_as_it_is(nfsdict, lazy):
    base = Path(tempfile.mkdtemp())
    os.chmod(base, 0o755)
    (base / "store").mkdir()
    os.chown(base / "store", 0, GROUP)
    os.chmod(base / "store", 0o2570)
    try:

        def act():
            nfsdict.NfsDict("store", base, mode=0o660, durable=False, workers=1, lazy=lazy)["a"] = 1

        assert os.waitpid(as_user(1001, act), 0)[1] == 0
        assert bits(base / "store") == 0o2570
    finally:
        shutil.rmtree(base)


# --- who is killed ---------------------------------------------------------------------------

PUT = """
import ctypes, os, sys
import nfsdict
os.umask(0o077)
base, nth, how = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
shim = ctypes.CDLL(None)
shim.faults_arm(os.fsencode(base), ctypes.c_long(nth), 0, how)
nfsdict.NfsDict("store", base, lazy=True, mode=0o660, durable=False)["a"] = 1
print(shim.faults_disarm())
"""


@pytest.mark.skipif(
    sys.platform != "linux" or sys.implementation.name != "cpython",
    reason="replaces calls of glibc, as CPython and the compiled core make them",
)
@pytest.mark.parametrize("how", [8 | 1, 8 | 2], ids=["before", "after"])
def test_whoever_is_killed_locks_nobody_out(nfsdict, tmp_path, how):
    shim = tmp_path / "shim.so"
    source = Path(__file__).parents[1] / "faults" / "shim.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", shim, source, "-ldl"], check=True)
    leftovers = 0
    for nth in range(1, 100):
        base = tmp_path / str(nth)
        base.mkdir()
        done = subprocess.run(
            [sys.executable, "-c", PUT, base, str(nth), str(how)],
            env={**os.environ, "LD_PRELOAD": str(shim)},
            stdout=subprocess.DEVNULL,
        )
        for path in (base / "store", *base.glob("store/??")):
            assert not path.exists() or bits(path) == 0o770
        leftovers += len(list(base.glob("store/.nfsdict-directory-*")))
        d = nfsdict.NfsDict("store", base, mode=0o660, durable=False, workers=1)
        assert dict(d) in ({}, {"a": 1})
        d.repair()
        assert [path for path in left(base) if "directory" in path] == [
            *map(str, base.glob("store/.nfsdict-directory-*")),
            *map(str, base.glob(".nfsdict-directory-*")),
        ], "it may be somebody's who is making it"
        d.repair(grace=-1)
        assert left(base / "store") == []
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
    assert done.returncode == 0 and nth > 6
    assert leftovers, "some were killed in between"


# --- two users -------------------------------------------------------------------------------


def as_user(user, act):
    """In a process of this user, who is in the group."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        os.umask(0o077)
        os.setgroups([GROUP])
        os.setgid(user)
        os.setuid(user)
        act()
        status = 0
    except BaseException as error:
        print(repr(error), file=sys.stderr)
    os._exit(status)


@pytest.mark.skipif(os.name == "nt" or os.getuid() != 0, reason="only root can be two users")
def test_two_users_who_make_shards_at_once(nfsdict):
    base = Path(tempfile.mkdtemp())
    os.chmod(base, 0o755)
    (base / "store").mkdir()
    os.chown(base / "store", 0, GROUP)
    os.chmod(base / "store", 0o2770)
    mkdir = os.mkdir

    def slow(path, mode=0o777, **options):
        mkdir(path, mode, **options)
        time.sleep(0.005)

    def write(mine):
        def act():
            os.mkdir = slow
            d = nfsdict.NfsDict("store", base, mode=0o660, durable=False, workers=1, lazy=True)
            for key in KEYS if mine == "one" else reversed(KEYS):
                d[key] = mine
                d[f"{key} {mine}"] = mine
                dict(nfsdict.NfsDict("store", base, mode=0o660, durable=False, workers=1))
            for key in KEYS:
                assert d.get(key, fresh=True) in ("one", "two")

        return act

    try:
        children = [as_user(user, write(mine)) for user, mine in ((1001, "one"), (1002, "two"))]
        assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
        assert {bits(shard) for shard in base.glob("store/??")} == {0o2770}
        assert list(base.glob("store/.nfsdict-directory-*")) == []
        assert digest(KEYS[0])[:2] in os.listdir(base / "store")
    finally:
        shutil.rmtree(base)


@pytest.mark.parametrize("listed", [False, True], ids=["one by one", "by one listing"])
def test_an_opening_mends_the_directories_of_a_settled_store(
    nfsdict, open_, tmp_path, monkeypatch, listed
):
    """However it learns the stamps of the directories."""
    with open_(mode=None) as d:
        d.update(dict.fromkeys(KEYS, 1))
    age(tmp_path)
    open_(mode=None).close()
    rules = importlib.import_module("nfsdict.storage.mounted").Mounted
    monkeypatch.setattr(rules, "lists_attributes", lambda self: listed)
    assert dict(open_()) == dict.fromkeys(KEYS, 1)
    assert {bits(value_file(tmp_path, key).parent) for key in KEYS} == {0o770}
