"""Stores of release 0.2.1 open here and ours open there: tested against that release itself."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

AWKWARD = [
    "",
    "k" * 5000,
    "schlüssel",
    "\u65e5\u672c\U0001f600",
    "nul\0nul",
    "line\nline\r\n",
    "/",
    "..",
]
VALUE = {"text": "é\U0001f600\n", "list": [1, 2.5, None, True, [], {}], "big": 2**70}

# Says what it is told to do on standard input, {"base", "serializer", "lazy", "calls"}, each call
# [name, arguments…], and prints what each came to.
RELEASE = r"""
import json, sys
import nfsdict
assert nfsdict.__file__.startswith(sys.argv[1]), nfsdict.__file__
told = json.load(sys.stdin)
d = nfsdict.NfsDict("store", told["base"], told["serializer"], told["lazy"])
calls = {
    "set": d.__setitem__,
    "del": d.__delitem__,
    "get": d.__getitem__,
    "items": lambda: [[key, d[key]] for key in d],
    "keys": lambda: list(d),
    "sync": d.sync,
}
print(json.dumps([calls[name](*arguments) for name, *arguments in told["calls"]]))
d.close()
"""


@pytest.fixture(scope="session")
def release(tmp_path_factory):
    """The folder that holds release 0.2.1."""
    folder = tmp_path_factory.mktemp("release")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    wanted = ["--no-deps", "--target", str(folder), "nfsdict==0.2.1"]
    subprocess.run([*pip, *wanted], check=True)
    return folder


@pytest.fixture(params=["pickle", "json"])
def serializer(request):
    return request.param


@pytest.fixture(params=[False, True], ids=["eager", "lazy"])
def lazy(request):
    return request.param


@pytest.fixture
def old(release, tmp_path, serializer):
    """Open the store with release 0.2.1, make these calls, close it."""

    def run(*calls, lazy=False):
        told = {"base": str(tmp_path), "serializer": serializer, "lazy": lazy, "calls": calls}
        done = subprocess.run(
            [sys.executable, "-c", RELEASE, str(release)],
            env=dict(os.environ, PYTHONPATH=str(release)),
            input=json.dumps(told),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        return json.loads(done.stdout)

    return run


@pytest.fixture
def new(nfsdict, tmp_path, serializer):
    def build(**options):
        return nfsdict.NfsDict("store", tmp_path, serializer, durable=False, **options)

    return build


def old_index(tmp_path, serializer):
    return tmp_path / "store" / ("_index.pkl" if serializer == "pickle" else "_index.json")


def test_its_store_opens_here(old, new, lazy):
    old(*[["set", key, VALUE] for key in AWKWARD])
    wanted = dict.fromkeys(AWKWARD, VALUE)
    with new(lazy=lazy) as d:
        for key in AWKWARD:
            assert key in d and d[key] == VALUE
        assert dict(d) == wanted
    assert dict(new(lazy=lazy)) == wanted


def test_our_store_opens_there(old, new, lazy):
    with new() as d:
        d.update(dict.fromkeys(AWKWARD, VALUE))
    [items] = old(["items"], lazy=lazy)
    assert sorted(items) == sorted([key, VALUE] for key in AWKWARD)
    for key, [value] in zip(AWKWARD[:3], (old(["get", key], lazy=lazy) for key in AWKWARD[:3])):
        assert value == VALUE, key


def test_the_files_are_the_same(old, new, tmp_path, serializer):
    old(["set", "from there", 1])
    with new() as d:
        d["from here"] = 2
    end = old_index(tmp_path, serializer).suffix
    names = {path.relative_to(tmp_path / "store") for path in (tmp_path / "store").glob("??/*")}
    digests = [hashlib.sha256(key.encode()).hexdigest() for key in ("from there", "from here")]
    assert names == {Path(name[:2], name + end) for name in digests}


def test_each_sees_what_the_other_changed_since(old, new, lazy, tmp_path, serializer):
    """In turn, through its index file, which it believes, and through ours."""
    old(["set", "a", 1], ["set", "b", 2])
    assert old_index(tmp_path, serializer).exists()

    with new(lazy=lazy) as d:
        assert dict(d) == {"a": 1, "b": 2}
        d["c"] = 3
        del d["a"]
    [items] = old(["items"], lazy=lazy)
    assert sorted(items) == [["b", 2], ["c", 3]]

    old(["set", "d", 4], ["del", "b"], ["set", "c", "other"])
    assert old_index(tmp_path, serializer).exists()
    with new(lazy=lazy) as d:
        assert set(d) == {"c", "d"}
        assert dict(d) == {"c": "other", "d": 4}
        d.update(e=5, f=6)
        assert d.pop("d") == 4
    [items] = old(["items"], lazy=lazy)
    assert sorted(items) == [["c", "other"], ["e", 5], ["f", 6]]

    with new(lazy=lazy) as d:
        d.clear()
    assert old(["keys"], lazy=lazy) == [[]]


def test_awkward_keys_deleted_by_either(old, new, lazy):
    for key in AWKWARD:
        new(lazy=lazy)[key] = VALUE
    old(*[["del", key] for key in AWKWARD[::2]])
    d = new(lazy=lazy)
    assert set(d) == set(AWKWARD[1::2])
    for key in AWKWARD[1::2]:
        del d[key]
    assert old(["keys"], lazy=lazy) == [[]]


def test_its_index_goes_before_the_first_change(old, new, tmp_path, serializer):
    """A writer here that is killed leaves none that hides what it wrote."""
    old(["set", "a", 1])
    d = new(lazy=True)
    d["b"] = 2
    assert not old_index(tmp_path, serializer).exists()
    assert sorted(old(["keys"])[0]) == ["a", "b"]


def test_its_index_goes_again_at_close(old, new, tmp_path, serializer):
    with new() as d:
        d["b"] = 2
        old(["set", "a", 1])
        d["c"] = 3
    assert not old_index(tmp_path, serializer).exists()
    assert sorted(old(["keys"])[0]) == ["a", "b", "c"]


def test_it_reads_what_was_overwritten_here(old, new):
    old(["set", "a", 1])
    new()["a"] = VALUE
    assert old(["get", "a"]) == [VALUE]


def test_a_reader_here_leaves_its_index_alone(old, new, tmp_path, serializer):
    old(["set", "a", 1])
    with new() as d:
        assert dict(d) == {"a": 1}
    assert old_index(tmp_path, serializer).exists()


def test_neither_takes_the_others_odd_files_for_entries(old, new, tmp_path):
    store = tmp_path / "store"
    with new() as d:
        d["a"] = 1
    shard = next(path for path in store.iterdir() if path.is_dir())
    (shard / "tmpabcdefgh").write_bytes(b"half")
    (shard / ".nfsdict-0123").write_bytes(b"half")
    assert old(["sync"], ["items"]) == [None, [["a", 1]]]
    assert dict(new()) == {"a": 1}
