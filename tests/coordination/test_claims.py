"""Claims: each task is worked on until it is done, whatever becomes of workers."""

from __future__ import annotations

import gc
import hashlib
import importlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import nullcontext, suppress

import pytest

from support import aging
from support.processes import processes

TASKS = {f"task {number}": number for number in range(40)}


@pytest.fixture
def d(opened):
    d = opened()
    d.update(TASKS)
    return d


def work(d, **options):
    """Do all tasks that can be claimed; keys, values and attempts in the order of work."""
    done = []
    while (task := d.claim(**options)) is not None:
        with task:
            done.append((task.key, task.value, task.attempt))
    return done


def fail(d, **options):
    """Claim a task and raise an exception."""
    task = d.claim(**options)
    with pytest.raises(ZeroDivisionError), task:
        raise ZeroDivisionError
    return task


def lease_files(d):
    """What is left of leases, but for the one file that tells of the last scan for tasks."""
    scan = hashlib.sha256(b"nfsdict: scan for tasks").hexdigest()
    directory = d.path / ".nfsdict-leases"
    names = os.listdir(directory) if directory.exists() else []
    assert sum(name.startswith(scan) for name in names) <= 1
    return [name for name in names if not name.startswith(scan)]


def test_a_task_that_others_only_tried_to_claim_has_had_no_attempt(d, core):
    """A look just met their files, of whom each had seen those of others."""
    layout = importlib.import_module("nfsdict.layout")
    with d.claim() as task:
        pass
    directory = d.path / ".nfsdict-leases"
    rivals = [
        directory / str(layout.LeaseName(core.digest(key), 3, 60_000, "ab", 1, 1, "cd" * 12))
        for key in TASKS
    ]
    for rival in rivals:
        rival.touch()
    assert len(d._claims._watch.look().alive) == len(TASKS)
    for rival in rivals:
        rival.unlink()
    left = {key for key in TASKS if key != task.key}
    assert sorted(work(d)) == sorted((key, TASKS[key], 1) for key in left)
    assert d.failed() == []


@pytest.mark.parametrize("round_", range(16))
def test_more_workers_than_tasks_set_none_aside(opened, round_):
    """All are after the same few keys, and look while others try."""
    keys = [f"task {number}" for number in range(12)]
    opened(durable=False).update(dict.fromkeys(keys))
    workers = [opened(durable=False, workers=1) for _ in keys]
    begin = threading.Barrier(len(workers))
    done = []

    def take(d):
        begin.wait()
        done.extend(work(d))

    threads = [threading.Thread(target=take, args=(d,)) for d in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == sorted((key, None, 1) for key in keys)
    assert workers[0].failed() == []


@pytest.mark.parametrize("round_", range(8))
def test_attempts_are_counted_whatever_threads_share_the_dictionary(opened, round_):
    """Each goes by its own look at the leases, and not by one that another thread made since."""
    d = opened(durable=False)
    attempts = {f"task {number}": [] for number in range(4)}
    d.update(dict.fromkeys(attempts))

    def take():
        misses = 0
        while misses < 6:
            task = d.claim(max_attempts=4)
            if task is None:
                misses += 1
                time.sleep(0.001)
                continue
            with suppress(ZeroDivisionError), task:
                attempts[task.key].append(task.attempt)
                raise ZeroDivisionError

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=take) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert attempts == {key: [1, 2, 3, 4] for key in attempts}
    assert d.failed() == sorted(attempts)


def test_the_last_attempt_at_what_can_not_be_read_any_more_says_what_it_raised(opened):
    d = opened(durable=False)
    d["k"] = 1
    fail(d)
    fail(d)
    task = d.claim()
    d.path_of("k").write_bytes(b"damaged")
    with pytest.raises(RuntimeError, match="mine"), task:
        raise RuntimeError("mine")
    assert d.leases() == [] and not task.lease.held
    assert d.claim() is None and d.path_of("k").exists()


def test_each_task_is_done_once_and_leaves_nothing(opened, d):
    assert sorted(work(d)) == sorted((key, value, 1) for key, value in TASKS.items())
    assert d.claim() is None
    assert dict(opened()) == {} and d.leases() == [] and lease_files(d) == []


def test_an_entry_stays_while_it_is_worked_on(opened, d):
    with d.claim() as task:
        assert opened()[task.key] == task.value == TASKS[task.key]
        assert [lease.key for lease in d.leases()] == [task.key]
        assert task.lease.held and task.lease.key == task.key
    assert task.key not in opened()


def test_workers_get_different_tasks(opened, d):
    others = [opened() for _ in range(4)]
    tasks = [other.claim() for other in others for _ in range(10)]
    assert {task.key for task in tasks} == set(TASKS)
    assert [other.claim() for other in others] == [None] * 4
    with tasks[0]:
        pass
    assert others[0].claim() is None
    assert len(opened()) == len(TASKS) - 1


def test_tasks_that_others_add_are_found(opened):
    d = opened()
    assert d.claim() is None
    opened()["new"] = "value"
    with d.claim() as task:
        assert (task.key, task.value) == ("new", "value")


def test_values_that_others_replaced_are_found(opened, d):
    opened().update(dict.fromkeys(TASKS, "new"))
    assert {value for _, value, _ in work(d)} == {"new"}


@pytest.mark.parametrize("elsewhere", [False, True])
def test_an_exception_gives_a_task_back(opened, elsewhere):
    d = opened()
    d["k"] = "v"
    worker = opened if elsewhere else lambda: d
    assert [fail(worker()).attempt for _ in range(2)] == [1, 2]
    assert d.failed() == []
    with worker().claim() as task:
        assert (task.key, task.value, task.attempt) == ("k", "v", 3)
    assert lease_files(d) == [] and dict(opened()) == {}


def test_a_task_that_was_given_back_is_free_at_once(opened, monkeypatch):
    d = opened()
    d["k"] = "v"
    fail(d)
    other = opened()
    monkeypatch.setattr(type(other._scanner), "scan", None)  # not needed to find it
    with other.claim() as task:
        assert task.attempt == 2


def test_what_failed_too_often_is_set_aside(opened, caplog):
    d = opened()
    d["k"] = "v"
    for _ in range(3):
        assert opened().failed() == []
        fail(opened())
    assert opened().failed() == ["k"]
    assert "'k' is set aside after attempt 3: ZeroDivisionError" in caplog.text
    d["good"] = 1
    assert dict(opened()) == {"failed/k": "v", "good": 1}
    assert [key for key, _, _ in work(opened())] == ["good"]
    assert lease_files(d) == []


def test_retry_gives_all_attempts_again(opened):
    d = opened()
    d["k"] = "v"
    fail(d, max_attempts=1)
    assert d.failed() == ["k"] and d.claim() is None
    with pytest.raises(KeyError):
        d.retry("other")
    opened().retry("k")
    assert d.failed() == []
    assert work(d) == [("k", "v", 1)]
    with pytest.raises(KeyError):
        d.retry("k")


def test_retry_keeps_a_newer_entry(opened):
    d = opened()
    d["k"] = "old"
    fail(d, max_attempts=1)
    d["k"] = "new"
    d.retry("k")
    assert dict(opened()) == {"k": "new"}


@pytest.mark.parametrize("serializer", ["bytes", "json", "pickle"])
def test_serializers(opened, serializer):
    d = opened(serializer=serializer)
    value = b"v" if serializer == "bytes" else "v"
    d["k"] = value
    fail(d, max_attempts=1)
    d.retry("k")
    assert work(opened(serializer=serializer)) == [("k", value, 1)]


def test_an_interrupt_gives_back_and_does_not_count(opened):
    d = opened()
    d["k"] = "v"
    for _ in range(5):
        with pytest.raises(KeyboardInterrupt), d.claim() as task:
            raise KeyboardInterrupt
        assert task.attempt == 1
    assert lease_files(d) == []
    fail(d)
    with pytest.raises(KeyboardInterrupt), d.claim() as task:
        raise KeyboardInterrupt
    assert work(opened()) == [("k", "v", 2)]


def test_a_task_whose_lease_is_lost_stays_to_others(nfsdict, opened):
    d = opened()
    d["k"] = "v"
    task = d.claim()
    task.lease.release()
    with pytest.raises(nfsdict.LeaseLostError), task:
        pass
    with opened().claim() as other:
        with pytest.raises(ZeroDivisionError), task:
            raise ZeroDivisionError
        assert other.attempt == 1 and other.lease.held
    assert dict(opened()) == {}


def test_a_task_that_is_dropped_is_given_back(opened):
    d = opened()
    d["k"] = "v"
    d.claim()
    gc.collect()
    end = time.monotonic() + 60
    while (task := opened().claim()) is None:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert task.attempt == 1


def test_an_entry_that_somebody_removes_meanwhile(opened):
    d = opened()
    d["k"] = "v"
    with d.claim():
        del opened()["k"]
    assert d.claim() is None and lease_files(d) == []
    d["k"] = "v"
    task = d.claim(max_attempts=1)
    del opened()["k"]
    with pytest.raises(ZeroDivisionError), task:
        raise ZeroDivisionError
    assert d.failed() == [] and lease_files(d) == []


def test_damaged_entries_are_passed_over(opened, caplog):
    d = opened()
    d["k"] = "v"
    d.update({f"k{number}": "v" for number in range(30)})
    files = list(d.path.glob("??/*.pkl"))
    for file in files:
        file.write_bytes(b"\x80")
    d["good"] = 1
    with caplog.at_level(logging.CRITICAL, "nfsdict"):
        assert [key for key, _, _ in work(opened())] == ["good"]
    assert all(file.exists() for file in files) and lease_files(d) == []


def test_what_is_refused(nfsdict, opened, d):
    with pytest.raises(nfsdict.ReadOnlyError):
        opened(read_only=True).claim()
    for seconds in (-1, 0, float("nan")):
        with pytest.raises(ValueError, match="lease"):
            opened(name="empty").claim(seconds)
    with pytest.raises(TypeError, match="lease"):
        opened(name="empty").claim("x")
    with pytest.raises(ValueError, match="max_attempts"):
        d.claim(max_attempts=0)
    with pytest.raises(ValueError, match="max_attempts"):
        d.claim(max_attempts=float("nan"))
    with pytest.raises(TypeError):
        d.retry(5)
    fail(d, max_attempts=1)
    with pytest.raises(nfsdict.ReadOnlyError):
        opened(read_only=True).retry(d.failed()[0])
    assert lease_files(d) == []


def test_threads_share_a_dictionary(d):
    done, lock = [], threading.Lock()

    def worker():
        found = work(d)
        with lock:
            done.extend(found)

    threads = [threading.Thread(target=worker) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == sorted((key, value, 1) for key, value in TASKS.items())
    assert len(d) == 0 and lease_files(d) == []


def test_workers_that_run_out_at_the_same_time_scan_once(opened, monkeypatch):
    workers = [opened() for _ in range(8)]
    kind = type(workers[0]._scanner)
    scan, scans, begun = kind.scan, [], threading.Event()

    def slow(self, *args, **kwargs):
        scans.append(self)
        if len(scans) == 1:
            begun.set()
            ready.wait()
        return scan(self, *args, **kwargs)

    ready = threading.Event()
    monkeypatch.setattr(kind, "scan", slow)
    results = []
    threads = [threading.Thread(target=lambda w=w: results.append(w.claim())) for w in workers]
    threads[0].start()
    assert begun.wait(60)
    for thread in threads[1:]:
        thread.start()
    opened(lazy=True)["late"] = "v"
    ready.set()
    for thread in threads:
        thread.join()
    assert [task.key for task in results if task] == ["late"]
    # Those who began when the first one was scanning need another one, which all of them share.
    assert len(scans) <= 3


def test_a_scan_that_began_earlier_is_not_believed(opened, monkeypatch):
    """A task that is added while another worker scans is found by whoever asks afterwards."""
    one, two = opened(), opened()
    kind = type(one._scanner)
    scan = kind.scan
    added = []

    def late(self, *args, **kwargs):
        scan(self, *args, **kwargs)
        if self is one._scanner and not added:
            added.append(threading.Thread(target=lambda: added.append(two.claim())))
            opened(lazy=True)["late"] = "v"
            added[0].start()

    monkeypatch.setattr(kind, "scan", late)
    mine = one.claim()
    added[0].join()
    assert mine is None and added[1].key == "late"


def test_attempts_of_others_count_whenever_a_worker_has_looked(opened):
    d = opened()
    d.update({"a": 1, "b": 1})
    with d.claim():  # the last look of this worker at the leases
        assert [fail(opened()).attempt for _ in range(2)] == [1, 2]
    with d.claim() as task:
        assert task.attempt == 3
    assert lease_files(d) == []


def test_what_an_interrupted_worker_changed_in_place_is_not_seen_again(opened, tmp_path):
    opened()["k"] = [1]
    aging.age(tmp_path)
    d = opened()
    for _ in range(3):
        task = d.claim()
        assert task.value == [1]
        task.value.append(2)
        with pytest.raises(KeyboardInterrupt), task:
            raise KeyboardInterrupt
    assert d["k"] == [1]


def test_what_cannot_be_unpickled_here_is_passed_over(opened, caplog):
    d = opened()
    d.update({f"k{number}": Refusing() for number in range(3)})
    d["good"] = 1
    worker = opened(lazy=True)
    assert len(worker) == 4
    for Refusing.raises in (LookupError, SystemExit):
        with caplog.at_level(logging.CRITICAL, "nfsdict"):
            assert [key for key, _, _ in work(worker)] == ["good"]
        d["good"] = 1
    Refusing.raises = None
    del d["good"]
    assert len(opened()) == 3 and lease_files(d) == []


class Refusing:
    """One whose code may raise when it is unpickled."""

    raises = None

    def __setstate__(self, state):
        if Refusing.raises:
            raise Refusing.raises

    def __getstate__(self):
        return {"a": 1}


def test_a_retry_loses_no_task_that_is_set_aside_again(opened, monkeypatch):
    """A worker that fails at once doesn't come between its two steps."""
    d = opened()
    d["k"] = "v"
    fail(d, max_attempts=1)
    add = type(d).add

    def meanwhile(self, key, value):
        added = add(self, key, value)
        with suppress(ZeroDivisionError), opened().claim(max_attempts=1) or nullcontext():
            raise ZeroDivisionError
        return added

    monkeypatch.setattr(type(d), "add", meanwhile)
    d.retry("k")
    assert list(opened()) in (["k"], ["failed/k"])


def test_an_exception_without_a_text_sets_aside_like_others(opened, caplog):
    class Mute(Exception):
        def __str__(self):
            raise LookupError

        __repr__ = __str__

    d = opened()
    d["k"] = "v"
    with pytest.raises(Mute), d.claim(max_attempts=1):
        raise Mute
    assert d.failed() == ["k"] and "'k' is set aside after attempt 1: Mute" in caplog.text


# --- workers that die --------------------------------------------------------------------------

WORKER = """
import os, sys, time
from nfsdict import NfsDict
d = NfsDict("s", sys.argv[1])
while (task := d.claim()) is not None:
    with task:
        if len(sys.argv) > 2:
            print(task.key, task.attempt, flush=True)
            sys.stdin.read()
        os.write(1, f"{task.key}\\n".encode())
"""


@pytest.fixture
def worker(nfsdict, tmp_path):
    """Start a worker; with an argument, one that stops at its first task."""
    command = [sys.executable, "-c", WORKER, tmp_path]
    with processes() as start:
        yield lambda *arguments: start([*command, *arguments], stdin=subprocess.PIPE, text=True)


def killed_at_its_task(worker):
    process = worker("stop")
    line = process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    return line.strip()


def test_a_worker_that_dies_gives_its_task_back(opened, worker):
    d = opened()
    d["k"] = "v"
    assert [killed_at_its_task(worker) for _ in range(2)] == ["k 1", "k 2"]
    assert work(opened()) == [("k", "v", 3)]
    assert lease_files(d) == []


def test_a_task_whose_workers_die_is_set_aside(opened, worker, caplog):
    d = opened()
    d["k"] = "v"
    fail(d)
    assert [killed_at_its_task(worker) for _ in range(2)] == ["k 2", "k 3"]
    assert d.claim() is None
    assert "its worker died in attempt 3" in caplog.text
    assert d.failed() == ["k"] and lease_files(d) == []
    d.retry("k")
    assert work(d) == [("k", "v", 1)]


def test_a_worker_of_another_host_that_dies_is_known_by_its_lease(opened, monkeypatch):
    """Its process can't be looked at, so its lease has to be seen unchanged for its duration."""
    d = opened()
    d["k"] = "v"
    task = opened().claim(lease=1.0)
    hold = task.lease._hold
    monkeypatch.setattr(type(hold), "renew", lambda self: setattr(self, "due", 1 << 62))
    end = time.monotonic() + 60
    while (mine := d.claim()) is None:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert mine.attempt == 2 and not task.lease.held


def test_workers_that_are_killed_at_random_lose_nothing(opened, worker):
    d = opened()
    d.update({f"task {number}": number for number in range(300)})
    workers = [worker() for _ in range(4)]
    said = [workers.pop(0).stdout.readline().strip()]
    for process in workers[:2]:
        said.append(process.stdout.readline().strip())
        process.kill()
    seen = {line for line in said if line}
    while True:
        seen |= {key for key, _, _ in work(d)}
        if len(opened()) == 0:
            break
        time.sleep(0.05)
    assert d.failed() == [] and d.claim() is None
