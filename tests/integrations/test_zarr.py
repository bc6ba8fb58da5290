"""NfsDictStore beside other processes, with what can go wrong, and under dask and xarray."""

from __future__ import annotations

import asyncio
import errno
import importlib
import pickle
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import dask.array
import numpy as np
import pytest
import xarray
import zarr
from zarr.abc.store import OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.core.buffer import cpu, default_buffer_prototype
from zarr.core.sync import collect_aiterator, sync

PROTOTYPE = default_buffer_prototype()


def buffer(data):
    return cpu.Buffer.from_bytes(data)


@pytest.fixture
def module(nfsdict):
    return importlib.import_module("nfsdict.integrations.zarr")


@pytest.fixture
def store(module, opened):
    """Another store of the same directory at each call, as on another host. Its dictionary keeps
    everything in memory, unless the options say otherwise."""

    def store(**options):
        options = {"serializer": "bytes", "durable": False, **options}
        return module.NfsDictStore(opened(**options))

    return store


# --- what it is made from --------------------------------------------------------------------


def test_only_a_dictionary_of_bytes_is_taken(module, opened, nfsdict):
    with pytest.raises(TypeError, match="made from an NfsDict"):
        module.NfsDictStore({})
    for serializer in ["pickle", "json", nfsdict.signed("pickle", key=b"k" * 16)]:
        with pytest.raises(ValueError, match="serializer='bytes'"):
            module.NfsDictStore(opened(serializer=serializer))


def test_signed_values_are_as_good(store, nfsdict):
    one = store(serializer=nfsdict.signed("bytes", key=b"k" * 16))
    zarr.create_array(one, shape=(6,), chunks=(2,), dtype="i4", compressors=None)[:] = range(6)
    assert zarr.open_array(one)[:].tolist() == [0, 1, 2, 3, 4, 5]
    assert sync(one.getsize("c/0")) == 8


def test_a_store_of_a_read_only_dictionary_is_read_only(store):
    zarr.create_group(store()).create_array("a", data=np.arange(3))
    one = store(read_only=True)
    assert one.read_only and one.with_read_only(False).read_only
    assert zarr.open_group(one, mode="r")["a"][:].tolist() == [0, 1, 2]
    for change in [
        one.set("k", buffer(b"")),
        one.set_if_not_exists("k", buffer(b"")),
        one.delete("zarr.json"),
        one.delete_dir(""),
        one.clear(),
    ]:
        with pytest.raises(ValueError, match="read-only mode"):
            sync(change)
    with pytest.raises(ValueError, match="read-only"):
        zarr.open_group(one, mode="a")
    assert sorted(store().mapping) == ["a/c/0", "a/zarr.json", "zarr.json"]


def test_stores_of_one_directory_are_equal_also_after_a_pickle(store, opened, module):
    assert store() == store(cache_bytes=0) == pickle.loads(pickle.dumps(store()))
    assert store() != module.NfsDictStore(opened(name="other", serializer="bytes"))
    assert store() != store().mapping


def test_a_value_that_is_no_buffer_is_refused(store):
    with pytest.raises(TypeError, match="not bytes"):
        sync(store().set("k", b"bytes"))
    with pytest.raises(TypeError):
        sync(store().set(1, buffer(b"")))


# --- ranges and sizes ------------------------------------------------------------------------


def test_byte_ranges(store):
    one, value = store(), bytes(range(10))
    one.mapping["k"] = value
    for at in [0, 1, 9, 10, 11, 1000]:
        cases = [
            (OffsetByteRequest(at), value[at:]),
            (SuffixByteRequest(at), value[-at:] if at else b""),
            *((RangeByteRequest(at, end), value[at:end]) for end in [at, at + 1, 10, 99]),
        ]
        ranges = [("k", asked) for asked, _ in cases] + [("none", cases[0][0])]
        *got, missing = sync(one.get_partial_values(PROTOTYPE, ranges))
        assert [one.to_bytes() for one in got] == [wanted for _, wanted in cases]
        assert missing is None


def test_a_sharded_array(store):
    data = np.arange(64, dtype="u2")
    zarr.create_array(store(), data=data, chunks=(4,), shards=(32,))
    array = zarr.open_array(store())
    assert array[5:9].tolist() == [5, 6, 7, 8] and (array[:] == data).all()
    array[6] = 0
    assert zarr.open_array(store())[5:9].tolist() == [5, 0, 7, 8]


def test_sizes_and_existence_are_told_without_reading_a_value(store, reads):
    store().mapping.update({"a/ü": b"123", "a/2": b"", "b": b"12345"})
    one = store(lazy=True)
    assert sync(one.getsize("a/ü")) == 3
    assert sync(one.exists("a/2")) and not sync(one.exists("a"))
    assert not reads
    assert sync(one.getsize_prefix("a/")) == 3 and sync(one.getsize_prefix("")) == 8


# --- what others do --------------------------------------------------------------------------


def test_what_others_wrote_and_deleted_is_seen_whatever_is_in_memory(store):
    here, there = store(), store()
    array = zarr.create_array(here, shape=(4,), chunks=(2,), dtype="i4", fill_value=-1)
    array[:] = [1, 2, 3, 4]
    other = zarr.open_array(there)
    assert other[:].tolist() == array[:].tolist() == [1, 2, 3, 4]
    other[:2] = 7
    sync(there.delete("c/1"))
    assert array[:].tolist() == [7, 7, -1, -1]
    assert not sync(here.exists("c/1")) and sync(here.get("c/1", PROTOTYPE)) is None
    assert sorted(collect_aiterator(here.list_dir("c"))) == ["0"]
    sync(there.set("c/1", buffer(b"")))
    assert sorted(collect_aiterator(here.list_prefix("c/"))) == ["c/0", "c/1"]


def test_a_directory_is_deleted_with_what_others_wrote_there(store):
    here, there = store(), store()
    collect_aiterator(here.list())
    there.mapping.update({f"g/c/{number}": b"" for number in range(40)}, **{"g2/c": b""})
    sync(here.delete_dir("g"))
    assert list(store().mapping) == ["g2/c"]
    there.mapping["late"] = b""
    sync(here.clear())
    assert list(store().mapping) == []


def test_of_all_who_set_a_key_if_it_does_not_exist_one_does(store, monkeypatch):
    stores = [store(lazy=True) for _ in range(8)]
    barrier, looking = threading.Barrier(8), type(stores[0].mapping).get

    def get_and_wait(mapping, *arguments, **options):
        found = looking(mapping, *arguments, **options)
        barrier.wait()  # who looks whether the key exists sets it after all have looked
        return found

    def set_it(key, number):
        barrier.wait()
        asyncio.run(stores[number].set_if_not_exists(key, buffer(b"%d" % number)))
        return stores[number].mapping[key]

    monkeypatch.setattr(type(stores[0].mapping), "get", get_and_wait)
    with ThreadPoolExecutor(8) as pool:
        for key in map(str, range(20)):
            assert len(set(pool.map(set_it, [key] * 8, range(8)))) == 1


WRITER = """
import pickle, sys, zarr
store, first = pickle.load(sys.stdin.buffer)
array = zarr.open_array(store, mode="r+")
for chunk in range(first, 40, 2):
    array[3 * chunk : 3 * chunk + 3] = chunk
"""


def test_two_processes_write_different_chunks(store):
    one = store(lazy=True, cache_bytes=0)
    array = zarr.create_array(one, shape=(120,), chunks=(3,), dtype="i4", fill_value=-1)
    writers = [
        subprocess.Popen([sys.executable, "-W", "error", "-c", WRITER], stdin=subprocess.PIPE)
        for _ in range(2)
    ]
    for first, writer in enumerate(writers):
        writer.stdin.write(pickle.dumps((one, first)))
        writer.stdin.close()
    assert [writer.wait(timeout=300) for writer in writers] == [0, 0]
    assert array[:].tolist() == [number // 3 for number in range(120)]
    assert array.nchunks_initialized == 40


# --- what goes wrong -------------------------------------------------------------------------


def damage(one, key):
    path = one.mapping.path_of(key)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_a_damaged_chunk_is_no_missing_one(store):
    one = store()
    array = zarr.create_array(one, data=np.arange(4), chunks=(2,))
    damage(one, "c/1")
    with pytest.raises(OSError, match="damaged value file of 'c/1'") as raised:
        array[:]
    assert raised.value.errno == errno.EIO
    with pytest.raises(OSError, match="damaged"):
        array[3:] = 9  # a part of the chunk, so zarr reads the rest
    array[2:] = 8
    assert array[:].tolist() == [0, 1, 8, 8]


def test_a_group_that_is_damaged_is_not_made_anew(store):
    one = store()
    zarr.create_group(one, attributes={"a": 1})
    before = one.mapping.path_of("zarr.json")
    damage(one, "zarr.json")
    damaged = before.read_bytes()
    for mode in ["a", "r"]:
        with pytest.raises(OSError, match="damaged"):
            zarr.open_group(one, mode=mode)
    assert before.read_bytes() == damaged


def test_a_store_that_is_gone_is_not_an_empty_one(store):
    one = store()
    array = zarr.create_array(one, data=np.arange(4), chunks=(2,))
    shutil.rmtree(one.mapping.path)
    for call in [lambda: array[:], lambda: zarr.open_group(one, mode="a")]:
        with pytest.raises(OSError) as raised:
            call()
        assert not isinstance(raised.value, FileNotFoundError)
    assert not one.mapping.path.exists()


def test_the_event_loop_never_waits_for_the_disk(store, monkeypatch):
    one, threads = store(), []
    kind, values = type(one.mapping), one.mapping._storage.values

    def watched(owner, name):
        original = getattr(owner, name)

        def call(*arguments, **options):
            threads.append((name, threading.get_ident()))
            return original(*arguments, **options)

        monkeypatch.setattr(owner, name, call)

    names = ["get", "__setitem__", "__delitem__", "add", "refresh", "clear"]
    for name in names:
        watched(kind, name)
    watched(values, "look")

    async def use():
        await one.set("k", buffer(b"v"))
        await one.set_if_not_exists("k", buffer(b"v"))
        await one.get("k", PROTOTYPE)
        await one.get_partial_values(PROTOTYPE, [("k", None)])
        await one.exists("k")
        await one.getsize("k")
        await one.getsize_prefix("")
        assert [key async for key in one.list()] == ["k"]
        assert [key async for key in one.list_prefix("")] == ["k"]
        assert [key async for key in one.list_dir("")] == ["k"]
        await one.delete("k")
        await one.delete_dir("")
        await one.clear()

    asyncio.run(use())
    assert {name for name, _ in threads} == {*names, "look"}
    assert threading.get_ident() not in {thread for _, thread in threads}


# --- dask and xarray -------------------------------------------------------------------------


def test_dask_writes_and_reads(store):
    dask.array.to_zarr(dask.array.arange(100, chunks=10), store(), component="numbers")
    read = dask.array.from_zarr(store(), component="numbers")
    assert read.chunks == ((10,) * 10,)
    assert read.sum().compute() == 4950


def test_xarray_writes_and_reads(store):
    days = np.arange(6)
    data = xarray.Dataset(
        {"heat": (("day", "place"), np.arange(12.0).reshape(6, 2))}, {"day": days}, {"of": "test"}
    )
    data.chunk(day=2).to_zarr(store(), zarr_format=3, consolidated=False)
    with xarray.open_zarr(store(), consolidated=False) as read:
        xarray.testing.assert_identical(read.compute(), data)
    changed = data.isel(day=slice(2, 4)) * 10
    changed.to_zarr(store(), region={"day": slice(2, 4)}, consolidated=False)
    data.isel(day=slice(4, 6)).assign_coords(day=[6, 7]).to_zarr(
        store(), append_dim="day", consolidated=False
    )
    with xarray.open_zarr(store(), consolidated=False) as read:
        assert read.heat.sum("place").values.tolist() == [1, 5, 90, 130, 17, 21, 17, 21]
        assert read.day.values.tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
