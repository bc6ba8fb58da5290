"""Logs: each call is told of at DEBUG, decisions at INFO; no handler runs while a lock is held."""

from __future__ import annotations

import errno
import gc
import importlib
import logging
import os
import re
import subprocess
import sys
import threading
import time

import pytest

from support.aging import age
from support.forks import forking, in_child
from support.hangs import within

LOG = logging.getLogger("nfsdict")


class Lines(logging.Handler):
    """Keeps the messages; ``also`` is called with each record."""

    def __init__(self):
        super().__init__()
        self.records = []
        self.also = lambda record: None

    @property
    def text(self):
        return "\n".join(record.getMessage() for record in self.records)

    def emit(self, record):
        self.records.append(record)
        self.also(record)


@pytest.fixture
def lines():
    """What is logged, from DEBUG on unless the test sets another level."""
    handler, before = Lines(), LOG.level
    gc.collect()  # what is dropped now writes its index, and tells of that
    LOG.addHandler(handler)
    LOG.setLevel(logging.DEBUG)
    yield handler
    LOG.removeHandler(handler)
    LOG.setLevel(before)


@pytest.fixture
def logs(nfsdict):
    return importlib.import_module("nfsdict.logs")


# --- DEBUG: each call ---------------------------------------------------------------------------


def test_a_whole_run_is_told(opened, lines, tmp_path):
    opened(lazy=True)["there"] = 0
    lines.records.clear()
    with opened() as d:
        d["put"] = 1
        d.get("fresh", fresh=True)
        assert "unknown" not in d
        with pytest.raises(KeyError):
            d["missing"]
        d.refresh()
        d.sync()
        age(d.path)
        d.pack()
        d.pop("put")
        d.add("added", 2)
        d.add("added", 3)
        with d.lease("leased"):
            pass
        d.modify("added", lambda value: value + 1)
        d.get_or_create("made", lambda: 4)
        d.update({"one": 1, "two": 2})
        del d["one"]
        d.popitem()
        d.verify()
        d.repair()
        d.clear()
    told = lines.text
    for call in (
        *("open", "put 'put'", "get 'fresh' fresh: missing", "in 'unknown': False"),
        *("get 'missing': missing", "refresh: 0 found", "sync", "scan", "pack", "pop 'put'"),
        *("add 'added': True", "add 'added': False", "lease 'leased'", "modify 'added'"),
        *(
            "the creator of 'made'",
            "get_or_create 'made'",
            "update of 2 keys",
            "del 'one'",
            "pop '",
            "verify",
            "repair",
        ),
        *("clear", "close"),
    ):
        assert re.search(rf"^{tmp_path}/s: {re.escape(call)}.*?\d+\.\d\d ms$", told, re.M), call


def test_a_call_that_fails_is_told(opened, lines, monkeypatch):
    d = opened()

    def full(*_):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(d._values, "put", full)
    with pytest.raises(OSError):
        d["k"] = 1
    assert re.search(r"put 'k': OSError: \[Errno 28\] full, \d", lines.text)


def test_what_is_in_memory_is_read_without_a_word(opened, lines):
    d = opened()
    d["k"] = 1
    lines.records.clear()
    assert d["k"] == d.get("k") == 1 and "k" in d
    assert d.get_or_create("k", dict) == 1
    assert lines.records == []


def test_calls_to_the_server_are_told_where_they_can_be_counted(opened, lines, monkeypatch):
    d = opened()
    sent = iter([100, 104])
    monkeypatch.setattr(d._storage, "calls_sent", lambda: next(sent))
    d["k"] = 1
    assert re.search(r"put 'k': \d+\.\d\d ms, 4 calls$", lines.text, re.M)


def test_at_info_only_long_calls_are_told(opened, lines, logs, monkeypatch):
    LOG.setLevel(logging.INFO)
    d = opened()
    lines.records.clear()
    d["short"] = 1
    monkeypatch.setattr(logs, "_LONG", 0.0)
    d["long"] = 1
    [record] = lines.records
    assert record.levelno == logging.INFO and "put 'long': " in record.getMessage()


def test_by_default_nothing_is_told(tmp_path, nfsdict):
    code = "import sys, nfsdict; d = nfsdict.NfsDict('s', sys.argv[1]); d['k'] = 1; d.close()"
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, check=True, timeout=60
    )
    assert (done.stdout, done.stderr) == (b"", b"")


# --- handlers -----------------------------------------------------------------------------------


def test_a_handler_uses_the_dictionary_itself(opened, lines):
    d = opened()

    def note(record):
        d["last"] = record.getMessage()
        d.get("seldom", fresh=True)
        d.refresh()

    lines.also = note
    within(60, lambda: d.update(a=1, b=2), lambda: d.__setitem__("c", 3), d.sync, d.close)
    assert "update of 2 keys" in lines.text
    assert "'last'" not in lines.text and "'seldom'" not in lines.text
    lines.also = lambda record: None
    assert {"a", "b", "c", "last"} == set(opened())


def test_no_handler_runs_while_a_lock_is_held(opened, lines, monkeypatch):
    """It waits for another thread that writes the same key, and so waits for the lock."""
    LOG.setLevel(logging.INFO)  # or the other thread would wait for the handler's own lock
    d = opened()
    put = d._values.put
    waited = []

    def told(hexdigest, data):
        if threading.current_thread().name != "helper":
            LOG.info("told under a lock")
        return put(hexdigest, data)

    def wait(record):
        helper = threading.Thread(target=d.__setitem__, args=("k", 2), name="helper")
        helper.start()
        helper.join(30)
        waited.append(helper.is_alive())

    monkeypatch.setattr(d._values, "put", told)
    lines.also = wait
    within(60, lambda: d.__setitem__("k", 1))
    assert waited == [False] and d["k"] == 2


def test_what_was_kept_back_comes_before_the_call_it_is_about(opened, lines, monkeypatch):
    d = opened()
    put = d._values.put
    monkeypatch.setattr(d._values, "put", lambda *a: LOG.info("under a lock") or put(*a))
    d["k"] = 1
    first, second = lines.records[-2:]
    assert first.getMessage() == "under a lock" and "put 'k'" in second.getMessage()
    assert first.funcName == "<lambda>" and first.created <= second.created


@pytest.mark.parametrize("call", ["add", "__setitem__"])
def test_a_warning_under_a_lock_is_told_when_the_call_ends(opened, lines, monkeypatch, call):
    LOG.setLevel(logging.WARNING)
    d = opened()
    seen = []
    lines.also = lambda record: seen.append(d._locks.interrupted)

    def warned(original):
        def write(hexdigest, data):
            LOG.warning("do something")
            assert lines.records == []
            return original(hexdigest, data)

        return write

    monkeypatch.setattr(d._storage.exclusive, "add", warned(d._storage.exclusive.add))
    monkeypatch.setattr(d._values, "put", warned(d._values.put))
    getattr(d, call)("k", 1)
    assert lines.text == "do something" and seen == [False]


def test_a_handler_whose_own_calls_always_warn(opened, lines):
    d = opened()
    lines.also = lambda record: LOG.warning("again") or d.refresh()
    within(60, lambda: d.__setitem__("k", 1), d.refresh)
    assert "put 'k'" in lines.text and "again" not in lines.text


def test_a_handler_whose_calls_work_in_threads_that_warn(opened, lines, monkeypatch):
    """It holds its lock meanwhile, as all handlers do."""
    parallel = importlib.import_module("nfsdict.parallel")
    monkeypatch.setattr(parallel, "_WAITED", -1.0)
    d = opened()

    def warn(number):
        time.sleep(0.01)  # calls that wait are worth threads
        LOG.warning("by a thread")
        return threading.current_thread().name

    used = set()
    lines.also = lambda record: used.update(parallel.in_parallel(warn, range(20), 4))
    within(60, lambda: d.__setitem__("k", 1))
    assert "put 'k'" in lines.text and "by a thread" not in lines.text and "nfsdict" in used
    lines.also = lambda record: None
    list(parallel.in_parallel(warn, range(20), 4))
    d.refresh()
    assert lines.text.count("by a thread") == 20


def test_a_handler_that_raises_keeps_nothing_locked(opened, lines):
    d = opened()

    def fail(record):
        raise RuntimeError("a handler's")

    lines.also = fail
    with pytest.raises(RuntimeError):
        d["k"] = 1
    with pytest.raises(RuntimeError):
        d.pop("k")
    lines.also = lambda record: None
    assert d["k"] == 1  # as after any exception, the entry is back
    assert opened()["k"] == 1


def test_what_a_refresh_has_found_is_not_lost_with_a_handlers_exception(opened, lines):
    d, other = opened(), opened()
    other.update(a=1, b=2)

    def fail(record):
        if record.getMessage().startswith(f"{d.path}: refresh"):
            raise RuntimeError("a handler's")

    lines.also = fail
    with pytest.raises(RuntimeError):
        d.refresh()
    lines.also = lambda record: None
    d["b"] = 3
    assert d.refresh() == {"a"}
    assert d.refresh() == set()


@forking
def test_a_child_doesnt_tell_what_its_parent_is_about_to_tell(opened, lines, monkeypatch):
    d = opened()
    put = d._values.put
    told, go_on = threading.Event(), threading.Event()

    def slow(hexdigest, data):
        LOG.info("under a lock")
        told.set()
        go_on.wait(30)
        return put(hexdigest, data)

    def child():
        opened(lazy=True)["child"] = 1
        assert "put 'child'" in lines.text and "under a lock" not in lines.text

    monkeypatch.setattr(d._values, "put", slow)
    writer = threading.Thread(target=d.__setitem__, args=("k", 1))
    writer.start()
    told.wait(30)
    status = in_child(child)
    go_on.set()
    writer.join()
    assert status == 0 and lines.text.count("under a lock") == 1


# --- INFO: what was decided ---------------------------------------------------------------------


def infos(lines):
    return [one.getMessage() for one in lines.records if one.levelno == logging.INFO]


def test_an_index_that_is_ignored(opened, lines):
    with opened() as d:
        d.update({str(number): number for number in range(20)})
        age(d.path)
        d.pack()
    [manifest] = d.path.glob("_index.nfsdict*")
    manifest.write_bytes(b"damage")
    lines.records.clear()
    assert len(opened()) == 20
    assert f"{d.path}: the index is ignored: the manifest is none of this version" in infos(lines)


def test_packs_that_are_written_and_merged(opened, lines):
    with opened() as d:
        d.update({str(number): number for number in range(20)})
        age(d.path)
        d.pack()
        d["k"] = 1
        age(d.path)
        d.pack()
    told = "\n".join(infos(lines))
    assert re.search(r"packed: the index has 1 packs now, \d+\.\d MB", told)
    assert re.search(r": \d packs merged", told)
    assert d.counters()["packs_written"] >= 3


def test_a_lease_that_is_waited_for(opened, lines):
    d, other = opened(), opened()
    lease = other.lease("k")
    timer = threading.Timer(0.1, lease.release)
    timer.start()
    with d.lease("k"):
        assert f"{d.path}: waiting for the lease of 'k'" in infos(lines)
    timer.join()
    assert d.counters()["lease_takeovers"] == 0


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells who has ended")
def test_a_lease_that_is_taken_over(opened, lines, tmp_path):
    code = (
        "import os, sys, nfsdict; d = nfsdict.NfsDict('s', sys.argv[1]); d.lease('k'); "
        "lease = d.lease('dead'); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path], check=True, timeout=60)
    d = opened()
    with d.lease("dead") as lease:
        assert lease.generation == 2
    assert "took over the lease of 'dead'" in "\n".join(infos(lines))
    assert d.counters()["lease_takeovers"] == 1


def test_an_attempt_that_failed_is_no_lease_that_is_taken_over(opened, lines):
    d = opened()
    d["task"] = 1
    for attempt in (1, 2):
        task = d.claim()
        assert task.attempt == attempt
        with pytest.raises(ZeroDivisionError), task:
            raise ZeroDivisionError
    assert d.counters()["lease_takeovers"] == 0 and "took over" not in lines.text


@pytest.mark.parametrize("times", [1, 3])
def test_stale_handles_are_counted(opened, lines, monkeypatch, times):
    opened()["k"] = 1
    d = opened(lazy=True)
    files = importlib.import_module(type(d._storage.files).__module__)
    read, left = files.read_files, [times]

    def stale(paths):
        if left[0]:
            left[0] -= 1
            return [errno.ESTALE for _ in paths]
        return read(paths)

    monkeypatch.setattr(files, "read_files", stale)
    assert d["k"] == 1
    told = f"{d.path_of('k')}: tried again {times} times after an error that passes"
    assert any(one.startswith(told) for one in infos(lines))
    counted = d.counters()
    assert (counted["retries"], counted["stale_handles"]) == (times, times)


def test_a_stale_shard_is_written_again(opened, lines, monkeypatch):
    d = opened()
    d["k"] = 1
    values = importlib.import_module(type(d._values).__module__)
    write, left = values.write_file, [1]

    def stale(*arguments):
        if left:
            left.pop()
            return 0, errno.ESTALE
        return write(*arguments)

    monkeypatch.setattr(values, "write_file", stale)
    d["k"] = 2
    told = f"{d.path_of('k')}: {os.strerror(errno.ESTALE)}, so it is written again, try 1"
    assert told in infos(lines)
    counted = d.counters()
    assert (counted["retries"], counted["stale_handles"]) == (1, 1)


def test_add_goes_by_claims_where_links_are_refused(opened, lines, monkeypatch):
    d = opened()

    def refused(hexdigest, data):
        return OSError(errno.EPERM, "no links")

    monkeypatch.setattr(d._values, "write_new", refused)
    assert d.add("k", 1)
    assert f"{d.path}: hard links are refused, so add goes by claims" in infos(lines)


# --- WARNING: what to do ------------------------------------------------------------------------


def test_a_lease_that_is_lost_is_warned_of(opened, lines, monkeypatch):
    LOG.setLevel(logging.WARNING)
    warned = threading.Event()
    lines.also = lambda record: "is lost" in record.getMessage() and warned.set()
    d = opened()

    def unreachable(*_):
        raise OSError(errno.EIO, "no server")

    monkeypatch.setattr(type(d._storage.leases), "renew", unreachable)
    lease = d.lease("k", 0.1)
    assert warned.wait(30) and not lease.held
    assert "see what kept server or process from working" in lines.text


def test_damage_is_told_with_what_to_do(opened, lines):
    LOG.setLevel(logging.WARNING)
    d = opened()
    d["k"] = 1
    d.path_of("k").write_bytes(b"damage")
    with pytest.raises(KeyError):
        d.get("k", fresh=True)
    [record] = lines.records
    assert record.getMessage().endswith(": set its key, or repair()")


# --- numbers ------------------------------------------------------------------------------------

NONE = dict.fromkeys(
    [
        *("reads", "fresh_reads", "misses", "puts", "deletes", "scans", "packs_written"),
        *("retries", "stale_handles", "lease_takeovers"),
    ],
    0,
)


def counted(d, before):
    return {name: n - before[name] for name, n in d.counters().items() if n != before[name]}


def test_what_is_counted(opened):
    opened()["other"] = 1
    d = opened(lazy=True)
    assert d.counters() == NONE
    steps = [
        (lambda: d["other"], {"reads": 1}),
        (lambda: d["other"], {}),  # from memory
        (lambda: d.get("other", fresh=True), {"reads": 1, "fresh_reads": 1}),
        (lambda: d.get("none"), {"misses": 1}),
        (lambda: "none" in d, {"misses": 1}),
        (lambda: d.__setitem__("k", 1), {"puts": 1}),
        (lambda: d.add("added", 1), {"puts": 1}),
        (lambda: d.add("added", 1), {}),
        (lambda: d.update(a=1, b=2, c=3), {"puts": 3}),
        (lambda: d.__delitem__("a"), {"deletes": 1}),
        (lambda: d.pop("b"), {"deletes": 1}),
        (lambda: d.pop("b", None), {"misses": 1}),
        (d.refresh, {"scans": 1}),
        (d.clear, {"deletes": 4}),
    ]
    for number, (step, expected) in enumerate(steps):
        before = d.counters()
        step()
        found = counted(d, before)
        found.pop("packs_written", None)
        assert found == expected, number


def test_removals_are_counted_by_what_was_there(opened):
    d = opened(durable=False)
    d.update({str(number): number for number in range(5)})
    with pytest.raises(KeyError):
        del d["absent"]
    assert d.counters()["deletes"] == 0
    lazy = opened(lazy=True, durable=False)
    lazy.clear()
    assert lazy.counters()["deletes"] == 5


def test_the_docstring_says_what_each_number_means(nfsdict):
    named = re.findall(r"^        ([a-z]\w+)  +", nfsdict.NfsDict.counters.__doc__, re.M)
    assert named == list(NONE)


def test_threads_are_counted_exactly(opened):
    d = opened(durable=False)
    within(
        120,
        *(
            lambda n=n: [d.__setitem__(f"{n}/{i}", i) or d.get(f"no {n}/{i}") for i in range(200)]
            for n in range(4)
        ),
    )
    counted = d.counters()
    assert (counted["puts"], counted["misses"]) == (800, 800)


@forking
def test_a_child_and_a_copy_begin_at_zero(nfsdict, opened):
    import copy

    d = opened()
    d["k"] = 1
    assert copy.copy(d).counters() == NONE

    def child():
        assert d.counters() == NONE
        d["child"] = 1
        assert d.counters() == {**NONE, "puts": 1}

    assert in_child(child) == 0
    assert d.counters()["puts"] == 1


def test_values_that_a_loop_takes_from_packs_are_reads(opened, tmp_path):
    with opened() as d:
        d.update({str(number): number for number in range(50)})
        age(d.path)
        d.pack()
    lazy = opened(lazy=True)
    assert len(dict(lazy)) == 50
    assert lazy.counters()["reads"] == 50


def test_time_stands_in_milliseconds(opened, lines, monkeypatch):
    d = opened()
    put = d._values.put
    monkeypatch.setattr(d._values, "put", lambda *a: time.sleep(0.05) or put(*a))
    d["k"] = 1
    took = float(re.search(r"put 'k': (\d+\.\d\d) ms", lines.text)[1])
    assert took >= 50
