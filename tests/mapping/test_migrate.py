"""Migrate: stores that the real packages wrote, each read again from the dictionary."""

from __future__ import annotations

import dbm.dumb
import importlib
import pickle
import shelve
import sqlite3
import time

import diskcache
import joblib
import pytest
import sqlitedict

VALUES = {"a": 1, "ä/b": [1, {"c": (None, 2.5)}], "": b"\0" * 100_000}


@pytest.fixture
def migrated(nfsdict, tmp_path):
    """Copy what is at the path into a new dictionary, twice; the report of the first time."""

    def migrated(kind, path):
        foreign = importlib.import_module("nfsdict.upkeep.migrate").Foreign
        with nfsdict.NfsDict("s", tmp_path / "stores") as destination:
            report = destination.copy_from(foreign(kind, str(path)))
            again = destination.copy_from(foreign(kind, str(path)))
        found = dict(nfsdict.NfsDict("s", tmp_path / "stores"))
        assert report.written == again.same == len(found)
        assert (report.same, report.kept, again.written) == (0, 0, 0)
        assert report.failed == again.failed
        return found, report.failed

    return migrated


def refused(nfsdict, kind, path):
    foreign = importlib.import_module("nfsdict.upkeep.migrate").Foreign
    with pytest.raises(nfsdict.NfsDictError) as error:
        list(foreign(kind, str(path)).keys())
    return str(error.value)


# --- shelve ----------------------------------------------------------------------------------


def test_a_shelve(migrated, tmp_path):
    with shelve.open(str(tmp_path / "x")) as kept:
        kept.update(VALUES)
    assert migrated("shelve", tmp_path / "x") == (VALUES, {})


def test_a_dumb_shelve_with_keys_that_are_no_utf8_and_a_value_that_is_no_pickle(migrated, tmp_path):
    with dbm.dumb.open(str(tmp_path / "x"), "c") as kept:
        kept[b"\xff"] = pickle.dumps(1)
        kept[b"text"] = b"no pickle"
        shelve.Shelf(kept)["shelved"] = 2
    found, failed = migrated("shelve", tmp_path / "x")
    assert found == {"\udcff": 1, "shelved": 2}
    assert failed.keys() == {"text"}


# --- sqlitedict ------------------------------------------------------------------------------


def test_a_sqlitedict(migrated, tmp_path):
    with sqlitedict.SqliteDict(tmp_path / "x.sqlite", autocommit=True) as kept:
        kept.update(VALUES)
    assert migrated("sqlitedict", tmp_path / "x.sqlite") == (VALUES, {})


def test_a_sqlitedict_of_several_tables_and_another_encoding(migrated, tmp_path):
    path = tmp_path / "x?y.sqlite"
    with sqlitedict.SqliteDict(path, "one", autocommit=True) as kept:
        kept["a"] = 1
    with sqlitedict.SqliteDict(path, 'tw"o', autocommit=True, encode=repr) as kept:
        kept["a"] = 2
    found, failed = migrated("sqlitedict", path)
    assert found == {"one/a": 1}
    assert failed.keys() == {'tw"o/a'}


def test_another_database_is_no_sqlitedict(nfsdict, tmp_path):
    with sqlite3.connect(tmp_path / "x.sqlite") as database:
        database.execute("CREATE TABLE other (number)")
    database.close()
    assert "no such column" in refused(nfsdict, "sqlitedict", tmp_path / "x.sqlite")
    (tmp_path / "text").write_text("no database at all" * 100)
    assert "not a database" in refused(nfsdict, "sqlitedict", tmp_path / "text")


# --- diskcache -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["Cache", "FanoutCache", "Index"])
def test_a_diskcache(migrated, tmp_path, kind):
    kept = getattr(diskcache, kind)(str(tmp_path / "x"))
    for key, value in VALUES.items():
        kept[key] = value
    (kept.cache if kind == "Index" else kept).close()
    assert migrated("diskcache", tmp_path / "x") == (VALUES, {})


def test_keys_of_a_diskcache_that_are_no_text(migrated, tmp_path):
    with diskcache.Cache(str(tmp_path / "x")) as kept:
        kept[1] = "number"
        kept["2"], kept[2] = "text", "number"
        kept[("a", None)] = "tuple"
        kept[b"a"] = "bytes"
        kept.set("gone", 1, expire=0.001)
        kept.set("stays", 1, expire=1000)
    time.sleep(0.01)
    found, failed = migrated("diskcache", tmp_path / "x")
    assert found == {
        "1": "number",
        "2": "text",
        "('a', None)": "tuple",
        "b'a'": "bytes",
        "stays": 1,
    }
    assert failed.keys() == {"2"} and "one as text" in failed["2"]


# --- joblib ----------------------------------------------------------------------------------


@pytest.mark.parametrize("compress", [False, True])
def test_a_directory_of_joblib(migrated, tmp_path, compress):
    memory = joblib.Memory(tmp_path / "x", verbose=0, compress=compress)
    divided, joined = memory.cache(divmod_of), memory.cache(joined_of)
    assert (divided(7, 2), divided(9, 2), joined("a", b="b")) == ((3, 1), (4, 1), "ab")
    named = [divided.call_and_shelve(7, 2), joined.call_and_shelve("a", b="b")]
    found, failed = migrated("joblib", tmp_path / "x")
    assert len(found) == 3 and not failed
    assert [found[f"{one.func_id}/{one.args_id}"] for one in named] == [(3, 1), "ab"]
    assert all("/divmod_of/" in key or "/joined_of/" in key for key in found)


def divmod_of(one, other):
    return divmod(one, other)


def joined_of(a, b):
    return a + b


# --- a folder of pickles ---------------------------------------------------------------------


def test_a_folder_of_pickles(migrated, tmp_path):
    folder = tmp_path / "x"
    for name, data in {
        "a.pkl": pickle.dumps(1),
        "sub/b.c.pickle": pickle.dumps(2, 0),
        "both.pkl": pickle.dumps(3),
        "both.pickle": pickle.dumps(4),
        "damaged.pkl": b"\x80",
        "notes.txt": b"",
        "directory.pkl/d.pkl": pickle.dumps(5),
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    found, failed = migrated("pickles", folder)
    assert found == {"a": 1, "sub/b.c": 2, "both": 3, "directory.pkl/d": 5}
    assert failed.keys() == {"both", "damaged"} and "both.pkl" in failed["both"]


# --- what is not there -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["shelve", "sqlitedict", "diskcache", "joblib", "pickles"])
def test_what_is_not_there_is_told_and_not_made(nfsdict, tmp_path, kind):
    assert str(tmp_path / "x") in refused(nfsdict, kind, tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["diskcache", "joblib"])
def test_a_missing_package_is_named(nfsdict, tmp_path, monkeypatch, kind):
    monkeypatch.setitem(importlib.import_module("sys").modules, kind, None)
    (tmp_path / "cache.db").touch()
    assert f"pip install {kind}" in refused(nfsdict, kind, tmp_path)
