"""Every byte changed, and every truncation: of a pack, and of value files below a dictionary."""

from __future__ import annotations

import importlib
import os
import pickle

import pytest

from support.aging import age
from support.index_layout import WANTED, decoded_head, head_file, open_, pack_file, plain_write
from support.layout import digest

FLIPS = (0x01, 0x80, 0xFF)


@pytest.fixture
def pack(nfsdict, tmp_path):
    """A store's only pack: where it is, and how it is read."""
    for key, value in WANTED.items():
        plain_write(tmp_path, key, value)
    age(tmp_path)
    open_(nfsdict, tmp_path).close()
    [record] = decoded_head(head_file(tmp_path).read_bytes())
    module = importlib.import_module("nfsdict.index.pack")
    store = (
        importlib.import_module("nfsdict.storage")
        .Storage(str(tmp_path / "store"), ".pkl", None, False)
        .index
    )
    record = module.ManifestEntry(*record)

    def read():
        """The values that it gives; ValueError if it isn't believed at all."""
        opened = module.Pack(store, record)
        try:
            shards = {digest(key)[:2] for key in WANTED}
            return {
                key: value
                for name in shards
                for key, value in zip(opened.shards[name].keys, opened.section_values(name))
            }
        finally:
            opened.close()

    return pack_file(tmp_path, record.pack_id), record, read


def test_every_byte_of_a_pack_changed(pack):
    """A change of the table costs the pack, one of a section its shard's values."""
    path, record, read = pack
    data = path.read_bytes()
    whole = read()
    assert whole == {key: pickle.dumps((key, value)) for key, value in WANTED.items()}
    section = 8  # sections lie behind the magic, those of lower shards first
    owner = {}
    for key in sorted(WANTED, key=digest):
        owner.update(dict.fromkeys(range(section, section + len(whole[key])), key))
        section += len(whole[key])
    assert section == record.offset
    with open(path, "r+b", buffering=0) as file:
        for at in range(len(data)):
            for flip in FLIPS:
                os.pwrite(file.fileno(), bytes([data[at] ^ flip]), at)
                if at in owner:
                    assert read() == {**whole, owner[at]: None}
                else:
                    with pytest.raises(ValueError, match=record.pack_id):
                        read()
            os.pwrite(file.fileno(), data[at : at + 1], at)
    assert read() == whole


def test_every_truncation_of_a_pack(pack):
    path, _, read = pack
    for size in reversed(range(path.stat().st_size)):
        os.truncate(path, size)
        with pytest.raises(ValueError, match=r"cut short|version"):
            read()


@pytest.fixture
def value(nfsdict, tmp_path):
    """A value file, and what the next one to look finds there."""

    def value(serializer, content):
        d = nfsdict.NfsDict("store", tmp_path, serializer, durable=False)
        d["key"], d["other"] = content, content
        [path] = d.path.glob(f"??/{digest('key')}.*")

        def find(data):
            path.write_bytes(data)
            try:
                found = d.get("key", fresh=True)
            except nfsdict.CorruptValueError:
                found = None
            assert d.get("other", fresh=True) == content
            return found

        return path.read_bytes(), find

    return value


def changes(data):
    for at in range(len(data)):
        for flip in FLIPS:
            yield data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :]
        yield data[:at]


def signed_pickle(nfsdict):
    return nfsdict.signed(key=bytes(16))


@pytest.mark.parametrize("serializer", ["pickle", "bytes", signed_pickle])
def test_a_damaged_value_is_detected_or_harmless(nfsdict, value, serializer):
    """Harmless: what a change of a pickle's trailer leaves is the pickle."""
    content = b"content" if serializer == "bytes" else {"a": [1, 2.5, None], "b": "text"}
    named = serializer if isinstance(serializer, str) else serializer(nfsdict)
    data, find = value(named, content)
    found = [find(changed) for changed in changes(data)]
    assert all(one in (None, content) for one in found)
    assert found.count(None) > len(found) * 0.8
    assert find(data) == content


def test_json_has_no_checksum(value):
    """Half a value is never taken for a whole one; a changed letter may be taken for another."""
    content = {"a": [1, 2.5, None], "b": "text"}
    data, find = value("json", content)
    assert all(find(data[:end]) is None for end in range(len(data)))
    assert find(data.replace(b"text", b"test")) == {**content, "b": "test"}
    for changed in changes(data):
        find(changed)
    assert find(data) == content
