"""Where the client goes by the handle that its host has of a file, as on SMB: what it is asked for.

The package is told that it is there; ``os.lstat``, ``os.link`` and the core's reads do as that
client, with a server that finds names in capitals, and with one that doesn't.
"""

from __future__ import annotations

import errno
import importlib
import os

import pytest

from support import aging

SAFE = ("actimeo=0", "closetimeo=0", "nolease")


@pytest.fixture(params=[True, False], ids=["folding", "telling apart"])
def folds(request):
    return request.param


@pytest.fixture(params=[True, False], ids=["by our own", "by another program"])
def smb(request, nfsdict, monkeypatch, folds, tmp_path):
    """Say that this path's file, as it is now, is kept open by a process of this host: of another
    program, or with the flags of our own reads, which are given its handle."""
    names = ("handles", "removal", "directories")
    handles, removal, directories = (
        importlib.import_module(f"nfsdict.storage.{name}") for name in names
    )
    mounted = importlib.import_module("nfsdict.storage.mounted")
    files = importlib.import_module("nfsdict.storage.files")
    exclusive = importlib.import_module("nfsdict.storage.exclusive")
    monkeypatch.setattr(mounted, "mount_of", lambda path: mounted.Mount("cifs", SAFE))
    monkeypatch.setattr(exclusive, "PAUSES", (0.001,), raising=False)
    with_open, rename = handles.with_open, os.rename
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

    def opened_by_name(path, flags, use, mode=0o666):
        if path in kept and request.param and flags == directories.READ_FLAGS:
            return with_open(str(tmp_path / "held"), flags, use)
        if is_another(path):
            raise OSError(errno.ESTALE, "stale", path)
        return with_open(path, flags, use, mode)

    def renamed(source, target, **options):
        rename(source, target, **options)
        if source in kept:  # what the client knows of a name goes with it
            kept[target] = kept.pop(source)

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
    for module in (handles, removal, directories):
        monkeypatch.setattr(module, "with_open", opened_by_name)
    monkeypatch.setattr(os, "rename", renamed)
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


@pytest.fixture
def before(opened):
    """A dictionary whose key is "old", the path of its file, and what that has with "new"."""
    d = opened(durable=False)
    d["key"] = "new"
    path = d.path_of("key")
    new = path.read_bytes()
    d["key"] = "old"
    return d, path, new


def replaced(path, data):
    """Another host puts this file there."""
    path.with_name("new").write_bytes(data)
    path.with_name("new").rename(path)


def test_a_value_that_was_replaced_is_read_where_capitals_find_it(opened, smb, before, folds):
    _, path, new = before
    other = opened(durable=False, lazy=True)
    kept = smb(path)
    replaced(path, new)
    if folds:
        assert other.get("key", fresh=True) == "new" == opened(lazy=True)["key"]
    else:
        with pytest.raises(OSError, match="open") as caught:
            other.get("key", fresh=True)
        assert caught.value.errno == errno.ESTALE
    kept.clear()
    assert other.get("key", fresh=True) == "new"


def test_prune_removes_nothing_that_another_host_puts_there_meanwhile(smb, before, monkeypatch):
    d, path, new = before
    aging.age(path.parent.parent)
    smb(path)
    take = type(d._storage.exclusive).take

    def taken(self, hexdigest, private):
        replaced(path, new)
        return take(self, hexdigest, private)

    monkeypatch.setattr(type(d._storage.exclusive), "take", taken)
    report = d.prune(max_items=0)
    assert report.removed == 0 and path.read_bytes() == new


@pytest.mark.parametrize("folds", [True])  # else it can't be read
def test_a_damaged_file_is_put_aside_though_the_one_before_is_open(smb, before):
    d, path, _ = before
    smb(path)
    replaced(path, b"damaged")
    done = d.repair(grace=-1)
    assert list(done.quarantined) == [str(path)] and not path.exists(), done


@pytest.mark.parametrize("folds", [True])
def test_what_looks_damaged_is_read_again_though_the_one_before_is_open(smb, before, monkeypatch):
    d, path, new = before
    smb(path)
    replaced(path, new)
    files = importlib.import_module("nfsdict.storage.files")
    read, calls = files.read_files, []

    def of_another_file(paths):
        [found] = read(paths)
        calls.extend(paths)
        return [(b"pages of another file", found[1]) if len(calls) == 1 else found]

    monkeypatch.setattr(files, "read_files", of_another_file)
    assert d.get("key", fresh=True) == "new" and len(calls) == 2


def test_a_stale_handle_within_a_listing_passes(opened, smb, monkeypatch):
    d = opened(durable=False)
    d["key"] = 1
    coherence = importlib.import_module("nfsdict.storage.coherence")
    inodes_in, calls = coherence.inodes_in, []

    def stale_once(directory):
        calls.append(directory)
        if len(calls) == 1:
            raise OSError(errno.ESTALE, "stale", directory)
        return inodes_in(directory)

    monkeypatch.setattr(coherence, "inodes_in", stale_once)
    smb(d.path_of("key")).clear()
    opened()
    assert d.refresh() == set() and len(calls) > 1


def test_an_error_names_the_file_as_it_is(opened, smb, monkeypatch):
    d = opened(durable=False)
    d["key"] = 1
    smb(d.path_of("key")).clear()
    lstat = os.lstat

    def failing(path):
        if d.path_of("key").name in os.fspath(path).lower():
            raise OSError(errno.EIO, "broken", path)
        return lstat(path)

    monkeypatch.setattr(os, "lstat", failing)
    with pytest.raises(OSError, match="error") as caught:
        d.info("key")
    assert caught.value.filename == str(d.path_of("key"))
