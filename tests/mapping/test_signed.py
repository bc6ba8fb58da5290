"""Signed values: what wasn't written with the key is refused before anything looks at it."""

from __future__ import annotations

import copy
import hashlib
import hmac
import importlib
import json
import multiprocessing
import os
import pickle

import pytest

from support.aging import age
from support.layout import digest
from support.planted import Evil, evil

KEY = b"sixteen bytes..."
OTHER = bytes(16)
SECOND = 1_000_000_000


@pytest.fixture
def signed(nfsdict):
    return nfsdict.signed


@pytest.fixture
def serializers(nfsdict):
    return importlib.import_module("nfsdict.serializers")


@pytest.fixture
def made(signed, opened):
    """Opens the test's store with the key."""
    return lambda **options: opened(**{"serializer": signed(key=KEY), **options})


def value_file(d, key, extension=".pkl.signed"):
    return d.path / digest(key)[:2] / f"{digest(key)}{extension}"


def code(data, extension=b".pkl", key=KEY):
    return hmac.new(key, b"nfsdict signed value 1\0" + extension + b"\0" + data, hashlib.sha256)


# --- the format ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inner", "value"), [("pickle", {1, "x"}), ("json", {"a": [1]}), ("bytes", b"\0\xff")]
)
def test_what_the_file_holds(signed, serializers, inner, value):
    own, plain = signed(inner, key=KEY), serializers.serializer_named(inner)
    data = own.dumps(("key", value))
    body = plain.dumps(("key", value))
    assert own.extension == plain.extension + ".signed"
    assert data == body + code(body, plain.extension.encode()).digest() + b"nfsdmac\x01"
    assert list(own.loads(data)) == ["key", value]


def test_around_a_users_own(signed, opened, nfsdict):
    d = opened(serializer=signed(Lines(), key=KEY))
    d["key"] = "line"
    assert value_file(d, "key", ".line.signed").read_bytes().startswith(b"key\nline")
    assert dict(opened(serializer=signed(Lines(), key=KEY))) == {"key": "line"}
    with pytest.raises(nfsdict.CorruptValueError):
        opened(serializer=signed(Lines(), key=OTHER), lazy=True)["key"]


class Lines:
    extension = ".line"

    def dumps(self, obj):
        return "\n".join(obj).encode()

    def loads(self, data):
        key, line = data.decode().split("\n")
        return key, line


@pytest.mark.parametrize("key", ["a text of sixteen", None, 5, bytearray(32), memoryview(KEY)])
def test_a_key_is_bytes(signed, key):
    with pytest.raises(TypeError, match=f"not {type(key).__name__}"):
        signed(key=key)
    with pytest.raises(TypeError):
        signed("pickle", KEY)


@pytest.mark.parametrize("length", [0, 1, 15])
def test_a_short_key(signed, length):
    with pytest.raises(ValueError, match="at least 16"):
        signed(key=bytes(length))
    signed(key=bytes(16))


def test_what_it_is_around_is_checked(signed):
    with pytest.raises(ValueError, match="unknown serializer"):
        signed("marshal", key=KEY)
    with pytest.raises(ValueError, match="no serializer"):
        signed(5, key=KEY)


class Refuses:
    def __reduce__(self):
        return int, ("x",)


def test_a_value_that_fails_to_load_is_no_damage(made):
    d = made()
    d["key"] = Refuses()
    report = made(lazy=True).verify()
    assert (report.damaged, len(report.unreadable)) == ({}, 1)


# --- what is refused -------------------------------------------------------------------------


def forged(signed, serializers):
    """Contents for the key ``key`` by somebody without the key."""
    body = evil("key")
    plain = serializers.serializer_named("pickle").dumps(("key", Evil()))
    other = signed(key=OTHER).dumps(("key", Evil()))
    unprefixed = body + hmac.new(KEY, body, hashlib.sha256).digest() + b"nfsdmac\x01"
    return {
        "empty": b"",
        "plain pickle": body,
        "pickle with a checksum": plain,
        "another key": other,
        "nothing but zeros for a code": body + bytes(32) + b"nfsdmac\x01",
        "its own hash": body + hashlib.sha256(body).digest() + b"nfsdmac\x01",
        "signed for another purpose": unprefixed,
        "of another serializer": body + code(body, b".json").digest() + b"nfsdmac\x01",
        "magic alone": b"nfsdmac\x01",
        "code and magic alone": bytes(32) + b"nfsdmac\x01",
        "signed, then more": signed(key=KEY).dumps(("key", 1)) + body,
        "more, then signed": body + signed(key=KEY).dumps(("key", 1)),
    }


# Of these nobody without the other key can say that they are damaged.
WELL_FORMED = {
    "another key",
    "nothing but zeros for a code",
    "its own hash",
    "signed for another purpose",
    "of another serializer",
}


def test_what_was_not_written_with_the_key_is_never_unpickled(
    signed, serializers, made, nfsdict
) -> None:
    d = made()
    d["key"] = d["other"] = 1
    path = value_file(d, "key")
    for name, data in forged(signed, serializers).items():
        path.write_bytes(data)
        with pytest.raises(nfsdict.CorruptValueError):
            d.get("key", fresh=True)
        with pytest.raises(nfsdict.CorruptValueError):
            made(lazy=True).pop("key")
        assert path.read_bytes() == data
        assert dict(made()) == {"other": 1}, name
        d.sync()
        assert dict(d) == {"other": 1}
        report = d.verify()
        assert (list(report.damaged) == [str(path)]) == (name not in WELL_FORMED)
        assert (list(report.unreadable) == [str(path)]) == (name in WELL_FORMED)
    d["key"] = 2
    assert dict(made()) == {"key": 2, "other": 1}


def test_another_keys_file_is_refused(made, nfsdict):
    d = made()
    d.update(a="a", b="b")
    value_file(d, "b").write_bytes(value_file(d, "a").read_bytes())
    with pytest.raises(nfsdict.CorruptValueError, match="another key"):
        made(lazy=True)["b"]


def test_with_another_key_nothing_is_read(made, signed, opened, nfsdict):
    made()["key"] = "value"
    stranger = opened(serializer=signed(key=OTHER))
    assert dict(stranger) == {}
    with pytest.raises(nfsdict.CorruptValueError, match="another key"):
        stranger["key"]
    assert dict(made()) == {"key": "value"}


def contents(store):
    return {path: path.read_bytes() for path in store.glob("??/*")}


@pytest.mark.parametrize("inner", ["pickle", "json", "bytes"])
def test_repair_with_a_wrong_key_moves_no_file(signed, opened, nfsdict, inner):
    d = opened(serializer=signed(inner, key=KEY))
    d.update({str(number): b"%d" % number if inner == "bytes" else "é" for number in range(20)})
    d.close()
    before = contents(d.path)
    stranger = opened(serializer=signed(inner, key=OTHER), lazy=True)
    done = stranger.repair()
    assert (done.quarantined, done.failed, done.report.damaged) == ({}, {}, {})
    assert len(done.report.unreadable) == 20 and not done.report.ok
    assert all("another key" in reason for reason in done.report.unreadable.values())
    assert contents(d.path) == before
    assert dict(opened(serializer=signed(inner, key=KEY))) == dict(d)
    with pytest.raises(nfsdict.CorruptValueError) as caught:
        stranger["1"]
    assert caught.value.foreign and caught.value.key == "1"


@pytest.mark.parametrize("inner", ["pickle", "json", "bytes"])
def test_repair_with_a_wrong_key_moves_what_is_damaged_for_everybody(signed, opened, inner):
    d = opened(serializer=signed(inner, key=KEY))
    d.update(a=b"one" if inner == "bytes" else "one", b=b"two" if inner == "bytes" else "two")
    path = value_file(d, "a", d._storage.extension)
    data = path.read_bytes()
    for wrong in (data[:1] + b"\x9b" + data[2:], data[:-1], data[20:], b"", data + b"."):
        path.write_bytes(wrong)
        done = opened(serializer=signed(inner, key=OTHER), lazy=True).repair()
        assert list(done.quarantined) == list(done.report.damaged) == [str(path)]
    assert dict(opened(serializer=signed(inner, key=KEY))) == {"b": d["b"]}


def test_repair_with_a_wrong_key_knows_nothing_of_a_users_own_format(signed, opened):
    d = opened(serializer=signed(Lines(), key=KEY))
    d["key"] = "line"
    before = contents(d.path)
    done = opened(serializer=signed(Lines(), key=OTHER), lazy=True).repair()
    assert (done.quarantined, len(done.report.unreadable)) == ({}, 1)
    assert contents(d.path) == before


def test_an_unsigned_pickle_signed_by_others_is_not_run_to_be_judged(signed, opened):
    path = value_file(opened(serializer=signed(key=KEY)), "key")
    path.parent.mkdir()
    path.write_bytes(signed(key=OTHER).dumps(("key", Evil())))
    d = opened(serializer=signed(key=KEY))
    assert list(d.repair().report.unreadable) == [str(path)] and path.exists()


def test_every_byte_and_every_truncation(signed, serializers):
    own = signed(key=KEY)
    data = own.dumps(("key", {"number": 7}))
    assert own.loads(data) == ("key", {"number": 7})
    for at in range(len(data)):
        for flip in range(1, 256):
            changed = data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :]
            with pytest.raises(serializers.Damaged):
                own.loads(changed)
        with pytest.raises(serializers.Damaged):
            own.loads(data[:at])
        with pytest.raises(serializers.Damaged):
            own.loads(data[at + 1 :])


def test_signed_and_unsigned_do_not_meet(made, opened, nfsdict):
    ours, plain = made(), opened()
    ours["key"], plain["key"] = "ours", "plain"
    # Planted under the other's name by who can write there.
    value_file(ours, "planted").parent.mkdir(exist_ok=True)
    value_file(ours, "planted", ".pkl").write_bytes(pickle.dumps(("planted", 1)))
    assert dict(made()) == {"key": "ours"}
    assert dict(opened()) == {"key": "plain", "planted": 1}
    ours.clear()
    assert len(opened()) == 2
    with pytest.raises(nfsdict.WrongSerializerError):
        made()
    made(lazy=True)["again"] = "ours"
    assert dict(made()) == {"again": "ours"} and len(opened()) == 2


# --- packs -----------------------------------------------------------------------------------


def packed(d):
    """Settle and pack the store."""
    d.close()
    age(d.path.parent)
    d.sync()
    assert d.pack().packed == len(d)


def forge_pack(d, contents):
    """Put these bytes into a pack in place of those of a key: every checksum, stamp and signature
    is right."""
    modules = {name: importlib.import_module(f"nfsdict.index.{name}") for name in ("stack", "pack")}
    SHARDS = importlib.import_module("nfsdict.layout").SHARDS
    PackRecord = modules["pack"].PackRecord
    packs = modules["stack"].PackStack(d._storage.index)
    packs.load_manifest()
    assert not packs.empty
    writer = modules["pack"].PackWriter(d._storage.index)
    planted = 0
    for name in SHARDS:
        for shard in packs.shards(name):
            values = {**packs.packed_values(name)}
            planted += len(values.keys() & contents.keys())
            values.update({key: contents[key] for key in values.keys() & contents.keys()})
            writer.write_shard(
                name,
                shard.stamp,
                [
                    PackRecord(key, shard.signature(at), values.get(key))
                    for at, key in enumerate(shard.keys)
                ],
            )
    packs._push([writer.publish()])
    packs.close_packs()
    assert planted == len(contents)


def test_values_are_served_from_a_pack(made, monkeypatch):
    d = made()
    d.update(a=1, b=2)
    packed(d)
    files = importlib.import_module("nfsdict.storage.files")
    original, read = files.read_files, []
    monkeypatch.setattr(files, "read_files", lambda paths: read.extend(paths) or original(paths))
    assert dict(made()) == {"a": 1, "b": 2}
    assert [os.path.basename(path) for path in read] == ["_index.nfsdict-pkl.signed"]


def test_a_planted_pack_is_refused(made, signed):
    """And so costs nothing but time: the files are read."""
    d = made()
    d.update(a=1, b=2, c=3)
    packed(d)
    forge_pack(d, {"a": evil("a"), "b": signed(key=OTHER).dumps(("b", Evil()))})
    for lazy in (False, True):
        again = made(lazy=lazy)
        assert dict(again) == {"a": 1, "b": 2, "c": 3}
        again.pack()
        assert again.verify().ok


def test_the_forged_pack_is_believed_without_a_signature(opened):
    """What the test above plants would run: it tests something."""
    d = opened()
    d.update(a=1, b=2)
    packed(d)
    d.close()
    forge_pack(d, {"a": pickle.dumps(("a", "planted"))})
    assert dict(opened()) == {"a": "planted", "b": 2}


def test_it_has_no_way_round_the_check(signed):
    assert not hasattr(signed(key=KEY), "loads_verified")


# --- the key ---------------------------------------------------------------------------------


def test_no_repr_shows_the_key(made, signed):
    d = made()
    d["key"] = 1
    value_file(d, "key").write_bytes(b"x")
    shown = [repr(d), repr(signed(key=KEY)), str(signed(Lines(), key=KEY)), repr(d._entries)]
    try:
        d.get("key", fresh=True)
    except KeyError as error:
        shown += [repr(error), str(error), repr(error.__cause__)]
    for short in (b"secret", "a secret text"):
        try:
            signed(key=short)
        except (TypeError, ValueError) as error:
            shown.append(repr(error))
    for text in shown:
        assert "sixteen" not in text and "secret" not in text
    assert repr(signed("json", key=KEY)) == "signed('json', key=...)"


def test_copies_and_pickles_of_a_dictionary(made):
    d = made()
    d["key"] = "value"
    for again in (copy.copy(d), copy.deepcopy(d), pickle.loads(pickle.dumps(d))):
        assert again["key"] == "value" and len(again) >= 1  # lazily: it lists later
        again[str(id(again))] = 1
    assert made()[str(id(again))] == 1


def in_worker(d):
    d["worker"] = os.getpid()
    return d["key"]


def test_in_another_process(made):
    d = made()
    d["key"] = "value"
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(in_worker, (d,)) == "value"
    assert d["worker"] != os.getpid()
    assert made(lazy=True)["worker"] == d["worker"]


def test_json_signed_is_still_json(signed):
    data = signed("json", key=KEY).dumps(("key", [1]))
    assert json.loads(data[:-40]) == ["key", [1]]
