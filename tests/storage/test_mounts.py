"""What a store's directory is mounted as decides which rules hold; an error is no answer."""

from __future__ import annotations

import builtins
import errno
import importlib
import os
import shutil
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")


@pytest.fixture
def mounts(nfsdict):
    return importlib.import_module("nfsdict.storage.mounts")


@pytest.fixture
def rules(nfsdict):
    return importlib.import_module("nfsdict.storage.nfs")


@pytest.fixture
def store(nfsdict, tmp_path):
    store = importlib.import_module("nfsdict.storage").Storage(
        str(tmp_path / "s"), ".pkl", None, True
    )
    store.create()
    return store


@pytest.mark.skipif(shutil.which("df") is None, reason="df tells the same")
def test_it_is_what_df_says(mounts, tmp_path):
    for path in (tmp_path, "/proc", "/dev", "/"):
        done = subprocess.run(
            ["df", "--output=fstype", path], capture_output=True, text=True, check=True
        )
        told = done.stdout.split()[-1]
        assert mounts.mounted_as(str(path)) == told or told == "-"


def test_a_device_that_no_mount_has(mounts, tmp_path):
    """As each subvolume of btrfs has one."""
    descriptor = os.open(tmp_path, os.O_RDONLY)
    found = mounts._mount_of(1 << 19, f"/proc/self/fdinfo/{descriptor}")
    os.close(descriptor)
    assert found == mounts.mounted_as(str(tmp_path)) != ""


def test_no_such_directory_is_an_error(mounts, tmp_path):
    with pytest.raises(FileNotFoundError):
        mounts.mounted_as(str(tmp_path / "nothing"))


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO])
def test_an_error_that_passes_is_not_remembered(rules, store, monkeypatch, number):
    """Until it is known, the rules of NFS hold, and mounts are synced."""
    original = builtins.open

    def failing(path, *arguments, **options):
        if str(path).startswith("/proc/"):
            raise OSError(number, "passing")
        return original(path, *arguments, **options)

    store.rules._file_system = store.values._synced = None
    with monkeypatch.context() as patch:
        patch.setattr(builtins, "open", failing)
        assert store.rules.over_nfs()
        assert not store.rules.synchronous(store.directory)
        assert store.files.syncs()
        assert isinstance(store.values.put("ab" * 32, b"one"), bytes)
    monkeypatch.setattr(rules, "mounted_as", lambda path: "tmpfs")
    assert not store.rules.over_nfs()
    assert isinstance(store.values.put("ab" * 32, b"two"), bytes)
    assert not store.files.syncs()


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES])
def test_where_there_is_no_proc_nothing_is_told(mounts, tmp_path, monkeypatch, number):
    def none(path, *arguments, **options):
        raise OSError(number, "no /proc")

    with monkeypatch.context() as patch:
        patch.setattr(builtins, "open", none)
        assert mounts.mounted_as(str(tmp_path)) == ""


def test_it_is_asked_for_once(rules, store, monkeypatch):
    asked = []
    monkeypatch.setattr(rules, "mounted_as", lambda path: asked.append(path) or "ext4")
    store.rules._file_system = store.values._synced = None
    for number in range(3):
        store.values.put("ab" * 32, b"%d" % number)
        assert not store.rules.over_nfs()
    assert len(asked) == 1
