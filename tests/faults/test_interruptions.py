"""What arrives at any moment: exceptions of signal handlers, and calls by code that runs within.

A handler of a signal, a ``__del__``, a value that is unpickled and a handler of log records are
other people's code. It may use the dictionary, and nothing hangs or is lost.
"""

from __future__ import annotations

import errno
import gc
import importlib
import linecache
import logging
import os
import pickle
import queue as queues
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.hangs import within

pytestmark = [
    pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timer signals"),
    # Of a pack that had just been opened: it is closed with its object.
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
]


# What PyPy's finalizers tell of a file that it had open when the exception came.
swallowed = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


# Where a handler's exception comes before a call or within it. Elsewhere it may also come as the
# call returns, when its result has no name yet: README, "What it does not promise".
NAMES_WHAT_RETURNS = sys.implementation.name == "cpython" and sys.version_info >= (3, 11)


class Interrupted(BaseException):
    """As KeyboardInterrupt, which pytest would take for the user's.

    ``at`` is the line that was interrupted.
    """

    def __init__(self, at=""):
        self.at = at


@pytest.fixture
def interrupts():
    """SIGALRM raises Interrupted in the main thread; the timer and the handler are put back."""

    def raise_it(number, frame):
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno or 0)
        raise Interrupted(line.strip())

    def unraisable(caught):
        # One that a finalizer of the interpreter's own met goes no further, and is no failure.
        if not isinstance(caught.exc_value, Interrupted):
            told(caught)

    told, sys.unraisablehook = sys.unraisablehook, unraisable
    before = signal.signal(signal.SIGALRM, raise_it)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)
    sys.unraisablehook = told


def left_behind(d):
    return list(d.path.glob("**/.nfsdict-*"))


def run(code, *arguments, timeout=60):
    """What a fresh interpreter prints, which hangs for no longer than that."""
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- exceptions at any moment ----------------------------------------------------------------


@swallowed
@pytest.mark.parametrize("call", ["pop", "popitem"])
def test_a_pop_that_is_interrupted_has_the_entry_back(opened, interrupts, call):
    """The value is returned, or the entry is under its key before the exception goes on."""
    d = opened(durable=False)
    interrupted, took = 0, 1.0
    for number in range(400):
        d["k"] = number
        value = None
        begun = time.perf_counter()
        try:
            if number % 4:
                signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, took))
            value = d.pop("k") if call == "pop" else d.popitem()[1]
            signal.setitimer(signal.ITIMER_REAL, 0)
        except Interrupted as interruption:
            interrupted += 1
            there = opened().get("k")
            assert there == d.get("k") and there in (None, number)
            if NAMES_WHAT_RETURNS or not interruption.at.startswith(("value = d.pop", "return ")):
                assert there == number or value is not None
        else:
            assert value == number
            took = time.perf_counter() - begun
            assert "k" not in d
        assert left_behind(d) == []
    assert interrupted > 50


CALLS = ("rename", "link", "unlink", "lstat", "open", "close", "posix_fadvise")


def interrupting(monkeypatch, number, after):
    """Of the calls of ``os`` the one of that number is interrupted, before or after it is made."""
    made = []

    def wrapped(call, original):
        def interrupted(*arguments, **options):
            made.append(call)
            mine = len(made) == number
            if mine and not after:
                signal.raise_signal(signal.SIGALRM)
            result = original(*arguments, **options)
            if mine and after:
                signal.raise_signal(signal.SIGALRM)
            return result

        return interrupted

    for call in CALLS:
        monkeypatch.setattr(os, call, wrapped(call, getattr(os, call)))
    return made


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_pop_that_is_interrupted_at_each_call(opened, interrupts, monkeypatch, after):
    d = opened()
    for number in range(1, 100):
        d["k"] = number
        with monkeypatch.context() as patch:
            made = interrupting(patch, number, after)
            try:
                assert d.pop("k") == number
            except Interrupted:
                pass
            else:
                assert len(made) < number
                break
        assert d["k"] == opened()["k"] == number
        assert left_behind(d) == []
    assert 2 < number < 100


@swallowed
def test_an_interrupted_update_leaves_no_lock_behind(opened, interrupts):
    d = opened(durable=False, workers=1)
    pairs = {f"key {n}": n for n in range(60)}
    d.update(pairs)
    for _ in range(60):
        try:
            signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, 2e-3))
            for _ in range(100):
                d.update(pairs)
        except Interrupted:
            pass
        with ThreadPoolExecutor(1) as other:
            for key in pairs:
                other.submit(d.__setitem__, key, pairs[key]).result(30)
    assert dict(d) == dict(opened()) == pairs


@pytest.mark.parametrize("which", ["state", "index", "shard"])
def test_a_signal_between_a_block_and_the_release_of_its_lock(nfsdict, monkeypatch, which):
    """As PyPy and older CPythons let one come: the lock is free for other threads afterwards."""
    module = importlib.import_module("nfsdict.locks")
    monkeypatch.setattr(module, "_WITH_IS_ATOMIC", False)
    locks = module.Locks()
    lock = locks.shard("ab") if which == "shard" else getattr(locks, which)

    def interrupted():
        with locks.guard:
            lock.acquire()
            raise Interrupted

    with pytest.raises(Interrupted):
        interrupted()
    with ThreadPoolExecutor(1) as other:
        assert other.submit(lock.acquire, timeout=5).result(10)
    assert not locks.interrupted


@pytest.mark.parametrize("which", ["guard", "decoding"])
def test_a_signal_between_a_block_and_the_release_of_its_guard(nfsdict, monkeypatch, which):
    """The thread is inside of the call that entered it, and of no other one."""
    module = importlib.import_module("nfsdict.locks")
    monkeypatch.setattr(module, "_WITH_IS_ATOMIC", False)
    locks = module.Locks()
    guard = locks.guard if which == "guard" else module.decoding("a store of its own")

    def inside():
        return guard.locked()

    def interrupted():
        guard.__enter__()  # and nothing is done at the end
        assert inside()
        if which == "guard":
            locks.shard("ab").acquire()

    interrupted()
    assert not inside()
    with ThreadPoolExecutor(1) as other:
        assert other.submit(locks.shard("ab").acquire, timeout=5).result(10)


CHANGES = {
    "put": lambda d: d.__setitem__("k", "new"),
    "update": lambda d: d.update(k="new"),
    "add": lambda d: d.add("k", "new"),
    "del": lambda d: d.__delitem__("k"),
    "pop": lambda d: d.pop("k"),
}


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="the limit counts no frames")
@pytest.mark.parametrize("change", list(CHANGES))
def test_a_change_for_which_the_stack_is_too_small(opened, change):
    """At each depth: what was done on the disk, the cache doesn't contradict."""

    def at(depth):
        if depth:
            at(depth - 1)
        else:
            CHANGES[change](d)

    d = opened(durable=False)
    outcomes = set()
    for depth in range(70):
        d["k"] = "old"
        limit = sys.getrecursionlimit()
        try:
            sys.setrecursionlimit(inside() + 75)
            at(depth)
            outcomes.add("done")
        except RecursionError:
            outcomes.add("refused")
        finally:
            sys.setrecursionlimit(limit)
        assert d.get("k") == opened(lazy=True).get("k"), depth
    assert outcomes == {"done", "refused"}


def inside():
    """How many calls the caller is inside of."""
    frame, count = sys._getframe(1), 0
    while frame is not None:
        frame, count = frame.f_back, count + 1
    return count


# --- other people's code --------------------------------------------------------------------


HANDLER = """
import random, signal, sys, time
from nfsdict import NfsDict
d = NfsDict("s", sys.argv[1], durable=False, lazy=sys.argv[2] == "lazy", workers=4)
keys = [f"key {n}" for n in range(8)]
last, log, count, over = {}, [], 0, False
d.update(dict.fromkeys(keys, 0))

def handler(number, frame):
    global count
    if over:
        return
    count += 1
    kind, key = count % 8, "handler's " + random.choice(keys)
    if kind < 4:
        d[key] = last[key] = count
        assert d[key] == count
    elif kind == 4:
        d.update({key: count})
        last[key] = count
    elif kind == 5:
        assert d.get(key, fresh=True) == last.get(key)
        assert (key in d) == (key in last)
    elif kind == 6:
        assert d.pop(key, None) == last.pop(key, None)
    else:
        len(d), list(d), d.refresh(), d.add(keys[0], 0)
    log.append((key, last.get(key)))
    signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, 5e-4))

signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.0005)
end = time.monotonic() + 2.5
turn = 0
while time.monotonic() < end:
    turn += 1
    key = random.choice(keys)
    d[key] = turn
    assert d[key] == turn, key
    d.get(key, fresh=True)
    d.pop(random.choice(keys), None)
    if turn % 5 == 0:
        d.refresh()
        len(d)
    if turn % 11 == 0:
        d.update(dict.fromkeys(keys, turn))
        d.sync()
    for key in list(last):
        begin, known = len(log), last.get(key)
        value = d.get(key)
        assert value in {known, *(now for other, now in log[begin:] if other == key)}, key
over = True
signal.setitimer(signal.ITIMER_REAL, 0)
assert count > 50, count
mine = {key: value for key, value in d.items() if key.startswith("handler's")}
assert mine == last, (mine, last)
d.refresh()
assert dict(d) == dict(NfsDict("s", sys.argv[1]))
"""


@pytest.mark.parametrize("lazy", ["lazy", "eager"])
def test_a_signal_handler_uses_the_dictionary(nfsdict, tmp_path, lazy):
    run(HANDLER, tmp_path, lazy)


BY_THREADS = {"locks.py", "parallel.py"}
FIRST_CALLS = {
    "put": lambda d: d.__setitem__("k", 1),
    "get": lambda d: d.get("k", fresh=True),
    "update": lambda d: d.update({f"k{number}": number for number in range(70)}),
    "open": lambda d: type(d)("s", d.path.parent),
}


@pytest.mark.parametrize("name", FIRST_CALLS)
def test_a_handler_that_comes_anywhere_in_the_first_call_of_a_thread(opened, name):
    """Where the locks note what belongs to the thread, and nothing is noted yet."""
    d, other = opened(durable=False), opened(durable=False)
    d["k"] = 0
    came = 0

    def first_call():
        reached = handling = False
        lines = 0

        def trace(frame, event, _):
            nonlocal reached, handling, lines
            if handling or os.path.basename(frame.f_code.co_filename) not in BY_THREADS:
                return None if event == "call" else trace
            lines += event == "line"
            if lines == came and not reached:
                reached = handling = True
                for uses in (other, d):
                    uses["handler's"] = came
                    assert uses["handler's"] == came == uses.get("handler's", fresh=True)
                handling = False
            return trace

        sys.settrace(trace)
        try:
            FIRST_CALLS[name](d)
        finally:
            sys.settrace(None)
        return reached

    while came < 100:
        came += 1
        with ThreadPoolExecutor(1) as thread:
            if not thread.submit(first_call).result(60):
                break
    assert came > 5


def test_a_handler_that_comes_while_a_lock_is_waited_for(nfsdict, tmp_path):
    code = """
    import signal, sys, threading, time
    from nfsdict import NfsDict
    d = NfsDict("s", sys.argv[1])
    d["k"] = 0
    store = d._storage.values
    put, began, go_on = store.put, threading.Event(), threading.Event()

    def slow(name, data):
        if threading.current_thread() is not threading.main_thread():
            began.set()
            go_on.wait(30)
        return put(name, data)

    store.put = slow
    thread = threading.Thread(target=d.__setitem__, args=("k", 1))
    thread.start()
    began.wait(30)

    def handler(number, frame):
        d["k"] = 2
        assert d["k"] == 2
        go_on.set()

    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    d["k"] = 3
    thread.join()
    assert d["k"] == NfsDict("s", sys.argv[1])["k"]
    print(d["k"])
    """
    assert run(code, tmp_path) == "3\n"


class Reads:
    """Unpickling it reads another entry."""

    dictionary = None

    def __init__(self, key):
        self.key = key

    def __setstate__(self, state):
        self.key = state["key"]
        self.other = Reads.dictionary.get(self.key)
        len(Reads.dictionary)
        Reads.dictionary.refresh()


class Uses:
    """Its end writes to the dictionary."""

    dictionary = None
    ended = 0

    def __del__(self):
        if Uses.dictionary is not None:
            Uses.ended += 1
            Uses.dictionary[f"ended {Uses.ended}"] = Uses.dictionary.get("plain")


@pytest.fixture(autouse=True)
def forgotten():
    yield
    Reads.dictionary = Uses.dictionary = None
    Uses.ended = 0
    gc.collect()


def test_values_whose_unpickling_reads_other_entries(opened):
    writer = opened()
    writer["a"], writer["b"], writer["c"] = Reads("b"), "text", Reads("a")
    for number in range(20):
        writer[f"r{number}"] = Reads(f"r{(number + 1) % 20}" if number < 19 else "b")
    d = Reads.dictionary = opened(lazy=True)
    within(60, *(lambda key=key: d[key] for key in ["a", "c", "r0", "r5"] * 2))
    assert d["a"].other == "text"
    within(60, lambda: opened(workers=4), lambda: d.sync(), lambda: list(d.values()))
    within(60, lambda: d.pop("a"))


@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
def test_a_value_whose_end_uses_the_dictionary(opened, lazy):
    d = Uses.dictionary = opened(lazy=lazy)
    other = opened()
    d["plain"] = 1

    def work():
        d["k"] = Uses()
        d["k"] = Uses()  # the first one ends
        d.update({"k": Uses(), "l": Uses()})
        del d["k"]
        d["k"] = Uses()
        other["k"] = 2
        other["l"] = 3
        d.refresh()
        d["m"] = Uses()
        d.sync()
        d["m"] = Uses()
        d.pop("m")
        d["m"] = Uses()
        d.clear()

    within(60, work)
    gc.collect()
    assert Uses.ended >= 6
    d.refresh()
    assert dict(d) == dict(opened())


class Cycle:
    """A value that only the collector ends, which may run anywhere."""

    def __init__(self, d, number):
        self.me, self.d, self.number = self, d, number

    def __del__(self):
        self.d[f"c{self.number % 10}"] = self.number
        self.d.get(f"c{self.number % 7}", fresh=True)


def test_what_the_collector_ends_uses_the_dictionary(opened):
    d = opened(durable=False)
    threshold = gc.get_threshold() if hasattr(gc, "get_threshold") else None

    def work():
        for number in range(400):
            Cycle(d, number)
            d[f"k{number % 5}"] = [[] for _ in range(5)]
            if number % 20 == 0:
                len(d)
                d.refresh()

    if threshold:
        gc.set_threshold(5, 2, 2)
    try:
        within(120, work, work)
    finally:
        if threshold:
            gc.set_threshold(*threshold)
    gc.collect()
    d.refresh()
    assert dict(d) == dict(opened())


def test_a_log_handler_that_uses_the_dictionary(opened):
    d = opened()
    log = logging.getLogger("nfsdict")

    class Writes(logging.Handler):
        def emit(self, record):
            d["log"] = [*d.get("log", []), record.getMessage()]

    (d.path / "_index.pkl").mkdir()  # can't be removed, which is logged while a lock is held
    handler = Writes()
    log.addHandler(handler)
    try:
        within(30, lambda: d.__setitem__("k", 1))
    finally:
        log.removeHandler(handler)
    assert len(d["log"]) >= 1
    d.refresh()
    assert dict(d) == dict(opened())


class Holds:
    """A value that refers to the dictionary that holds it."""

    def __init__(self, d):
        self.d = d


def test_a_value_that_refers_to_its_dictionary(opened):
    d = opened()
    d.update({f"key {n}": Holds(d) for n in range(50)})
    opened_again = []
    within(60, lambda: opened_again.append(opened(workers=4)))
    [again] = opened_again
    assert len(again) == 50
    assert again["key 3"].d["key 4"].d.path == d.path


class Scans:
    """A value that refers to its dictionary, and scans it while it is unpickled."""

    loaded = 0

    def __init__(self, d, how):
        self.d, self.how = d, how

    def __setstate__(self, state):
        Scans.loaded += 1
        assert Scans.loaded < 300, "without end"
        self.__dict__.update(state)
        SCANS[self.how](self.d)


SCANS = {
    "len": len,
    "iteration": list,
    "values": lambda d: list(d.values()),
    "refresh": lambda d: d.refresh(),
    "sync": lambda d: d.sync(),
    "opening": lambda d: type(d)("s", d.path.parent),
    "another store": lambda d: type(d)("t", d.path.parent),
}


@pytest.mark.parametrize("how", list(SCANS))
@pytest.mark.parametrize("workers", [1, 4])
def test_a_value_that_scans_its_dictionary(opened, monkeypatch, how, workers):
    """What it refers to is another object each time: it was opened anew."""
    monkeypatch.setattr(importlib.import_module("nfsdict.parallel"), "_WAITED", -1.0)
    d = opened(lazy=True, workers=workers)
    d.update({f"key {n}": Scans(d, how) for n in range(5)})
    if how == "another store":  # which refers to this one
        other = opened(name="t", lazy=True, workers=workers)
        other.update({f"key {n}": Scans(d, "opening") for n in range(5)})

    def work():
        Scans.loaded = 0
        again = opened(workers=workers)
        assert len(again) == len(list(again.values())) == 5
        again.sync()
        lazy = opened(lazy=True, workers=workers)
        assert len(list(lazy)) == 5 and len(list(lazy.values())) == 5
        assert lazy.refresh() == set()
        assert lazy.pop("key 1").d.path == d.path
        assert Scans.loaded < 200

    within(60, work)


def test_what_is_unpickled_or_copied_opens_lazily(opened, lists, reads):
    import copy

    d = opened()
    d.update({f"key {n}": n for n in range(50)})
    lists.clear()
    reads.clear()
    for other in (pickle.loads(pickle.dumps(d)), copy.copy(d)):
        assert lists == reads == []
        assert other["key 1"] == 1
        reads.clear()
    assert dict(other) == dict(d)
    # As it was pickled before this was so.
    mapping = importlib.import_module("nfsdict.mapping")
    lists.clear()
    mapping._reopen(type(d), ("s", str(d.path.parent), "pickle", False), {"workers": 1})
    assert lists == []


# --- taken once -----------------------------------------------------------------------------


class Refuses:
    """It can't be unpickled while ``refusing``; then ``then`` is called."""

    refusing = True
    then = None

    def __reduce__(self):
        return Refuses._load, ()

    @staticmethod
    def _load():
        if Refuses.then is not None:
            Refuses.then()
        if Refuses.refusing:
            raise OSError(errno.ENODEV, "no such device")
        return "loaded"


def test_a_pop_decodes_before_it_takes(opened):
    """Nobody sees the entry gone, or can add another one, while it is decoded."""
    d, other = opened(), opened(lazy=True)
    d["k"] = Refuses()
    seen = []
    Refuses.refusing = True
    try:
        Refuses.then = lambda: seen.append((other.add("k", "mine"), other._values.look(name)))
        name = importlib.import_module("nfsdict.core").digest("k")
        with pytest.raises(OSError, match="no such device"):
            d.pop("k")
        [(added, there)] = seen
        assert added is False and there is not None
        assert left_behind(d) == []
        Refuses.then, Refuses.refusing = None, False
        assert d.pop("k") == "loaded"
    finally:
        Refuses.then, Refuses.refusing = None, True


def test_a_pop_returns_what_it_took_and_not_what_it_read(opened, monkeypatch):
    d, other = opened(), opened()
    d["k"] = "read"
    take = d._storage.exclusive.take

    def late(name, private):
        other["k"] = "taken"
        return take(name, private)

    monkeypatch.setattr(d._storage.exclusive, "take", late)
    assert d.pop("k") == "taken"
    assert left_behind(d) == [] and "k" not in opened()


@pytest.mark.parametrize("step", ["read_taken", "discard"])
@pytest.mark.parametrize("popped", [True, False], ids=["popped by another", "given back"])
def test_a_popper_that_was_suspended_beyond_the_grace_of_repair(
    nfsdict, opened, monkeypatch, step, popped
):
    d, other = opened(), opened(lazy=True)
    d["k"] = "value"
    original = getattr(d._storage.exclusive, step)
    got = []

    def suspended(private):
        time.sleep(0.05)
        other.repair(grace=0.01)
        if popped:
            got.append(other.pop("k"))
        return original(private)

    monkeypatch.setattr(d._storage.exclusive, step, suspended)
    with pytest.raises(nfsdict.UncertainWriteError, match="'k'"):
        d.pop("k")
    monkeypatch.undo()
    assert got == (["value"] if popped else [])
    assert d.get("k") == opened().get("k") == (None if popped else "value")
    assert left_behind(d) == []


KILLED_GIVING_BACK = """
import errno, os, signal, sys, nfsdict.storage.exclusive
def no_flags(source, target):
    raise OSError(errno.EINVAL, "as over NFS")
nfsdict.storage.exclusive.rename_exclusively = no_flags
d = nfsdict.NfsDict("s", sys.argv[1])
store = d._storage.exclusive
def fails(private):
    raise OSError(errno.EIO, "no")
store.read_taken = fails
d._storage.files.sweep = lambda path: "-taken-" in path and os.kill(os.getpid(), signal.SIGKILL)
d.pop("k")
"""


def test_a_crash_while_giving_back_revives_nothing_that_was_popped_since(opened, tmp_path):
    d = opened()
    d["k"] = "value"
    done = subprocess.run([sys.executable, "-c", KILLED_GIVING_BACK, str(tmp_path)])
    assert done.returncode == -signal.SIGKILL
    assert len(left_behind(d)) == 1
    other = opened()
    assert other.pop("k") == "value"
    time.sleep(0.05)
    other.repair(grace=0.01)
    assert "k" not in opened()
    assert left_behind(d) == []


def test_without_links_giving_back_does_not_overwrite_a_newer_put(opened, monkeypatch):
    """The put comes after the last look and before the rename."""
    d, other = opened(), opened()
    d["k"] = "old"
    contests = importlib.import_module("nfsdict.storage.exclusive")
    exclusively = contests.rename_exclusively

    def refused(*arguments, **options):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    def late(source, target):
        other["k"] = "newer"
        exclusively(source, target)

    def unreadable(private):
        raise OSError(errno.EIO, "no")

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", refused)
        patch.setattr(contests, "rename_exclusively", late)
        patch.setattr(d._storage.exclusive, "read_taken", unreadable)
        with pytest.raises(OSError):
            d.pop("k")
    assert d.get("k", fresh=True) == opened()["k"] == "newer"
    assert left_behind(d) == []


# --- popitem --------------------------------------------------------------------------------


def test_popitem_finds_what_others_added(opened):
    d, other = opened(), opened()
    other["k"] = 1
    assert d.popitem() == ("k", 1)
    with pytest.raises(KeyError):
        d.popitem()
    other["l"] = 2
    assert d.popitem() == ("l", 2)
    assert d.refresh() == set()  # what it took itself is no news


def test_workers_who_start_together_draw_different_entries(opened, reads):
    d = opened(durable=False)
    d.update({f"key {n}": n for n in range(2000)})
    workers = [opened(durable=False) for _ in range(20)]
    reads.clear()
    drawn = {worker.popitem()[0] for worker in workers}
    assert len(drawn) == 20
    # Each reads what it takes, before and after; few had to try a second one.
    assert len(reads) <= 2 * 20 + 5


def test_popitem_finds_what_other_threads_lost(opened, monkeypatch):
    """Two that draw at the same moment can lose a key of the list that they share."""
    d = opened()
    d["k"] = 1

    class Random:
        def randrange(self, count):
            assert count
            d._draw._left.clear()
            return 0

    monkeypatch.setattr(importlib.import_module("nfsdict.draw"), "_RANDOM", Random())
    assert d.popitem() == ("k", 1)


def test_popitem_beside_one_that_draws_the_last_key(opened, monkeypatch):
    d = opened()
    d["k"] = 1

    class Shared(list):
        """Seems to have a key when it is looked at first; then another thread has drawn it."""

        looks = 0

        def __len__(self):
            self.looks += 1
            return int(self.looks == 1)

    d._draw._left = Shared()
    assert d.popitem() == ("k", 1)


def test_popitem_lists_nothing_while_keys_are_known(opened, lists):
    d = opened(durable=False)
    d.update({f"key {n}": n for n in range(300)})
    lists.clear()
    assert len({d.popitem() for _ in range(300)}) == 300
    assert lists == []


@pytest.mark.parametrize("count", [200, 5000])
def test_popitem_costs_the_same_in_a_large_store(opened, count):
    """Counted in lines of this package, which is all that a call does besides its system calls."""
    d = opened(durable=False)
    d.update({f"key {n}": n for n in range(count)})
    d.popitem()
    package = str(Path(importlib.import_module("nfsdict").__file__).parent)
    lines = 0

    def trace(frame, event, argument):
        nonlocal lines
        if not frame.f_code.co_filename.startswith(package):
            return None
        lines += event == "line"
        return trace

    sys.settrace(trace)
    try:
        for _ in range(10):
            d.popitem()
    finally:
        sys.settrace(None)
    assert lines < 10 * 600


# --- no threads -----------------------------------------------------------------------------


@pytest.mark.parametrize("started", [0, 2])
def test_where_no_thread_can_be_started(opened, monkeypatch, started):
    """As with a limit of processes that is reached, at once or after a few."""
    parallel = importlib.import_module("nfsdict.parallel")
    monkeypatch.setattr(parallel, "_WAITED", -1.0)  # threads from the second item on
    start, left = threading.Thread.start, [started]

    def refused(self):
        if left[0] == 0:
            raise RuntimeError("can't start new thread")
        left[0] -= 1
        start(self)

    pairs = {f"key {n}": n for n in range(500)}
    d = opened(durable=False, workers=8)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refused)
        for act in (lambda: d.update(pairs), d.sync, lambda: d.verify().ok, d.clear):
            left[0] = started
            act()
            assert dict(opened(workers=1)) == ({} if act == d.clear else pairs)


def test_at_the_end_of_the_interpreter(nfsdict, tmp_path):
    code = """
    import atexit, sys
    from nfsdict import NfsDict, parallel
    parallel._WAITED = -1.0
    d = NfsDict("s", sys.argv[1], durable=False, workers=8)

    @atexit.register
    def end():
        d.update({f"key {n}": n for n in range(500)})
        d.sync()
        del d["key 0"]
        print(len(d))
    """
    assert run(code, tmp_path) == "499\n"


# --- two signals, and threads ---------------------------------------------------------------


def test_a_signal_just_as_a_thread_has_started(opened, interrupts, monkeypatch):
    parallel = importlib.import_module("nfsdict.parallel")
    monkeypatch.setattr(parallel, "_WAITED", -1.0)
    start, before = threading.Thread.start, set(threading.enumerate())
    pairs = {f"key {n}": n for n in range(400)}
    d = opened(durable=False)
    for number in (1, 2):
        started = []

        def interrupted(self, started=started, number=number):
            start(self)
            started.append(self)
            if len(started) == number:
                signal.raise_signal(signal.SIGALRM)

        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", interrupted)
            with pytest.raises(Interrupted):
                d.update(pairs)
        for thread in started:
            thread.join(30)
        assert set(threading.enumerate()) <= before
    d.update(pairs)
    assert dict(opened(workers=1)) == pairs


@swallowed
def test_two_signals_in_an_update_leave_nothing_that_writes(opened, interrupts, monkeypatch):
    # pytest's own hook would be interrupted as well, and fail.
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: None)
    parallel = importlib.import_module("nfsdict.parallel")
    monkeypatch.setattr(parallel, "_WAITED", -1.0)
    d = opened(durable=False, workers=4)
    pairs = {f"key {n}": n for n in range(600)}
    d.update(pairs)
    for number in range(20):
        try:
            signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-4, 5e-3), 1e-3)
            d.update(dict.fromkeys(pairs, number))
        except Interrupted:
            pass
        finally:
            try:
                signal.setitimer(signal.ITIMER_REAL, 0)
            except Interrupted:
                signal.setitimer(signal.ITIMER_REAL, 0)
        assert [t.name for t in threading.enumerate()].count("nfsdict") == 0
    d.refresh()
    assert dict(d) == dict(opened(workers=1))


@pytest.mark.parametrize("times", [1, 2, 5])
def test_signals_while_threads_are_told_to_end(opened, monkeypatch, times):
    """A thread that nobody told would wait for ever, or write what the call had begun with."""
    parallel = importlib.import_module("nfsdict.parallel")
    monkeypatch.setattr(parallel, "_WAITED", -1.0)
    cut = []

    class Queue:
        def __init__(self):
            queue = queues.SimpleQueue()
            self.get, self._put = queue.get, queue.put

        def put(self, item):
            if item is None and len(cut) < times:
                cut.append(item)
                raise Interrupted
            self._put(item)

    monkeypatch.setattr(parallel, "SimpleQueue", Queue)
    d = opened(durable=False, workers=4)
    with pytest.raises(Interrupted):
        d.update({f"key {n}": n for n in range(600)})
    assert [t.name for t in threading.enumerate()].count("nfsdict") == 0


def interrupting_at(monkeypatch, numbers):
    """The calls of ``os`` of these numbers are interrupted after they were made."""
    made = []

    def wrapped(call, original):
        def interrupted(*arguments, **options):
            try:
                return original(*arguments, **options)
            finally:
                made.append(call)
                if len(made) in numbers:
                    signal.raise_signal(signal.SIGALRM)

        return interrupted

    for call in CALLS:
        monkeypatch.setattr(os, call, wrapped(call, getattr(os, call)))
    return made


@pytest.mark.parametrize("call", ["pop", "popitem"])
def test_a_pop_that_is_interrupted_and_its_undoing_too(opened, interrupts, monkeypatch, call):
    d = opened()
    pairs = 0
    for first in range(1, 100):
        for second in range(first + 1, first + 12):
            d["k"] = (first, second)
            with monkeypatch.context() as patch:
                made = interrupting_at(patch, (first, second))
                try:
                    assert d.pop("k") if call == "pop" else d.popitem()
                except Interrupted:
                    pairs += 1
                else:
                    break
            assert opened().get("k") == (first, second)
            assert d["k"] == (first, second)
            assert left_behind(d) == []
        if len(made) < first:
            break
    assert pairs > 20


@pytest.mark.skipif(not NAMES_WHAT_RETURNS, reason="handlers run late, beyond the pop")
@pytest.mark.parametrize("call", ["pop", "popitem"])
def test_a_pop_that_is_interrupted_again_and_again(opened, interrupts, monkeypatch, call):
    """From a certain call of the system on each one is interrupted, those of the undoing too."""
    d = opened()
    for first in range(1, 100):
        d["k"] = first
        with monkeypatch.context() as patch:
            made = interrupting_at(patch, range(first, 1000))
            try:
                assert d.pop("k") if call == "pop" else d.popitem()
            except Interrupted:
                pass
            else:
                break
            finally:
                made.extend([None] * 1000)  # and no more
        assert opened().get("k") == d["k"] == first
        assert left_behind(d) == []
    assert 3 < first < 100


@swallowed
@pytest.mark.skipif(not NAMES_WHAT_RETURNS, reason="what returns may be lost")
@pytest.mark.parametrize("call", ["pop", "popitem"])
def test_a_pop_beside_a_timer_that_goes_off_again_and_again(opened, interrupts, undos, call):
    def at_once(number, frame):
        if on and frame.f_code.co_filename != __file__:  # what this test does itself goes on
            raise Interrupted

    on = []  # a signal that another thread gets can come late
    signal.signal(signal.SIGALRM, at_once)
    d = opened(durable=False)
    interrupted = number = 0
    while interrupted < 40:
        number += 1
        d["k"] = number
        value = None
        try:
            try:
                on.append(True)
                signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, 5e-4), 5e-5)
                value = d.pop("k") if call == "pop" else d.popitem()[1]
            finally:
                on.clear()
                signal.setitimer(signal.ITIMER_REAL, 0)
        except Interrupted:
            pass
        ended(undos)
        if value is None:
            interrupted += 1
            assert opened(lazy=True).get("k") == d["k"] == number
        assert left_behind(d) == []


@pytest.fixture
def undos(nfsdict, monkeypatch):
    """What undoes each pop."""
    taker, undos = importlib.import_module("nfsdict.taking").Taker, []
    original = taker.begin

    def begin(self, key):
        taking, undo = original(self, key)
        undos.append(undo)
        return taking, undo

    monkeypatch.setattr(taker, "begin", begin)
    return undos


def ended(undos):
    """Return when no undoing goes on: the pure core may let an exception of so fast a timer go on
    before the thread has put the entry back, or has begun."""
    for undo in undos:
        started, over = undo.wait.args
        while len(started) > len(over):
            time.sleep(0.001)
    undos.clear()


@pytest.mark.parametrize("call", ["pop", "popitem"])
def test_a_pop_is_undone_where_no_thread_can_be_started(opened, interrupts, monkeypatch, call):
    def refused(*arguments):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(importlib.import_module("nfsdict.taking"), "start_new_thread", refused)
    test_a_pop_that_is_interrupted_and_its_undoing_too(opened, interrupts, monkeypatch, call)


def test_what_ends_with_the_interpreter_uses_the_dictionary(nfsdict, tmp_path):
    code = """
    import sys
    from nfsdict import NfsDict, parallel
    parallel._WAITED = -1.0

    class Keeps:
        def __del__(self):
            self.d.update({f"key {n}": n for n in range(400)})
            self.d.sync()
            self.d.clear()

    keeps = Keeps()
    keeps.me, keeps.d = keeps, NfsDict("s", sys.argv[1], durable=False, workers=8)
    """
    run(code, tmp_path, timeout=60)


def test_a_log_handler_that_waits_for_another_thread(opened):
    """One thread is in the handler and waits for the dictionary, the other one the reverse."""
    d = opened()
    log = logging.getLogger("nfsdict")
    inside, go_on = threading.Event(), threading.Event()

    class Writes(logging.Handler):
        def emit(self, record):
            if threading.current_thread().name == "first":
                inside.set()
                go_on.wait(30)
            d["log"] = record.getMessage()

    (d.path / "_index.pkl").mkdir()  # can't be removed, which is logged
    handler = Writes()
    log.addHandler(handler)

    def first():
        threading.current_thread().name = "first"
        log.warning("a record of its own")

    def second():
        inside.wait(30)
        threading.Timer(0.3, go_on.set).start()
        d["log"] = "written"

    try:
        within(30, first, second)
    finally:
        log.removeHandler(handler)


def test_popitem_gives_back_what_it_cannot_decode(nfsdict, opened, monkeypatch):
    """Another host has put it there between reading and taking, signed with another key."""
    d = opened(serializer=nfsdict.signed(key=b"a" * 16))
    other = opened(serializer=nfsdict.signed(key=b"b" * 16))
    d["k"] = 1
    take = d._storage.exclusive.take

    def late(name, private):
        other["k"] = 2
        return take(name, private)

    with monkeypatch.context() as patch:
        patch.setattr(d._storage.exclusive, "take", late)
        with pytest.raises(KeyError):
            d.popitem()
    assert other.get("k", fresh=True) == 2
    assert left_behind(d) == []


def test_popitem_refreshes_when_others_took_what_it_knows(opened, reads):
    d, other = opened(durable=False), opened(durable=False)
    d.update({f"key {n}": n for n in range(3000)})
    other.clear()
    other["left"] = 1
    reads.clear()
    assert d.popitem() == ("left", 1)
    assert len(reads) < 200


def test_a_crashed_giver_back_revives_nothing_that_was_removed_since(opened, tmp_path):
    """On a file system where giving back is one call."""
    for remove in (lambda d: d.__delitem__("k"), lambda d: d.clear(), lambda d: d.update(k=2)):
        d = opened()
        d["k"] = "value"
        subprocess.run([sys.executable, "-c", KILLED_GIVING_BACK_AFTER, str(tmp_path)])
        assert d.get("k", fresh=True) == "value"
        remove(d)
        d.pop("k", None)
        time.sleep(0.05)
        d.repair(grace=0.01)
        assert opened().get("k") is None
        assert left_behind(d) == []


KILLED_GIVING_BACK_AFTER = """
import errno, os, signal, sys, nfsdict
d = nfsdict.NfsDict("s", sys.argv[1])
store = d._storage.exclusive
def fails(private):
    raise OSError(errno.EIO, "no")
store.read_taken = fails
d._storage.files.sync_directory = lambda path: os.kill(os.getpid(), signal.SIGKILL)
d.pop("k")
"""


def test_repair_leaves_what_a_dictionary_of_another_serializer_took(opened, tmp_path):
    p, j = opened(), opened(serializer="json")
    p["other"] = j["other"] = 0
    j["k"] = "precious"
    code = """
import os, signal, sys, nfsdict
d = nfsdict.NfsDict("s", sys.argv[1], "json")
d._storage.exclusive.discard = lambda private: os.kill(os.getpid(), signal.SIGKILL)
d.pop("k")
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)])
    time.sleep(0.05)
    p.repair(grace=0.01)
    assert len(left_behind(p)) == 1 and opened().get("k") is None
    j.repair(grace=0.01)
    assert j["k"] == "precious" and left_behind(p) == []
