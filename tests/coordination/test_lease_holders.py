"""Leases: one holder at a time, renewed while it lives, taken over when it doesn't."""

from __future__ import annotations

import errno
import gc
import importlib
import itertools
import logging
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc tells who has ended")

HOLDER = """
import sys, nfsdict
d = nfsdict.NfsDict("s", sys.argv[1])
lease = d.lease("key", float(sys.argv[2]))
print(lease.generation, flush=True)
for line in sys.stdin:
    print(eval(line), flush=True)
"""


class Holder:
    """A process that holds the lease of "key", and evaluates what it is told."""

    def __init__(self, directory, duration):
        self._process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(directory), str(duration)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.generation = int(self._process.stdout.readline())
        self.pid = self._process.pid

    def tell(self, expression):
        self._process.stdin.write(f"{expression}\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def exit(self):
        self._process.communicate(timeout=10)
        assert self._process.returncode == 0

    def kill(self):
        self._process.kill()

    def close(self):
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def holder(nfsdict, tmp_path):
    holders = []

    def holder(duration=60.0):
        holders.append(Holder(tmp_path, duration))
        return holders[-1]

    yield holder
    for one in holders:
        one.close()


@pytest.fixture
def d(opened):
    return opened()


def files(d):
    return sorted(path.name for path in d.path.glob(".nfsdict-leases/*"))


def wait_until(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


# --- one holder ------------------------------------------------------------------------------


def test_one_holds_and_the_next_gets_it_when_it_is_released(d):
    with d.lease("key") as lease:
        assert lease.held
        lease.check()
        assert (lease.key, lease.generation) == ("key", 1)
        with pytest.raises(TimeoutError, match="'key'"):
            d.lease("key", timeout=0)
        with d.lease("another"):
            pass
    assert files(d) == []
    assert not lease.held
    with d.lease("key", timeout=0) as again:
        assert again.generation == 1


def test_another_process_waits_until_it_is_released(d, holder):
    other = holder()
    with pytest.raises(TimeoutError):
        d.lease("key", timeout=0.1)
    threading.Timer(0.2, other.tell, ["lease.release()"]).start()
    with d.lease("key", timeout=10) as lease:
        assert lease.generation == 1
        assert other.tell("lease.held") == "False"


def test_who_waits_asks_seldom(nfsdict):
    leases = importlib.import_module("nfsdict.coordination.leases")
    pauses = list(itertools.islice(leases.pauses(), 40))
    assert pauses[0] <= 0.01
    assert all(0.7 <= pause <= 1 for pause in pauses[20:])


def test_who_waits_does_so_no_longer_than_the_timeout(d, opened, monkeypatch):
    leases = importlib.import_module("nfsdict.coordination.leases")
    monkeypatch.setattr(leases, "pauses", lambda: itertools.repeat(20.0))
    with d.lease("key"):
        begin = time.monotonic()
        with pytest.raises(TimeoutError):
            opened(lazy=True).lease("key", timeout=0.1)
        assert 0.1 <= time.monotonic() - begin < 10


def test_exactly_one_of_many_threads_holds_it(d, opened):
    inside, most, done = [], [], []

    def work(d):
        for _ in range(20):
            with d.lease("key") as lease:
                inside.append(lease)
                most.append(len(inside))
                time.sleep(0.0005)
                inside.remove(lease)
            done.append(1)

    threads = [threading.Thread(target=work, args=[opened(lazy=True)]) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(done), set(most), files(d)) == (120, {1}, [])


def test_one_of_two_who_try_once_holds_it_however_slowly_the_other_steps_back(opened, monkeypatch):
    module = importlib.import_module("nfsdict.coordination.leases")
    together, made, results = threading.Barrier(2), [], []
    LeaseFiles = importlib.import_module("nfsdict.storage.lease_files").LeaseFiles
    create, release = LeaseFiles.create, module.Hold.release

    def create_together(self, *arguments):
        create(self, *arguments)
        made.append(arguments)
        if len(made) <= 2:
            together.wait(60)

    def release_slowly(self):
        time.sleep(0.5)
        release(self)

    def contend(leases):
        results.append(leases.contend("key", 60.0, leases.watch()))

    with monkeypatch.context() as patches:
        patches.setattr(LeaseFiles, "create", create_together)
        patches.setattr(module.Hold, "release", release_slowly)
        leases = [module.Leases(opened(lazy=True)._storage) for _ in range(2)]
        threads = [threading.Thread(target=contend, args=[one]) for one in leases]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    [lease] = filter(None, results)
    assert lease.held
    lease.release()


def test_arguments(d, opened):
    for duration in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError):
            d.lease("key", duration)
    with pytest.raises(ValueError):
        d.lease("key", timeout=-1)
    for wrong in ("60", True, None):
        with pytest.raises(TypeError):
            d.lease("key", wrong)
    with pytest.raises(TypeError):
        d.lease("key", timeout="1")
    with pytest.raises(TypeError):
        d.lease(1)
    with pytest.raises(PermissionError):
        opened(read_only=True).lease("key")
    assert files(d) == []


@pytest.mark.parametrize("refused", ["symlink", "rename", "unlink"])
def test_what_is_refused_names_the_directory_of_the_leases(d, monkeypatch, refused):
    """A lease's own name says nothing to people, nor does what is in it."""
    d["key"] = 1
    if refused == "symlink":
        calls = [
            lambda: d.lease("key"),
            d.claim,
            lambda: d.modify("key", str),
            lambda: d.get_or_create("other", str),
            lambda: d.prune(max_items=1),
        ]
    elif refused == "rename":
        leave = d.lease("other").leave
        calls = [lambda: leave(1)]
    else:
        calls = [d.lease("other").release]

    def refuse(path, *other):
        raise PermissionError(errno.EACCES, "Permission denied", path, None, *other)

    monkeypatch.setattr(os, refused, refuse)
    for call in calls:
        with pytest.raises(PermissionError) as caught:
            call()
        assert str(caught.value) == f"[Errno 13] Permission denied: '{d.path}/.nfsdict-leases'"


@pytest.mark.parametrize("key", ["", "k" * 5000, "\ud800", "nul\0nul", "../..", "é\n"])
def test_any_key(d, key):
    with d.lease(key):
        assert [lease.key for lease in d.leases()] == [key]


def test_mode(opened):
    d = opened(mode=0o660)
    with d.lease("k" * 5000):  # too long for a link, which has no mode of its own
        [file] = d.path.glob(".nfsdict-leases/*")
        assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o660, 0o770)


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.EEXIST])
def test_file_systems_without_links_and_lost_replies(d, monkeypatch, number):
    link, calls = os.symlink, []

    def refused(target, path):
        calls.append(path)
        if number == errno.EEXIST:
            link(target, path)
        raise OSError(number, "refused", path)

    with monkeypatch.context() as patches:
        patches.setattr(os, "symlink", refused)
        lease = d.lease("key")
    with lease:
        assert os.path.islink(calls[-1]) == (number == errno.EEXIST)
        assert [one.key for one in d.leases()] == ["key"]
    assert files(d) == []


# --- renewed ---------------------------------------------------------------------------------


def renewals(d):
    """How often the only lease was renewed."""
    return max((int(name.partition(".")[2] or 0) for name in files(d)), default=0)


def test_it_is_renewed_for_as_long_as_it_is_held(d, opened):
    with d.lease("key", 3) as lease:
        with pytest.raises(TimeoutError):
            opened(lazy=True).lease("key", timeout=6)
        assert lease.held
        assert renewals(d) > 3
        assert len(files(d)) == 2
    assert files(d) == []


def test_several_leases_share_a_thread_which_ends_with_them(d):
    before = threading.active_count()
    leases = [d.lease(f"key {number}") for number in range(5)]
    assert threading.active_count() == before + 1
    for lease in leases:
        lease.release()
    wait_until(lambda: threading.active_count() == before)
    with d.lease("key", 3) as lease:
        wait_until(lambda: renewals(d) == 1)
        assert lease.held


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO])
@pytest.mark.parametrize("done", [False, True], ids=["not done", "done"])
def test_a_passing_error_is_no_loss(d, monkeypatch, number, done):
    LeaseFiles = importlib.import_module("nfsdict.storage.lease_files").LeaseFiles
    original, failures = LeaseFiles.renew, []

    def renew(self, olds, new):
        if done:
            original(self, olds, new)
        if len(failures) % 2 == 0:
            failures.append(1)
            raise OSError(number, "passing")
        failures.append(0)
        if not done:
            original(self, olds, new)

    monkeypatch.setattr(LeaseFiles, "renew", renew)
    with d.lease("key", 3) as lease:
        wait_until(lambda: len(failures) == 8)
        assert lease.held
        assert len(files(d)) == 2
    assert files(d) == []


def test_a_holder_that_cannot_renew_sees_it_lost_before_others_get_it(d, opened, monkeypatch):
    LeaseFiles = importlib.import_module("nfsdict.storage.lease_files").LeaseFiles

    def renew(self, olds, new):
        raise OSError(errno.EIO, "for good")

    monkeypatch.setattr(LeaseFiles, "renew", renew)
    with d.lease("key", 0.5) as lease:
        with opened(lazy=True).lease("key", timeout=5) as other:
            assert not lease.held
            assert other.generation == 2
            lease.release()
            assert other.held
            assert len(files(d)) == 1
        monkeypatch.undo()
        time.sleep(0.3)
        assert not lease.held  # and so for good
    with pytest.raises(importlib.import_module("nfsdict").LeaseLostError, match="'key'"):
        lease.check()


def test_a_renewal_that_is_noted_late_revives_nothing(d):
    """Who has asked for ``held`` meanwhile was told that it is lost."""
    clock_ns = importlib.import_module("nfsdict.coordination.holding").clock_ns
    with d.lease("key") as lease:
        lease._hold._until = clock_ns()
        assert not lease.held
        lease._hold._begun(clock_ns())
        assert not lease.held


def test_a_holder_whose_file_is_gone_sees_that_with_the_next_renewal(d):
    with d.lease("key", 0.3) as lease:
        for path in d.path.glob(".nfsdict-leases/*"):
            path.unlink()
        wait_until(lambda: not lease.held)
    assert files(d) == []


def test_an_interruption_while_the_thread_starts_leaves_the_next_lease_renewed(d, monkeypatch):
    start, interrupted = threading.Thread.start, []

    def once(thread):
        if not interrupted and thread.name == "nfsdict-leases":
            interrupted.append(thread)
            raise KeyboardInterrupt
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", once)
    with pytest.raises(KeyboardInterrupt):
        d.lease("key")
    wait_until(lambda: files(d) == [])
    with d.lease("key", 0.6) as lease:
        wait_until(lambda: renewals(d) == 3)
        assert lease.held


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="no such signal")
def test_a_handler_that_raises_while_the_thread_starts(d, monkeypatch):
    """Its exception comes out, and nothing that ``threading`` makes of it."""

    class Raised(Exception):
        pass

    def handler(number, frame):
        raise Raised

    name = next(
        name for name in ("_start_joinable_thread", "_start_new_thread") if hasattr(threading, name)
    )
    start, unraisable = getattr(threading, name), []

    def interrupted(*arguments, **options):
        started = start(*arguments, **options)
        wait_until(lambda: not threading._limbo)  # the new thread has noted that it runs
        signal.raise_signal(signal.SIGALRM)
        return started

    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    monkeypatch.setattr(threading, name, interrupted)
    before = signal.signal(signal.SIGALRM, handler)
    try:
        with pytest.raises(Raised):
            d.lease("key", 0.3)
    finally:
        signal.signal(signal.SIGALRM, before)
    monkeypatch.setattr(threading, name, start)
    wait_until(lambda: files(d) == [])
    assert unraisable == []
    with d.lease("key", 0.6) as lease:
        wait_until(lambda: renewals(d) == 3)
        assert lease.held


def test_a_log_handler_may_wait_for_who_releases_it(d, monkeypatch):
    """And one that raises stops no renewals."""
    LeaseFiles = importlib.import_module("nfsdict.storage.lease_files").LeaseFiles
    renew, begun, released = LeaseFiles.renew, threading.Event(), threading.Event()

    class Handler(logging.Handler):
        def emit(self, record):
            begun.set()
            assert released.wait(10)
            raise LookupError

    def failing(self, olds, new):
        if not begun.is_set():
            raise OSError(errno.EIO, "once")
        renew(self, olds, new)

    monkeypatch.setattr(LeaseFiles, "renew", failing)
    logger, handler = logging.getLogger("nfsdict"), Handler()
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.INFO)
    try:
        lease, other = d.lease("key", 0.6), d.lease("another", 0.6)
        assert begun.wait(10)
        releasing = threading.Thread(target=lease.release)
        releasing.start()
        releasing.join(5)
        assert not releasing.is_alive()
        released.set()
        wait_until(lambda: renewals(d) > 1)
        other.release()
    finally:
        released.set()
        logger.removeHandler(handler)
        logger.setLevel(level)


# --- taken over ------------------------------------------------------------------------------


def test_a_killed_holder_of_this_host_is_taken_over_at_once(d, holder):
    other = holder()
    assert other.generation == 1
    other.kill()
    with d.lease("key", timeout=10) as lease:
        assert lease.generation == 2
        assert len(files(d)) == 1


def test_a_holder_that_may_be_on_another_host_is_taken_over_after_its_duration(
    d, holder, monkeypatch
):
    processes = importlib.import_module("nfsdict.storage.processes")
    other = holder(0.6)
    other.kill()
    monkeypatch.setattr(processes, "_this_host", lambda: "")
    begin = time.monotonic()
    with d.lease("key", timeout=10) as lease:
        assert lease.generation == 2
        assert 0.6 <= time.monotonic() - begin < 2
        assert len(files(d)) == 1


def test_a_suspended_holder_finds_its_lease_lost(d, holder):
    other = holder(0.5)
    os.kill(other.pid, signal.SIGSTOP)
    with d.lease("key", timeout=10) as lease:
        os.kill(other.pid, signal.SIGCONT)
        assert other.tell("lease.held") == "False"
        assert other.tell("lease.release()") == "None"
        assert lease.held
        assert len(files(d)) == 1


def test_a_process_that_exits_releases_it(d, holder):
    other = holder()
    assert len(files(d)) == 1
    other.exit()
    assert files(d) == []


def test_a_lease_that_nobody_refers_to_is_released(d):
    lease = d.lease("key")
    assert lease.held
    del lease
    gc.collect()
    wait_until(lambda: files(d) == [])


def test_nor_does_it_stay_if_its_finalizer_is_interrupted(d, monkeypatch):
    Renewer = importlib.import_module("nfsdict.coordination.holding").Renewer
    monkeypatch.setattr(Renewer, "end", lambda *_: None)
    lease = d.lease("key", 0.6)
    assert lease.held
    del lease
    gc.collect()
    wait_until(lambda: files(d) == [])


def test_a_forked_child_does_not_hold_it(d, holder):
    other = holder()
    child = (
        "(lambda pid: __import__('os').waitpid(pid, 0)[1] if pid else"
        " (lease.release(), __import__('os')._exit(lease.held)))(__import__('os').fork())"
    )
    assert other.tell("__import__('warnings').simplefilter('ignore')") == "None"
    assert other.tell(child) == "0"
    assert other.tell("lease.held") == "True"
    assert len(files(d)) == 1


@pytest.mark.parametrize("call", ["create", "look", "remove"])
def test_an_interruption_while_it_is_taken_leaves_nothing(d, monkeypatch, call):
    LeaseFiles = importlib.import_module("nfsdict.storage.lease_files").LeaseFiles
    original = getattr(LeaseFiles, call)
    left = [1 if call == "look" else 0]
    if call == "remove":  # the files of a dead one are removed at the end
        stranger = d.lease("key", 0.002)
        stranger._hold._lost = True
        time.sleep(0.01)
        assert len(files(d)) == 1

    def interrupted(self, *arguments):
        result = original(self, *arguments)
        if not left:
            return result
        if not left[0]:
            left.clear()
            raise KeyboardInterrupt
        left[0] -= 1
        return result

    monkeypatch.setattr(LeaseFiles, call, interrupted)
    with pytest.raises(KeyboardInterrupt):
        d.lease("key", timeout=1)
    wait_until(lambda: files(d) == [])
    assert left == []
    with d.lease("key", timeout=1):
        pass


def test_what_failed_since_the_last_look_counts(d, opened):
    """Its generation is 1 more than that of any that went before, whenever the contender looked."""
    watch = d._leases.watch()
    watch.look()
    for generation in (1, 2):
        lease = opened(lazy=True).lease("key")
        assert lease.generation == generation
        lease.leave(generation)
    with d._leases.contend("key", 60.0, watch) as lease:
        assert lease.generation == 3
        assert len(files(d)) == 1
    assert files(d) == []


def test_what_is_left_behind_is_not_released_by_the_thread_that_renews(d):
    """Which may look at it as it is about to be left, because of another lease."""
    lease = d.lease("key")
    hold = lease._hold
    with hold._lock:  # as during a renewal
        leaving = threading.Thread(target=lease.leave, args=(1,))
        leaving.start()
        time.sleep(0.1)
        if hold.ended:
            hold.release()
    leaving.join()
    with d.lease("key", timeout=1) as lease:
        assert lease.generation == 2
    assert files(d) == []


def test_what_another_thread_sees_by_the_same_watch_does_not_count(d, opened, monkeypatch):
    """It may have begun to look before, and end later."""
    lease_watch = importlib.import_module("nfsdict.coordination.lease_watch")
    opened(lazy=True).lease("key").leave(2)
    watch = d._leases.watch()
    look = lease_watch.Watch.look

    def older(self, strict=True):
        found = look(self, strict)
        self._seen, self.last = {}, lease_watch.Look({}, [], [])
        return found

    monkeypatch.setattr(lease_watch.Watch, "look", older)
    with d._leases.contend("key", 60.0, watch) as lease:
        assert lease.generation == 3
        assert len(files(d)) == 1


@pytest.mark.parametrize("they", ["are there", "are gone"])
def test_whoever_only_tries_to_hold_it_does_not_count(d, core, they):
    """Several who try at once see each other's files, one after the other."""
    layout = importlib.import_module("nfsdict.layout")
    watch = d._leases.watch()
    name = layout.LeaseName(core.digest("key"), 3, 60_000, "ab", 1, 1, "cd" * 12)
    (d.path / ".nfsdict-leases").mkdir(exist_ok=True)
    rival = d.path / ".nfsdict-leases" / str(name)
    rival.touch()
    assert [one.generation for one in watch.look().alive] == [3]
    if they == "are gone":
        rival.unlink()
    else:
        threading.Timer(0.1, rival.unlink).start()
    while (lease := d._leases.contend("key", 60.0, watch)) is None:
        assert they == "are there"
    with lease:
        assert lease.generation == 1
    assert files(d) == []


def test_what_was_dead_at_the_last_look_and_is_gone_does_not_count(d, opened):
    """Another one has taken it over since, and is done."""
    watch = d._leases.watch()
    lease = opened(lazy=True).lease("key")
    lease.leave(2)
    assert watch.look().alive == []
    with opened(lazy=True).lease("key") as another:
        assert another.generation == 3
    with d._leases.contend("key", 60.0, watch) as lease:
        assert lease.generation == 1
    assert files(d) == []


# --- listed, and passed over -----------------------------------------------------------------


def test_leases_are_listed_with_their_holders(d, opened, holder):
    assert d.leases() == []
    other = holder()
    with d.lease("another"):
        for reader in (d, opened(read_only=True)):
            [another, key] = reader.leases()
            assert (another.key, another.process, another.generation) == (
                "another",
                os.getpid(),
                1,
            )
            assert (key.key, key.process, key.host) == ("key", other.pid, os.uname().nodename)
            assert 0 <= another.age <= key.age < 60
    other.kill()
    wait_until(lambda: d.leases() == [])


def test_one_that_was_not_renewed_is_not_listed(d, monkeypatch):
    LeaseFiles = importlib.import_module("nfsdict.storage.lease_files").LeaseFiles
    monkeypatch.setattr(LeaseFiles, "renew", lambda self, olds, new: None)
    with d.lease("key", 0.3):
        assert len(d.leases()) == 1
        wait_until(lambda: d.leases() == [])
        assert len(files(d)) == 1


def test_what_is_listed_goes_by_the_servers_clock(d, monkeypatch):
    Files = importlib.import_module("nfsdict.storage.files").Files
    now = d._storage.files.probe_clock()
    with d.lease("key"):
        assert len(d.leases()) == 1
        monkeypatch.setattr(Files, "probe_clock", lambda self: now + 3600 * 1_000_000_000)
        assert d.leases() == []


def test_what_others_plant_among_the_lease_files_is_passed_over(d):
    with d.lease("key") as lease, d.lease("another") as another:
        name = lease._hold.name
        (d.path / ".nfsdict-leases" / str(name._replace(process=10**17))).touch()
        (d.path / ".nfsdict-leases" / "directory").mkdir()
        path = d.path / ".nfsdict-leases" / str(another._hold.name)
        for content in (b"[]", b'{"key": 5, "host": []}', b"\xff", b"[" * 100_000):
            path.write_bytes(content)
            assert "key" in [one.key for one in d.leases()]
        with d.lease("third", timeout=0):
            pass
        assert lease.held


def test_lease_files_are_passed_over(d, opened):
    """They are no keys, not damaged, and no temporary file that ``repair`` removes."""
    d["key"] = 1
    with d.lease("key", 3) as lease:
        wait_until(lambda: renewals(d) == 1)
        assert d.repair(grace=0).removed == []
        report = d.verify()
        assert (report.ok, report.temporary, report.unrecognized) == (True, {}, [])
        assert (dict(opened()), d.refresh()) == ({"key": 1}, set())
        d.clear()
        assert lease.held
        assert len(files(d)) == 2


def test_repair_removes_what_nobody_renews(d, monkeypatch):
    LeaseFiles = importlib.import_module("nfsdict.storage.lease_files").LeaseFiles
    left = d.lease("left", 3)
    wait_until(lambda: renewals(d) == 1)
    left._hold._lost = True  # as if it had been killed
    with d.lease("key", 3) as lease:
        assert d.repair(grace=0).removed == []
        Files = importlib.import_module("nfsdict.storage.files").Files
        now = d._storage.files.probe_clock()
        monkeypatch.setattr(Files, "probe_clock", lambda self: now + 7_000_000_000)
        assert d.repair(grace=3600).removed == []
        monkeypatch.setattr(LeaseFiles, "times", renewed_by(d, LeaseFiles.times, lease))
        assert len(d.repair(grace=0).removed) == 2
        assert lease.held
        assert [name.hexdigest for name in d._storage.leases.look()] == [lease._hold.name.hexdigest]


def renewed_by(d, original, lease):
    """As if this lease was just renewed, and no other."""

    def times(self):
        now = d._storage.files.probe_clock()
        return {
            name: one._replace(renewed=now) if name == lease._hold.name else one
            for name, one in original(self).items()
        }

    return times
