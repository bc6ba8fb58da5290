"""Where the client goes by the handle that its host has of a file, as on SMB: what it is asked for.

The package is told that it is there; ``os.lstat``, ``os.link`` and the core's reads do as that
client, with a server that finds names in capitals, and with one that doesn't.
"""

from __future__ import annotations

import errno
import importlib
import os

import pytest

pytestmark = pytest.mark.filterwarnings("ignore:.*is not safe with:UserWarning")


@pytest.fixture(params=[True, False], ids=["folding", "telling apart"])
def folds(request):
    return request.param


@pytest.fixture(params=[True, False], ids=["by our own", "by another program"])
def smb(request, nfsdict, monkeypatch, folds, tmp_path):
    """Say that this path's file, as it is now, is kept open by a process of this host: of another
    program, or with the flags of our own reads, which are given its handle."""
    handles = importlib.import_module("nfsdict.storage.handles")
    mounted = importlib.import_module("nfsdict.storage.mounted")
    files = importlib.import_module("nfsdict.storage.files")
    exclusive = importlib.import_module("nfsdict.storage.exclusive")
    monkeypatch.setattr(mounted, "mount_of", lambda path: mounted.Mount("cifs"))
    monkeypatch.setattr(exclusive, "PAUSES", (0.001,), raising=False)
    with_open = handles.with_open
    lstat, link, read = os.lstat, os.link, files.read_files
    kept = {}

    def served(path):
        """The path of this name on the server."""
        directory, name = os.path.split(os.fspath(path))
        fold = folds and not os.path.exists(path)
        return os.path.join(directory, name.lower()) if fold else os.fspath(path)

    def is_another(path):
        return path in kept and os.path.exists(path) and lstat(path).st_ino != kept[path].st_ino

    def read_one(path):
        if path in kept and request.param:
            return read([str(tmp_path / "held")])[0]
        return errno.ESTALE if is_another(path) else read([served(path)])[0]

    def open_with_other_flags(path, flags, use):
        if is_another(path):
            raise OSError(errno.ESTALE, "stale", path)
        return with_open(path, flags, use)

    def linked(source, target, **options):
        if os.fspath(target) in kept:
            raise FileExistsError(errno.EEXIST, "exists", target)
        link(source, target, **options)

    def smb(path):
        path = os.fspath(path)
        kept[path] = lstat(path)
        link(path, tmp_path / "held")  # as its inode's number doesn't come again meanwhile
        return kept

    monkeypatch.setattr(os, "lstat", lambda path: kept.get(os.fspath(path)) or lstat(served(path)))
    monkeypatch.setattr(os, "link", linked)
    monkeypatch.setattr(files, "read_files", lambda paths: list(map(read_one, paths)))
    monkeypatch.setattr(handles, "with_open", open_with_other_flags)
    return smb


def test_a_removed_key_can_not_be_added_and_nobody_is_said_to_have_it(opened, smb, monkeypatch):
    d, other = opened(durable=False), opened(durable=False)
    d["key"] = "old"
    path = d.path_of("key")
    kept = smb(path)
    os.unlink(path)
    core_writes(monkeypatch, kept)
    assert other.get("key", fresh=True) is None and "key" not in other
    with pytest.raises(OSError, match="open") as caught:
        other.add("key", "new")
    assert caught.value.errno == errno.EBUSY and caught.value.filename == str(path)
    kept.clear()
    assert other.add("key", "new") is True and d.get("key", fresh=True) == "new"


def core_writes(monkeypatch, kept):
    """Have the core's links be refused as ``os.link`` is."""
    files = importlib.import_module("nfsdict.storage.files")
    original = files.write_files

    def write_files(targets, mode, durable, synced, exclusive):
        if exclusive and targets[0][0] in kept:
            return [(1, errno.EEXIST)]
        return original(targets, mode, durable, synced, exclusive)

    monkeypatch.setattr(files, "write_files", write_files)


def test_a_value_that_was_replaced_is_read_where_capitals_find_it(opened, smb, folds):
    d, other = opened(durable=False), opened(durable=False, lazy=True)
    d["key"] = "new"
    path = d.path_of("key")
    new = path.read_bytes()
    d["key"] = "old"
    kept = smb(path)
    path.with_name("new").write_bytes(new)
    path.with_name("new").rename(path)
    if folds:
        assert other.get("key", fresh=True) == "new" == opened(lazy=True)["key"]
    else:
        with pytest.raises(OSError, match="open") as caught:
            other.get("key", fresh=True)
        assert caught.value.errno == errno.ESTALE
    kept.clear()
    assert other.get("key", fresh=True) == "new"
