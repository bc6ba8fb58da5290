"""Opening: by name or by path, made or not, and what a mistyped name is told."""

from __future__ import annotations

import copy
import importlib
import inspect
import os
import pickle

import pytest


@pytest.fixture
def stores(nfsdict, tmp_path):
    """Two stores, one of them a level further down, beside what is none."""
    for name in ("results", "lab/results"):
        nfsdict.NfsDict(name, tmp_path)["k"] = name
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "draft.txt").touch()
    (tmp_path / "file").touch()
    return tmp_path


def no_store(call, *arguments, **options):
    """The one line that says that there is none."""
    with pytest.raises(FileNotFoundError) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)
    return caught.value


# --- by path ------------------------------------------------------------------------------------


def test_a_path_is_the_stores_directory(nfsdict, stores, monkeypatch):
    opened = nfsdict.NfsDict.open
    assert opened(stores / "results") == opened(f"{stores}/results/") == {"k": "results"}
    assert opened(f"{stores}/lab/../lab//results")["k"] == "lab/results"
    monkeypatch.chdir(stores / "lab")
    assert opened("results").path == opened("./results").path == stores / "lab" / "results"
    assert opened("../results").path == stores / "results"
    monkeypatch.setenv("HOME", str(stores))
    assert opened("~/results")["k"] == "results"
    assert opened("~/new").path == stores / "new"


def test_a_path_takes_the_options(nfsdict, stores):
    d = nfsdict.NfsDict.open(stores / "json", serializer="json", lazy=True, mode=0o640)
    d["k"] = 1
    [file] = d.path.glob("??/*.json")
    assert file.stat().st_mode & 0o777 == 0o640


def test_type_checkers_know_all_options(nfsdict):
    options = importlib.import_module("nfsdict.options").Options.__annotations__
    parameters = inspect.signature(nfsdict.NfsDict).parameters
    written = {name: getattr(one, "__forward_arg__", one) for name, one in options.items()}
    expected = {name: one.annotation for name, one in list(parameters.items())[2:]}
    assert written == expected


def test_a_subclass_opens_itself(nfsdict, stores):
    class Results(nfsdict.NfsDict):
        pass

    d = Results.open(stores / "results")
    assert type(d) is type(copy.copy(d)) is Results
    assert repr(copy.copy(d)).startswith("<Results ")


@pytest.mark.parametrize("again", [copy.copy, lambda d: pickle.loads(pickle.dumps(d))])
def test_copies_find_the_path(nfsdict, stores, monkeypatch, again):
    monkeypatch.chdir(stores)
    d = nfsdict.NfsDict.open("results", create=False, workers=3)
    monkeypatch.chdir("/")
    monkeypatch.setenv("NFSDICT_BASE_DIR", "/nowhere")
    twin = again(d)
    assert twin.path == d.path and twin == {"k": "results"}
    assert twin._options == d._options
    d.path.rename(stores / "moved")
    no_store(again, d)


@pytest.mark.parametrize("path", ["", "/", "//", "/.", "a\0b"])
def test_what_is_no_path(nfsdict, stores, monkeypatch, path):
    monkeypatch.chdir(stores)
    before = sorted(stores.rglob("*"))
    with pytest.raises(ValueError, match=r"(path|name) must be"):
        nfsdict.NfsDict.open(path)
    assert sorted(stores.rglob("*")) == before


def test_bytes_are_no_path(nfsdict, stores):
    with pytest.raises(TypeError, match="path"):
        nfsdict.NfsDict.open(os.fsencode(stores / "results"))


def test_a_path_has_no_base_dir(nfsdict, stores):
    with pytest.raises(TypeError, match="base_dir"):
        nfsdict.NfsDict.open(stores / "results", base_dir=stores)


# --- the default base directory -----------------------------------------------------------------


def test_the_default_is_the_users_data_directory(nfsdict, monkeypatch, tmp_path):
    monkeypatch.delenv("NFSDICT_BASE_DIR", raising=False)
    arguments = importlib.import_module("nfsdict.arguments")
    monkeypatch.setattr(arguments, "user_data_dir", lambda name: str(tmp_path / name))
    assert nfsdict.NfsDict().path == tmp_path / "nfsdict" / "default"
    monkeypatch.setenv("NFSDICT_BASE_DIR", "")
    assert nfsdict.NfsDict().path == tmp_path / "nfsdict" / "default"


def test_the_environment_says_where_stores_are(nfsdict, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NFSDICT_BASE_DIR", "~/shared")
    assert nfsdict.NfsDict().path == tmp_path / "shared" / "default"
    assert nfsdict.NfsDict("x", tmp_path).path == tmp_path / "x"


# --- a store that isn't there -------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"create": False}, {"read_only": True}])
@pytest.mark.parametrize("lazy", [False, True])
def test_a_mistyped_name_is_told_what_is_there(nfsdict, stores, options, lazy):
    before = sorted(stores.rglob("*"))
    error = no_store(nfsdict.NfsDict, "reslts", stores, lazy=lazy, **options)
    assert error.filename == str(stores / "reslts")
    there = f"stores in {str(stores)!r}: "
    assert error.strerror == f"no such store; {there}'results', 'lab/results'"
    error = no_store(nfsdict.NfsDict, "lab/resluts", stores, lazy=lazy, **options)
    assert error.strerror == f"no such store; {there}'lab/results', 'results'"
    error = no_store(nfsdict.NfsDict.open, stores / "lab" / "resluts", lazy=lazy, **options)
    assert error.strerror == f"no such store; stores in {str(stores / 'lab')!r}: 'results'"
    for base, told in (("papers", "there is none in"), ("absent", "there is no")):
        error = no_store(nfsdict.NfsDict, "x", stores / base, lazy=lazy, **options)
        assert error.strerror == f"no such store; {told} {str(stores / base)!r}"
    assert sorted(stores.rglob("*")) == before


def test_a_directory_of_other_files_is_no_store(nfsdict, stores):
    """As if a part of the path had been forgotten."""
    before = sorted(stores.rglob("*"))
    error = no_store(nfsdict.NfsDict.open, stores, create=False)
    assert error.filename == str(stores)
    no_store(nfsdict.NfsDict, "papers", stores, create=False)
    error = no_store(nfsdict.NfsDict, "lab", stores, create=False)
    assert "'lab/results'" in str(error)
    assert sorted(stores.rglob("*")) == before


def test_what_has_the_names_of_shards_is_no_store(nfsdict, stores):
    """Programs in /bin are called dd and df, directories in /proc and /etc/postgresql 15."""
    (stores / "bin").mkdir()
    (stores / "bin" / "df").touch()
    (stores / "bin" / "dd").symlink_to("df")
    (stores / "etc" / "postgresql" / "15" / "main").mkdir(parents=True)
    (stores / "emptied" / "15").mkdir(parents=True)
    (stores / "indexed").mkdir()
    (stores / "indexed" / "_index.nfsdict-pkl").touch()
    error = no_store(nfsdict.NfsDict, "reslts", stores, create=False)
    told = error.strerror.partition(f"stores in {str(stores)!r}: ")[2]
    assert sorted(told.split(", ")) == ["'emptied'", "'indexed'", "'lab/results'", "'results'"]
    no_store(nfsdict.NfsDict, "bin", stores, create=False)


def test_a_store_is_opened_without_being_made(nfsdict, stores):
    d = nfsdict.NfsDict("results", stores, create=False)
    d["new"] = 1
    assert d == {"k": "results", "new": 1}
    empty = nfsdict.NfsDict("empty", stores)
    assert nfsdict.NfsDict("empty", stores, create=False) == {}
    (empty.path / ".snapshot").mkdir()
    (empty.path / "lost+found").mkdir()
    assert nfsdict.NfsDict("empty", stores, create=False) == {}
    empty["k"] = 1
    del empty["k"]
    (empty.path / "README").touch()
    assert nfsdict.NfsDict("empty", stores, create=False) == {}


def test_a_file_in_the_place_of_a_store(nfsdict, stores):
    for options in ({"create": False}, {"read_only": True}, {}):
        with pytest.raises(NotADirectoryError):
            nfsdict.NfsDict("file", stores, **options)


def test_what_cannot_be_looked_at_is_not_named(nfsdict, stores, monkeypatch):
    """And the error that is raised is that of the store."""
    scandir = os.scandir

    def refuse(path):
        if os.fspath(path).startswith(str(stores / "lab")):
            raise PermissionError(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    error = no_store(nfsdict.NfsDict, "x", stores, create=False)
    assert error.strerror.endswith(": 'results'")


def test_among_many_the_most_alike_are_named(nfsdict, tmp_path, monkeypatch):
    neighbours = importlib.import_module("nfsdict.storage.neighbours")
    for number in range(150):
        (tmp_path / f"run {number}" / "00").mkdir(parents=True)
    (tmp_path / ".hidden" / "00").mkdir(parents=True)
    (tmp_path / "big").mkdir()
    looks = []
    scandir = os.scandir
    monkeypatch.setattr(neighbours.os, "scandir", lambda path: looks.append(path) or scandir(path))
    told = str(no_store(nfsdict.NfsDict, "run 77x", tmp_path, create=False))
    assert ": 'run 77', " in told and "and more" in told
    assert told.count("'run ") == 5 and "hidden" not in told
    assert len(looks) <= 102
