"""Loops over dictionaries whose values aren't all in memory: what comes from the packs, and when it
may not."""

from __future__ import annotations

import gc
import importlib
import os
import threading

import pytest

from support.aging import age
from support.index_layout import TWINS, open_, plain_delete, plain_write, scan
from support.layout import value_file

MANY = {f"key {number}": f"{number:100d}" for number in range(600)} | dict.fromkeys(TWINS, "twin")
# So many keys a loop reads from their files before it opens the packs.
FIRST = 8
LOOPS = {
    "values": lambda d: dict(zip(d, d.values())),
    "items": lambda d: dict(d.items()),
    "dict": dict,
    "[]": lambda d: {key: d[key] for key in d},
    "get": lambda d: {key: d.get(key) for key in d},
    "keys": lambda d: {key: d[key] for key in d.keys()},  # noqa: SIM118
}


@pytest.fixture
def packed(nfsdict, tmp_path, reads):
    """A settled store whose pack has all values. Gives where it is."""
    for key, value in MANY.items():
        plain_write(tmp_path, key, value)
    age(tmp_path)
    assert open_(nfsdict, tmp_path).pack().packed == len(MANY)
    del reads[:]
    return tmp_path


@pytest.fixture
def sections(nfsdict, monkeypatch):
    """The shards whose values were read from packs, in order."""
    PackStack = importlib.import_module("nfsdict.index.stack").PackStack
    original = PackStack.packed_values
    calls = []

    def packed_values(self, shard):
        calls.append(shard)
        return original(self, shard)

    monkeypatch.setattr(PackStack, "packed_values", packed_values)
    return calls


def while_one_is_decoded(nfsdict, monkeypatch, key, act):
    """When the value of this key has come from a pack, and isn't handed out yet."""
    Entries = importlib.import_module("nfsdict.entries").Entries
    original = Entries.unpack

    def unpack(self, packed):
        values = original(self, packed)
        if key in packed:
            monkeypatch.setattr(Entries, "unpack", original)
            act()
        return values

    monkeypatch.setattr(Entries, "unpack", unpack)


# --- what comes from the packs ---------------------------------------------------------------


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(
    "options",
    [{"lazy": True}, {"lazy": True, "cache_bytes": 0}, {"cache_bytes": 20_000}],
    ids=["lazy", "nothing kept", "bounded"],
)
def test_a_loop_reads_the_packs_shard_by_shard(nfsdict, packed, reads, sections, loop, options):
    d = open_(nfsdict, packed, **options)
    del sections[:]
    assert LOOPS[loop](d) == MANY
    assert len(reads) <= FIRST
    assert len(sections) == len(set(sections)) > 50 and sections == sorted(sections)
    if options.get("cache_bytes"):
        held = [value for value in d._cache.values() if value in MANY.values()]
        assert 0 < sum(map(len, held)) <= options["cache_bytes"]
    if options == {"lazy": True}:
        del sections[:]
        assert LOOPS[loop](d) == MANY
        assert sections == [] and len(reads) <= FIRST


def test_a_loop_that_ends_soon_opens_no_pack(nfsdict, packed, reads, sections):
    d = open_(nfsdict, packed, lazy=True)
    for _, key in zip(range(FIRST), d):
        assert d[key] == MANY[key]
    assert any(True for _ in d.values())
    assert sections == [] and len(reads) == FIRST


def test_loops_may_be_nested(nfsdict, packed, reads):
    d = open_(nfsdict, packed, lazy=True, cache_bytes=0)
    for number, key in enumerate(d):
        if number in (0, 30):
            assert dict(d.items()) == MANY
        assert d[key] == MANY[key]
    assert len(reads) <= 3 * FIRST + 2  # and a key of the outer one after each inner one


def test_a_list_of_keys_that_are_looked_up_in_order(nfsdict, packed, reads, sections):
    d = open_(nfsdict, packed, lazy=True)
    keys = list(d)
    assert {key: d[key] for key in keys} == MANY
    assert len(sections) > 50 and len(reads) <= FIRST


def test_a_list_of_keys_that_are_looked_up_in_another_order(nfsdict, packed, reads, sections):
    d = open_(nfsdict, packed, lazy=True)
    keys = list(d)[::-1]
    assert {key: d[key] for key in keys} == MANY
    assert sections == [] and len(reads) == len(MANY)


def test_threads_may_share_a_loop_and_have_their_own(nfsdict, packed, reads):
    d = open_(nfsdict, packed, lazy=True, cache_bytes=0)
    shared = iter(d)
    found, problems = {}, []

    def look_up(keys):
        try:
            for key in keys:
                found[key] = d[key]
        except BaseException as error:
            problems.append(error)

    for loops in ([shared] * 4, [iter(d) for _ in range(4)]):
        found.clear()
        threads = [threading.Thread(target=look_up, args=(keys,)) for keys in loops]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert problems == [] and found == MANY


def test_keys_in_another_order_than_shards(nfsdict, packed, reads, sections):
    d = open_(nfsdict, packed, lazy=True, cache_bytes=0)
    for key in reversed(MANY):
        assert key in d
        d.get(key)
    d.refresh()
    del reads[:]
    assert list(d) != sorted(d, key=lambda key: value_file(packed, key))
    assert dict(d.items()) == MANY
    assert len(sections) == len(set(sections)) and len(reads) <= FIRST


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
def test_a_loop_that_is_left_closes_its_packs(nfsdict, packed):
    gc.collect()  # what other tests left
    before = len(os.listdir("/proc/self/fd"))
    d = open_(nfsdict, packed, lazy=True)
    for number, _ in enumerate(d.values()):
        if number == 100:
            break
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
@pytest.mark.parametrize("known", [False, True])
def test_a_list_of_keys_that_were_all_looked_up_closes_its_packs(nfsdict, packed, known):
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    d = open_(nfsdict, packed, lazy=True)
    if known:
        assert d[list(d)[-1]]
    assert dict(d) == MANY
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


# --- what may not ----------------------------------------------------------------------------


def test_a_lookup_beside_the_loop_reads_the_file(nfsdict, packed, reads, sections):
    """Nothing is kept of it, so that whoever asks again asks the disk."""
    d = open_(nfsdict, packed, lazy=True, cache_bytes=0)
    for number, key in enumerate(d):
        assert d[key] == MANY[key]
        if number == 20:
            plain_write(packed, key, "new")
            assert d[key] == "new"
            assert d.get(key, fresh=True) == "new"
            break


def test_what_others_change_before_the_loop_comes_to_it(nfsdict, packed):
    d = open_(nfsdict, packed, lazy=True)
    found = {}
    for number, (key, value) in enumerate(d.items()):
        found[key] = value
        if number == 20:
            last = list(d)[-1]
            plain_write(packed, last, "new")
            plain_delete(packed, list(d)[-2])
    assert found == scan(packed) and found[last] == "new"


@pytest.mark.parametrize("loop", ["items", "drained"])
def test_what_others_change_in_the_shard_that_a_slow_loop_is_in(nfsdict, packed, monkeypatch, loop):
    """A value isn't older than a second."""
    monkeypatch.setattr(importlib.import_module("nfsdict.read_ahead"), "_FRESH", -1.0)
    d = open_(nfsdict, packed, lazy=True)
    keys = [key for key in d if key in TWINS]
    found = {}
    for key in list(d) if loop == "drained" else d:
        found[key] = d[key]
        if key == keys[10]:
            plain_write(packed, keys[11], "new")
            plain_write(packed, keys[30], "newer")
    assert found == scan(packed)


@pytest.mark.parametrize("cache_bytes", [None, 0])
def test_a_loop_that_writes_what_it_reads(nfsdict, packed, reads, cache_bytes):
    d = open_(nfsdict, packed, lazy=True, cache_bytes=cache_bytes)
    for key in d:
        d[key] = d[key] + "!"
    # It has changed the first shard before it read the packs.
    assert {name[:2] for name in reads} == {"00"}
    assert dict(d.items()) == {key: value + "!" for key, value in MANY.items()} == scan(packed)


@pytest.mark.parametrize("cache_bytes", [None, 0])
def test_what_the_loop_has_changed_of_the_shard_that_it_is_in(nfsdict, packed, cache_bytes):
    d = open_(nfsdict, packed, lazy=True, cache_bytes=cache_bytes)
    keys = [key for key in d if key in TWINS]
    assert len(keys) == 64
    found = {}
    for key in d:
        found[key] = d.get(key)
        if key == keys[10]:
            d[keys[20]] = "new"
            del d[keys[21]]
            plain_write(packed, keys[22], "newer")
            assert d.get(keys[22], fresh=True) == "newer"
            plain_write(packed, keys[23], "newest")
            d.refresh()
    assert [found[key] for key in keys[20:25]] == ["new", None, "newer", "newest", "twin"]


CHANGES = {
    "put": (lambda d, base, key: d.__setitem__(key, "new"), "new"),
    "update": (lambda d, base, key: d.update({key: "new"}), "new"),
    "delete": (lambda d, base, key: d.__delitem__(key), None),
    "pop": (lambda d, base, key: d.pop(key), None),
    "fresh": (
        lambda d, base, key: (plain_write(base, key, "new"), d.get(key, fresh=True)),
        "new",
    ),
    "refresh": (lambda d, base, key: (plain_write(base, key, "new"), d.refresh()), "new"),
    "sync": (lambda d, base, key: (plain_write(base, key, "new"), d.sync()), "new"),
    "gone": (lambda d, base, key: (plain_delete(base, key), d.refresh()), None),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("cache_bytes", [None, 0])
def test_a_change_that_overtakes_a_packed_value(nfsdict, packed, monkeypatch, change, cache_bytes):
    """Whoever knows of it gets what is newer, from then on."""
    act, wanted = CHANGES[change]
    d = open_(nfsdict, packed, lazy=True, cache_bytes=cache_bytes)
    key = list(d)[40]

    def other_thread():
        thread = threading.Thread(target=act, args=(d, packed, key))
        thread.start()
        thread.join()

    while_one_is_decoded(nfsdict, monkeypatch, key, other_thread)
    found = {one: d.get(one) for one in d}
    assert found[key] == d.get(key) == wanted
    assert {one: value for one, value in found.items() if one != key} == {
        one: value for one, value in MANY.items() if one != key
    }


def test_a_scan_under_way_when_a_packed_value_comes(nfsdict, packed, monkeypatch):
    """It has decided what to read, without this key; the loop must not put an old value there."""
    d = open_(nfsdict, packed, lazy=True)
    key = list(d)[40]
    Scanner = importlib.import_module("nfsdict.scan").Scanner
    original = Scanner._list_shard
    listed, go_on = threading.Event(), threading.Event()

    def list_shard(self, *arguments):
        found = original(self, *arguments)
        listed.set()
        assert go_on.wait(30)
        return found

    monkeypatch.setattr(Scanner, "_list_shard", list_shard)
    scan_ = threading.Thread(target=d.refresh)

    def others_write_and_it_is_found():
        plain_write(packed, key, "new")
        scan_.start()
        assert listed.wait(30)

    while_one_is_decoded(nfsdict, monkeypatch, key, others_write_and_it_is_found)
    found = {}
    for one in d:
        found[one] = d.get(one)
        if one == key:
            go_on.set()
            scan_.join()
    assert found == scan(packed) == dict(d.items())


@pytest.mark.parametrize("damage", ["section", "table", "gone", "manifest"])
def test_damaged_packs_cost_time_alone(nfsdict, packed, damage):
    d = open_(nfsdict, packed, lazy=True)
    assert len(d) == len(MANY)
    [pack] = packed.glob("store/_pack*")
    data = bytearray(pack.read_bytes())
    if damage == "section":
        data[100] ^= 1
        pack.write_bytes(data)
    elif damage == "table":
        data[-5] ^= 1
        pack.write_bytes(data)
    elif damage == "gone":
        pack.unlink()
    else:
        next(packed.glob("store/_index*")).write_bytes(b"no manifest")
    assert dict(d.items()) == MANY


def test_a_pack_that_is_newer_than_the_index_in_memory(nfsdict, packed, reads):
    """It has what others wrote since: their values are read from the files, or are the same."""
    d = open_(nfsdict, packed, lazy=True)
    keys = list(d)
    for key in keys[100:110]:
        plain_write(packed, key, "new")
    age(packed)
    open_(nfsdict, packed).pack()
    del reads[:]
    assert dict(d.items()) == scan(packed)
    assert set(keys[100:110]) <= {key for key in keys if value_file(packed, key).name in reads}
