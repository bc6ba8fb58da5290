"""The index: a hint that is never believed beyond what stamps prove."""

from __future__ import annotations

import collections
import hashlib
import importlib
import json
import os
import pickle
import random
import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

SECOND = 1_000_000_000
MOMENT = 1_000 * SECOND  # the server's time in what is not about real files
LONG_AGO = 10 * SECOND
UNKNOWN = bytes(24)


def digest(key):
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def sign(mtime, inode=5, size=9):
    return struct.pack("<QQq", inode, size, mtime)


OLD = sign(LONG_AGO)


@pytest.fixture
def index_module(nfsdict):
    return importlib.import_module("nfsdict.index")


@pytest.fixture
def Index(index_module):
    return index_module.Index


@pytest.fixture
def Known(index_module):
    return index_module.Known


@pytest.fixture
def listed(Index, Known):
    """An index of these keys, as if every shard had been listed long after the last change."""

    def build(keys, stamp=LONG_AGO, signature=OLD):
        index = Index()
        shards = collections.defaultdict(dict)
        for key in keys:
            shards[digest(key)[:2]][digest(key)] = Known(key, signature, None)
        for shard, entries in shards.items():
            index.replace(shard, stamp, entries, MOMENT)
        return index

    return build


def content(index):
    """All that an index file says: {shard: (stamp, {key: signature})}, of shards that say much."""
    told = {}
    for number, (stamp, keys, signatures) in enumerate(
        shard.merged() for shard in index._shards.values()
    ):
        assert keys == sorted(keys, key=digest)
        assert len(signatures) == 24 * len(keys)
        if stamp or keys:
            told[f"{number:02x}"] = (
                stamp,
                {key: signatures[24 * i : 24 * i + 24] for i, key in enumerate(keys)},
            )
    return told


def reloaded(Index, index):
    other = Index()
    other.load(index.encode())
    return content(other)


# --- the file, byte by byte ------------------------


def by_hand(shards):
    """The file that the module's documentation describes; {shard: (stamp, [(key, 3 numbers)])}."""
    body = b""
    for number in range(256):
        stamp, entries = shards.get(f"{number:02x}", (0, []))
        encoded = [key.encode("utf-8", "surrogatepass") for key, _ in entries]
        body += stamp.to_bytes(8, "little", signed=True)
        body += len(entries).to_bytes(4, "little")
        body += sum(map(len, encoded)).to_bytes(8, "little")
        for _, (inode, size, mtime) in entries:
            body += inode.to_bytes(8, "little") + size.to_bytes(8, "little")
            body += mtime.to_bytes(8, "little", signed=True)
        for key in encoded:
            body += len(key).to_bytes(4, "little")
        body += b"".join(encoded)
    return b"nfsdidx" + bytes([1]) + zlib.crc32(body).to_bytes(4, "little") + body


def test_the_format_is_the_documented_one(Index, Known):
    keys = sorted(["", "é", "a\0b", "line\n", "k\ud800", "x" * 5000], key=digest)
    numbers = {key: (2**64 - 1 - i, i, -(3**i)) for i, key in enumerate(keys)}
    shards = {
        shard: (
            -7 if shard < "80" else LONG_AGO,
            [(key, numbers[key]) for key in keys if digest(key)[:2] == shard],
        )
        for shard in {digest(key)[:2] for key in keys}
    }
    file = by_hand(shards)

    read = Index()
    read.load(file)
    assert content(read) == {
        shard: (stamp, {key: struct.pack("<QQq", *three) for key, three in entries})
        for shard, (stamp, entries) in shards.items()
    }
    assert read.encode() == file

    written = Index()
    for shard, (stamp, entries) in shards.items():
        known = {digest(k): Known(k, struct.pack("<QQq", *three), None) for k, three in entries}
        written.replace(shard, stamp, known, MOMENT)
    assert written.encode() == file


def test_an_empty_index(Index):
    assert Index().encode() == by_hand({})
    assert len(by_hand({})) == 12 + 256 * 20


@given(keys=st.sets(st.text(), max_size=30))
@settings(max_examples=30)
def test_round_trip(nfsdict, keys):
    module = importlib.import_module("nfsdict.index")
    index = module.Index()
    for key in keys:
        index.replace(
            digest(key)[:2],
            LONG_AGO,
            {
                digest(k): module.Known(k, OLD, None)
                for k in keys
                if digest(k)[:2] == digest(key)[:2]
            },
            MOMENT,
        )
    other = module.Index()
    other.load(index.encode())
    assert content(other) == content(index)
    assert sorted(k for _, known in content(other).values() for k in known) == sorted(keys)
    assert not other.changed


# --- what changed since ------------------------


def test_a_file_read_anew_makes_the_shard_unknown(listed, Index, Known):
    index = listed(["a", "b"])
    index.changed = False
    index.read(digest("a"), Known("a", sign(LONG_AGO, inode=6), 1))
    assert index.changed
    told = reloaded(Index, index)
    assert told[digest("a")[:2]] == (0, {"a": UNKNOWN})
    assert told[digest("b")[:2]] == (LONG_AGO, {"b": OLD})


def test_reading_what_is_known_changes_nothing(listed, Known):
    index = listed(["a"])
    before = content(index)
    index.changed = False
    index.read(digest("a"), Known("a", OLD, 1))
    assert content(index) == before and not index.changed


def test_writing_makes_the_shard_unknown_whatever_the_signature(listed, Index, Known):
    index = listed(["a"])
    index.wrote(digest("a"), Known("a", OLD, 1))
    assert reloaded(Index, index) == {digest("a")[:2]: (0, {"a": UNKNOWN})}


def test_reading_a_new_key(listed, Index, Known):
    index = listed(["a"])
    index.read(digest("new"), Known("new", OLD, 1))
    assert reloaded(Index, index)[digest("new")[:2]] == (0, {"new": UNKNOWN})


def test_a_drop(listed, Index):
    index = listed(["a", "b"])
    index.changed = False
    index.drop(digest("stranger"), "stranger")
    assert not index.changed
    index.drop(digest("a"), "a")
    assert index.changed
    assert index.shard(digest("a")[:2]).find(digest("a"), "a") is None
    assert reloaded(Index, index) == {digest("b")[:2]: (LONG_AGO, {"b": OLD})}


def test_dropped_and_written_again(listed, Index, Known):
    index = listed(["a"])
    index.drop(digest("a"), "a")
    index.read(digest("a"), Known("a", OLD, 1))
    assert reloaded(Index, index) == {digest("a")[:2]: (0, {"a": UNKNOWN})}
    index.drop(digest("a"), "a")
    assert reloaded(Index, index) == {}


def test_loading_goes_below_what_is_noted(listed, Index, Known):
    file = listed(["a", "b", "c"]).encode()
    index = Index()
    index.read(digest("a"), Known("a", sign(LONG_AGO, inode=6), 1))
    index.read(digest("b"), Known("b", OLD, 1))
    index.read(digest("d"), Known("d", OLD, 1))
    index.load(file)
    told = content(index)
    assert told[digest("a")[:2]] == (0, {"a": UNKNOWN})
    assert told[digest("b")[:2]] == (LONG_AGO, {"b": OLD})  # it says the same
    assert told[digest("c")[:2]] == (LONG_AGO, {"c": OLD})
    assert told[digest("d")[:2]] == (0, {"d": UNKNOWN})


def test_find(listed, Known):
    keys = [f"key {number}" for number in range(3000)]
    index = listed(keys)
    for key in keys:
        assert index.shard(digest(key)[:2]).find(digest(key), key) == Known(key, OLD, None)
    for number in range(300):
        key = f"no key {number}"
        assert index.shard(digest(key)[:2]).find(digest(key), key) is None


# --- racy stamps and signatures ------------------------


@pytest.mark.parametrize(
    ("age", "moment", "kept"),
    [
        (LONG_AGO, MOMENT, True),
        (3 * SECOND + 1, MOMENT, True),
        (3 * SECOND, MOMENT, False),
        (0, MOMENT, False),
        (-LONG_AGO, MOMENT, False),  # the server's clock was set back
        (LONG_AGO, None, False),
    ],
)
def test_racy_is_written_as_unknown(Index, Known, age, moment, kept):
    taken = MOMENT - age
    index = Index()
    shard = digest("a")[:2]
    index.replace(shard, taken, {digest("a"): Known("a", OLD, None)}, moment)
    stamp, known = reloaded(Index, index)[shard]
    assert stamp == (taken if kept else 0)
    assert known == {"a": OLD if moment else UNKNOWN}

    index.replace(shard, 1, {digest("a"): Known("a", sign(taken), None)}, moment)
    assert reloaded(Index, index)[shard][1] == {"a": sign(taken) if kept else UNKNOWN}


def test_a_racy_signature_is_known_here_and_unknown_in_the_file(Index, Known):
    index = Index()
    shard = digest("a")[:2]
    known = Known("a", sign(MOMENT), 17)
    index.replace(shard, LONG_AGO, {digest("a"): known}, MOMENT)
    assert index.shard(shard).find(digest("a"), "a") == known
    assert reloaded(Index, index) == {shard: (LONG_AGO, {"a": UNKNOWN})}


def test_what_was_noted_during_a_survey_stays(listed, Known):
    index = listed(["a"])
    shard = digest("a")[:2]
    index.read(digest("a"), Known("a", sign(MOMENT, inode=8), 1))
    index.replace(shard, LONG_AGO, {digest("a"): Known("a", OLD, None)}, MOMENT, {"a"})
    assert index.shard(shard).find(digest("a"), "a").signature == sign(MOMENT, inode=8)
    assert content(index)[shard][0] == 0
    index.replace(shard, LONG_AGO, {digest("a"): Known("a", OLD, None)}, MOMENT, {"other"})
    assert content(index)[shard] == (LONG_AGO, {"a": OLD})


# --- damaged, foreign, newer ------------------------


def sealed(magic, body):
    return magic + struct.pack("<I", zlib.crc32(body)) + body


def test_every_byte_of_the_file_changed(listed, Index):
    file = listed(["a", "é"]).encode()
    for position in range(len(file)):
        damaged = bytearray(file)
        damaged[position] ^= 0x10
        with pytest.raises(ValueError):
            Index().load(bytes(damaged))


def test_every_truncation_of_the_file(listed, Index):
    file = listed(["a", "é"]).encode()
    for end in range(len(file)):
        with pytest.raises(ValueError):
            Index().load(file[:end])


DAMAGE = {
    "empty": lambda file: b"",
    "zeros": lambda file: bytes(len(file)),
    "random": lambda file: random.Random(4).getrandbits(8 * len(file)).to_bytes(len(file), "big"),
    "half": lambda file: file[: len(file) // 2],
    "one byte": lambda file: file[:-1] + bytes([file[-1] ^ 1]),
    "longer": lambda file: file + b"\0",
    "newer": lambda file: sealed(b"nfsdidx\x02", file[12:]),
    "older": lambda file: sealed(b"nfsdidx\x00", file[12:]),
    "foreign": lambda file: pickle.dumps(["a", "b"]),
    "sealed nonsense": lambda file: sealed(b"nfsdidx\x01", b"nonsense"),
    "sealed, a shard too few": lambda file: sealed(b"nfsdidx\x01", file[12:-20]),
}


@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_index_is_ignored_and_rebuilt(nfsdict, tmp_path, damage, lazy):
    wanted = {f"key {number}": number for number in range(20)}
    with open_(nfsdict, tmp_path) as d:
        d.update(wanted)
    path = tmp_path / "store" / "_index.nfsdict-pkl"
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    with open_(nfsdict, tmp_path, lazy=lazy) as d:
        assert dict(d) == wanted
    rebuilt = importlib.import_module("nfsdict.index").Index()
    rebuilt.load(path.read_bytes())
    assert {key for _, known in content(rebuilt).values() for key in known} == set(wanted)


def test_a_directory_in_the_place_of_the_index(nfsdict, tmp_path):
    (tmp_path / "store" / "_index.nfsdict-pkl").mkdir(parents=True)
    for _ in range(2):
        with open_(nfsdict, tmp_path) as d:
            d.update(a=1)
            assert dict(d) == {"a": 1}


# --- with files, written by this dictionary and by anybody ------------------------


def open_(nfsdict, base, **options):
    return nfsdict.NfsDict("store", base, durable=False, workers=2, **options)


def file_of(store, key):
    return store / digest(key)[:2] / f"{digest(key)}.pkl"


def plain_write(store, key, value):
    """As any program may write an entry."""
    path = file_of(store, key)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_name("tmpabcdefgh").write_bytes(pickle.dumps((key, value)))
    os.replace(path.with_name("tmpabcdefgh"), path)


def age(store, seconds=60):
    """Make all of it so much older, so that stamps and signatures prove something."""
    for path in [*store.glob("??/*"), *store.glob("??")]:
        status = path.stat()
        mtime = status.st_mtime_ns - seconds * SECOND
        os.utime(path, ns=(mtime, mtime))


@pytest.fixture
def lists(nfsdict, monkeypatch):
    """The shards that were listed, in order of the calls."""
    Store = importlib.import_module("nfsdict.store").Store
    calls = []
    original = Store.list
    monkeypatch.setattr(
        Store, "list", lambda self, shard: calls.append(shard) or original(self, shard)
    )
    return calls


@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
def test_clean_shards_are_not_listed_again(nfsdict, tmp_path, lists, lazy):
    store = tmp_path / "store"
    wanted = {f"key {number}": number for number in range(50)}
    for key, value in wanted.items():
        plain_write(store, key, value)
    shards = {digest(key)[:2] for key in wanted}
    age(store)

    with open_(nfsdict, tmp_path, lazy=lazy) as d:
        assert dict(d) == wanted
    assert sorted(lists) == sorted(shards)
    lists.clear()

    with open_(nfsdict, tmp_path, lazy=lazy) as d:
        assert len(d) == len(wanted) and dict(d) == wanted
    assert lists == []

    plain_write(store, "key 3", "other")
    plain_write(store, "new", "value")
    file_of(store, "key 4").unlink()
    wanted.update({"key 3": "other", "new": "value"})
    del wanted["key 4"]
    with open_(nfsdict, tmp_path, lazy=lazy) as d:
        assert len(d) == len(wanted) and dict(d) == wanted
    assert sorted(lists) == sorted({digest(key)[:2] for key in ("key 3", "new", "key 4")})


def test_a_shard_that_vanished(nfsdict, tmp_path):
    store = tmp_path / "store"
    for key in "abc":
        plain_write(store, key, 1)
    age(store)
    with open_(nfsdict, tmp_path) as d:
        assert len(d) == 3
    file_of(store, "a").unlink()
    file_of(store, "a").parent.rmdir()
    with open_(nfsdict, tmp_path) as d:
        assert set(d) == {"b", "c"}
    with open_(nfsdict, tmp_path, lazy=True) as d:
        assert set(d) == {"b", "c"}


@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
def test_a_change_within_one_tick_of_the_stamp(nfsdict, tmp_path, lazy):
    store = tmp_path / "store"
    with open_(nfsdict, tmp_path) as d:
        d["a"] = 1
    with open_(nfsdict, tmp_path) as d:  # has listed it
        assert set(d) == {"a"}
    same_shard = next(key for key in map(str, range(10_000)) if digest(key)[:2] == digest("a")[:2])
    shard = file_of(store, "a").parent
    stamp = shard.stat().st_mtime_ns
    plain_write(store, same_shard, 2)
    os.utime(shard, ns=(stamp, stamp))
    with open_(nfsdict, tmp_path, lazy=lazy) as d:
        assert dict(d) == {"a": 1, same_shard: 2}


@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
def test_a_new_open_lists_what_the_store_holds_whoever_wrote_it(nfsdict, tmp_path, lazy):
    """Writers of both kinds in turn, with and without an index, aged or not."""
    store = tmp_path / "store"
    index = store / "_index.nfsdict-pkl"
    generator = random.Random(5)
    wanted = {}
    keys = [f"key {number}" for number in range(40)]
    for turn in range(30):
        key = generator.choice(keys)
        plain_write(store, key, turn)
        wanted[key] = turn
        key = generator.choice(keys)
        if wanted.pop(key, None) is not None:
            file_of(store, key).unlink()
        if generator.random() < 0.5:
            age(store, 60)
        if generator.random() < 0.2 and index.exists():
            index.unlink()
        with open_(nfsdict, tmp_path, lazy=lazy) as d:
            assert set(d) == set(wanted)
            assert dict(d) == wanted
            key = generator.choice(keys)
            d[key] = wanted[key] = -turn
            if generator.random() < 0.3:
                key, value = d.popitem()
                assert wanted.pop(key) == value
            assert dict(d) == wanted
            if generator.random() < 0.2:
                index.unlink(missing_ok=True)


def test_the_index_can_go_at_any_time(nfsdict, tmp_path):
    index = tmp_path / "store" / "_index.nfsdict-pkl"
    with open_(nfsdict, tmp_path) as d:
        d["a"] = 1
    first = open_(nfsdict, tmp_path, lazy=True)
    index.unlink()
    assert dict(first) == {"a": 1}
    first["b"] = 2
    first.close()
    assert index.exists()
    index.unlink()
    assert dict(open_(nfsdict, tmp_path)) == {"a": 1, "b": 2}


def test_stores_of_different_serializers_have_indexes_of_their_own(nfsdict, tmp_path):
    for serializer, value in (("pickle", 1), ("json", 2), ("bytes", b"3")):
        with open_(nfsdict, tmp_path, serializer=serializer) as d:
            d["k"] = value
            assert dict(d) == {"k": value}
    names = {path.name for path in Path(tmp_path, "store").iterdir() if path.is_file()}
    assert names == {f"_index.nfsdict-{kind}" for kind in ("pkl", "json", "bin")}
    assert json.loads(next(Path(tmp_path, "store").glob("*/*.json")).read_text()) == ["k", 2]


def test_nothing_changed_nothing_written(nfsdict, tmp_path):
    store = tmp_path / "store"
    plain_write(store, "a", 1)
    age(store)
    with open_(nfsdict, tmp_path) as d:
        assert dict(d) == {"a": 1}
    inode = (store / "_index.nfsdict-pkl").stat().st_ino
    with open_(nfsdict, tmp_path) as d:
        assert dict(d) == {"a": 1}
    assert (store / "_index.nfsdict-pkl").stat().st_ino == inode
