"""NfsDict's policy: what is cached, what is asked of the disk, what an error leaves behind."""

from __future__ import annotations

import copy
import errno
import gc
import importlib
import logging
import os
import pickle
import resource
import shutil
import stat
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

NOBODY = 65534


@pytest.fixture
def files(nfsdict):
    return importlib.import_module("nfsdict.storage.files")


@contextmanager
def not_root():
    """Without root's right to pass over permissions."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.fixture
def reachable():
    """A directory that any user can get at."""
    with tempfile.TemporaryDirectory() as path:
        os.chmod(path, 0o755)
        yield Path(path)


@contextmanager
def largest_file(size):
    """A write beyond that many bytes fails with EFBIG, half done."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def value_file(store, key):
    module = importlib.import_module("nfsdict.core")
    extension = {"pickle": ".pkl", "json": ".json", "bytes": ".bin"}[store.__reduce__()[1][1][2]]
    return Path(module.value_path(str(store.path), key, extension))


def tree(path):
    return {
        str(file.relative_to(path)): file.is_file() and file.read_bytes()
        for file in path.rglob("*")
    }


def temporary(path):
    return list(path.rglob(".nfsdict-*"))


# --- opening ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", ".", "/absolute", "..", "a/../b", "../b", "nul\0"])
def test_a_name_that_is_none(opened, tmp_path, name):
    with pytest.raises(ValueError, match="name"):
        opened(name=name)
    assert list(tmp_path.iterdir()) == []


def test_names_may_have_parts(opened, tmp_path):
    assert opened(name="a/b").path == tmp_path / "a" / "b"


@pytest.mark.parametrize("name", ["x/y/", "x//y", "./x/y", "x/./y/.", Path("x/y")])
def test_a_name_that_says_the_same(opened, tmp_path, name):
    opened(name="x/y").update(a=1)
    d = opened(name=name)
    assert str(d.path) == str(tmp_path / "x" / "y") and dict(d) == {"a": 1}
    d["b"] = 2
    assert dict(copy.copy(d)) == dict(opened(name="x/y", read_only=True)) == {"a": 1, "b": 2}
    assert repr(d) == repr(opened(name="x/y"))


@pytest.mark.parametrize("option", ["name", "base_dir"])
@pytest.mark.parametrize("path", [b"bytes", 5])
def test_a_path_that_is_none(opened, tmp_path, option, path):
    with pytest.raises(TypeError):
        opened(**{option: path})
    assert list(tmp_path.iterdir()) == []


def test_a_home_directory_is_expanded(nfsdict, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for base in ("~/x", Path("~/x")):
        d = nfsdict.NfsDict("s", base)
        assert d.path == tmp_path / "x" / "s"
        d["key"] = 1
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    for name in ("~/s", "~", Path("~/s")):
        with pytest.raises(ValueError, match="base_dir, where ~ goes"):
            nfsdict.NfsDict(name, "~/x")
    assert nfsdict.NfsDict("~s", tmp_path).path == tmp_path / "~s"


def test_a_name_with_a_newline(nfsdict, tmp_path):
    for name in ("a\nb", "a/b\n"):
        with pytest.raises(ValueError, match="newline"):
            nfsdict.NfsDict(name, tmp_path)
    with pytest.raises(ValueError, match="newline"):
        nfsdict.NfsDict.open(f"{tmp_path}/a\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", ["4", 1.5, float("nan"), True, b"4"])
@pytest.mark.parametrize("option", ["workers", "cache_bytes"])
def test_a_number_that_is_no_int(opened, tmp_path, option, number):
    with pytest.raises(TypeError, match=f"{option} is an int, not "):
        opened(**{option: number})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", ["660", "0o660", 0o660 + 0.0, True, b"660"])
def test_a_mode_that_is_no_int(opened, tmp_path, mode):
    with pytest.raises(TypeError, match="0o660"):
        opened(mode=mode)
    assert list(tmp_path.iterdir()) == []


def test_a_mode_that_was_meant_octal(opened):
    with pytest.raises(ValueError, match="660"):
        opened(mode=660)


def test_an_unknown_serializer_makes_nothing(opened, tmp_path):
    with pytest.raises(ValueError, match="pickle, json, bytes"):
        opened(serializer="yaml")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("options", [{}, {"lazy": True}, {"read_only": True}])
def test_a_file_in_the_way(opened, tmp_path, options):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(NotADirectoryError):
        opened(base_dir=file, **options)


@pytest.mark.parametrize("options", [{"workers": 0}, {"mode": 0o1000}, {"mode": -1}])
def test_options_out_of_range(opened, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        opened(**options)


# --- what is read when --------------------------------------------------------------------------


@pytest.mark.parametrize("indexed", [True, False])
def test_lazy_lists_late_and_reads_on_access(nfsdict, opened, reads, monkeypatch, indexed):
    with opened() as store:
        store.update(a=1, b=2)
        len(store)
    if not indexed:
        for file in store.path.glob("_*"):
            file.unlink()
    Shards = importlib.import_module("nfsdict.storage.shards").Shards
    listed = []
    present = Shards.present
    monkeypatch.setattr(Shards, "present", lambda self: listed.append(1) or present(self))
    reads.clear()
    store = opened(lazy=True)
    assert (listed, reads) == ([], [])
    assert store["a"] == 1
    assert reads == [value_file(store, "a").name]
    assert "b" in store
    assert listed == []
    assert sorted(store) == ["a", "b"]
    assert listed == [1]
    reads.clear()
    assert store["b"] == 2
    assert store["b"] == 2
    assert reads == [value_file(store, "b").name]
    assert len(store) == 2
    assert listed == [1]


@pytest.mark.parametrize("listing", ["keys", "refresh", "sync"])
def test_a_lazy_dictionary_holds_no_value_that_nobody_asked_for(opened, listing):
    store, other = opened(lazy=True), opened()
    other["a"] = 1  # a file that no index knows: the lazy one reads it for its key
    assert set(getattr(store, listing)() or store) == {"a"}
    other["a"] = 2
    assert store["a"] == 2


def test_eager_reads_everything_at_once(opened, reads):
    opened().update(a=1, b=2)
    store = opened()
    assert len(reads) == 2
    assert dict(store.items()) == {"a": 1, "b": 2}
    assert len(reads) == 2


def test_a_cached_read_needs_no_disk(opened):
    store = opened()
    store.update(a=1, none=None)
    shutil.rmtree(store.path)
    assert store["a"] == store.get("a") == 1
    assert store["none"] is None
    assert "a" in store and "none" in store


def test_a_miss_asks_the_disk(opened):
    first, second = opened(), opened()
    second["k"] = 1
    assert "k" in first
    assert first["k"] == 1
    second["l"] = 2
    assert first.get("l") == 2
    assert list(first) == ["k", "l"]


def test_what_is_cached_stays_until_it_is_asked_for_afresh(opened):
    first, second = opened(), opened()
    first["k"] = 1
    second["k"] = 2
    assert first["k"] == 1
    assert first.get("k", fresh=True) == 2
    assert first["k"] == 2
    del second["k"]
    assert first["k"] == 2
    assert first.get("k", 5, fresh=True) == 5
    assert "k" not in first


@pytest.mark.parametrize("lazy", [False, True])
def test_sync_takes_over_everything(opened, lazy):
    first, second = opened(lazy=lazy), opened()
    second.update(kept=1, changed=1, gone=1)
    first.sync()
    assert first == {"kept": 1, "changed": 1, "gone": 1}
    second["changed"] = 2
    del second["gone"]
    second["new"] = 1
    first.sync()
    assert first == {"kept": 1, "changed": 2, "new": 1}


def test_the_value_is_handed_out_as_it_is_cached(opened):
    store = opened()
    value = [1]
    store["k"] = value
    assert store["k"] is value
    assert opened()["k"] == [1]


def test_progress_is_shown(opened, capsys):
    opened().update({str(number): number for number in range(20)})
    store = opened(progress_bar=True)
    assert "s:" in capsys.readouterr().err
    store.sync()
    assert "s:" in capsys.readouterr().err
    opened().sync()
    assert capsys.readouterr().err == ""


def test_progress_without_tqdm_names_the_extra(opened, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(ImportError, match=r"nfsdict\[progress\]"):
        opened(progress_bar=True)
    opened()


# --- read only ----------------------------------------------------------------------------------


def test_read_only_writes_nothing(nfsdict, opened):
    with opened() as writer:
        writer.update(a=1, b=2)
    for file in writer.path.glob("_*"):
        file.unlink()
    before = tree(writer.path)
    with opened(read_only=True) as store:
        for change in (
            lambda: store.__setitem__("a", 2),
            lambda: store.__delitem__("a"),
            lambda: store.pop("a"),
            lambda: store.pop("absent", 1),
            lambda: store.popitem(),
            lambda: store.setdefault("c", 1),
            lambda: store.add("c", 1),
            lambda: store.update(a=2),
            lambda: store.clear(),
            lambda: store.repair(),
        ):
            with pytest.raises(nfsdict.ReadOnlyError, match="read_only=True"):
                change()
        store.sync()
        store.refresh()
        assert store == {"a": 1, "b": 2}
    assert tree(writer.path) == before


def test_read_only_makes_no_store(opened, tmp_path):
    with pytest.raises(FileNotFoundError):
        opened(read_only=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("options", [{}, {"lazy": True}, {"read_only": True}])
def test_a_store_that_cannot_be_written_opens_for_reading(opened, reachable, options):
    with opened(base_dir=reachable) as writer:
        writer.update(a=1, b=2)
    for path in [reachable / "s", *(reachable / "s").iterdir()]:
        path.chmod(0o555)
    before = tree(reachable)
    with not_root(), opened(base_dir=reachable, **options) as store:
        assert store == {"a": 1, "b": 2}
        for change in (
            lambda: store.__setitem__("a", 2),
            lambda: store.__delitem__("a"),
            lambda: store.pop("a"),
        ):
            with pytest.raises(PermissionError):
                change()
        assert store == {"a": 1, "b": 2}
    assert tree(reachable) == before


# --- errors -------------------------------------------------------------------------------------


class Refused(Exception):
    pass


class Refusing:
    def __reduce__(self):
        raise Refused


def test_a_value_that_the_serializer_refuses_changes_nothing(opened):
    store = opened()
    store["k"] = 1
    before = tree(store.path)
    for change in (
        lambda: store.__setitem__("k", Refusing()),
        lambda: store.add("new", Refusing()),
        lambda: store.setdefault("new", Refusing()),
        lambda: store.update({"k": 2, "new": Refusing(), "later": 3}),
    ):
        with pytest.raises(Refused):
            change()
    assert tree(store.path) == before
    assert dict(store.items()) == {"k": 1}


@pytest.mark.parametrize("change", ["__setitem__", "update"])
def test_a_write_that_fails_keeps_the_old_value(opened, change):
    store = opened()
    store["k"] = 1
    before = tree(store.path)
    arguments = ("k", "x" * 5000) if change == "__setitem__" else ({"k": "x" * 5000},)
    with largest_file(1000), pytest.raises(OSError) as caught:
        getattr(store, change)(*arguments)
    assert caught.value.errno == errno.EFBIG
    assert tree(store.path) == before
    assert store["k"] == opened()["k"] == 1


def test_a_first_write_that_fails_leaves_no_key(opened):
    store = opened()
    with largest_file(1000), pytest.raises(OSError):
        store["k"] = "x" * 5000
    assert "k" not in store and len(store) == 0
    assert temporary(store.path) == []


def test_update_writes_what_can_be_written(nfsdict, opened):
    store = opened()
    store["bad"] = 0
    entries = {str(number): number for number in range(200)}
    with largest_file(1000), pytest.raises(nfsdict.BatchError) as caught:
        store.update({**entries, "bad": "x" * 5000, "worse": "x" * 5000})
    assert caught.value.failed.keys() == {"bad", "worse"}
    assert {error.errno for error in caught.value.failed.values()} == {errno.EFBIG}
    assert caught.value.errno == errno.EFBIG
    assert dict(store.items()) == dict(opened().items()) == {**entries, "bad": 0}
    assert temporary(store.path) == []


def test_an_uncertain_write_forgets_the_value(nfsdict, opened, files, monkeypatch):
    store = opened()
    store.update(a=1, b=1)
    write_files = files.write_files
    values = importlib.import_module("nfsdict.storage.values")

    def unsynced(targets, *arguments):
        write_files(targets, *arguments)
        return [(2, errno.EIO)] * len(targets)

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_files", unsynced)
        patch.setattr(values, "write_file", lambda *one: unsynced([one[:2]], *one[2:], False)[0])
        with pytest.raises(nfsdict.UncertainWriteError):
            store["a"] = 2
        with pytest.raises(nfsdict.BatchError):
            store.update(b=2)
    assert set(store) == {"a", "b"}
    assert store["a"] == 2 and store["b"] == 2, "the disk answers"


def test_an_uncertain_delete_forgets_the_value(nfsdict, opened, monkeypatch):
    store = opened()
    store["k"] = 1

    def fail(self, path):
        raise OSError(errno.EIO, "no")

    Files = importlib.import_module("nfsdict.storage.files").Files
    with monkeypatch.context() as patch:
        patch.setattr(Files, "sync_directory", fail)
        with pytest.raises(nfsdict.UncertainWriteError):
            del store["k"]
    with pytest.raises(KeyError):
        store["k"]
    assert "k" not in store


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ETIMEDOUT, errno.EMFILE])
def test_an_error_is_no_absence(opened, files, monkeypatch, number):
    with opened() as writer:
        writer["k"] = 1
        len(writer)
    store = opened(lazy=True)
    len(store)
    with monkeypatch.context() as patch:
        patch.setattr(files, "read_files", lambda paths: [number] * len(paths))
        for call in (store.__getitem__, store.get):
            with pytest.raises(OSError) as caught:
                call("k")
            assert caught.value.errno == number
            assert not isinstance(caught.value, KeyError)
        assert list(store) == ["k"]
    assert store["k"] == 1


def test_a_file_that_cannot_be_read_stays_a_key(opened, reachable):
    writer = opened(base_dir=reachable)
    writer.update(a=1, b=2)
    value_file(writer, "a").chmod(0)
    with not_root():
        store = opened(base_dir=reachable)
        assert store["b"] == 2 and "b" in set(store)
        for _ in range(2):
            with pytest.raises(PermissionError):
                store["a"]
        assert "a" in store
    value_file(writer, "a").chmod(0o644)
    assert store["a"] == 1


def test_a_known_file_that_cannot_be_read_stays_listed(opened, reachable):
    writer = opened(base_dir=reachable)
    writer.update(a=1, b=2)
    with not_root():
        store = opened(base_dir=reachable)
    value_file(writer, "a").chmod(0)
    with not_root():
        store.sync()
        assert set(store) == {"a", "b"}
        with pytest.raises(PermissionError):
            store["a"]
        assert set(store) == {"a", "b"}
    value_file(writer, "a").chmod(0o644)
    assert store["a"] == 1


DAMAGES = {
    "truncated": lambda data: data[:-3],
    "zeroed": lambda data: bytes(len(data)),
    "random": lambda data: os.urandom(len(data)) + b"\xff",
    "empty": lambda data: b"",
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("serializer", ["pickle", "json", "bytes"])
@pytest.mark.parametrize("lazy", [False, True])
def test_a_damaged_file_costs_one_key(nfsdict, opened, caplog, damage, serializer, lazy):
    values = {str(number): b"value" if serializer == "bytes" else number for number in range(9)}
    writer = opened(serializer=serializer)
    writer.update(values)
    file = value_file(writer, "3")
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    with caplog.at_level(logging.WARNING, logger="nfsdict"):
        store = opened(serializer=serializer, lazy=lazy)
        for _ in range(2):
            with pytest.raises(nfsdict.CorruptValueError) as caught:
                store["3"]
            assert caught.value.path == str(file)
            with pytest.raises(nfsdict.CorruptValueError):
                store.get("3")
            assert "3" in store
            store.sync()
        others = {key: value for key, value in values.items() if key != "3"}
        assert dict(store.items()) == others
        with pytest.raises(nfsdict.CorruptValueError):
            store.pop("3", None)
        assert file.exists()
    assert [record.name for record in caplog.records] == ["nfsdict"]
    assert str(file) in caplog.text
    store["3"] = values["3"]
    assert dict(opened(serializer=serializer).items()) == values


def test_a_damaged_file_can_be_deleted(opened):
    store = opened()
    store["k"] = 1
    value_file(store, "k").write_bytes(b"")
    del store["k"]
    assert "k" not in opened()


def test_a_directory_in_the_place_of_a_value_is_no_key(opened):
    store = opened()
    store["a"] = 1
    value_file(store, "b").mkdir(parents=True)
    assert dict(store.items()) == {"a": 1}
    with pytest.raises(IsADirectoryError):
        store["b"]
    with pytest.raises(IsADirectoryError):  # whatever became of its file
        _ = "b" in store


def test_clear_forgets_the_keys_of_a_shard_that_is_gone(opened):
    store = opened()
    store.update(a=1, b=2)
    shutil.rmtree(value_file(store, "a").parent)
    store.clear()
    assert len(store) == 0 and "a" not in store


def test_a_shard_removed_while_it_is_listed_is_an_empty_one(opened, monkeypatch):
    store = opened()
    store.update(a=1, b=2)
    shard = value_file(store, "a").parent
    module = importlib.import_module("nfsdict.storage.coherence")
    list_changes = module.list_changes

    def removed_first(path, *known):
        if path == str(shard):
            shutil.rmtree(shard)
        return list_changes(path, *known)

    monkeypatch.setattr(module, "list_changes", removed_first)
    store.sync()
    assert dict(store) == {"b": 2}


@pytest.mark.parametrize("lazy", [False, True])
def test_a_directory_in_the_place_of_a_value(opened, lazy):
    writer = opened()
    writer.update(a=1, b=2)
    value_file(writer, "a").unlink()
    value_file(writer, "a").mkdir()
    store = opened(lazy=lazy)
    assert dict(store) == {"b": 2}
    for call in (store.__getitem__, store.get, store.__delitem__):
        with pytest.raises(OSError) as caught:
            call("a")
        assert not isinstance(caught.value, KeyError)
    with pytest.raises(OSError):
        store["a"] = 1
    assert store["b"] == 2 and "b" in set(store)
    assert temporary(store.path) == []


# --- keys, serializers, permissions -------------------------------------------------------------


class Name(str):
    def __str__(self):
        return "wrong"


def test_a_subclass_of_str_is_stored_as_str(opened):
    store = opened()
    store[Name("a")] = 1
    store.update({Name("b"): 2})
    assert store[Name("a")] == store["a"] == 1
    for found in (store, opened()):
        assert {key: type(key) for key in found} == {"a": str, "b": str}


class Upper:
    """Text in capitals on disk."""

    extension = ".upper"

    def dumps(self, pair):
        return "\n".join(pair).upper().encode()

    def loads(self, data):
        return data.decode().lower().split("\n")


def test_a_serializer_of_ones_own(opened):
    with opened(serializer=Upper()) as store:
        store["k"] = "v"
    assert [file.read_bytes() for file in store.path.glob("??/*.upper")] == [b"K\nV"]
    assert opened(serializer=Upper()) == {"k": "v"}
    assert copy.copy(store) == {"k": "v"}


def test_the_bytes_serializer(opened):
    store = opened(serializer="bytes")
    store["k"] = b"\x00\xff"
    with pytest.raises(TypeError):
        store["k"] = "text"
    assert opened(serializer="bytes")["k"] == b"\x00\xff"


def test_mode_is_given_against_the_umask(opened, tmp_path):
    (tmp_path / "s").mkdir()
    os.chmod(tmp_path / "s", 0o2770)
    old = os.umask(0o077)
    try:
        with opened(mode=0o660) as store:
            store["k"] = 1
            len(store)
    finally:
        os.umask(old)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in store.path.rglob("*")}
    assert {mode for path, mode in modes.items() if path.is_file()} == {0o660}
    assert {mode for path, mode in modes.items() if path.is_dir()} == {0o2770}


# --- lives of a dictionary ----------------------------------------------------------------------


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy])
def test_a_subclass_whose_init_takes_other_arguments_says_how_it_is_copied(
    nfsdict, tmp_path, again
):
    class Results(nfsdict.NfsDict):
        def __init__(self, base, unit="m"):
            super().__init__("results", base, lazy=True)
            self.unit = unit

    class Copied(Results):
        def __reduce__(self):
            return Copied, (self.path.parent, self.unit)

    Results(tmp_path)["key"] = 1
    with pytest.raises(TypeError, match="arguments"):
        again(Results(tmp_path))
    copied = again(Copied(tmp_path, "s"))
    assert (type(copied), copied.unit, copied["key"]) == (Copied, "s", 1)


@pytest.mark.parametrize("again", [copy.copy, lambda store: pickle.loads(pickle.dumps(store))])
def test_copies_reopen_by_path(opened, again, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    store = opened(base_dir=".", lazy=True, durable=False, mode=0o600, workers=3)
    store["k"] = 1
    monkeypatch.chdir("/")
    other = again(store)
    assert other.__reduce__()[1:] == store.__reduce__()[1:]
    assert repr(other).endswith(" not listed yet>")
    other["k"] = 2
    assert (store["k"], other["k"]) == (1, 2), "a cache of its own"
    assert store.get("k", fresh=True) == 2


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="others collect when they like")
def test_a_dictionary_that_is_let_go_of_writes_its_index_at_once(opened):
    """It is in no cycle of references, which only the collector would find."""
    gc.disable()
    try:
        opened(name="let go").update({f"key {number}": number for number in range(20)})
        assert (opened(name="other").path.parent / "let go" / "_index.nfsdict-pkl").exists()
    finally:
        gc.enable()


def test_the_context_manager_flushes_and_leaves_it_usable(opened):
    with opened() as store:
        store["k"] = 1
        assert list(store.path.glob("_index*")) == []
    assert {file.name[:18] for file in store.path.glob("_*")} == {
        "_index.nfsdict-pkl",
        "_pack.nfsdict-pkl-",
    }
    store["l"] = 2
    store.close()
    store.close()
    assert dict(opened()) == {"k": 1, "l": 2}


def test_close_never_raises_for_the_index(opened, files, monkeypatch):
    store = opened()
    store["k"] = 1
    monkeypatch.setattr(files, "write_files", lambda *_: [(0, errno.ENOSPC)])
    store.close()
    with opened() as other:
        assert other == {"k": 1}


EXIT = """
import os, nfsdict
store = nfsdict.NfsDict("s", {base!r})
store["k"] = 1
pid = os.fork()
if pid:
    _, status = os.waitpid(pid, 0)
    print(status, os.path.exists(store.path / "_index.nfsdict-pkl"))
else:
    store["child"] = 2
"""


def test_the_exit_of_the_interpreter_flushes_and_that_of_a_fork_does_not(opened, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", EXIT.format(base=str(tmp_path))], capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("0 False\n", "")
    assert (tmp_path / "s" / "_index.nfsdict-pkl").exists()
    assert opened() == {"k": 1, "child": 2}
