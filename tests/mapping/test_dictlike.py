"""What a dict can do beside lookups, and how a dictionary is shown."""

from __future__ import annotations

import collections
import importlib
from collections import ChainMap, Counter, OrderedDict, UserDict

import pytest

from support.forks import forking, in_child
from support.layout import digest

EVERY = pytest.mark.parametrize("options", [{}, {"lazy": True}, {"cache_bytes": 0}])


@pytest.fixture
def stored(opened):
    """Opened anew, with two entries."""

    def stored(**options):
        opened().update(a=1, b=2)
        return opened(**options)

    return stored


@EVERY
def test_union_is_a_plain_dict(stored, opened, options):
    d = stored(**options)
    other = opened(name="other")
    other.update(b=3, c=4)
    for right in ({"b": 3, "c": 4}, other, UserDict(b=3, c=4), ChainMap({"b": 3, "c": 4})):
        assert type(d | right) is dict
        assert d | right == {"a": 1, "b": 3, "c": 4}
    for left in ({"b": 3, "c": 4}, other, OrderedDict(b=3, c=4), Counter(b=3, c=4)):
        assert type(left | d) is dict
        assert left | d == {"a": 1, "b": 2, "c": 4}
    assert list({"b": 3} | d) == ["b", "a"]
    assert d == stored() == {"a": 1, "b": 2}


@pytest.mark.parametrize("other", [5, None, [("a", 1)], "ab", {"a"}])
def test_union_with_what_is_no_mapping(stored, other):
    d = stored()
    with pytest.raises(TypeError, match="unsupported operand"):
        d | other
    with pytest.raises(TypeError, match="unsupported operand"):
        other | d


def test_update_in_place(stored):
    d = again = stored()
    d |= {"b": 3}
    d |= [("c", 4)]
    d |= stored()
    assert d is again
    assert d == {"a": 1, "b": 2, "c": 4} == stored(read_only=True)


@EVERY
def test_a_copy_is_a_plain_dict(stored, options):
    d = stored(**options)
    copied = d.copy()
    assert type(copied) is dict and copied == {"a": 1, "b": 2}
    copied["c"] = 3
    assert "c" not in d


def test_what_is_gone_or_damaged_is_left_out(stored, opened, tmp_path):
    d = stored(lazy=True)
    assert len(d) == 2
    del opened()["a"]
    assert d.copy() == d | {} == {} | d == {"b": 2}
    name = digest("b")
    (tmp_path / "s" / name[:2] / f"{name}.pkl").write_bytes(b"damaged")
    assert opened(lazy=True).copy() == {}


@EVERY
def test_reversed(stored, options):
    d = stored(**options)
    d.update({str(number): number for number in range(20)})
    assert list(reversed(d)) == list(d)[::-1]
    assert {key: d[key] for key in reversed(d)} == dict(d)
    for key in reversed(d):
        del d[key]
    assert list(reversed(d)) == []


def test_repr_says_where_and_how_much(nfsdict, opened, tmp_path, lists):
    path = repr(str(tmp_path / "s"))
    assert repr(opened()) == f"<NfsDict {path} 0 keys>"
    d = opened(lazy=True)
    del lists[:]
    assert repr(d) == f"<NfsDict {path} not listed yet>"
    d["k"] = 1
    assert repr(d) == f"<NfsDict {path} not listed yet>"
    assert lists == []
    assert len(d) == 1
    assert repr(d) == f"<NfsDict {path} 1 key>"
    d["l"] = 1
    assert repr(d) == f"<NfsDict {path} 2 keys>"

    class Results(nfsdict.NfsDict):
        pass

    assert repr(Results("s", tmp_path)) == f"<Results {path} 2 keys>"


def test_a_notebook_completes_what_is_listed(stored, lists, reads, monkeypatch):
    d = stored(lazy=True)
    del lists[:], reads[:]
    assert d._ipython_key_completions_() == []
    assert (lists, reads) == ([], [])
    assert sorted(d) == sorted(d._ipython_key_completions_()) == ["a", "b"]
    monkeypatch.setattr(importlib.import_module("nfsdict.dictlike"), "_COMPLETED", 1)
    assert d._ipython_key_completions_() == []


@forking
def test_within_another_call(stored):
    """In a signal handler that has interrupted a call which holds locks; or the child's alarm ends
    it."""
    d = stored()

    def ask():
        with d._locks.guard, d._locks.state:
            assert d.copy() == d | {} == {} | d == {"a": 1, "b": 2}
            assert list(reversed(d)) == d._ipython_key_completions_()[::-1] == list(d)[::-1]
            assert len(d) == 2 and repr(d).endswith(" 2 keys>")

    assert in_child(ask) == 0


def test_equality_is_that_of_the_entries(nfsdict, tmp_path):
    d, other = (nfsdict.NfsDict(name, tmp_path) for name in "ab")
    assert d == {} == d and d == other and d != [] and d != None  # noqa: E711
    d.update(a=1, b=float("nan"))
    assert d == dict(d.items())  # identity first, as in a dict
    assert d != {"a": 1} and d != {"a": 1, "c": d["b"]} and d != {**d, "c": 3}
    assert d != {"a": 1} and d != other and other != d
    assert d != collections.defaultdict(int, a=1)
    other.update(d)
    assert d == other == d
    with pytest.raises(TypeError, match="unhashable"):
        hash(d)


def test_equality_passes_over_what_items_passes_over(nfsdict, tmp_path, caplog):
    d, other = (nfsdict.NfsDict(name, tmp_path, cache_bytes=0) for name in "ab")
    d.update(a=1, b=2)
    other.update(a=1)
    open(d.path_of("b"), "wb").close()
    assert d == {"a": 1} == d and d == other == d
    other["b"] = 2
    assert other != d != other
