"""What a dictionary promises where the system is Windows, played by ``support.windows``."""

from __future__ import annotations

import importlib
import threading
import time

import pytest

from support import windows
from support.mapping_contract import CHECKS


@pytest.fixture
def package(nfsdict, monkeypatch):
    """The package with the pure core, as Windows has no other."""
    if nfsdict.BACKEND != "pure":
        pytest.skip("only the pure core runs on Windows")
    importlib.import_module("nfsdict.cli")
    windows.play(monkeypatch)
    return nfsdict


@pytest.fixture
def opened(package, tmp_path):
    def opened(**options):
        return package.NfsDict(**{"name": "s", "base_dir": tmp_path, **options})

    return opened


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_contract(check, package, tmp_path):
    names = iter(range(100))

    def make(entries):
        made = package.NfsDict(f"s{next(names)}", tmp_path)
        made.update(entries)
        return made

    check(make)


@pytest.mark.parametrize("options", [{}, {"lazy": True}, {"cache_bytes": 0}, {"read_only": True}])
def test_a_packed_store_is_opened_again(options, opened):
    with opened() as first:
        first.update({f"k{number}": number for number in range(300)})
        assert first.pack().packed == 300
    again = opened(**options)
    assert dict(again) == {f"k{number}": number for number in range(300)}
    assert again.verify().ok


def test_others_see_each_change(opened):
    one, other = opened(), opened()
    one["a"] = 1
    assert other["a"] == 1
    one["a"] = 2
    assert other.get("a", fresh=True) == 2
    one["b"] = 1
    del one["a"]
    assert other.refresh() == {"a", "b"}
    assert one.add("c", 1) and not other.add("c", 2)
    assert other.pop("c") == 1
    with pytest.raises(KeyError):
        one.pop("c")


def test_what_processes_do_together(opened):
    store = opened()
    with store.lease("x") as lease:
        lease.check()
        assert [one.key for one in opened().leases()] == ["x"]
    assert store.get_or_create("a", lambda: 1) == 1
    assert store.modify("a", lambda value: value + 1) == 2
    with store.claim() as task:
        assert (task.key, task.value) == ("a", 2)
    assert store.claim() is None


def test_values_are_replaced_while_they_are_read(opened):
    """A file that is open can't be replaced or removed there: the writer waits."""
    writer, reader = opened(), opened(cache_bytes=0)
    writer["a"] = 0
    failed = []

    def read():
        try:
            while not failed and reader.get("a", fresh=True) < 100:
                time.sleep(0.002)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for number in range(1, 101):
            writer["a"] = number
    except BaseException as error:
        failed.append(error)
    finally:
        for thread in threads:
            thread.join()
    assert failed == []
    assert writer.repair(0).removed == []


def test_a_mode_is_no_error(opened):
    store = opened(mode=0o660, serializer="buffers")
    store["a"] = b"x" * 3_000_000
    assert opened(serializer="buffers")["a"] == b"x" * 3_000_000


def test_the_command(package, tmp_path, capsys):
    cli = importlib.import_module("nfsdict.cli")
    base = ["--base-dir", str(tmp_path), "s"]
    assert cli.main(["set", *base, "a", "b"]) == 0
    assert cli.main(["get", *base, "a"]) == 0
    assert cli.main(["del", *base, "a"]) == 0
    assert cli.main(["get", *base, "a"]) == 1
