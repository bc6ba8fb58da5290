"""What a dictionary of str keys promises: one contract for every way that a store is opened."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Callable

import pytest

if TYPE_CHECKING:
    from nfsdict import NfsDict

Make = Callable[[dict[str, Any]], "NfsDict[Any]"]
"""Gives a new mapping that holds these entries, whose values JSON can say."""

AWKWARD = ["", "ä€😀", "line\nbreak", "nul\0", "x" * 5000, "\ud800", "../up", "a/b", " ", "."]


def check_mapping(make: Make) -> None:
    """Every check, each with mappings of its own."""
    for check in CHECKS:
        check(make)


def lookups(make: Make) -> None:
    mapping = make({"a": 1, "none": None})
    assert mapping["a"] == mapping.get("a") == 1
    assert mapping["none"] is mapping.get("none", 5) is None
    assert mapping.get("absent") is None
    assert mapping.get("absent", 5) == 5
    assert "a" in mapping and "none" in mapping and "absent" not in mapping
    with pytest.raises(KeyError) as caught:
        mapping["absent"]
    assert caught.value.args == ("absent",)


def empty(make: Make) -> None:
    mapping = make({})
    assert not mapping
    assert len(mapping) == 0
    assert list(mapping) == list(mapping.values()) == list(mapping.items()) == []
    with pytest.raises(KeyError):
        mapping.popitem()
    mapping.clear()
    mapping.update({})
    assert mapping == {}


def writes(make: Make) -> None:
    mapping = make({"a": 1})
    mapping["b"] = [1, {"x": None}]
    mapping["a"] = 2
    assert mapping == {"a": 2, "b": [1, {"x": None}]}
    assert len(mapping) == 2
    mapping["a"] = 2
    assert len(mapping) == 2


def deletes(make: Make) -> None:
    mapping = make({"a": 1, "b": 2})
    del mapping["a"]
    assert "a" not in mapping
    assert mapping.get("a") is None
    assert mapping == {"b": 2}
    with pytest.raises(KeyError, match="a"):
        del mapping["a"]
    with pytest.raises(KeyError):
        del mapping["never there"]
    mapping["a"] = 3
    assert mapping["a"] == 3


def pops(make: Make) -> None:
    mapping = make({"a": 1, "none": None, "b": 2})
    assert mapping.pop("a") == 1
    assert mapping.pop("none", 5) is None
    assert mapping.pop("a", 5) == 5
    assert mapping.pop("a", None) is None
    with pytest.raises(KeyError) as caught:
        mapping.pop("a")
    assert caught.value.args == ("a",)
    assert mapping == {"b": 2}


def popitems(make: Make) -> None:
    entries = {"a": 1, "b": None, "c": 3}
    mapping = make(entries)
    taken = [mapping.popitem() for _ in entries]
    assert dict(taken) == entries
    assert not mapping
    mapping.update(x=1)
    mapping["y"] = 2
    assert dict([mapping.popitem(), mapping.popitem()]) == {"x": 1, "y": 2}


def setdefaults(make: Make) -> None:
    mapping = make({"a": 1, "none": None})
    assert mapping.setdefault("a", 2) == 1
    assert mapping.setdefault("none", 2) is None
    assert mapping.setdefault("b", 2) == 2
    assert mapping.setdefault("c") is None
    assert mapping == {"a": 1, "none": None, "b": 2, "c": None}


def updates(make: Make) -> None:
    mapping = make({"a": 1, "b": 2})
    mapping.update({"b": 3, "c": 4})
    mapping.update([("d", 5), ("d", 6)], a=0)
    mapping.update({"e": 1}, e=2)
    mapping.update(self=7, other=8)
    expected = {"a": 0, "b": 3, "c": 4, "d": 6, "e": 2, "self": 7, "other": 8}
    assert mapping == expected
    same = mapping
    mapping |= {"f": 9}
    mapping |= [("g", 10)]
    assert mapping is same
    assert mapping == {**expected, "f": 9, "g": 10}
    wrong: Any
    for wrong in (5, [1], [("one",)]):
        with pytest.raises((TypeError, ValueError)):
            mapping.update(wrong)


def clears(make: Make) -> None:
    mapping = make({str(number): number for number in range(20)})
    mapping.clear()
    assert mapping == {}
    assert "1" not in mapping
    mapping["1"] = 5
    assert dict(mapping) == {"1": 5}


def views(make: Make) -> None:
    entries = {str(number): number for number in range(10)}
    mapping = make(entries)
    assert sorted(mapping) == sorted(mapping.keys()) == sorted(entries)
    assert sorted(mapping.values()) == list(range(10))
    assert dict(mapping.items()) == entries
    assert len(mapping) == len(mapping.keys()) == len(mapping.values()) == 10
    assert len(mapping.items()) == 10
    assert list(zip(mapping.keys(), mapping.values())) == list(mapping.items())
    assert mapping.keys() == entries.keys()
    assert mapping.items() == entries.items()
    assert mapping.keys() & {"1", "x"} == {"1"}
    assert ("1", 1) in mapping.items() and ("1", 2) not in mapping.items()
    assert 9 in mapping.values() and 10 not in mapping.values()
    keys = mapping.keys()
    mapping["later"] = 1
    assert "later" in keys and len(keys) == 11


def iterates_over_a_snapshot(make: Make) -> None:
    mapping = make({str(number): number for number in range(10)})
    for key in mapping:
        del mapping[key]
        mapping["new " + key] = 0
    assert sorted(mapping) == [f"new {number}" for number in range(10)]


def equality(make: Make) -> None:
    mapping = make({"a": 1, "b": [2]})
    assert mapping == {"b": [2], "a": 1}
    assert mapping != {"a": 1} and mapping != {"a": 1, "b": 3}
    assert mapping == make({"a": 1, "b": [2]})
    items: Any = [("a", 1), ("b", [2])]
    number: Any = 5
    assert mapping != items and mapping != number
    with pytest.raises(TypeError):
        hash(mapping)


def other_key_types(make: Make) -> None:
    """No such key can exist: asked for it is absent, and it can't be written."""
    mapping = make({"1": 1})
    default, keys = object(), mapping.keys()
    key: Any
    for key in (1, 1.5, None, b"1", ("1",), frozenset("1"), object()):
        assert key not in mapping and key not in keys
        assert (key, 1) not in mapping.items()
        assert mapping.get(key) is None
        assert mapping.get(key, default) is mapping.pop(key, default) is default
        assert mapping.pop(key, None) is None
        for call in (mapping.__getitem__, mapping.__delitem__, mapping.pop):
            with pytest.raises(KeyError) as caught:
                call(key)
            assert caught.value.args == (key,)
        writes_nothing(mapping, key)
    for key in ([], {}):
        assert key not in mapping
        for call in (mapping.__getitem__, mapping.get, mapping.__delitem__, mapping.pop):
            with pytest.raises(TypeError):
                call(key)
        with pytest.raises(TypeError):
            mapping.pop(key, default)
        writes_nothing(mapping, key)
    item: Any
    for item in (5, "1", ("1",), ["1", 1], ("1", 1, 1), None):
        assert item not in mapping.items()
    assert ("1", 1) in mapping.items()


def writes_nothing(mapping: NfsDict[Any], key: Any) -> None:
    for call in (
        lambda: mapping.setdefault(key, 1),
        lambda: mapping.__setitem__(key, 1),
        lambda: mapping.update([(key, 1)]),
    ):
        with pytest.raises(TypeError):
            call()
    assert mapping == {"1": 1}


def awkward_keys(make: Make) -> None:
    entries = {key: number for number, key in enumerate(AWKWARD)}
    mapping = make(entries)
    assert set(mapping) == set(AWKWARD)
    for key, number in entries.items():
        assert mapping[key] == mapping.get(key) == number and key in mapping
        mapping[key] = -number
    assert mapping == {key: -number for key, number in entries.items()}
    assert mapping.pop("") == 0
    for key in AWKWARD[1:]:
        del mapping[key]
    assert not mapping


def copies(make: Make) -> None:
    mapping = make({"a": 1})
    other = copy.copy(mapping)
    assert other == mapping == {"a": 1}
    assert type(other) is type(mapping)


CHECKS: list[Callable[[Make], None]] = [
    lookups,
    empty,
    writes,
    deletes,
    pops,
    popitems,
    setdefaults,
    updates,
    clears,
    views,
    iterates_over_a_snapshot,
    equality,
    other_key_types,
    awkward_keys,
    copies,
]
