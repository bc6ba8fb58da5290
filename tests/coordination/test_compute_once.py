"""Compute once: one of all callers makes the value, all get it; and ``modify`` loses no change."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import threading
import time

import pytest


@pytest.fixture
def d(opened):
    return opened()


def files(d):
    return [path.name for path in d.path.glob(".nfsdict-leases/*")]


def in_threads(*calls):
    """What each call returned or raised, all at once."""
    results = {}

    def run(number):
        try:
            results[number] = calls[number]()
        except BaseException as error:
            results[number] = error

    threads = [threading.Thread(target=run, args=[number]) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [results[number] for number in range(len(calls))]


def never():
    pytest.fail("the creator was called")


class Slow:
    """A creator that waits until it is told to go on."""

    def __init__(self, value):
        self._value = value
        self.begun = threading.Event()
        self.go_on = threading.Event()

    def __call__(self):
        self.begun.set()
        assert self.go_on.wait(10)
        return self._value


# --- one process -----------------------------------------------------------------------------


@pytest.mark.parametrize("value", [1, None, [], ""])
def test_the_value_is_made_when_there_is_none(d, opened, value):
    assert d.get_or_create("key", lambda: value) == value
    assert d.get_or_create("key", never) == value
    assert opened().get_or_create("key", never) == value
    assert dict(opened()) == {"key": value}
    assert files(d) == []


def test_an_exception_goes_to_its_caller_and_is_not_stored(d):
    def fails():
        assert len(files(d)) == 1
        raise LookupError("no value")

    with pytest.raises(LookupError, match="no value"):
        d.get_or_create("key", fails)
    assert files(d) == []
    assert "key" not in d
    assert d.get_or_create("key", lambda: 1) == 1


def test_an_interrupted_creator_releases_its_lease(d):
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        d.get_or_create("key", interrupted)
    assert files(d) == []
    assert d.get_or_create("key", lambda: 1, timeout=0) == 1


def test_threads_wait_for_the_first_without_asking_the_server(d, monkeypatch):
    LeaseFiles = importlib.import_module("nfsdict.storage.lease_files").LeaseFiles
    looks, original = [], LeaseFiles.look
    monkeypatch.setattr(
        LeaseFiles, "look", lambda *of: looks.append(threading.get_ident()) or original(*of)
    )
    slow = Slow("value")
    first = threading.Thread(target=d.get_or_create, args=["key", slow])
    first.start()
    assert slow.begun.wait(10)
    asked = len(looks)
    threading.Timer(0.3, slow.go_on.set).start()
    assert in_threads(*[lambda: d.get_or_create("key", never)] * 8) == ["value"] * 8
    first.join()
    assert len(looks) == asked


def test_when_the_first_fails_the_next_one_makes_it(d):
    calls = []

    def creator():
        calls.append(1)
        time.sleep(0.1)
        if len(calls) < 3:
            raise LookupError(len(calls))
        return "value"

    results = in_threads(*[lambda: d.get_or_create("key", creator)] * 6)
    failed = [result for result in results if isinstance(result, LookupError)]
    assert (len(failed), results.count("value"), len(calls)) == (2, 4, 3)


@pytest.mark.parametrize("wrap", [lambda f: f, lambda f: lambda: f()], ids=["itself", "lambda"])
def test_a_coroutine_function_is_told_where_it_belongs(d, wrap):
    async def five():
        return 5

    with pytest.raises(TypeError, match=r"d\.aio\.get_or_create"):
        d.get_or_create("k", wrap(five))
    assert d.leases() == []
    assert d.get_or_create("k", lambda: 6) == 6


def test_a_creator_that_asks_for_its_own_key_is_told(d):
    with pytest.raises(RuntimeError, match="'key'"):
        d.get_or_create("key", lambda: d.get_or_create("key", never, timeout=1))
    assert d.get_or_create("key", lambda: d.get_or_create("another", lambda: 1) + 1) == 2


def test_arguments(d, opened):
    with pytest.raises(TypeError):
        d.get_or_create(1, never)
    for wrong in ({"lease": 0}, {"timeout": -1}, {"max_age": -1}):
        with pytest.raises(ValueError):
            d.get_or_create("key", never, **wrong)
    reader = opened(read_only=True)
    with pytest.raises(PermissionError):
        reader.get_or_create("key", never)
    d["key"] = 1
    assert reader.get_or_create("key", never) == 1


def test_all_get_the_bytes_that_are_written(opened):
    d = opened(serializer="bytes")
    assert type(d.get_or_create("key", lambda: bytearray(b"value"))) is bytes
    assert type(d.modify("key", bytearray)) is bytes


class Interrupted(BaseException):
    pass


def test_an_interruption_at_the_end_keeps_nobody_waiting(d, monkeypatch):
    """Neither who waits already, nor the next call of the same thread."""
    compute = importlib.import_module("nfsdict.coordination.compute")
    set_done = threading.Event.set
    main = threading.get_ident()

    def interrupted(event):
        if (
            threading.get_ident() == main
            and sys._getframe(1).f_globals["__name__"] == compute.__name__
        ):
            raise Interrupted
        set_done(event)

    monkeypatch.setattr(threading.Event, "set", interrupted)
    waiting = []

    def creator():
        waiting.append(threading.Thread(target=d.get_or_create, args=["key", lambda: 2]))
        waiting[0].start()
        time.sleep(0.1)
        raise LookupError

    with pytest.raises(Interrupted):
        d.get_or_create("key", creator)
    waiting[0].join(10)
    assert not waiting[0].is_alive()
    monkeypatch.undo()
    assert d.get_or_create("key", never, timeout=5) == 2


def test_an_interruption_before_the_end_is_noted_keeps_nobody_waiting(d):
    class Interrupting(dict):
        def pop(self, *arguments):
            if len(self) == 1 and not interruptions:
                interruptions.append(1)
                raise Interrupted
            return super().pop(*arguments)

        get = pop

    interruptions = []
    d._compute._flights = Interrupting()
    with pytest.raises(Interrupted):
        d.get_or_create("key", lambda: 1)
    del d["key"]
    assert d.get_or_create("key", lambda: 2, timeout=5) == 2


# --- several, each with a dictionary of its own ----------------------------------------------


def test_another_one_waits_and_gets_the_value(d, opened):
    slow = Slow("value")
    threading.Thread(target=d.get_or_create, args=["key", slow]).start()
    assert slow.begun.wait(10)
    other = opened(lazy=True)
    with pytest.raises(TimeoutError, match="'key'"):
        other.get_or_create("key", never, timeout=0.1)
    threading.Timer(0.2, slow.go_on.set).start()
    assert other.get_or_create("key", never) == "value"


def test_one_who_waits_gets_a_value_that_somebody_else_puts(d, opened):
    slow = Slow("late")
    maker = threading.Thread(target=d.get_or_create, args=["key", slow])
    maker.start()
    assert slow.begun.wait(10)
    opened(lazy=True)["key"] = "early"
    assert opened(lazy=True).get_or_create("key", never) == "early"
    slow.go_on.set()
    maker.join()
    assert opened()["key"] == "early"


def test_a_value_that_was_written_before_the_lease_was_had_is_taken(d, opened, monkeypatch):
    Leases = importlib.import_module("nfsdict.coordination.leases").Leases
    original = Leases.acquire

    def acquire(*arguments, **options):
        opened(lazy=True)["key"] = "other"
        return original(*arguments, **options)

    monkeypatch.setattr(Leases, "acquire", acquire)
    assert d.get_or_create("key", never) == "other"
    assert files(d) == []


def test_whoever_finishes_second_gets_the_first_value(d, opened, monkeypatch):
    LeaseFiles = importlib.import_module("nfsdict.storage.lease_files").LeaseFiles
    monkeypatch.setattr(LeaseFiles, "renew", lambda self, olds, new: None)
    slow = Slow("second")
    results = []
    first = threading.Thread(target=lambda: results.append(d.get_or_create("key", slow, lease=0.3)))
    first.start()
    assert slow.begun.wait(10)
    assert opened(lazy=True).get_or_create("key", lambda: "first") == "first"
    slow.go_on.set()
    first.join()
    assert results == ["first"]
    assert opened()["key"] == "first"


MAKERS = """
import os, sys, time, nfsdict
base, log = sys.argv[1:]
d = nfsdict.NfsDict("s", base, lazy=True)
def make(key):
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{key}\\n".encode())
    time.sleep(0.05)
    return f"{key} by {os.getpid()}"
print([d.get_or_create(str(key), lambda: make(key)) for key in range(10)])
"""


def test_of_many_processes_one_makes_each(nfsdict, tmp_path):
    log = tmp_path / "log"
    command = [sys.executable, "-c", MAKERS, str(tmp_path), str(log)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(6)]
    outputs = {process.communicate(timeout=60)[0] for process in processes}
    assert len(outputs) == 1
    assert sorted(log.read_text().split()) == sorted(map(str, range(10)))


KILLED = """
import os, sys, time, nfsdict
d = nfsdict.NfsDict("s", sys.argv[1], lazy=True)
d.get_or_create("key", lambda: print("begun", flush=True) or time.sleep(60))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells who has ended")
def test_a_killed_maker_is_replaced(d, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "begun\n"
    threading.Timer(0.2, process.kill).start()
    assert d.get_or_create("key", lambda: "value", timeout=20) == "value"
    process.communicate()
    assert files(d) == []


# --- age, damage -----------------------------------------------------------------------------


def make_older(d, seconds):
    [path] = d.path.glob("??/*.pkl")
    moment = path.stat().st_mtime - seconds
    os.utime(path, (moment, moment))


def test_what_is_older_than_max_age_is_made_anew(d, opened):
    d["key"] = "old"
    assert d.get_or_create("key", never, max_age=50) == "old"
    make_older(d, 100)
    for other in (opened(), opened(lazy=True)):
        assert other.get_or_create("key", never, max_age=1000) == "old"
        assert other.get_or_create("key", never) == "old"
    other = opened()
    assert other.get_or_create("key", lambda: "new", max_age=50) == "new"
    assert other.get_or_create("key", never, max_age=50) == "new"
    assert opened().get_or_create("key", never, max_age=50) == "new"
    assert files(d) == []


@pytest.mark.parametrize("ahead", [3600, -3600])
def test_an_age_goes_by_the_servers_clock(d, opened, monkeypatch, ahead):
    Files = importlib.import_module("nfsdict.storage.files").Files
    now = d._storage.files.probe_clock() + ahead * 1_000_000_000
    monkeypatch.setattr(Files, "probe_clock", lambda self: now)
    d["key"] = "old"
    make_older(d, 100 - ahead)
    assert opened().get_or_create("key", never, max_age=1000) == "old"
    assert opened().get_or_create("key", lambda: "new", max_age=50) == "new"


def test_what_another_one_has_made_anew_is_taken(d, opened):
    d["key"] = "old"
    make_older(d, 100)
    maker, other, reader = opened(), opened(), opened(read_only=True)
    assert maker.get_or_create("key", lambda: "new", max_age=50) == "new"
    for one in (other, reader):
        assert one["key"] == "old"
        assert one.get_or_create("key", never, max_age=50) == "new"


def test_others_get_the_old_value_while_a_new_one_is_made(d, opened):
    d["key"] = "old"
    make_older(d, 100)
    d, other, third = (opened(lazy=True) for _ in range(3))
    slow = Slow("new")
    options = {"max_age": 50, "stale": True}
    maker = threading.Thread(target=d.get_or_create, args=["key", slow], kwargs=options)
    maker.start()
    assert slow.begun.wait(10)
    assert d.get_or_create("key", never, **options) == "old"
    assert other.get_or_create("key", never, **options) == "old"
    threading.Timer(0.2, slow.go_on.set).start()
    assert third.get_or_create("key", never, max_age=50) == "new"
    maker.join()
    assert other.get_or_create("key", never, **options) == "new"


@pytest.mark.parametrize("before", ["old", "damaged"])
def test_what_another_one_writes_over_it_meanwhile_counts(d, opened, before):
    """As who lost the lease may, or who needs none. The first value counts."""
    d["key"] = "old"
    [path] = d.path.glob("??/*.pkl")
    if before == "damaged":
        path.write_bytes(b"damaged")
    else:
        make_older(d, 100)
    maker = opened(lazy=True)

    def creator():
        opened(lazy=True)["key"] = "theirs"
        return "mine"

    max_age = 50 if before == "old" else None
    assert maker.get_or_create("key", creator, max_age=max_age) == "theirs"
    assert opened()["key"] == "theirs"


def test_a_damaged_value_is_made_anew(d, opened):
    d["key"] = "old"
    [path] = d.path.glob("??/*.pkl")
    path.write_bytes(b"damaged")
    assert opened(lazy=True).get_or_create("key", lambda: "new", timeout=5) == "new"
    assert opened(lazy=True)["key"] == "new"


# --- modify ----------------------------------------------------------------------------------


def test_modify(d, opened):
    with pytest.raises(KeyError, match="key"):
        d.modify("key", never)
    assert d.modify("key", lambda value: [*value, 1], []) == [1]
    opened()["key"] = [2]
    assert d.modify("key", lambda value: [*value, 3], []) == [2, 3]
    assert opened()["key"] == d["key"] == [2, 3]
    assert d.modify("none", lambda value: value, None) is None
    with pytest.raises(ZeroDivisionError):
        d.modify("key", lambda value: 1 // 0)
    with pytest.raises(PermissionError):
        opened(read_only=True).modify("key", never)
    with pytest.raises(TypeError):
        d.modify(1, never)
    assert opened()["key"] == [2, 3]
    assert files(d) == []


def test_a_modification_under_a_lost_lease_is_not_written(d, nfsdict):
    d["key"] = 1

    def slow(value):
        for path in d.path.glob(".nfsdict-leases/*"):
            path.unlink()
        time.sleep(0.5)
        return value + 1

    with pytest.raises(nfsdict.LeaseLostError, match="'key'"):
        d.modify("key", slow, lease=0.3)
    assert d.get("key", fresh=True) == 1


def test_a_function_that_modifies_its_own_key_is_told(d):
    with pytest.raises(RuntimeError, match="'key'"):
        d.modify("key", lambda value: d.modify("key", never, 0, timeout=1), 0)
    with pytest.raises(RuntimeError, match="'key'"):
        d.get_or_create("key", lambda: d.modify("key", never, 0, timeout=1))
    assert d.modify("key", lambda value: value + d.modify("other", lambda _: 1, 0), 0) == 1
    assert files(d) == []


def test_a_coroutine_function_does_not_modify(d):
    async def function(value):
        return value + 1

    d["k"] = 1
    with pytest.raises(TypeError, match="isn't awaited"):
        d.modify("k", function)
    assert d["k"] == 1


def test_threads_modify_in_turn(d):
    def modify():
        return [d.modify("key", lambda value: value + 1, 0) for _ in range(10)]

    results = in_threads(*[modify] * 4)
    assert not [one for one in results if isinstance(one, BaseException)]
    assert sorted(value for each in results for value in each) == list(range(1, 41))
    assert d["key"] == 40


def test_what_a_function_changed_in_place_and_refused_is_not_kept(d, nfsdict):
    def refuses(value):
        value.append(2)
        raise ZeroDivisionError

    def loses(value):
        value.append(2)
        for path in d.path.glob(".nfsdict-leases/*"):
            path.unlink()
        time.sleep(0.5)
        return value

    for function, error in ((refuses, ZeroDivisionError), (loses, nfsdict.LeaseLostError)):
        d["key"] = [1]
        with pytest.raises(error):
            d.modify("key", function, lease=0.3)
        assert d["key"] == [1]
        assert d.modify("key", lambda value: value) == [1]


MODIFIERS = """
import sys, nfsdict
d = nfsdict.NfsDict("s", sys.argv[1], lazy=True)
for _ in range(25):
    d.modify("key", lambda value: value + 1, 0)
"""


def test_no_modification_of_several_processes_is_lost(nfsdict, opened, tmp_path):
    command = [sys.executable, "-c", MODIFIERS, str(tmp_path)]
    processes = [subprocess.Popen(command) for _ in range(4)]
    assert {process.wait(60) for process in processes} == {0}
    assert opened()["key"] == 100
