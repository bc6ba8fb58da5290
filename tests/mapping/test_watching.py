"""`watch` and `refresh_every`: who is told of what, how old a value gets, and what ends them."""

from __future__ import annotations

import copy
import errno
import gc
import importlib
import logging
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.aging import age
from support.forks import forking, in_child

LONG = 3600.0  # a test that waits for it fails


@pytest.fixture
def opened(nfsdict, tmp_path):
    """Opens the test's store; all are closed after the test."""
    dictionaries = []

    def opened(**options):
        dictionaries.append(nfsdict.NfsDict("s", tmp_path, durable=False, **options))
        return dictionaries[-1]

    yield opened
    for d in dictionaries:
        d.close()


@pytest.fixture
def pair(opened):
    other = opened()
    other.update(a=1, b=2, c=3)
    return opened(), other


def until(condition, seconds=30.0):
    """Whether that comes to hold."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "nfsdict"]


@pytest.fixture(autouse=True)
def no_thread_stays():
    gc.collect()
    assert until(lambda: not threads()), "of an earlier test"
    yield
    gc.collect()
    assert until(lambda: not threads())


# --- what is told ----------------------------------------------------------------------------


def test_a_watch_tells_what_others_changed(pair):
    d, other = pair
    watch = d.watch(0.01)
    other["a"] = 10
    del other["b"]
    other["d"] = 4
    assert next(watch) == {"a", "b", "d"}
    assert d["a"] == 10 and "b" not in d and d["d"] == 4
    other["a"] = 11
    assert next(watch) == {"a"}


@pytest.mark.parametrize("call", ["pop", "del", "put"])
def test_what_others_change_after_a_call_that_failed(pair, monkeypatch, call):
    """What it may have changed itself isn't known, and compared with what was known before."""
    d, other = pair
    watch = d.watch(0.01)
    with monkeypatch.context() as patch:
        patch.setattr(type(d._entries), "find_entry", raising)  # as a value's code does
        patch.setattr(os, "unlink", failing_call)
        patch.setattr(type(d._values), "put", raising)
        calls = {"pop": d.pop, "del": d.__delitem__, "put": lambda key: d.__setitem__(key, 1)}
        with pytest.raises((RuntimeError, OSError)):
            calls[call]("a")
    other["a"] = 10
    assert d.refresh() == {"a"} and next(watch) == {"a"} and d["a"] == 10


def failing_call(*arguments, **options):
    raise OSError(errno.EIO, "broken")


def raising(*arguments, **options):
    raise RuntimeError


def test_a_pop_that_another_one_was_faster_than(pair, monkeypatch):
    d, other = pair
    watch = d.watch(0.01)
    take = type(d._storage.exclusive).take

    def later(self, hexdigest, private):
        monkeypatch.undo()
        other.pop("a")
        return take(self, hexdigest, private)

    monkeypatch.setattr(type(d._storage.exclusive), "take", later)
    deletes = d.counters()["deletes"]
    with pytest.raises(KeyError):
        d.pop("a")
    assert d.counters()["deletes"] == deletes
    assert next(watch) == {"a"}


@pytest.mark.parametrize("call", ["clear", "del"])
def test_a_call_that_interrupts_another_one_and_fails_forgets_no_key(pair, monkeypatch, call):
    d, _ = pair
    keys = set(d)
    with d._locks.guard, monkeypatch.context() as patch:
        patch.setattr(type(d._storage.shards), "present", failing_call)
        patch.setattr(os, "unlink", failing_call)
        with pytest.raises(OSError, match="broken"):
            d.clear() if call == "clear" else d.__delitem__("a")
    assert set(d) == keys and len(d) == len(keys) and d.refresh() == set()


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("settled", [False, True])
@pytest.mark.parametrize("written_by", ["this one", "another one"])
def test_an_entry_replaced_by_an_equal_one_is_told(opened, tmp_path, lazy, settled, written_by):
    """However young the old one is, and whether its value is in memory."""
    other, d = opened(), opened(lazy=lazy)
    (d if written_by == "this one" else other).update(a=1, b=2)
    if settled:
        age(tmp_path)
    d.refresh()
    assert d["a"] == 1
    assert d.refresh() == set()
    watch = d.watch(0.01)
    other.update(a=1, b=2)
    assert d.refresh() == {"a", "b"}
    assert next(watch) == {"a", "b"}
    watch.close()
    watch = d.watch(0.01)
    other.update(a=1, b=2)
    assert d.get("a", fresh=True) == 1
    del other["b"]
    assert next(watch) == {"a", "b"}


def test_what_changes_while_it_waits(pair):
    d, other = pair
    with ThreadPoolExecutor(1) as pool:
        told = pool.submit(next, d.watch(0.01))
        assert not told.done()
        other["a"] = 10
        assert told.result(30) == {"a"}


def test_this_dictionary_s_own_changes_are_not_told(pair):
    d, other = pair
    watch = d.watch(0.01)
    d["a"] = "mine"
    del d["b"]
    d.update(d="mine", e="mine")
    other["c"] = "theirs"
    assert next(watch) == {"c"}
    other["a"] = "theirs"
    d.refresh()
    d["a"] = "mine again"
    other["c"] = "theirs again"
    assert next(watch) == {"c"}


def take_by_refresh(d):
    assert d.refresh() == {"a", "b", "d"}


def take_by_lookups(d):
    assert d.get("a", fresh=True) == 10
    assert d.get("b", fresh=True) is None
    assert "d" in d


def take_by_reads(d):
    assert d.get("a", fresh=True) == 10
    assert d.pop("b", None) is None
    assert d["d"] == 4


TAKERS = {
    "another watch": lambda d: next(d.watch(LONG)) == {"a", "b", "d"},
    "refresh": take_by_refresh,
    "sync": lambda d: d.sync(),
    "popitem": lambda d: d._scanner.scan(),
    "lookups": take_by_lookups,
    "reads": take_by_reads,
}


@pytest.mark.parametrize("taker", TAKERS)
def test_nobody_takes_the_news_of_a_watch(pair, taker):
    d, other = pair
    watches = [d.watch(LONG) for _ in range(2)]
    other["a"] = 10
    del other["b"]
    other["d"] = 4
    TAKERS[taker](d)
    assert [next(watch) for watch in watches] == [{"a", "b", "d"}] * 2


def test_a_watch_takes_no_news_of_refresh(pair):
    d, other = pair
    other["a"] = 10
    d.refresh()
    watch = d.watch(LONG)
    other["b"] = 20
    assert next(watch) == {"b"}
    assert d.refresh() == {"b"}
    assert d.refresh() == set()


def test_lookups_tell_no_watch_of_what_is_known(pair):
    d, other = pair
    watch = d.watch(0.01)
    d.get("a", fresh=True)
    d.get("missing")
    d.get("missing", fresh=True)
    d["mine"] = 1
    d.get("mine", fresh=True)
    del d["mine"]
    assert "mine" not in d
    other["c"] = 30
    assert next(watch) == {"c"}


def test_a_lazy_dictionary_begins_with_a_listing(opened):
    other = opened()
    other.update(a=1, b=2)
    d = opened(lazy=True)
    assert d["a"] == 1
    watch = d.watch(0.01)
    other["a"] = 10
    assert "b" in d
    assert next(watch) == {"a"}
    assert d._state.index.listed and d["a"] == 10
    other["b"] = 20
    assert next(watch) == {"b"}


@pytest.mark.parametrize("options", [{"read_only": True}, {"cache_bytes": 0}, {"workers": 1}])
def test_with_other_options(opened, options):
    other = opened()
    other["a"] = 1
    d = opened(refresh_every=0.01, **options)
    watch = d.watch(0.01)
    other["a"] = 2
    assert next(watch) == {"a"}
    assert d["a"] == 2


def test_two_scans_at_once_and_four_who_ask(opened):
    """Each is told of each change, and what it reads then is that change or a later one."""
    other = opened()
    other["a"] = 0
    d = opened(refresh_every=0.003)
    keys = {f"key {number}" for number in range(200)}
    told = [set() for _ in range(4)]

    def watching(number):
        for some in d.watch(0.002):
            assert all(d[key] == key for key in some)
            told[number] |= some

    def refreshing():
        while not done:
            told[0].update(d.refresh())

    done = []
    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(watching, number) for number in range(1, 4)]
        asking.append(pool.submit(refreshing))
        assert until(lambda: len(d._state.news.watched) == 3)
        for key in keys:
            other[key] = key
        assert until(lambda: all(one == keys for one in told)), [keys - one for one in told]
        done.append(True)
        d.close()
        for one in asking:
            one.result(60)


def during(holder, name, act, patch):
    """Do this after the next call of that method, before its caller goes on."""
    original = getattr(holder, name)

    def called(*arguments, **options):
        result = original(*arguments, **options)
        patch.setattr(holder, name, original)
        act()
        return result

    patch.setattr(holder, name, called)


# What records something of "a": the method after which a scan comes, and the call.
RECORDERS = {
    "read": ("_entries", "find_entry", lambda d: d.get("a", fresh=True)),
    "miss": ("_entries", "find_entry", lambda d: d.get("a", fresh=True)),
    "contains": ("_values", "look", lambda d: "a" in d),
    "put": ("_values", "put", lambda d: d.__setitem__("a", "mine")),
    "update": ("_values", "write", lambda d: d.update(a="mine")),
}


@pytest.mark.parametrize("recorder", RECORDERS)
@pytest.mark.parametrize("when", ["within the call", "at its end"])
def test_a_change_after_a_call_during_which_a_scan_began(opened, monkeypatch, recorder, when):
    """The call can't keep its value then. That the key changes later is told none the less."""
    part, method, call = RECORDERS[recorder]
    other = opened()
    other.update(a=1, b=1)
    d = opened(lazy=recorder == "contains")
    watch = d.watch(LONG)
    begun, go_on = threading.Event(), threading.Event()
    scanning = threading.Thread(target=d.refresh)

    def plan(self, *arguments):
        begun.set()
        assert go_on.wait(30)
        return original(self, *arguments)

    def scan():
        scanning.start()
        assert begun.wait(30)
        if when == "within the call":
            go_on.set()
            if recorder not in ("put", "update"):  # for those it waits before it takes over
                scanning.join(30)

    original = type(d._scanner)._plan
    monkeypatch.setattr(type(d._scanner), "_plan", plan)
    if recorder == "miss":
        del other["a"]
    during(getattr(d, part), method, scan, monkeypatch)
    call(d)
    go_on.set()
    scanning.join(30)
    d._state.news.take(set())
    [news] = d._state.news.watched.values()
    with d._locks.guard:
        d._state.news.take_from(news)
    other["a"] = 2
    assert d.refresh() == {"a"} and next(watch) == {"a"}
    assert d["a"] == 2


@pytest.mark.parametrize("call", ["put", "update", "delete"])
def test_a_scan_that_sees_an_own_change_before_its_call_has_ended(opened, monkeypatch, call):
    """It waits until that is recorded, and doesn't take it for another one's."""
    act = {
        "put": ("_values", "put", lambda d: d.__setitem__("a", "mine")),
        "update": ("_values", "write", lambda d: d.update(a="mine")),
        "delete": ("_values", "remove", lambda d: d.__delitem__("a")),
    }
    part, method, change = act[call]
    other = opened()
    other.update(a=1, b=1)
    d = opened()
    news = []
    scanning = threading.Thread(target=lambda: news.append(d.refresh()))

    def scan():
        scanning.start()
        scanning.join(0.5)

    during(getattr(d, part), method, scan, monkeypatch)
    change(d)
    scanning.join(30)
    assert news == [set()]
    assert d.refresh() == set()


# --- errors, and arguments -------------------------------------------------------------------


@pytest.fixture
def failing(nfsdict, monkeypatch):
    """How many scans are to fail, and with what."""
    Scanner = importlib.import_module("nfsdict.scan").Scanner
    original = Scanner._scan
    failures = []

    def scan(self, *arguments):
        if failures:
            raise failures.pop()
        return original(self, *arguments)

    monkeypatch.setattr(Scanner, "_scan", scan)
    return failures


def lost():
    return OSError(errno.EIO, os.strerror(errno.EIO))


def test_an_error_is_logged_once_and_tried_again(pair, failing, caplog):
    d, other = pair
    watch = d.watch(0.01)
    for number in range(1, 3):
        failing.extend([lost()] * 3)
        other["a"] = -number
        assert next(watch) == {"a"}
        assert failing == []
        assert caplog.text.count("can't refresh") == number


def test_the_thread_outlives_each_error(opened, failing, caplog):
    other = opened()
    other["a"] = 1
    d = opened(refresh_every=0.01)
    failing.extend([lost(), lost(), RuntimeError("of a value's own code"), lost()])
    assert until(lambda: not failing)
    other["a"] = 2
    assert until(lambda: d["a"] == 2)
    assert caplog.text.count("can't refresh") == 1


def test_what_is_no_oserror_ends_a_watch(pair, failing):
    d, _ = pair
    watch = d.watch(0.01)
    failing.append(RuntimeError())
    with pytest.raises(RuntimeError):
        next(watch)
    assert d._state.news.watched == {}


BAD = [0, -1, -0.5, float("nan"), float("inf"), 1e30]


@pytest.mark.parametrize("seconds", BAD)
def test_bad_seconds(opened, seconds):
    d = opened()
    with pytest.raises(ValueError, match="interval"):
        d.watch(seconds)
    with pytest.raises(ValueError, match="refresh_every"):
        opened(refresh_every=seconds)
    if seconds != 0:
        with pytest.raises(ValueError, match="timeout"):
            d.wait_for("missing", timeout=seconds)


@pytest.mark.parametrize("seconds", ["1", [1]])
def test_no_seconds(opened, seconds):
    with pytest.raises(TypeError):
        opened().watch(seconds)
    with pytest.raises(TypeError, match="timeout"):
        opened().wait_for("missing", timeout=seconds)
    with pytest.raises(TypeError):
        opened(refresh_every=seconds)


def test_no_thread_to_be_had(opened, monkeypatch):
    def refuse(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="refresh_every"):
        opened(refresh_every=LONG)


# --- how old a value gets --------------------------------------------------------------------


def test_a_cached_read_is_no_older_than_that_and_a_refresh(nfsdict, opened, monkeypatch):
    """A read gives at least what was written when the last refresh began that has ended."""
    Scanner = importlib.import_module("nfsdict.scan").Scanner
    original = Scanner.scan
    refreshes = []

    def scan(self, *arguments, **options):
        begin = time.monotonic()
        original(self, *arguments, **options)
        if threading.current_thread().name == "nfsdict":
            refreshes.append((begin, time.monotonic()))

    other = opened()
    other["a"] = 0
    monkeypatch.setattr(Scanner, "scan", scan)
    written = [(0.0, 0)]  # when each value was written
    d = opened(refresh_every=0.02)
    reads = []
    while len(refreshes) < 20:
        other["a"] = number = len(written)
        written.append((time.monotonic(), number))
        for _ in range(20):
            ended = refreshes[-1:]
            reads.append((ended, d["a"]))
    assert len({value for _, value in reads}) > 10
    for ended, value in reads:
        begin = ended[0][0] if ended else 0.0
        assert value >= max(number for when, number in written if when <= begin)


def test_refreshes_begin_that_far_apart_however_long_each_takes(opened, failing, monkeypatch):
    d = opened(refresh_every=0.4)
    begins = []

    def slow():
        begins.append(time.monotonic())
        time.sleep(0.3)

    monkeypatch.setattr(d._scanner, "scan", slow)
    assert until(lambda: len(begins) >= 6)
    distances = sorted(later - earlier for earlier, later in zip(begins, begins[1:]))
    assert 0.35 < distances[len(distances) // 2] < 0.65


def test_the_next_refresh_still_tells_what_the_thread_has_found(opened):
    other = opened()
    other["a"] = 1
    d = opened(refresh_every=0.01)
    other["a"] = 2
    assert until(lambda: d["a"] == 2)
    assert until(lambda: "a" in d._state.news.unreported)
    assert d.refresh() == {"a"}


# --- what ends them --------------------------------------------------------------------------


def test_close_ends_each_watch_and_the_thread_at_once(opened):
    d = opened(refresh_every=LONG)
    assert len(threads()) == 1
    with ThreadPoolExecutor(3) as pool:
        watching = [pool.submit(list, d.watch(LONG)) for _ in range(3)]
        unstarted = d.watch(LONG)
        d.close()
        assert [one.result(30) for one in watching] == [[], [], []]
    assert list(unstarted) == []
    assert until(lambda: not threads())
    d.close()


def test_the_dictionary_is_usable_after_close(opened):
    other = opened()
    d = opened(refresh_every=0.01)
    d.close()
    other["a"] = 1
    assert d["a"] == 1
    watch = d.watch(0.01)
    other["a"] = 2
    assert next(watch) == {"a"} and d["a"] == 2
    assert until(lambda: not threads())


def test_close_within_the_loop(pair):
    d, other = pair
    other["a"] = 2
    told = []
    for keys in d.watch(LONG):
        told.append(keys)
        d.close()
    assert told == [{"a"}]


def test_repair_ends_no_watch(pair):
    d, other = pair
    watch = d.watch(0.01)
    d.repair()
    other["a"] = 10
    assert next(watch) == {"a"}


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timer signals")
def test_a_signal_handler_ends_a_watch(opened):
    d = opened(refresh_every=LONG)
    before = signal.signal(signal.SIGALRM, lambda *_: d.close())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        assert list(d.watch(LONG)) == []
    finally:
        signal.signal(signal.SIGALRM, before)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timer signals")
def test_a_signal_handler_ends_watches_at_any_moment(opened):
    """Also while the watch is just taking what it waits for."""
    d = opened()
    before = signal.signal(signal.SIGALRM, lambda *_: d.close())
    try:
        for number in range(300):
            watch = d.watch(0.001)
            signal.setitimer(signal.ITIMER_REAL, 0.0005 + number * 0.00001)
            assert list(watch) == []
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_an_exception_of_a_signal_handler_ends_the_watch(opened):
    d = opened()
    watch = d.watch(LONG)
    next_scan = d._scanner.scan

    def scan():
        next_scan()
        raise KeyboardInterrupt

    d._scanner.scan = scan
    with pytest.raises(KeyboardInterrupt):
        next(watch)
    assert d._state.news.watched == {}


def test_a_call_that_interrupts_another_one(pair):
    """It can't look, so it is told nothing rather than waiting for ever; nor does it wait for a
    refresh, which may need the locks of the call that it has interrupted."""
    d, other = pair
    watch = d.watch(LONG)
    [news] = d._state.news.watched
    other["a"] = 2
    with d._locks.guard:
        assert next(watch) == set()
        assert next(d.watch(LONG)) == set()
    gc.collect()  # where a generator that is dropped lives on
    gc.collect()
    assert d._state.news.watched.keys() == {news}
    # The interrupted look counted as one.
    watch.close()
    assert next(d.watch(LONG)) == {"a"}


def test_close_in_an_interrupting_call_does_not_wait(opened, monkeypatch):
    d = opened(refresh_every=0.01)
    begun, go = threading.Event(), threading.Event()

    def held():
        begun.set()
        assert go.wait(60)

    monkeypatch.setattr(d._scanner, "scan", held)
    assert begun.wait(30)
    begin = time.monotonic()
    with d._locks.guard:
        d.close()
    assert time.monotonic() - begin < 8, "less than it waits otherwise"
    assert threads()
    go.set()
    assert until(lambda: not threads())


def test_no_refresh_begins_once_close_has_looked_for_those_under_way(opened, monkeypatch):
    d = opened()
    scans = []
    monkeypatch.setattr(d._scanner, "scan", lambda: scans.append(True))
    # Asked between the wait and the refresh.
    monkeypatch.setattr(type(d._scanner), "barred", property(lambda self: d.close()))
    assert list(d.watch(LONG)) == []
    assert scans == []


def test_close_waits_for_a_refresh_under_way(opened, monkeypatch):
    d = opened(refresh_every=0.01)
    begun, done = threading.Event(), []
    original = d._scanner.scan

    def slow():
        begun.set()
        original()
        time.sleep(0.2)
        done.append(True)

    monkeypatch.setattr(d._scanner, "scan", slow)
    assert begun.wait(30)
    d.close()
    assert done


def test_close_by_the_thread_itself(opened, failing, caplog):
    """A log handler runs in it."""
    d = opened(refresh_every=0.01)

    class Closing(logging.Handler):
        def emit(self, record):
            d.close()

    logger, handler = logging.getLogger("nfsdict"), Closing()
    logger.addHandler(handler)
    try:
        begin = time.monotonic()
        failing.append(lost())
        assert until(lambda: not threads())
        assert time.monotonic() - begin < 8, "less than it waits for others"
    finally:
        logger.removeHandler(handler)


def test_a_watch_that_is_dropped_gathers_nothing_more(pair):
    d, other = pair
    begun, unstarted, ended = (d.watch(0.01) for _ in range(3))
    other["a"] = 10
    assert next(begun) == next(ended) == {"a"}
    ended.close()
    assert len(d._state.news.watched) == 2
    del begun, unstarted
    gc.collect()
    assert d._state.news.watched == {}


def test_a_watch_keeps_its_dictionary(opened, nfsdict, tmp_path):
    other = opened()
    watch = nfsdict.NfsDict("s", tmp_path, refresh_every=LONG).watch(0.01)
    gc.collect()
    other["a"] = 1
    assert next(watch) == {"a"}
    assert len(threads()) == 1
    watch.close()


@pytest.mark.parametrize("cycle", [False, True])
def test_a_dropped_dictionary_is_collected_and_its_thread_ends(nfsdict, tmp_path, cycle):
    d = nfsdict.NfsDict("s", tmp_path, "json", refresh_every=LONG)
    if cycle:
        d._cache["itself"] = d
    assert len(threads()) == 1
    gone = weakref.ref(d)
    del d
    gc.collect()
    assert gone() is None
    assert until(lambda: not threads())


def test_dropped_while_it_is_refreshed(nfsdict, tmp_path):
    d = nfsdict.NfsDict("s", tmp_path, refresh_every=0.001)
    d["a"] = 1
    gone = weakref.ref(d)
    del d
    gc.collect()
    assert until(lambda: gone() is None and not threads())


# --- copies, forks, exit ---------------------------------------------------------------------


@pytest.mark.parametrize("copied", [copy.copy, lambda d: pickle.loads(pickle.dumps(d))])
def test_copies_refresh_themselves(opened, copied):
    other = opened()
    other["a"] = 1
    d = opened(refresh_every=0.01)
    another = copied(d)
    assert another["a"] == 1
    assert len(threads()) == 2
    d.close()
    other["a"] = 2
    assert until(lambda: another["a"] == 2)
    another.close()


def test_values_that_refer_to_the_dictionary_start_no_threads(opened):
    d = opened(refresh_every=LONG)
    d.update({str(number): {"store": d} for number in range(20)})
    d.close()
    assert until(lambda: not threads())
    d = opened()
    assert not threads()
    one = d["0"]["store"]
    assert one["1"]["store"] is not one
    assert len(threads()) == 1
    one.close()
    assert until(lambda: not threads())


USES = {
    "read": lambda d: d.get("a"),
    "miss": lambda d: d.get("missing"),
    "in": lambda d: "a" in d,
    "put": lambda d: d.__setitem__("b", 1),
    "add": lambda d: d.add("b", 1),
    "update": lambda d: d.update(b=1),
    "len": len,
    "refresh": lambda d: d.refresh(),
}


@pytest.mark.parametrize("use", USES)
def test_a_copy_that_is_used_is_refreshed(opened, use):
    other = opened()
    other["a"] = 1
    d = copy.copy(opened(refresh_every=0.01, lazy=True))
    assert not threads()
    USES[use](d)
    assert len(threads()) == 1
    assert d["a"] == 1
    other["a"] = 2
    assert until(lambda: d["a"] == 2)
    d.close()


def test_a_copy_that_was_closed_before_its_first_use_is_not_refreshed(opened):
    d = opened(refresh_every=LONG, lazy=True)
    d.close()
    d["a"] = 1
    assert not threads()


def test_a_copy_for_which_no_thread_can_be_had_tries_again(opened, monkeypatch, caplog):
    def refuse(self):
        raise RuntimeError("can't start new thread")

    d = opened(refresh_every=LONG)
    pickled = pickle.dumps(d)
    d.close()
    assert until(lambda: not threads())
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        d = pickle.loads(pickled)
        d["a"] = 1
        assert d.get("missing") is None
    assert caplog.text.count("no thread can be started for refresh_every") == 1
    assert not threads()
    assert d.get("missing") is None
    assert len(threads()) == 1
    d.close()


@forking
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_has_no_thread_but_watches(opened):
    other = opened()
    other["a"] = 1
    d = opened(refresh_every=0.001)
    watch = d.watch(0.01)

    def child():
        assert len(threading.enumerate()) == 1
        other["a"] = number
        while "a" not in next(watch):
            pass
        assert d["a"] == number
        begin = time.monotonic()
        d.close()
        assert time.monotonic() - begin < 8, "less than it waits for a thread"
        assert list(watch) == []

    with ThreadPoolExecutor(2) as pool:  # so that something waits while the fork comes
        waiting = [pool.submit(list, d.watch(0.001)) for _ in range(2)]
        for number in range(2, 12):  # noqa: B007 - the child reads it
            assert in_child(child) == 0
        d.close()
        assert all(set().union(*one.result(30)) == {"a"} for one in waiting)


def run(code, *arguments):
    command = [sys.executable, "-X", "dev", "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


EXIT = """
    import sys, threading, nfsdict
    d = nfsdict.NfsDict("s", sys.argv[1], refresh_every=float(sys.argv[2]))
    d.update({str(number): number for number in range(100)})
    held = [d.watch(3600.0), d.watch(3600.0)]
    if sys.argv[3] == "watching":
        threading.Thread(target=list, args=[held[0]], daemon=True).start()
"""


@pytest.mark.parametrize("every", [0.001, LONG])
@pytest.mark.parametrize("what", ["watching", "nothing"])
def test_the_exit_of_the_interpreter(nfsdict, tmp_path, every, what):
    for _ in range(5):
        done = run(EXIT, tmp_path, every, what)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.glob("s/**/.nfsdict*")) == []


def test_exit_during_a_refresh(nfsdict, tmp_path):
    """It is waited for, so that it leaves no file behind."""
    done = run(
        """
        import sys, threading, time, nfsdict
        d = nfsdict.NfsDict("s", sys.argv[1], refresh_every=0.01)
        begun, probe = threading.Event(), d._storage.files.probe_clock
        def slow():
            begun.set()
            open(d.path / ".nfsdict-slow", "w").close()
            time.sleep(0.5)
            (d.path / ".nfsdict-slow").unlink()
            return probe()
        d._storage.files.probe_clock = slow
        nfsdict.NfsDict("s", sys.argv[1])["a"] = 1
        assert begun.wait(30)
        """,
        tmp_path,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.glob("s/.nfsdict*")) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_exit_of_a_forked_child_does_not_wait_for_the_parent_s_thread(nfsdict, tmp_path):
    done = run(
        """
        import os, sys, time, warnings, nfsdict
        warnings.simplefilter("ignore")
        d = nfsdict.NfsDict("s", sys.argv[1], refresh_every=3600.0)
        pid = os.fork()
        if pid:
            begin = time.monotonic()
            assert os.waitpid(pid, 0)[1] == 0
            print(time.monotonic() - begin < 8)
        """,
        tmp_path,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")
