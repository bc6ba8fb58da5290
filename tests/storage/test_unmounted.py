"""A shard that is a link to a disk that isn't mounted, or whose place something else has: its keys
aren't absent."""

from __future__ import annotations

import errno
import importlib
import os

import pytest

from support.aging import age
from support.index_layout import open_, plain_write, scan
from support.layout import digest, value_file

KEYS = {str(number): number for number in range(20)}
KEY = "3"


@pytest.fixture
def disk(nfsdict, tmp_path):
    """The directory that the shard of KEY is a link to."""
    open_(nfsdict, tmp_path).update(KEYS)
    shard = value_file(tmp_path, KEY).parent
    disk = tmp_path / "disk" / "shard"
    disk.parent.mkdir()
    shard.rename(disk)
    shard.symlink_to(disk)
    return disk


def unmount(disk):
    disk.parent.rename(disk.parent.with_name("away"))


def mount(disk):
    disk.parent.with_name("away").rename(disk.parent)


SINGLE = {
    "[]": lambda d: d[KEY],
    "get": lambda d: d.get(KEY),
    "fresh": lambda d: d.get(KEY, fresh=True),
    "in": lambda d: KEY in d,
    "put": lambda d: d.__setitem__(KEY, "new"),
    "add": lambda d: d.add(KEY, "new"),
    "setdefault": lambda d: d.setdefault(KEY, "new"),
    "del": lambda d: d.__delitem__(KEY),
    "pop": lambda d: d.pop(KEY, None),
    "update": lambda d: d.update({KEY: "new"}),
}
WHOLE = {
    "open": lambda d: type(d)(*d._arguments[:2]),
    "len": len,
    "list": list,
    "sync": lambda d: d.sync(),
    "refresh": lambda d: d.refresh(),
    "verify": lambda d: d.verify(),
    "repair": lambda d: d.repair(grace=-1),
    "pack": lambda d: d.pack(),
    "clear": lambda d: d.clear(),
}


@pytest.mark.parametrize("name", [*SINGLE, *WHOLE])
def test_it_is_an_error_that_names_the_shard(nfsdict, tmp_path, disk, name):
    unmount(disk)
    d = open_(nfsdict, tmp_path, lazy=True)
    with pytest.raises(OSError) as caught:
        {**SINGLE, **WHOLE}[name](d)
    assert not isinstance(caught.value, KeyError)
    assert digest(KEY)[:2] in str(caught.value)
    mount(disk)
    assert dict(open_(nfsdict, tmp_path)) == KEYS
    assert d[KEY] == KEYS[KEY]


@pytest.mark.parametrize("name", ["sync", "refresh", "verify", "repair", "pack", "clear"])
@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
def test_what_is_known_is_not_dropped(nfsdict, tmp_path, disk, lazy, name):
    age(tmp_path)
    d = open_(nfsdict, tmp_path, lazy=lazy)
    assert len(d) == len(KEYS)
    unmount(disk)
    os.utime(tmp_path / "store")  # so that it is listed again
    with pytest.raises(OSError):
        WHOLE[name](d)
    assert set(d) == set(KEYS)
    mount(disk)
    assert d.refresh() == set()
    assert dict(d) == KEYS


def plain_file(shard):
    shard.touch()


def link_to_a_file(shard):
    (shard.parent.parent / "file").touch()
    shard.symlink_to(shard.parent.parent / "file")


@pytest.mark.parametrize("name", [*SINGLE, *WHOLE])
@pytest.mark.parametrize("put", [plain_file, link_to_a_file, os.mkfifo])
def test_a_file_in_its_place_is_an_error_that_names_the_shard(
    nfsdict, tmp_path, monkeypatch, put, name
):
    """From a listing of the root as ``list`` makes it, and as ``attributes`` does over NFS."""
    open_(nfsdict, tmp_path).update(KEYS)
    age(tmp_path)
    settled = open_(nfsdict, tmp_path)
    settled.close()
    shard = value_file(tmp_path, KEY).parent
    shard.rename(tmp_path / "away")
    put(shard)
    d = open_(nfsdict, tmp_path, lazy=True)
    with pytest.raises(OSError) as caught:
        {**SINGLE, **WHOLE}[name](d)
    assert caught.value.errno == errno.ENOTDIR
    assert caught.value.filename.startswith(str(shard))
    if name in ("sync", "refresh", "verify", "repair", "pack", "clear"):
        with pytest.raises(NotADirectoryError):
            WHOLE[name](settled)
        assert set(settled) == set(KEYS)
    mounted = settled._storage.rules.mounted
    monkeypatch.setattr(mounted, "lists_attributes", lambda: True)
    with pytest.raises(NotADirectoryError):
        settled._storage.shards.present_with_stamps()
    shard.unlink()
    (tmp_path / "away").rename(shard)
    assert dict(open_(nfsdict, tmp_path)) == KEYS


def test_the_links_of_mounted_disks_are_shards(nfsdict, tmp_path, disk):
    d = open_(nfsdict, tmp_path)
    assert dict(d) == KEYS
    d[KEY] = "new"
    assert d.pop(KEY) == "new" and d.add(KEY, 1)
    assert dict(open_(nfsdict, tmp_path)) == {**KEYS, KEY: 1}


@pytest.mark.parametrize("when", ["before a directory is listed", "before files are read"])
def test_a_store_that_is_taken_away_during_a_scan(nfsdict, tmp_path, monkeypatch, when):
    """Its keys aren't gone, and nobody is told so."""
    Shards = importlib.import_module("nfsdict.storage.shards").Shards
    original = Shards.list
    open_(nfsdict, tmp_path).update(KEYS)
    d = open_(nfsdict, tmp_path)
    watch = d.watch()
    plain_write(tmp_path, KEY, "new")
    plain_write(tmp_path, "another", "new")
    store = tmp_path / "store"

    def list_(self, *arguments):
        monkeypatch.setattr(Shards, "list", original)
        found = original(self, *arguments) if "read" in when else None
        store.rename(tmp_path / "away")
        return found or original(self, *arguments)

    monkeypatch.setattr(Shards, "list", list_)
    with pytest.raises(FileNotFoundError):
        d.refresh()
    assert d.keys() == KEYS.keys()
    (tmp_path / "away").rename(store)
    assert d.refresh() == next(watch) == {KEY, "another"}
    assert dict(d) == scan(tmp_path)
    monkeypatch.setattr(Shards, "list", list_)
    with pytest.raises(FileNotFoundError):
        open_(nfsdict, tmp_path)
