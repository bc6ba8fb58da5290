"""The wrong serializer is an error, and no empty store."""

from __future__ import annotations

import gc
import importlib
import pickle

import pytest

from support.layout import digest

KEY = b"sixteen bytes..."


class BuiltinSerializer:
    extension = ".own"

    def dumps(self, obj):
        return pickle.dumps(obj)

    def loads(self, data):
        return pickle.loads(data)


LOOKUPS = {
    "[]": lambda d: d["absent"],
    "get": lambda d: d.get("absent"),
    "fresh": lambda d: d.get("key", fresh=True),
    "in": lambda d: "key" in d,
    "del": lambda d: d.__delitem__("key"),
    "pop": lambda d: d.pop("key", None),
    "setdefault": lambda d: d.setdefault("key", 1),
    "wait_for": lambda d: d.wait_for("key", timeout=0),
}
WHOLE = {
    "len": len,
    "list": list,
    "items": lambda d: dict(d.items()),
    "==": lambda d: d == {},
    "popitem": lambda d: d.popitem(),
    "sync": lambda d: d.sync(),
    "refresh": lambda d: d.refresh(),
    "pack": lambda d: d.pack(),
    "verify": lambda d: d.verify(),
    "repair": lambda d: d.repair(),
    "clear": lambda d: d.clear(),
}


@pytest.fixture
def jsons(opened):
    """A store of JSON, without an index, and what lies there."""
    d = opened(serializer="json")
    d.update({str(number): number for number in range(30)})
    return lambda: {path: path.read_bytes() for path in d.path.rglob("*") if path.is_file()}


@pytest.mark.parametrize("index", [False, True])
def test_an_opening_raises_each_time_and_writes_nothing(nfsdict, opened, jsons, index):
    if index:
        opened(serializer="json").close()
    before = jsons()
    for options in ({}, {"read_only": True}, {"serializer": "bytes"}, {"workers": 1}) * 2:
        with pytest.raises(nfsdict.WrongSerializerError):
            opened(**options)
    gc.collect()
    assert jsons() == before


@pytest.mark.parametrize("index", [False, True])
@pytest.mark.parametrize("left", [1, 3])
def test_a_work_list_that_is_nearly_worked_off(nfsdict, opened, index, left):
    """Nearly all shards are empty directories."""
    d = opened(serializer="json")
    d.update({str(number): number for number in range(1000)})
    if index:
        d.close()
    d = opened(serializer="json")
    while len(d) > left:
        d.popitem()
    d.close()
    for options in ({}, {"read_only": True}, {"serializer": "bytes", "workers": 1}):
        with pytest.raises(nfsdict.WrongSerializerError):
            opened(**options)
        with pytest.raises(nfsdict.WrongSerializerError):
            opened(**options, lazy=True).get("absent")
    assert len(opened(serializer="json")) == left


@pytest.mark.parametrize("extension", [".json.gz", ".pkl.zst", ".bin.1", ".pkl-x", ".json.bakery"])
def test_entries_of_an_own_serializer_are_no_copies(nfsdict, opened, extension):
    own = BuiltinSerializer()
    own.extension = extension
    opened(serializer=own)["key"] = 1
    with pytest.raises(nfsdict.WrongSerializerError) as caught:
        opened()
    assert caught.value.found == {extension: 1}
    kinds = importlib.import_module("nfsdict.kinds")
    assert kinds.kinds_in(caught.value.directory) == {extension: 1}, "what the command goes by"


def test_clear_says_when_a_store_has_only_other_entries(nfsdict, opened, jsons):
    before = jsons()
    with pytest.raises(nfsdict.WrongSerializerError):
        opened(lazy=True).clear()
    assert jsons() == before
    d = opened(lazy=True)
    d["key"] = 1
    d.clear()
    assert len(opened(serializer="json")) == 30


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("call", [*LOOKUPS, *WHOLE])
def test_a_lazy_one_raises_by_the_first_miss_or_listing(nfsdict, opened, jsons, call, read_only):
    before = jsons()
    d = opened(lazy=True, read_only=read_only)
    error = nfsdict.WrongSerializerError
    if read_only and call in ("del", "pop", "popitem", "setdefault", "pack", "repair", "clear"):
        error = (error, nfsdict.ReadOnlyError)
    for _ in range(2):
        with pytest.raises(error):
            {**LOOKUPS, **WHOLE}[call](d)
    d.close()
    assert jsons() == before


@pytest.mark.parametrize(
    ("written", "passed", "advice"),
    [
        ("json", "pickle", "serializer='json'"),
        ("pickle", "json", "serializer='pickle'"),
        ("bytes", "pickle", "serializer='bytes'"),
        ("buffers", "pickle", "serializer='buffers'"),
        ("signed", "pickle", "serializer=nfsdict.signed('pickle', key=...)"),
        ("pickle", "signed", "serializer='pickle'"),
        ("own", "pickle", "extension is '.own'"),
    ],
)
def test_it_says_what_is_there_and_what_to_pass(nfsdict, opened, written, passed, advice):
    special = {"signed": nfsdict.signed(key=KEY), "own": BuiltinSerializer()}
    d = opened(serializer=special.get(written, written))
    d.update({str(number): b"" if written == "bytes" else number for number in range(3)})
    with pytest.raises(nfsdict.WrongSerializerError) as caught:
        opened(serializer=special.get(passed, passed))
    error = caught.value
    assert not isinstance(error, (KeyError, OSError))
    assert error.found == {d._storage.extension: 3} and error.directory == str(d.path)
    for text in (advice, str(d.path), f"3 or more of {d._storage.extension}"):
        assert text in str(error)
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) and type(again) is type(error)


def test_two_on_purpose_go_on(nfsdict, opened, jsons):
    """The second one begins with a write by a lazy dictionary."""
    opened(lazy=True)["key"] = "pickled"
    assert dict(opened()) == {"key": "pickled"}
    assert opened(lazy=True).get("absent") is None
    assert len(opened(serializer="json")) == 30
    assert "key" not in opened(serializer="json", lazy=True)


def test_one_entry_among_many_of_another_is_found(opened):
    """Its shard is looked into, whichever that is."""
    opened(serializer="json").update({str(number): 0 for number in range(3000)})
    opened(lazy=True)["key"] = 1
    assert opened(lazy=True).get("absent") is None


def test_a_dictionary_that_lost_its_last_entry_goes_on(opened, jsons):
    d = opened(lazy=True)
    d["key"] = 1
    del d["key"]
    assert d.get("key") is None and len(d) == 0


def test_what_is_no_entry_of_another_serializer_stops_nothing(opened):
    d = opened()
    shard = d.path / digest("key")[:2]
    shard.mkdir()
    name = digest("key")
    for file in (
        f"{name}.pkl.damaged-0123456789ab",
        f"{name}.own.damaged-0123456789ab",
        f"{name}.pkl.bak",
        f"{name}.json.orig",
        f"{name}.pkl.signed.old",
        f"{name}.own.bak-2026-11-26",
        f"{name}.pkl~",
        f".{name}.json.swp",
        f"{name[:-1]}.json",
        f"00{name[2:]}.json",
        f"{name}",
        "note.json",
    ):
        (shard / file).write_bytes(b"")
    assert len(opened()) == 0
    assert opened(lazy=True).get("key") is None


def test_an_empty_store_is_any_ones(opened, jsons):
    opened(serializer="json").clear()
    for serializer in ("pickle", "json", "bytes"):
        assert len(opened(serializer=serializer)) == 0
        assert opened(serializer=serializer, lazy=True).get("key") is None


def test_it_lists_nothing_where_an_entry_is_known_and_little_where_none_is(opened, lists):
    d = opened()
    assert lists == []
    d.update({str(number): 0 for number in range(1000)})
    d.get("absent")
    assert lists == []
    lazy = opened(lazy=True)
    for _ in range(3):
        assert lazy.get("absent") is None
    assert len(lists) == 1
    d.clear()
    del lists[:]
    lazy = opened(lazy=True)
    for _ in range(3):
        assert lazy.get("absent") is None
    shards = sorted(path.name for path in d.path.glob("??"))
    assert sorted(lists) == shards and len(shards) > 200, "each once for this object"


def test_a_shard_that_cannot_be_listed_stops_no_lookup(opened, jsons, monkeypatch):
    Shards = importlib.import_module("nfsdict.storage.shards").Shards

    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr(Shards, "list", refuse)
    assert opened(lazy=True).get("absent") is None
