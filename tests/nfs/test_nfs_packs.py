"""Packs on a real server: replaced and removed by another host under those who read them."""

from __future__ import annotations

import importlib
import time

import pytest

from lab.laboratory import Lab
from support.settling import SETTLED

ALL = ("3", "4.0", "4.1", "4.2")


def entries(version: int) -> dict[str, str]:
    return {f"key {number}": f"{version:1000d}" for number in range(600)}


@pytest.fixture
def there(package, lab: Lab):
    """B's dictionary, of a store that is packed."""
    there = package.NfsDict("store", lab.b)
    there.update(entries(1))
    time.sleep(SETTLED)
    assert there.pack().packed == 600
    return there


@pytest.mark.nfs(version=ALL)
def test_a_pack_that_another_host_removes_while_it_is_read(
    package, lab: Lab, there, monkeypatch
) -> None:
    IndexWriter = importlib.import_module("nfsdict.index.writer").IndexWriter
    load = IndexWriter.load_index
    there["key 7"] = "new"
    time.sleep(SETTLED)
    before = set(lab.server.glob("store/_pack*"))

    def loaded(self) -> None:
        load(self)
        monkeypatch.undo()
        assert there.pack().packed == 600
        assert before and not before & set(lab.server.glob("store/_pack*"))

    lab.remount("a", "")
    monkeypatch.setattr(IndexWriter, "load_index", loaded)
    here = package.NfsDict("store", lab.a)
    assert dict(here) == {**entries(1), "key 7": "new"}


@pytest.mark.nfs(version=("3", "4.2"))
def test_openers_beside_a_writer_and_a_packer(package, lab: Lab, there) -> None:
    """Each opening finds what was written before it began."""
    written = dict.fromkeys(entries(1), 1)
    end = time.monotonic() + 15
    version = 1
    while time.monotonic() < end:
        version += 1
        some = dict(list(entries(version).items())[version % 7 :: 7])
        there.update(some)
        written.update(dict.fromkeys(some, version))
        if version % 3 == 0:
            package.NfsDict("store", lab.b)  # reads what is new, and packs it
        here = package.NfsDict("store", lab.a)
        assert {key: int(value) for key, value in here.items()} == written
    assert version > 4
    time.sleep(SETTLED)
    assert package.NfsDict("store", lab.a).pack().packed == 600
    last = package.NfsDict("store", lab.b)
    assert {key: int(value) for key, value in last.items()} == written
    assert len(list(lab.server.glob("store/_pack*"))) == 1
