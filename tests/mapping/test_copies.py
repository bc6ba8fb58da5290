"""Stores that tools for copying have written into: they set the mtimes of what they copy."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from support.aging import age
from support.index_layout import open_, plain_write, scan
from support.layout import digest, value_file

DAY = 86_400_000_000_000
# Each copies the contents of one directory over those of another.
TOOLS = {
    "cp": "cp -a {source}/. {target}",
    "cp-new-only": "cp -an {source}/. {target}",
    "cp-newer-only": "cp -au {source}/. {target}",
    "rsync": "rsync -a {source}/ {target}",
    "rsync-in-place": "rsync -a --inplace --ignore-times {source}/ {target}",
    "tar": "tar -C {source} -cf - . | tar -C {target} -xf -",
    "tar-whole-seconds": "tar -C {source} --format=ustar -cf - . | tar -C {target} -xf -",
    "tar-in-place": "tar -C {source} -cf - . | tar -C {target} --overwrite -xf -",
}


@pytest.fixture(params=TOOLS)
def copy(request):
    """Copy what one directory holds into another, which may hold something already."""
    command = TOOLS[request.param]
    if not shutil.which(command.split()[0]):
        pytest.skip(f"there is no {command.split()[0]} here")

    def copy(source: Path, target: Path) -> None:
        target.mkdir(parents=True, exist_ok=True)
        subprocess.run(command.format(source=source, target=target), shell=True, check=True)

    return copy


class Readers:
    """All who may look: dictionaries that were open before, and those that are opened now."""

    def __init__(self, nfsdict, base):
        self._open = lambda **options: open_(nfsdict, base, **options)
        self._base = base
        self._running = [self._open(lazy=lazy) for lazy in (False, True)]
        for one in self._running:
            assert dict(one) == scan(base)

    def check(self):
        """Each finds exactly what the files hold; who was open, what of it has changed."""
        wanted = scan(self._base)
        for lazy in (True, False):
            with self._open(lazy=lazy, read_only=True) as d:
                assert len(d) == len(wanted) and dict(d) == wanted
        for one in self._running:
            before = dict(one)
            changed = one.refresh()
            assert dict(one) == wanted
            different = before.items() ^ wanted.items()
            assert changed >= {key for key, _ in different}
        for lazy in (True, False):  # and these write the index
            with self._open(lazy=lazy) as d:
                assert dict(d) == wanted
        with self._open(read_only=True) as d:
            assert dict(d) == wanted


@pytest.fixture
def settled(nfsdict):
    """A store of these values below a directory, all of it old and in its index."""

    def settled(base: Path, values: dict[str, object], days: int = 0) -> None:
        for key, value in values.items():
            plain_write(base, key, value)
        for path in [*base.glob("store/??/*"), *base.glob("store/??")] if days else []:
            moment = path.stat().st_mtime_ns - days * DAY
            os.utime(path, ns=(moment, moment))
        age(base)
        open_(nfsdict, base).close()

    return settled


KEYS = [key for key in map(str, range(5000)) if digest(key) < "06"]  # of a few shards


def keys(start: int, stop: int) -> list[str]:
    return KEYS[start:stop]


def test_two_settled_stores_merged(nfsdict, tmp_path, settled, copy):
    """What comes brings an index along, that of the store it was."""
    here, there = tmp_path / "here", tmp_path / "there"
    settled(here, dict.fromkeys(keys(0, 60), "here"))
    settled(there, dict.fromkeys(keys(40, 100), "there"), days=1)
    readers = Readers(nfsdict, here)
    copy(there / "store", here / "store")
    assert len(scan(here)) == 100
    readers.check()
    age(here)
    readers.check()


def test_a_backup_restored_over_a_store_that_went_on(nfsdict, tmp_path, settled, copy):
    """The keys that were acknowledged since stay; those that were changed and deleted are as the
    tool leaves them."""
    here, backup = tmp_path / "here", tmp_path / "backup"
    settled(here, dict.fromkeys(keys(0, 60), "old"), days=1)
    copy(here / "store", backup / "store")
    settled(here, dict.fromkeys(keys(40, 100), "new"))
    for key in keys(0, 10):
        value_file(here, key).unlink()
    age(here)
    open_(nfsdict, here).close()
    readers = Readers(nfsdict, here)
    copy(backup / "store", here / "store")
    assert len(scan(here)) == 100
    readers.check()
    age(here)
    readers.check()


def test_a_backup_restored_where_the_store_is_gone(nfsdict, tmp_path, settled, copy):
    here, backup = tmp_path / "here", tmp_path / "backup"
    settled(here, dict.fromkeys(keys(0, 60), "old"), days=1)
    copy(here / "store", backup / "store")
    readers = Readers(nfsdict, here)
    settled(here, dict.fromkeys(keys(40, 100), "new"))
    shutil.rmtree(here / "store")
    copy(backup / "store", here / "store")
    assert scan(here) == dict.fromkeys(keys(0, 60), "old")
    readers.check()


def test_what_differs_from_a_known_file_in_nothing_but_its_content(
    nfsdict, tmp_path, settled, copy
):
    """Both stores were written within one tick, their values are of one size, and a tool that
    writes in place keeps the inode: the ctime alone tells."""
    here, there = tmp_path / "here", tmp_path / "there"
    settled(here, dict.fromkeys(keys(0, 60), "here"))
    settled(there, dict.fromkeys(keys(0, 60), "over"), days=1)
    for key in keys(0, 60):
        moment = value_file(here, key).stat().st_mtime_ns
        os.utime(value_file(there, key), ns=(moment, moment))
    age(there)
    open_(nfsdict, there).close()
    readers = Readers(nfsdict, here)
    copy(there / "store", here / "store")
    readers.check()
    age(here)
    readers.check()


def test_an_edit_in_place_that_keeps_size_and_mtime(nfsdict, tmp_path, settled):
    """Once anything else changes in its directory, or ``sync`` has read it, openings see it."""
    for news in ("another key", "sync"):
        base = tmp_path / news
        settled(base, dict.fromkeys(keys(0, 60), "old"))
        for key in keys(0, 30):
            file = value_file(base, key)
            reference = tmp_path / "reference"
            subprocess.run(["touch", "-r", file, reference], check=True)
            file.write_bytes(file.read_bytes().replace(b"old", b"new"))
            subprocess.run(["touch", "-r", reference, file], check=True)
        if news == "sync":
            open_(nfsdict, base).sync()
        else:
            for key in keys(60, 100):
                plain_write(base, key, "another")
        Readers(nfsdict, base).check()
        age(base)
        Readers(nfsdict, base).check()
