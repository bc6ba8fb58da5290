"""The packs and their head on disk, byte by byte, against an encoder of their description."""

from __future__ import annotations

import hashlib
import importlib
import itertools
import os
import pickle
import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.aging import age
from support.index_layout import (
    NO_SHARD,
    NO_STAMP,
    TWINS,
    UNKNOWN,
    Said,
    decoded_head,
    decoded_pack,
    described,
    encoded_head,
    encoded_pack,
    head_file,
    left_behind,
    open_,
    pack_file,
    pickled,
    plain_delete,
    plain_write,
    signature,
    stack,
    stamp,
    utf8,
    write_stack,
)
from support.layout import digest, value_file


@pytest.fixture
def limit(nfsdict):
    """Values of more bytes are left to their files."""
    return importlib.import_module("nfsdict.index.pack").PACKED


# --- the format, written ---------------------------------------------------------


statements = st.dictionaries(
    st.text(st.characters(exclude_categories=()), max_size=8),
    st.one_of(
        st.none(),  # gone
        st.tuples(
            st.binary(min_size=32, max_size=32),
            st.one_of(st.none(), st.binary(max_size=40)),
        ),
    ),
    max_size=12,
)
times = st.integers(-(2**63), 2**63 - 1)
stamps = st.tuples(times, times).filter(lambda stamp: stamp != NO_SHARD)


def layered(contents, moments):
    """What the package and the reference are told of these keys."""
    pack = {}
    for key in sorted(contents, key=lambda key: hashlib.sha256(utf8(key)).digest()):
        shard = hashlib.sha256(utf8(key)).hexdigest()[:2]
        if shard not in pack:
            pack[shard] = (next(moments), [])
        pack[shard][1].append(Said(key, *(contents[key] or (None, None))))
    return pack


def written(nfsdict, store, pack):
    """The record of this pack, which the package writes."""
    module = importlib.import_module("nfsdict.index.pack")
    writer = module.PackWriter(store)
    for shard in sorted(pack):
        moment, said = pack[shard]
        writer.write_shard(shard, moment, [module.PackRecord(*one) for one in said])
    return writer.publish()


@given(contents=statements, moments=st.lists(stamps, min_size=12, max_size=12), empty=st.booleans())
@settings(max_examples=60)
def test_a_pack_is_written_and_read_as_described(nfsdict, contents, moments, empty):
    module = importlib.import_module("nfsdict.index.pack")
    Storage = importlib.import_module("nfsdict.storage").Storage
    pack = layered(contents, iter(moments))
    if empty:
        pack.setdefault("7f", (moments[0], []))
    with tempfile.TemporaryDirectory() as base:
        store = Storage(os.path.join(base, "store"), ".pkl", None, False)
        store.create(store.missing())
        record = written(nfsdict, store.index, pack)
        data = pack_file(Path(base), record.pack_id).read_bytes()
        assert (data, tuple(record)) == encoded_pack(pack, record.pack_id)
        assert record.bytes == len(data)
        assert decoded_pack(data, record) == pack

        opened = module.Pack(store.index, record)
        assert len(opened.shards) == 256
        for name, shard in opened.shards.items():
            moment, said = pack.get(name, (NO_SHARD, []))
            assert (shard.stamp, shard.keys) == (moment, [one.key for one in said])
            assert shard.signatures == b"".join(one.signature or UNKNOWN for one in said)
            assert list(shard.tombstones()) == [one.signature is None for one in said]
            assert shard.any_tombstone() >= any(shard.tombstones())
            assert opened.section_values(name) == [one.value for one in said]
        opened.close()


def test_a_large_pack_is_written_as_described(nfsdict, tmp_path):
    """It doesn't fit into what is kept in memory."""
    Storage = importlib.import_module("nfsdict.storage").Storage
    store = Storage(str(tmp_path / "store"), ".pkl", None, False)
    store.create(store.missing())
    values = random.Random(3)
    contents = {
        f"key {number}": (bytes([number % 256]) * 32, values.randbytes(30_000))
        for number in range(150)
    }
    pack = layered(contents, ((number, 2 * number) for number in itertools.count(1)))
    record = written(nfsdict, store.index, pack)
    data = pack_file(tmp_path, record.pack_id).read_bytes()
    assert (data, tuple(record)) == encoded_pack(pack, record.pack_id)
    assert len(data) > 4_000_000


def test_what_an_opener_writes(nfsdict, tmp_path, limit):
    """Of files that were read: signatures, and the bytes of small ones, if both prove something."""
    overhead = len(pickled("a", b"x" * limit)) - limit
    values = {"a": b"x" * (limit - overhead), "b": b"x" * (limit - overhead + 1), "c": 3}
    for key, value in values.items():
        plain_write(tmp_path, key, value)
    plain_write(tmp_path, TWINS[0], 5)
    age(tmp_path)
    plain_write(tmp_path, "d", 4)
    plain_write(tmp_path, TWINS[1], 6)
    open_(nfsdict, tmp_path)

    expected = described(
        tmp_path, {"a": pickled("a", values["a"]), "b": None, "c": pickled("c", 3)}
    )
    assert len(expected["ca"][1][0].value) == limit
    expected[digest("d")[:2]] = (NO_STAMP, [Said("d", UNKNOWN, None)])
    expected["00"] = (
        NO_STAMP,
        sorted(
            [
                Said(TWINS[0], signature(tmp_path, TWINS[0]), pickled(TWINS[0], 5)),
                Said(TWINS[1], UNKNOWN, None),
            ],
            key=lambda said: digest(said.key),
        ),
    )
    assert stack(tmp_path) == [expected]
    assert left_behind(tmp_path) == []


def test_a_head_is_written_as_described(nfsdict, tmp_path):
    """It names the packs, the lowest first; what has changed is all that the higher one says."""
    for key in TWINS:
        plain_write(tmp_path, key, "x" * 600)
    plain_write(tmp_path, "a", 1)
    age(tmp_path)
    open_(nfsdict, tmp_path)
    [lowest] = stack(tmp_path)
    for key in TWINS[:8]:
        plain_write(tmp_path, key, "y")
    plain_delete(tmp_path, TWINS[8])
    age(tmp_path)
    open_(nfsdict, tmp_path)

    changed = described(tmp_path, {key: pickled(key, "y") for key in TWINS[:8]})
    changed["00"][1].append(Said(TWINS[8], None, None))
    changed["00"][1].sort(key=lambda said: digest(said.key))
    assert stack(tmp_path) == [lowest, changed]
    head = head_file(tmp_path).read_bytes()
    assert head == encoded_head(decoded_head(head))
    assert {len(record.name) for record in decoded_head(head)} == {24}


def test_packs_are_merged_as_described(nfsdict, tmp_path):
    """Each overrules those below it; the lowest needs no key that is gone."""
    T = [(number, 100 - number) for number in range(11)]
    for key in "abcdef":
        plain_write(tmp_path, key, "file")
    age(tmp_path)
    a, b, c, d, e = (Said(key, signature(tmp_path, key), pickled(key, "packed")) for key in "abcde")
    packs = [
        {"ca": (T[1], [a]), "3e": (T[2], [b]), "2e": (T[3], [c]), "18": (T[4], [d])},
        {"3f": (T[5], [e])},
        {"ca": (T[6], [a._replace(value=None)]), "3e": (T[7], [Said("b", None, None)])},
        {"3e": (T[9], []), "18": (T[10], [d._replace(signature=UNKNOWN, value=None)])},
        {"01": (T[8], [])},
    ]
    store = nfsdict.NfsDict("store", tmp_path, lazy=True)._storage.index
    write_stack(tmp_path, packs)
    module = importlib.import_module("nfsdict.index.pack")
    records = decoded_head(head_file(tmp_path).read_bytes())
    opened = [module.Pack(store, module.ManifestEntry(*record)) for record in records]
    for last in (True, False):
        record = module.merged(store, opened, last)
        gone = [] if last else [Said("b", None, None)]
        assert decoded_pack(pack_file(tmp_path, record.pack_id).read_bytes(), record) == {
            "01": (T[8], []),
            "18": (T[10], [Said("d", UNKNOWN, None)]),
            "2e": (T[3], [c]),
            "3e": (T[9], gone),
            "3f": (T[5], [e]),
            "ca": (T[6], [a._replace(value=None)]),
        }
    for pack in opened:
        pack.close()


# --- the format, read ------------------------------------------------------------------------


def test_what_is_described_is_believed(nfsdict, tmp_path, lists, reads):
    """As far as stamps and signatures prove it: so what it holds can be told from the files."""
    for key in "abcd":
        plain_write(tmp_path, key, "file")
    age(tmp_path)
    right = described(tmp_path, {key: pickled(key, "packed") for key in "abcd"})
    write_stack(tmp_path, [right])
    assert dict(open_(nfsdict, tmp_path)) == dict.fromkeys("abcd", "packed")
    assert lists == [] and reads == []
    lazy = open_(nfsdict, tmp_path, lazy=True)
    assert sorted(lazy) == list("abcd")
    assert lists == [] and reads == []
    assert dict(lazy) == dict.fromkeys("abcd", "file")
    reads.clear()

    # Another stamp: the directory is listed, and the signatures found there prove the values.
    mtime, ctime = right["ca"][0]
    for stamp_ in ((mtime + 1, ctime), (mtime, ctime + 1)):
        lists.clear()
        write_stack(tmp_path, [{**right, "ca": (stamp_, right["ca"][1])}])
        assert dict(open_(nfsdict, tmp_path)) == dict.fromkeys("abcd", "packed")
        assert lists == ["ca"] and reads == []


@pytest.mark.parametrize("offset", [0, 8, 16, 24], ids=["inode", "size", "mtime", "ctime"])
def test_what_has_another_signature_is_read(nfsdict, tmp_path, lists, reads, offset):
    for key in "ab":
        plain_write(tmp_path, key, "file")
    age(tmp_path)
    pack = described(tmp_path, {key: pickled(key, "packed") for key in "ab"})
    (mtime, ctime), [a] = pack["ca"]
    other = bytearray(a.signature)
    other[offset] ^= 1
    pack["ca"] = (mtime + 1, ctime), [a._replace(signature=bytes(other))]
    write_stack(tmp_path, [pack])
    assert dict(open_(nfsdict, tmp_path)) == {"a": "file", "b": "packed"}
    assert lists == ["ca"] and reads == [value_file(tmp_path, "a").name]


def test_higher_packs_overrule_lower_ones(nfsdict, tmp_path, lists, reads):
    for key in "abcd":
        plain_write(tmp_path, key, "file")
    age(tmp_path)
    plain_delete(tmp_path, "d")
    low, high = (
        described(tmp_path, {key: pickled(key, value) for key in "abc"})
        for value in ("low", "high")
    )
    gone = stamp(tmp_path, "18"), [Said("d", UNKNOWN, pickled("d", "low"))]
    without = {shard: (moment, []) for shard, (moment, _) in high.items()}
    loose = {"2e": (high["2e"][0], [high["2e"][1][0]._replace(value=None)])}
    write_stack(
        tmp_path,
        [
            {**low, "18": gone},
            {"ca": high["ca"], "18": (gone[0], [Said("d", None, None)])},
            {**without, **loose},
        ],
    )
    assert dict(open_(nfsdict, tmp_path)) == {"a": "high", "b": "low", "c": "file"}
    assert lists == [] and reads == [value_file(tmp_path, "c").name]
    assert sorted(open_(nfsdict, tmp_path, lazy=True)) == ["a", "b", "c"]
    assert lists == []


@pytest.mark.parametrize(
    "data",
    [pickled("b", "packed"), pickled("a", 1)[:-4], b"", b"\0" * 50, pickle.dumps(7), b"cno\nne\n."],
    ids=["another key", "cut short", "empty", "zeros", "no pair", "no such class"],
)
def test_bytes_that_are_no_entry_are_read_from_the_file(nfsdict, tmp_path, reads, data):
    """Those beside them are taken."""
    for key in (*TWINS[:3], "a"):
        plain_write(tmp_path, key, "file")
    age(tmp_path)
    packed = {key: pickled(key, "packed") for key in TWINS[:3]}
    write_stack(tmp_path, [described(tmp_path, {**packed, "a": data})])
    wanted = {**dict.fromkeys(TWINS[:3], "packed"), "a": "file"}
    assert dict(open_(nfsdict, tmp_path)) == wanted
    assert reads == [value_file(tmp_path, "a").name]
    write_stack(tmp_path, [described(tmp_path, {**packed, TWINS[1]: data})])
    assert open_(nfsdict, tmp_path)[TWINS[1]] == "file"
    assert open_(nfsdict, tmp_path)[TWINS[2]] == "packed"
