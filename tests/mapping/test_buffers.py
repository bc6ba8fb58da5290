"""Buffers: arrays beside their pickle, uncopied, aligned, and checked before anything is run."""

from __future__ import annotations

import copy
import ctypes
import importlib
import os
import pickle
import struct
import sys
import time
import zlib
from pathlib import Path

import pytest

from support.aging import age
from support.layout import digest
from support.needed import needed
from support.planted import Evil

KEY = b"sixteen bytes..."
METHODS = [None, "zlib", "zstd", "lz4"]
PACKAGES = {None: "zlib", "zlib": "zlib", "lz4": "lz4.frame"}
PACKAGES["zstd"] = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"


@pytest.fixture(params=METHODS)
def method(request):
    needed(PACKAGES[request.param])
    return request.param


@pytest.fixture
def Damaged(nfsdict):
    return importlib.import_module("nfsdict.builtin_serializer").Damaged


@pytest.fixture
def plain(nfsdict):
    return nfsdict.buffers()


class Memory:
    """Pickled with its memory beside the pickle, as an array is."""

    def __init__(self, memory):
        self.memory = memory

    def __reduce_ex__(self, protocol):
        return Memory, (pickle.PickleBuffer(self.memory),)

    def __eq__(self, other):
        return bytes(self.memory) == bytes(other.memory)


def values():
    """Small and large ones, for memory that shrinks and for memory that doesn't."""
    for size in (0, 1, 63, 64, 65, 1000, 70_000, 1 << 21):
        yield Memory(bytearray(size))
        yield {"a": Memory(bytearray(os.urandom(size))), "b": [Memory(bytearray(b"x" * size))]}
    yield [Memory(bytearray([number])) for number in range(200)]
    yield {"no": "memory at all"}
    yield Memory(memoryview(bytearray(800)).cast("d", (10, 10)))


def address(memory):
    # A view that can't be written gives ctypes no address; numpy is asked for it elsewhere.
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


# --- what is put and got ---------------------------------------------------------------------


@pytest.mark.parametrize("signed", [False, True])
def test_round_trip(nfsdict, opened, method, signed):
    serializer = nfsdict.buffers(method)
    if signed:
        serializer = nfsdict.signed(serializer, key=KEY)
    d = opened(serializer=serializer)
    expected = {str(number): value for number, value in enumerate(values())}
    for key, value in list(expected.items())[:5]:
        d[key] = value
        assert d[key] is value  # as it was assigned
    d.update(expected)
    assert d.add("added", Memory(bytearray(b"y" * 100_000)))
    expected["added"] = Memory(bytearray(b"y" * 100_000))
    for again in (
        opened(serializer=serializer),
        opened(serializer=serializer, lazy=True, read_only=True),
        opened(serializer=serializer, cache_bytes=0),
        copy.copy(d),
        pickle.loads(pickle.dumps(d)),
    ):
        assert dict(again) == expected
        assert all(again.get(key, fresh=True) == value for key, value in expected.items())
        assert again.verify().ok and again.verify().entries == len(expected)
    assert d.pop("added") == expected["added"]
    assert d.refresh() == set()


def test_it_goes_by_its_name_too(nfsdict, opened):
    opened(serializer="buffers")["key"] = Memory(bytearray(b"memory"))
    [path] = opened(serializer="buffers").path.glob("??/*")
    assert path.suffix == ".buf"
    assert opened(serializer=nfsdict.buffers("zlib"))["key"] == Memory(b"memory")


def test_all_read_what_each_has_written(nfsdict, method):
    data = nfsdict.buffers(method).dumps(("key", [Memory(bytearray(9000)), Memory(os.urandom(99))]))
    key, value = nfsdict.buffers().loads(data)
    assert key == "key" and bytes(value[0].memory) == bytes(9000)
    assert len(data) < (9700 if method is None else 1000)


def test_what_is_handed_out_is_read_only(opened):
    d = opened(serializer="buffers")
    for key, size in (("small", 10), ("large", 3 << 20)):
        d[key] = Memory(bytearray(size))
        memory = d.get(key, fresh=True).memory
        with pytest.raises(TypeError):
            memory[0] = 1


# What NumPy itself puts into the pickle, as it has no buffer of these.
INSIDE = ("steps", "objects", "times")


@pytest.mark.parametrize("size", [3, 20_000, 1 << 21])
@pytest.mark.parametrize("signed", [False, True])
def test_arrays(nfsdict, opened, method, size, signed):
    np = needed("numpy")
    serializer = nfsdict.buffers(method)
    if signed:
        serializer = nfsdict.signed(serializer, key=KEY)
    value = {
        "floats": np.random.default_rng(1).random(size // 8 + 1),
        "columns first": np.asfortranarray(np.arange(size // 4 * 4).reshape(-1, 4)),
        "empty": np.empty((0, 3)),
        "complex": np.ones(size // 8 + 1, "complex128"),
        "times": np.zeros(size // 8 + 1, "datetime64[ns]"),
        "steps": np.arange(size)[::2],
        "objects": np.array([1, None]),
    }
    opened(serializer=serializer)["key"] = value
    for d in (opened(serializer=serializer), opened(serializer=serializer, lazy=True)):
        for name, array in d["key"].items():
            assert array.dtype == value[name].dtype
            np.testing.assert_array_equal(array, value[name])
            if name not in INSIDE:
                assert array.ctypes.data % 64 == 0
                assert not array.flags.writeable
                assert array.flags.f_contiguous == value[name].flags.f_contiguous


def test_a_table(nfsdict, opened, method):
    np, pd = needed("numpy"), needed("pandas")
    table = pd.DataFrame(
        {
            "numbers": np.arange(30_000),
            "floats": np.linspace(0, 1, 30_000),
            "texts": ["text"] * 30_000,
            "times": pd.date_range("2020", periods=30_000),
        }
    ).set_index("times")
    serializer = nfsdict.buffers(method)
    opened(serializer=serializer)["key"] = table
    found = opened(serializer=serializer)["key"]
    pd.testing.assert_frame_equal(found, table)
    assert found["floats"].sum() == table["floats"].sum()
    changed = found.copy()
    changed.loc[changed.index[0], "floats"] = 7.0
    assert found["floats"].iloc[0] == 0


def test_arrays_of_a_pack_are_aligned_too(opened, monkeypatch):
    np = needed("numpy")
    d = opened(serializer="buffers")
    expected = {str(number): np.arange(number, number + 9 * number) for number in range(100)}
    d.update(expected)
    age(d.path)
    d.sync()
    assert d.pack().packed == 100
    files = importlib.import_module("nfsdict.storage.files")
    monkeypatch.setattr(files, "read_aligned", None)  # all comes out of the pack
    monkeypatch.setattr(files.Files, "read_paths", only_manifest(files.Files.read_paths, files))
    again = opened(serializer="buffers")
    for key, array in expected.items():
        np.testing.assert_array_equal(again[key], array)
        assert again[key].ctypes.data % 64 == 0 and not again[key].flags.writeable


def only_manifest(original, files):
    def read_paths(self, paths):
        assert all(Path(path).name.startswith("_") for path in paths)
        return [
            (bytes(content[0]), content[1]) if isinstance(content, tuple) else content
            for content in files.read_files(paths)
        ]

    return read_paths


def test_a_change_by_another_is_told_from_none(opened):
    """The fingerprint of what was put is that of what is read, and of nothing else."""
    a, b = opened(serializer="buffers"), opened(serializer="buffers")
    for size in (10, 100_000, 3 << 20):
        a[str(size)] = Memory(bytearray(size))
    assert a.refresh() == set()
    b.refresh()
    for size in (10, 100_000, 3 << 20):
        changed = bytearray(size)
        changed[-1] = 1
        b[str(size)] = Memory(changed)
        assert a.refresh() == {str(size)}
        assert a[str(size)] == Memory(changed)
    assert b.refresh() == set()


# --- the format ------------------------------------------------------------------------------


def padded(data):
    return data + bytes(-len(data) % 64)


def encoded(parts, checksum=None, count=None):
    """A file of these (method, bytes in the file, size in memory), by an encoder of its own."""
    table = b"".join(
        struct.pack("<QQIB3x", len(stored), size, zlib.crc32(padded(stored)), method)
        for method, stored, size in parts
    )
    head = struct.pack("<I", len(parts) if count is None else count) + table
    head += bytes(-(12 + len(head)) % 64)
    checked = struct.pack("<I", zlib.crc32(head) if checksum is None else checksum)
    return b"nfsdbuf\1" + checked + head + b"".join(padded(stored) for _, stored, _ in parts)


def pickled(obj):
    beside = []
    return pickle.dumps(obj, 5, buffer_callback=beside.append), [one.raw() for one in beside]


def test_what_the_file_holds(plain):
    for value in values():
        body, beside = pickled(("key", value))
        parts = [(0, data, len(data)) for data in (body, *(one.tobytes() for one in beside))]
        assert plain.dumps(("key", value)) == encoded(parts)
        assert len(plain.dumps(("key", value))) % 64 == 0


def test_what_a_compressed_file_holds(nfsdict):
    noise = os.urandom(5000)
    pair = ("key" * 100, [Memory(noise), Memory(bytearray(5000))])
    body, _ = pickled(pair)
    small, zeros = zlib.compress(body, 1), zlib.compress(bytes(5000), 1)
    parts = [(1, small, len(body)), (0, noise, 5000), (1, zeros, 5000)]
    assert nfsdict.buffers("zlib").dumps(pair) == encoded(parts)


@pytest.mark.parametrize(("name", "number"), [("zlib", 1), ("zstd", 2), ("lz4", 3)])
def test_the_number_of_each_way_to_compress(nfsdict, name, number):
    needed(PACKAGES[name])
    data = nfsdict.buffers(name).dumps(("key", bytes(5000)))
    assert data[16 + 20] == number and len(data) < 200


def test_large_ones_are_not_joined(plain):
    memory = bytearray(100_000)
    parts = plain.parts(("key", [Memory(memory), Memory(memory)]))
    assert isinstance(parts, list)
    assert [part.obj for part in parts if isinstance(part, memoryview)][1:] == [memory, memory]


def test_many_buffers_take_no_longer_than_few_for_each(plain):
    def seconds(count):
        value = [Memory(bytearray(8)) for _ in range(count)]
        begin = time.process_time()
        data = plain.dumps(("key", value))
        assert plain.loads(data) == ("key", value)
        return time.process_time() - begin

    few = min(seconds(2_000) for _ in range(3))
    assert min(seconds(60_000) for _ in range(3)) < 6 * 30 * few


# --- damage ----------------------------------------------------------------------------------


def test_every_byte_and_every_truncation(plain, Damaged):
    data = plain.dumps(("key", [Memory(bytearray(b"abc")), Memory(bytearray(70)), Evil()]))
    for position in range(len(data)):
        for flip in (0x01, 0x80, 0xFF):
            damaged = bytearray(data)
            damaged[position] ^= flip
            with pytest.raises(Damaged):
                plain.loads(bytes(damaged))
        with pytest.raises(Damaged):
            plain.loads(data[:position])
    for more in (b"\0", bytes(64), data):
        with pytest.raises(Damaged):
            plain.loads(data + more)


def forged():
    """Files with checksums that are right, and no sense."""
    body = pickle.dumps(("key", 1), 5)
    good = (0, body, len(body))
    whole = encoded([good])
    long = struct.pack("<IQQIB3x", 1, 1 << 63, 1 << 63, 0, 0)
    long += bytes(-(12 + len(long)) % 64)
    yield encoded([])
    yield encoded([good], count=(1 << 32) - 1)
    yield whole + bytes(64)
    yield b"nfsdbuf\1" + struct.pack("<I", zlib.crc32(long)) + long
    yield encoded([(4, body, len(body))])
    yield encoded([(1, body, len(body))])
    yield encoded([(1, zlib.compress(body), len(body) + 1)])
    yield encoded([(1, zlib.compress(body)[:-1], len(body))])


@pytest.mark.parametrize("number", range(8))
def test_what_dumps_cannot_have_made(plain, Damaged, number):
    data = list(forged())[number]
    with pytest.raises(Damaged):
        plain.loads(data)
    with pytest.raises(Damaged):
        plain.loads_verified(data)


def test_a_damaged_file_costs_its_key(nfsdict, opened):
    for size in (10, 3 << 20):
        d = opened(serializer="buffers")
        d["key"] = Memory(bytearray(size))
        d["other"] = 1
        path = d.path / digest("key")[:2] / f"{digest('key')}.buf"
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
        with pytest.raises(nfsdict.CorruptValueError, match="checksum of part 1"):
            d.get("key", fresh=True)
        assert dict(opened(serializer="buffers")) == {"other": 1}
        assert list(d.verify().damaged) == [str(path)]


class Refuses:
    def __reduce__(self):
        return int, ("x",)


def test_a_value_that_fails_to_load_is_no_damage(nfsdict, opened):
    d = opened(serializer="buffers")
    d["key"] = [Refuses(), Memory(bytearray(9))]
    with pytest.raises(ValueError, match="invalid literal"):
        opened(serializer="buffers", lazy=True)["key"]
    report = d.verify()
    assert (report.damaged, len(report.unreadable)) == ({}, 1)


def test_signed_ones_are_refused_before_anything_looks_at_them(nfsdict, opened):
    mine = nfsdict.signed("buffers", key=KEY)
    other = nfsdict.signed("buffers", key=bytes(16))
    for size in (10, 3 << 20):
        d = opened(serializer=other, lazy=True)
        d["key"] = [Evil(), Memory(bytearray(size))]
        with pytest.raises(nfsdict.CorruptValueError) as caught:
            opened(serializer=mine, lazy=True)["key"]
        assert caught.value.foreign


# --- arguments -------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", ["gzip", "", 1, True])
def test_an_unknown_way_to_compress(nfsdict, wrong):
    with pytest.raises(ValueError, match="zlib, zstd, lz4"):
        nfsdict.buffers(wrong)


def test_it_shows_how_it_was_made(nfsdict):
    assert repr(nfsdict.buffers("zlib")) == "buffers(compress='zlib')"


@pytest.mark.parametrize("name", ["zstd", "lz4"])
def test_a_missing_package_is_named(nfsdict, opened, monkeypatch, name):
    needed(PACKAGES[name])
    opened(serializer=nfsdict.buffers(name))["key"] = bytes(5000)
    monkeypatch.setitem(sys.modules, PACKAGES[name], None)
    module, _, attribute = PACKAGES[name].partition(".")
    if module in sys.modules and hasattr(sys.modules[module], attribute):
        monkeypatch.delattr(sys.modules[module], attribute)
    with pytest.raises(ImportError, match=rf"nfsdict\[{name}\]"):
        nfsdict.buffers(name)
    d = opened(serializer="buffers")  # reads what needs none
    with pytest.raises(ImportError, match=rf"nfsdict\[{name}\]"):
        d["key"]
    report = d.verify()
    assert not report.damaged and len(report.unreadable) == 1
