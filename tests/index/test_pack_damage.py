"""What damage to the index costs: only time."""

from __future__ import annotations

import os
import pickle
import random
import struct
import zlib

import pytest

from support.aging import age
from support.index_layout import (
    TWINS,
    UNKNOWN,
    WANTED,
    Record,
    Said,
    decoded_head,
    described,
    encoded_head,
    left_behind,
    open_,
    pack_file,
    pickled,
    plain_write,
    stack,
    stamp,
    write_stack,
)
from support.layout import value_file

# --- damage ----------------------------------------------------------------------------------


@pytest.fixture
def settled(nfsdict, tmp_path, lists, reads):
    """A store of three keys, whose index says all. Gives the files of the index."""
    for key, value in WANTED.items():
        plain_write(tmp_path, key, value)
    age(tmp_path)
    open_(nfsdict, tmp_path)
    lists.clear()
    reads.clear()
    assert dict(open_(nfsdict, tmp_path)) == WANTED
    assert lists == reads == []
    head, pack = sorted(tmp_path.glob("store/_*"))
    return {head: head.read_bytes(), pack: pack.read_bytes()}


@pytest.fixture
def put(tmp_path):
    """Make the index of these files, and of no other."""

    def put(files):
        for path in tmp_path.glob("store/_*"):
            if path not in files:
                path.unlink()
        for path, data in files.items():
            path.write_bytes(data)

    return put


@pytest.fixture
def withstood(nfsdict, tmp_path, settled, lists, put):
    """Check what openers make of these changes to the files of the index."""

    def withstood(changed, lazily=None):
        for lazy, changes in ((False, changed), (True, lazily or changed)):
            put({**settled, **changes})
            with open_(nfsdict, tmp_path, lazy=lazy) as d:
                assert len(d) == len(WANTED) and dict(d) == WANTED, (lazy, changes)
            del lists[:]
            # Whoever comes next finds it mended.
            assert sorted(open_(nfsdict, tmp_path, lazy=True)) == sorted(WANTED)
            assert lists == []

    return withstood


def changes(path, positions, data):
    """For each position the file with that byte changed, in two ways."""
    for at in positions:
        byte = data[at]
        yield tuple(
            {path: data[:at] + bytes([other]) + data[at + 1 :]}
            for other in (byte ^ 1, (byte + 128) % 256)
        )


def interesting(data, record):
    """Positions in a pack: magic, sections, and the table where it says something."""
    at, positions = record.offset, set(range(record.offset))
    while at < len(data):
        n, t = struct.unpack_from("<IQ", data, at + 16)
        size = 40 + 40 * n + t
        if n:
            positions.update(range(at, at + size))
        at += size
    # And some of what says nothing; test_damage.py changes every byte, below the dictionary.
    return sorted(positions.union(range(0, len(data), 61)))


def test_any_byte_of_the_head_changed(settled, withstood):
    (head, data), _ = settled.items()
    for change in changes(head, range(len(data)), data):
        withstood(*change)


def test_any_byte_of_a_pack_changed(settled, withstood):
    (_, data), (pack, packed) = settled.items()
    [record] = decoded_head(data)
    for change in changes(pack, interesting(packed, record), packed):
        withstood(*change)


def test_head_or_pack_cut_short_anywhere(settled, withstood):
    (head, data), (pack, packed) = settled.items()
    [record] = decoded_head(data)
    for end in range(len(data)):
        withstood({head: data[:end]})
    for end in interesting(packed, record):
        withstood({pack: packed[:end]})


def test_a_head_is_believed_if_its_checksum_says_so(nfsdict, tmp_path, settled, put, lists):
    head, data = next(iter(settled.items()))
    put({**settled, head: data[:8] + bytes(4) + data[12:]})
    del lists[:]
    assert dict(open_(nfsdict, tmp_path)) == WANTED
    assert len(lists) == len(WANTED)


def test_pages_that_never_got_to_disk(settled, withstood):
    """Zeros from some point on, as a power cut leaves them."""
    for path, data in settled.items():
        for start in (0, 8, 12, len(data) // 2, len(data) - 1):
            withstood({path: data[:start] + bytes(len(data) - start)})


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0",
        bytes(4096),
        random.Random(1).randbytes(44),
        random.Random(2).randbytes(20_000),
        pickle.dumps(["a", "b"]),
        b"nfsdidx\x01" + bytes(36),
        b"nfsdidx\x03",
        b"nfsdidx\x03" + bytes(36),
        b"nfsdpak\x02",
        b"nfsdpak\x02" + bytes(256 * 40),
    ],
    ids=lambda content: f"{len(content)} bytes {content[:8].hex()}",
)
def test_something_else_in_the_place_of_head_or_pack(settled, withstood, content):
    for path in settled:
        withstood({path: content})


def test_a_head_of_another_version(settled, withstood):
    (head, data), _ = settled.items()
    for version in (b"\x01", b"\x02", b"\x04", b"\xff"):
        withstood({head: data[:7] + version + data[8:]})


def test_a_pack_of_another_version(settled, withstood):
    """The rest of it is as the head says."""
    _, (pack, packed) = settled.items()
    for version in (b"\x00", b"\x01", b"\x03", b"\xff"):
        withstood({pack: packed[:7] + version + packed[8:]})


def test_packing_an_empty_store_whose_head_is_damaged(nfsdict, tmp_path):
    with open_(nfsdict, tmp_path) as d:
        (tmp_path / "store" / "_index.nfsdict-pkl").write_bytes(b"junk")
        assert d.pack() == (0, 0, 0)
    assert dict(open_(nfsdict, tmp_path)) == {}


def test_head_or_pack_is_missing(nfsdict, tmp_path, settled, put, lists):
    for missing in settled:
        for lazy in (False, True):
            put({path: data for path, data in settled.items() if path != missing})
            with open_(nfsdict, tmp_path, lazy=lazy) as d:
                assert len(d) == len(WANTED) and dict(d) == WANTED
            del lists[:]
            assert dict(open_(nfsdict, tmp_path)) == WANTED
            assert lists == []


@pytest.mark.parametrize("kind", ["directory", "link", "fifo"])
def test_what_is_no_file_in_the_place_of_head_or_pack(nfsdict, tmp_path, settled, put, kind):
    """It stops nobody. The name is ours, and may be removed; what a link points to is not."""
    make = {"directory": os.mkdir, "link": lambda path: os.symlink("elsewhere", path)}
    elsewhere = tmp_path / "store" / "elsewhere"
    for path, data in settled.items():
        elsewhere.write_bytes(data)
        path.unlink()
        make.get(kind, os.mkfifo)(path)
        for lazy in (False, True):
            with open_(nfsdict, tmp_path, lazy=lazy) as d:
                assert len(d) == len(WANTED) and dict(d) == WANTED
                d.update(WANTED)
                assert dict(d) == WANTED
            assert not path.is_file() or path.is_symlink()
        assert elsewhere.read_bytes() == data
        path.rmdir() if kind == "directory" else path.unlink(missing_ok=True)
        put(settled)


LARGE = [2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1]


def test_a_head_that_is_whole_and_wrong(settled, withstood):
    """Its checksum is right, its records aren't: whoever wrote it, it stops nobody."""
    (head, data), (_, packed) = settled.items()
    [record] = decoded_head(data)
    wrong = [
        [record._replace(name="00" * 12)],
        [record._replace(name="00" * 12), record],
        [record, record._replace(name="ff" * 12)],
        [record._replace(checksum=record.checksum ^ 1)],
        [record._replace(offset=record.offset + 1)],
        [record._replace(offset=record.offset + 1, size=record.size - 1)],
        [record._replace(size=record.size - 1)],
        [record._replace(size=record.size + 1)],
        [record._replace(size=0, checksum=0)],
        [record._replace(offset=len(packed), size=0, checksum=0)],
        *([record._replace(offset=number)] for number in LARGE),
        *([record._replace(size=number)] for number in LARGE),
        [record._replace(offset=2**64 - 1, size=2**64 - 1)],
    ]
    for records in wrong:
        withstood({head: encoded_head(records)})
    withstood({head: encoded_head([record, record])})
    withstood({head: encoded_head([])})


def test_a_table_that_is_whole_and_wrong(settled, withstood):
    (head, data), (pack, packed) = settled.items()
    [record] = decoded_head(data)
    table = packed[record.offset :]
    at = 40 * 0x2E  # where the table first says something; nothing is said of those before
    fields = {16: 4, 20: 8, 28: 8, 36: 4, 72: 4, 76: 4}
    numbers = [0, 1, 2, 0xFFFFFFFE, 0xFFFFFFFF, *LARGE]
    tried = 0
    for offset, size in fields.items():
        for number in numbers:
            new = (number % 2 ** (8 * size)).to_bytes(size, "little")
            changed = table[: at + offset] + new + table[at + offset + size :]
            if changed == table or (offset == 72 and number == GONE_LENGTH):
                continue  # a table that says that the key is gone is right in itself
            withstood(
                {
                    head: encoded_head([record._replace(checksum=zlib.crc32(changed))]),
                    pack: packed[: record.offset] + changed,
                }
            )
            tried += 1
    assert tried > 40
    for changed in (table[:-1], table + b"\0", b"", table[40:], table + bytes(40)):
        new = Record(record.name, record.offset, len(changed), zlib.crc32(changed))
        withstood({head: encoded_head([new]), pack: packed[: record.offset] + changed})


GONE_LENGTH = 0xFFFFFFFE


@pytest.mark.parametrize("number", [0, 1, 2])
def test_one_of_several_packs_is_damaged(nfsdict, tmp_path, lists, number):
    """What the others say isn't believed then: it may have been overruled."""
    for key in "abc":
        plain_write(tmp_path, key, "file")
    (tmp_path / "store" / "18").mkdir()
    age(tmp_path)
    low = described(tmp_path, dict.fromkeys("abc"))
    low["18"] = (stamp(tmp_path, "18"), [Said("d", UNKNOWN, None)])
    gone = {"18": (low["18"][0], [Said("d", None, None)])}
    for lazy in (False, True):
        write_stack(tmp_path, [low, gone, {}])
        path = pack_file(tmp_path, f"{number:024x}")
        path.write_bytes(path.read_bytes()[:-1])
        with open_(nfsdict, tmp_path, lazy=lazy) as d:
            assert sorted(d) == list("abc") and dict(d) == dict.fromkeys("abc", "file")
        assert len(stack(tmp_path)) == 1
        assert left_behind(tmp_path) == []
        del lists[:]
        assert len(open_(nfsdict, tmp_path, lazy=True)) == 3
        assert lists == []


def test_a_damaged_section_costs_its_shard(nfsdict, tmp_path, reads):
    """The table names the keys, their files have the values; the next packer heals it."""
    keys = [*TWINS[:9], "a"]
    for key in keys:
        plain_write(tmp_path, key, "file")
    age(tmp_path)
    write_stack(tmp_path, [described(tmp_path, {key: pickled(key, "packed") for key in keys})])
    path = pack_file(tmp_path, "0" * 24)
    data = bytearray(path.read_bytes())
    data[20] ^= 1
    path.write_bytes(data)
    wanted = {**dict.fromkeys(TWINS[:9], "file"), "a": "packed"}
    assert dict(open_(nfsdict, tmp_path)) == wanted
    assert sorted(reads) == sorted(value_file(tmp_path, key).name for key in TWINS[:9])
    reads.clear()
    assert dict(open_(nfsdict, tmp_path)) == wanted
    assert reads == []
