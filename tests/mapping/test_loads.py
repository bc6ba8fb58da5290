"""What ``update`` has written many at a time goes into a pack without being read again, if it is
still as it was written."""

from __future__ import annotations

import errno
import gc
import importlib
import os
import signal
import threading
import time
from types import SimpleNamespace

import pytest

from support.aging import age, within_one_tick
from support.index_layout import open_, plain_delete, plain_write, scan, stack
from support.layout import value_file

MANY = {f"key {number}": f"{number:100d}" for number in range(300)}
SOME = list(MANY)[:5]


@pytest.fixture
def waits(nfsdict, monkeypatch, tmp_path):
    """Updates of 100 keys are kept for a pack. Who waits until they are old finds them so at once;
    gives the seconds of each wait."""
    monkeypatch.setattr(importlib.import_module("nfsdict.bulk"), "_LOAD", 100)
    waits = []

    def sleep(seconds):
        waits.append(seconds)
        age(tmp_path)

    for name in ("nfsdict.loads", "nfsdict.repack"):
        clock = SimpleNamespace(monotonic=time.monotonic, sleep=sleep)
        monkeypatch.setattr(importlib.import_module(name), "time", clock)
    return waits


def values_in_packs(base):
    return {
        said.key: said.value
        for pack in stack(base)
        for _, shard in pack.values()
        for said in shard
        if said.value is not None
    }


def assert_right(nfsdict, base):
    """Whoever opens the store finds what the files hold."""
    wanted = scan(base)
    for lazy in (False, True):
        assert dict(open_(nfsdict, base, read_only=True, lazy=lazy)) == wanted


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("options", [{}, {"lazy": True}, {"cache_bytes": 0}])
def test_packing_a_load_reads_no_file(nfsdict, tmp_path, waits, reads, lists, options, workers):
    d = open_(nfsdict, tmp_path, **{"workers": workers, **options})
    d.update(MANY)
    del lists[:]
    assert d.pack() == (300, 0, 0)
    assert reads == [] and len(waits) == 1 and len(lists) == len(set(lists))
    assert d.pack() == (300, 0, 0) and reads == [] and len(waits) == 1
    assert dict(open_(nfsdict, tmp_path)) == MANY and reads == []
    assert not list(tmp_path.glob("store/**/.nfsdict-*"))


def test_within_one_tick_of_the_clock_nothing_is_told_by_signatures(
    nfsdict, tmp_path, waits, monkeypatch
):
    """The load waits for the next one before the files get their names."""
    within_one_tick(monkeypatch, tmp_path)
    d = open_(nfsdict, tmp_path)
    d.update(MANY)
    for key in SOME:
        edit(tmp_path, key)
    d.pack()
    assert_right(nfsdict, tmp_path)


def test_a_clock_that_does_not_tick(nfsdict, tmp_path, waits, reads, monkeypatch):
    within_one_tick(monkeypatch, tmp_path)
    files = importlib.import_module("nfsdict.storage.files")
    monkeypatch.setattr(files, "time", SimpleNamespace(sleep=lambda _: None))
    d = open_(nfsdict, tmp_path)
    d.update(MANY)
    assert d.pack() == (300, 0, 0)
    assert len(reads) >= 300
    assert_right(nfsdict, tmp_path)


def test_a_load_among_others(nfsdict, tmp_path, waits, reads):
    """Several updates, of which the later ones replace values of the earlier ones."""
    d = open_(nfsdict, tmp_path)
    d["before"] = 1
    d.update(MANY)
    d.update(dict.fromkeys(list(MANY)[:150], "second"))
    d.update(dict.fromkeys(list(MANY)[:10], "third"))  # few: not kept
    d["after"] = 2
    del d[SOME[4]]
    assert d.pack() == (301, 0, 0)
    assert len(reads) == 11
    assert_right(nfsdict, tmp_path)


def test_large_values_are_not_kept(nfsdict, tmp_path, waits, reads):
    large = importlib.import_module("nfsdict.index.pack").PACKED
    d = open_(nfsdict, tmp_path)
    d.update({**MANY, "large": "x" * large, "nearly": "x" * (large - 200)})
    assert d.pack() == (301, 1, 0)
    assert reads == [] and "large" not in values_in_packs(tmp_path)
    assert_right(nfsdict, tmp_path)


def other(key):
    """A content of the same size as the load has given this key."""
    serializers = importlib.import_module("nfsdict.serializers")
    return serializers.serializer_named("pickle").dumps((key, "y" * len(MANY[key])))


def edit(base, key):
    value_file(base, key).write_bytes(other(key))


def replace(base, key):
    temporary = value_file(base, key).with_name("tmpabcdefgh")
    temporary.write_bytes(other(key))
    os.replace(temporary, value_file(base, key))


def and_set_back(change, base, key):
    status = value_file(base, key).stat()
    change(base, key)
    assert value_file(base, key).stat().st_size == status.st_size
    os.utime(value_file(base, key), ns=(status.st_atime_ns, status.st_mtime_ns))


CHANGES = {
    "replaced": lambda base, key: plain_write(base, key, "new"),
    "replaced, same size": replace,
    "replaced, mtime set back": lambda base, key: and_set_back(replace, base, key),
    "replaced twice": lambda base, key: (plain_write(base, key, "new"), replace(base, key)),
    "removed": plain_delete,
    "edited": edit,
    "edited, mtime set back": lambda base, key: and_set_back(edit, base, key),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
def test_what_others_have_changed_since(nfsdict, tmp_path, waits, change, lazy):
    d = open_(nfsdict, tmp_path, lazy=lazy)
    d.update(MANY)
    for key in SOME:
        CHANGES[change](tmp_path, key)
    d.pack()
    assert_right(nfsdict, tmp_path)
    assert dict(d.items()) == scan(tmp_path)


# Who sets the mtime back within the same load isn't found out.
@pytest.mark.parametrize("change", [one for one in CHANGES if "back" not in one])
def test_what_others_change_while_it_is_loaded(nfsdict, tmp_path, waits, change, monkeypatch):
    """As soon as the files have got their names, and before the load ends."""
    ValueFiles = importlib.import_module("nfsdict.storage.values").ValueFiles
    original = ValueFiles.publish

    def publish(self, prepared):
        results = original(self, prepared)
        for key in SOME:
            if str(value_file(tmp_path, key)) in dict(prepared.files):
                CHANGES[change](tmp_path, key)
        return results

    monkeypatch.setattr(ValueFiles, "publish", publish)
    d = open_(nfsdict, tmp_path)
    d.update(MANY)
    d.pack()
    assert_right(nfsdict, tmp_path)


# --- when it is packed -----------------------------------------------------------------------


@pytest.mark.parametrize("call", ["close", "with", "refresh"])
def test_what_packs_a_load_that_is_old(nfsdict, tmp_path, waits, reads, call, monkeypatch):
    d = open_(nfsdict, tmp_path)
    d.update(MANY)
    age(tmp_path)
    monkeypatch.setattr(d._loads, "_ended", -1000.0)
    if call == "with":
        with d:
            pass
    else:
        getattr(d, call)()
    assert reads == [] and sum(waits) == 0
    assert values_in_packs(tmp_path).keys() == MANY.keys()
    assert dict(open_(nfsdict, tmp_path)) == MANY and reads == []


def test_close_waits_for_a_load_that_took_long(nfsdict, tmp_path, waits, reads, monkeypatch):
    d = open_(nfsdict, tmp_path)
    d.update(MANY)
    d.close()
    assert waits == [] and not values_in_packs(tmp_path)
    monkeypatch.setattr(d._loads, "_began", d._loads._began - 30)
    d.close()
    assert len(waits) == 1 and 2 < waits[0] < 4
    assert values_in_packs(tmp_path).keys() == MANY.keys() and reads == []
    d.close()
    assert len(waits) == 1


def test_close_lists_nothing_for_a_lazy_dictionary_that_has_not(nfsdict, tmp_path, waits, lists):
    d = open_(nfsdict, tmp_path, lazy=True)
    d.update(MANY)
    age(tmp_path)
    d._loads._ended = -1000.0
    d.close()
    assert lists == []


def test_a_scan_that_comes_too_soon(nfsdict, tmp_path, waits, reads):
    """The values wait for the next one."""
    d = open_(nfsdict, tmp_path)
    d.update(MANY)
    for _ in range(2):
        assert d.refresh() == set()
    assert reads == []
    assert d.pack() == (300, 0, 0) and reads == []


def test_a_sync_reads_the_files(nfsdict, tmp_path, waits, reads):
    d = open_(nfsdict, tmp_path)
    d.update(MANY)
    d.sync()
    assert len(reads) == 300
    assert d.pack() == (300, 0, 0)
    assert_right(nfsdict, tmp_path)


@pytest.mark.parametrize("large", [0, 250])
def test_each_batch_of_a_load_is_kept(nfsdict, tmp_path, waits, reads, monkeypatch, large):
    """However few small values it has."""
    monkeypatch.setattr(importlib.import_module("nfsdict.bulk"), "BATCH_BYTES", 20_000)
    monkeypatch.setattr(importlib.import_module("nfsdict.bulk"), "PACKED", 1000)
    values = {key: value * (20 if n < large else 1) for n, (key, value) in enumerate(MANY.items())}
    d = open_(nfsdict, tmp_path)
    d.update(values)
    monkeypatch.setattr(importlib.import_module("nfsdict.loads"), "PACKED", 1000)
    assert d.pack() == (300, 0, 0)
    small = {value_file(tmp_path, key).name for key in list(MANY)[large:]}
    assert small.isdisjoint(reads)
    assert_right(nfsdict, tmp_path)


def test_a_refresh_when_a_part_is_proven(nfsdict, tmp_path, waits, reads):
    """The rest waits for the next scan."""
    d = open_(nfsdict, tmp_path)
    d.update(MANY)
    age(tmp_path)
    late = list(MANY)[:100]
    d.update({key: MANY[key] + "!" for key in late})  # shares directories with the others
    assert d.refresh() == set()
    assert reads == []
    age(tmp_path)
    assert d.refresh() == set()
    assert reads == [] and values_in_packs(tmp_path).keys() == MANY.keys()
    assert_right(nfsdict, tmp_path)


def test_a_refresh_before_the_load_has_ended(nfsdict, tmp_path, waits, reads, monkeypatch):
    """Its files are proven, but when it ended isn't yet."""
    bulk = importlib.import_module("nfsdict.bulk").Bulk
    original = bulk._keep

    def keep(self, *arguments):
        age(tmp_path)
        original(self, *arguments)

    monkeypatch.setattr(bulk, "_keep", keep)
    d = open_(nfsdict, tmp_path)
    d.update(MANY)
    d.refresh()
    d.pack()
    assert reads == []
    assert_right(nfsdict, tmp_path)


def test_loads_that_replace_one_another_take_no_more_room(nfsdict, tmp_path, waits, monkeypatch):
    monkeypatch.setattr(importlib.import_module("nfsdict.storage.spool"), "_BUFFER", 5000)
    monkeypatch.setattr(importlib.import_module("nfsdict.loads"), "_WASTE", 10_000)
    d = open_(nfsdict, tmp_path)
    for number in range(20):
        values = {key: f"{number} {value}" for key, value in MANY.items()}
        d.update(values)
        waiting = [one for shard in d._loads._waiting.values() for one in shard.values()]
        assert len(waiting) == len(MANY)
        assert spool_file(tmp_path).stat().st_size < 200_000
    assert d.pack() == (300, 0, 0)
    assert_right(nfsdict, tmp_path)
    assert not list(tmp_path.glob("store/.nfsdict-*"))


# --- what is lost costs time alone -----------------------------------------------------------


def spool_file(base):
    [file] = base.glob("store/.nfsdict-*")
    return file


@pytest.fixture
def spilled(nfsdict, tmp_path, waits, monkeypatch):
    """A dictionary whose load has filled its buffer several times."""
    monkeypatch.setattr(importlib.import_module("nfsdict.storage.spool"), "_BUFFER", 5000)
    d = open_(nfsdict, tmp_path)
    d.update(MANY)
    assert spool_file(tmp_path).stat().st_size >= 5000
    return d


def test_a_spool_on_disk_is_read_and_removed(nfsdict, tmp_path, spilled, reads):
    assert spool_file(tmp_path).stat().st_mode & 0o777 == 0o600
    assert spilled.pack() == (300, 0, 0) and reads == []
    assert not list(tmp_path.glob("store/.nfsdict-*"))
    assert_right(nfsdict, tmp_path)


@pytest.mark.parametrize("damage", ["changed", "cut", "gone", "no file"])
def test_a_damaged_spool(nfsdict, tmp_path, spilled, reads, damage):
    file = spool_file(tmp_path)
    data = bytearray(file.read_bytes())
    data[500] ^= 1
    file.unlink()
    if damage == "no file":
        file.mkdir()
    elif damage != "gone":
        file.write_bytes(data if damage == "changed" else data[:500])
    assert spilled.pack() == (300, 0, 0)
    assert reads
    assert_right(nfsdict, tmp_path)


def test_a_spool_that_is_not_used(nfsdict, tmp_path, waits, monkeypatch):
    monkeypatch.setattr(importlib.import_module("nfsdict.storage.spool"), "_BUFFER", 5000)
    d = open_(nfsdict, tmp_path)
    d.update(MANY)
    assert spool_file(tmp_path)
    del d
    gc.collect()
    assert not list(tmp_path.glob("store/.nfsdict-*"))


def test_a_spool_of_a_process_that_was_killed(nfsdict, tmp_path, spilled):
    spool_file(tmp_path).with_name(".nfsdict-" + "0" * 24).write_bytes(b"left")
    assert open_(nfsdict, tmp_path).repair(grace=-1).removed
    assert not list(tmp_path.glob("store/.nfsdict-*"))
    assert spilled.pack() == (300, 0, 0)  # that took its own too
    assert_right(nfsdict, tmp_path)


def test_a_full_disk_for_the_spool(nfsdict, tmp_path, waits, monkeypatch):
    Spool = importlib.import_module("nfsdict.storage.spool").Spool

    def append(self, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Spool, "append", append)
    d = open_(nfsdict, tmp_path)
    d.update(MANY)
    assert d.pack() == (300, 0, 0)
    assert_right(nfsdict, tmp_path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("packs", [False, True])
def test_a_child_leaves_the_load_to_its_parent(nfsdict, tmp_path, spilled, reads, packs):
    child = os.fork()
    if not child:
        status = 1
        try:
            spilled.update(dict.fromkeys(list(MANY)[:100], "child"))
            if packs:
                spilled.pack()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    spilled.update(dict.fromkeys(list(MANY)[100:250], "parent"))  # more for the spool
    assert spilled.pack() == (300, 0, 0)
    if not packs:
        assert len(reads) == 100, "those that the child has written"
    assert_right(nfsdict, tmp_path)
    assert not list(tmp_path.glob("store/.nfsdict-*"))


def test_another_process_that_writes_the_index_meanwhile(nfsdict, tmp_path, waits, monkeypatch):
    PackStack = importlib.import_module("nfsdict.index.stack").PackStack
    original = PackStack.append

    def append(self, writer):
        monkeypatch.setattr(PackStack, "append", original)
        return False

    d = open_(nfsdict, tmp_path)
    d.update(MANY)
    monkeypatch.setattr(PackStack, "append", append)
    assert d.pack() == (300, 0, 0)
    assert_right(nfsdict, tmp_path)


# --- writing in two halves -------------------------------------------------------------------


def test_keys_that_cannot_be_written(nfsdict, tmp_path, waits):
    """The others are, and nothing is left."""
    d = open_(nfsdict, tmp_path)
    for key in SOME:
        value_file(tmp_path, key).mkdir(parents=True)
    with pytest.raises(nfsdict.BatchError) as caught:
        d.update(MANY)
    assert caught.value.failed.keys() == set(SOME)
    for key in SOME:
        value_file(tmp_path, key).rmdir()
    assert not list(tmp_path.glob("store/**/.nfsdict-*"))
    assert d.pack() == (295, 0, 0)
    assert_right(nfsdict, tmp_path)


@pytest.mark.parametrize("where", ["prepare", "await_tick", "publish"])
def test_an_exception_within_a_load_leaves_nothing(nfsdict, tmp_path, waits, monkeypatch, where):
    holder = importlib.import_module("nfsdict.storage.values").ValueFiles
    if where == "await_tick":
        holder = importlib.import_module("nfsdict.storage.files").Files
    original = getattr(holder, where)
    calls = []

    def interrupted(self, *arguments):
        calls.append(where)
        if len(calls) == (1 if where == "await_tick" else 3):
            raise KeyboardInterrupt
        return original(self, *arguments)

    d = open_(nfsdict, tmp_path, workers=2)
    d.update(dict.fromkeys(list(MANY)[:50], "before"))
    monkeypatch.setattr(holder, where, interrupted)
    with pytest.raises(KeyboardInterrupt):
        d.update(MANY)
    assert not list(tmp_path.glob("store/**/.nfsdict-*"))
    assert dict(d.items()) == scan(tmp_path)
    d.update(MANY)
    assert dict(d.items()) == scan(tmp_path) == MANY


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timer signals")
def test_a_signal_within_a_load_leaves_nothing(nfsdict, tmp_path, waits):
    """Also while the core is writing, so that it comes as soon as the core returns."""

    def interrupt(*_):
        raise KeyboardInterrupt

    d = open_(nfsdict, tmp_path, workers=1)
    begin = time.perf_counter()
    d.update(MANY)
    seconds = time.perf_counter() - begin
    before = signal.signal(signal.SIGALRM, interrupt)
    interrupted = 0
    try:
        for number in range(40):
            signal.setitimer(signal.ITIMER_REAL, seconds * (number + 1) / 40)
            try:
                d.update(dict.fromkeys(MANY, number))
            except KeyboardInterrupt:
                interrupted += 1
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            assert not list(tmp_path.glob("store/??/.nfsdict-*")), number
    finally:
        signal.signal(signal.SIGALRM, before)
    assert interrupted > 10
    assert dict(d.items()) == scan(tmp_path)


def test_a_server_whose_time_cannot_be_asked_for(nfsdict, tmp_path, waits, monkeypatch):
    Files = importlib.import_module("nfsdict.storage.files").Files
    original = Files.probe_clock

    def probe_clock(self):
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    d = open_(nfsdict, tmp_path)
    monkeypatch.setattr(Files, "probe_clock", probe_clock)
    d.update(MANY)
    monkeypatch.setattr(Files, "probe_clock", original)
    assert d.pack() == (300, 0, 0)
    assert_right(nfsdict, tmp_path)


def test_threads_that_load_at_once(nfsdict, tmp_path, waits):
    d = open_(nfsdict, tmp_path, workers=3)
    threads = [
        threading.Thread(target=d.update, args=({key: f"{n} {key}" for key in MANY},))
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert dict(d.items()) == scan(tmp_path)
    assert d.pack() == (300, 0, 0)
    assert_right(nfsdict, tmp_path)
    assert dict(d.items()) == scan(tmp_path)
