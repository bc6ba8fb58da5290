"""Memory: how often a large value is in it, and how much of a store at a time."""

from __future__ import annotations

import sys

import pytest

from support.memory import peaks

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or sys.implementation.name != "cpython",
    reason="the peak of memory is Linux's, and PyPy frees when it likes",
)

# --- one large value ------------------------

SIZE = 64  # MiB
SLACK = 8

SIGNED = "nfsdict.signed({!r}, key=bytes(32))"
SERIALIZERS = {
    "pickle": repr("pickle"),
    "bytes": repr("bytes"),
    "signed pickle": SIGNED.format("pickle"),
    "signed bytes": SIGNED.format("bytes"),
}


@pytest.mark.parametrize("name", SERIALIZERS)
def test_a_large_value_is_copied_once(nfsdict, tmp_path, name):
    """A put has what the pickle is beside the value, a get the file beside it."""
    script = f"""
import os
d = nfsdict.NfsDict("s", base, {SERIALIZERS[name]}, lazy=True, durable=False)
d["warm"] = b"up"
value = os.urandom({SIZE} * MIB)
peak(lambda: d.__setitem__("a", value))
peak(lambda: d.update(b=value))
peak(lambda: d.add("c", value))
del d
d = nfsdict.NfsDict("s", base, {SERIALIZERS[name]}, lazy=True, durable=False)
d["warm"]
for key in "abc":
    assert len(peak(lambda: d[key])) == {SIZE} * MIB
    assert d.pop(key) == value
"""
    *puts, first, second, third = peaks(script, tmp_path)
    for most, after in puts:
        assert most < (SIZE if "pickle" in name else 0) + SLACK
        assert after < SLACK
    for most, after in (first, second, third):
        assert most < 2 * SIZE + SLACK
        assert after < SIZE + SLACK


@pytest.mark.parametrize(
    "serializer",
    ["'json'", "nfsdict.json_format(indent=1)", "nfsdict.signed('json', key=bytes(32))"],
)
def test_json_takes_what_json_itself_takes(nfsdict, tmp_path, serializer):
    """A put has its text and bytes beside the value; a get the file, the text and the value."""
    script = f"""
import json
d = nfsdict.NfsDict("s", base, {serializer}, lazy=True, durable=False)
d["warm"] = "up"
value = "x" * ({SIZE} * MIB)
peak(lambda: len(json.dumps(value, ensure_ascii=False)))
peak(lambda: d.__setitem__("a", value))
peak(lambda: d.update(b=value))
del d
d = nfsdict.NfsDict("s", base, {serializer}, lazy=True, durable=False)
d["warm"]
for key in "ab":
    assert len(peak(lambda: d[key])) == {SIZE} * MIB
    del d[key]
"""
    (alone, _), *puts, first, second = peaks(script, tmp_path)
    for most, after in puts:
        assert most < max(alone, 2 * SIZE) + SLACK
        assert after < SLACK
    copy = SIZE if "signed" in serializer else 0
    for most, after in (first, second):
        assert most < 3 * SIZE + copy + SLACK
        assert after < SIZE + SLACK


# A put has nothing beside the array, a get nothing but it.
BUFFERS = """
import gc, os, pickle
class Array:
    def __init__(self, memory):
        self.memory = memory
    def __reduce_ex__(self, protocol):
        return Array, (pickle.PickleBuffer(self.memory),)
"""


@pytest.mark.parametrize("serializer", ["nfsdict.buffers()", SIGNED.format("buffers")])
def test_an_array_is_not_copied(nfsdict, tmp_path, serializer):
    script = f"""{BUFFERS}
d = nfsdict.NfsDict("s", base, {serializer}, lazy=True, durable=False)
d["warm"] = Array(bytearray(5 * MIB))
assert len(d.get("warm", fresh=True).memory) == 5 * MIB
value = Array(bytearray(os.urandom({SIZE} * MIB)))
peak(lambda: d.__setitem__("a", value))
peak(lambda: d.update(b=value))
peak(lambda: d.add("c", value))
del d
d = nfsdict.NfsDict("s", base, {serializer}, lazy=True, durable=False)
d["warm"]
for key in "abc":
    assert len(peak(lambda: d[key]).memory) == {SIZE} * MIB
    popped = d.pop(key)
    assert popped.memory == value.memory
    del popped
"""
    *puts, first, second, third = peaks(script, tmp_path)
    for most, after in puts:
        assert most < SLACK
        assert after < SLACK
    for most, after in (first, second, third):
        assert most < SIZE + SLACK
        assert after < SIZE + SLACK


# --- the whole store ------------------------

OF_ALL = 64
"""MiB of values that whole-store operations hold at most, in all threads together"""

# Threads from the first item on.
LARGE_SHARD = """
from nfsdict import parallel
from nfsdict.core import digest
parallel._WAITED = -1.0

def keys(count):
    found, number = [], 0
    while len(found) < count:
        number += 1
        if digest(str(number))[:2] == "00":
            found.append(str(number))
    return found

def opened(**options):
    return nfsdict.NfsDict("s", base, "bytes", durable=False, workers=16, **options)
"""


@pytest.mark.parametrize(("count", "kib"), [(60, 8192), (9000, 32)], ids=["large", "small"])
def test_work_on_a_whole_store_holds_few_values(nfsdict, tmp_path, count, kib):
    """However large a shard is: with 16 threads, without an index and with one."""
    script = f"""{LARGE_SHARD}
import glob, os
names = keys({count})
d = opened(lazy=True, cache_bytes=0)
for name in names:
    d[name] = os.urandom({kib} * 1024 - 200)
lazy = opened(lazy=True)
peak(lambda: len(lazy))
peak(lambda: lazy.verify().ok)
bounded = peak(lambda: opened(cache_bytes=MIB))
assert len(bounded) == {count}
peak(lambda: bounded.sync())
peak(lambda: bounded.pack())
peak(lambda: opened(cache_bytes=MIB))
peak(lambda: bounded.verify().ok)
peak(lambda: bounded.repair())
"""
    for most, after in peaks(script, tmp_path):
        assert most < OF_ALL + 2 * SLACK
        assert after < OF_ALL  # what was held once, the allocator may keep


def test_of_values_larger_than_their_files_few_are_decoded_at_a_time(nfsdict, tmp_path):
    """A value of 8 MiB in a file of 100 bytes: each is dropped before the next of its batch."""
    script = f"""{LARGE_SHARD}
import operator

class Large:
    def __reduce__(self):
        return operator.mul, (b"x", 8 * MIB)

def opened(**options):
    return nfsdict.NfsDict("s", base, durable=False, workers=16, **options)

d = opened(lazy=True, cache_bytes=0)
for name in keys(60):
    d[name] = Large()
peak(lambda: len(opened(lazy=True)))
peak(lambda: opened(lazy=True).verify().ok)
bounded = peak(lambda: opened(cache_bytes=0))
assert len(bounded) == 60
peak(lambda: bounded.sync())
peak(lambda: bounded.pack())
peak(lambda: bounded.repair())
"""
    for most, after in peaks(script, tmp_path):
        assert most < OF_ALL
        assert after < OF_ALL


def test_comparing_holds_few_values(nfsdict, tmp_path):
    """With a dict, with another store, and with itself."""
    script = """
import os
def opened(name):
    return nfsdict.NfsDict(name, base, "bytes", durable=False, lazy=True, cache_bytes=0)
d, twin = opened("s"), opened("t")
for number in range(60):
    d[str(number)] = twin[str(number)] = os.urandom(MIB)
assert not peak(lambda: opened("s") == {})
assert peak(lambda: opened("s") == opened("t"))
assert peak(lambda: opened("s") == opened("s"))
del twin["59"]
assert not peak(lambda: opened("t") == opened("s"))
"""
    for most, _ in peaks(script, tmp_path):
        assert most < 24 + SLACK


@pytest.mark.parametrize("mib", [1, 2])
def test_a_transfer_holds_a_batch(nfsdict, tmp_path, mib):
    """64 MiB: what is written, what is read ahead of it, and what it is compared with."""
    script = f"""
import os
import nfsdict.parallel
def waited(self, *error):  # as on a share
    self.threads = self._workers
nfsdict.parallel._Waits.__exit__ = waited
def opened(name, **options):
    return nfsdict.NfsDict(name, base, "bytes", durable=False, **options)
d = opened("s", cache_bytes=0)
for number in range({160 // mib}):
    d[str(number)] = os.urandom({mib} * MIB)
with open("/dev/null", "wb") as null:
    peak(lambda: d.export_to(null))
with open(base + "/archive", "wb") as file:
    d.export_to(file)
t = opened("t")
with open(base + "/archive", "rb") as file:
    peak(lambda: t.import_from(file))
    file.seek(0)
    peak(lambda: t.import_from(file))
u = opened("u", lazy=True)
peak(lambda: u.copy_from(d))
peak(lambda: u.copy_from(d))
"""
    export, *others = peaks(script, tmp_path)
    assert export[0] < 24 + 2 * mib + SLACK  # one is written, and one is on its way
    for most, after in others:
        assert most < 64 + 2 * SLACK
        assert after < SLACK


@pytest.mark.parametrize("serializer", ["pickle", "bytes"])
@pytest.mark.parametrize("cache", [0, 4])
def test_what_a_buffer_of_zict_spills_leaves_memory(nfsdict, tmp_path, serializer, cache):
    """Written, and read again, which takes each value out of the store and spills another one."""
    script = f"""
import os
import zict
slow = nfsdict.NfsDict(
    "s", base, "{serializer}", lazy=True, durable=False, cache_bytes={cache} * MIB
)
buffer = zict.Buffer({{}}, slow, n=8 * MIB, weight=lambda key, value: len(value))
buffer["warm"] = b"up"
buffer.evict_until_below_target(0)

def fill():
    for number in range(64):
        buffer[str(number)] = os.urandom(MIB)

def read():
    for number in range(64):
        assert len(buffer[str(number)]) == MIB

peak(fill)
peak(read)
assert len(buffer) == 65 and len(buffer.fast) <= 8
"""
    for most, after in peaks(script, tmp_path):
        assert after < 8 + cache + SLACK
        assert most < 8 + cache + 4 + SLACK
