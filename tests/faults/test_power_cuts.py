"""Power cuts: what was acknowledged is on the disk, everything else is old or new, and whole."""

from __future__ import annotations

import bisect
import pickle
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.export import EXPORT
from lab.laboratory import Lab
from lab.logged import Event, LoggedDisk
from lab.system import run
from support.layout import digest
from support.proof import FACTOR

State = dict[str, Any]
LOGGED = Path("/mnt/logged")
CALLS = 52 * FACTOR


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[LoggedDisk]:
    disk = LoggedDisk(tmp_path / "logged", LOGGED)
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-q", LOGGED], check=False)
        disk.remove()


# --- the work that is interrupted ------------------------------------------------------------


class Work:
    """Calls on a dictionary, and what it holds after each."""

    def __init__(self, d: Any, reopen: Callable[[], Any], seed: int) -> None:
        self._d = d
        self._reopen = reopen
        self._random = random.Random(seed)
        self._number = 0
        self.states: list[State] = [dict(d)]
        self.names: list[str] = []

    def step(self) -> None:
        """Make one call. On return it is acknowledged."""
        calls = [self.put] * 6 + [self.add, self.pop, self.delete] * 2
        calls += [self.update, self.popitem, self.setdefault, self.close, self.open_anew]
        call = self._random.choice(calls)
        if len(self.states) in (CALLS // 3, CALLS * 2 // 3):
            call = self.pack
        elif len(self.states) == CALLS - 5:
            call = self.clear
        call()
        self.names.append(call.__name__)
        self.states.append(dict(self._d))

    def _key(self) -> str:
        return f"key {self._random.randrange(30)}"

    def _known(self) -> str:
        return self._random.choice(sorted(self._d) or ["none"])

    def _value(self) -> bytes:
        self._number += 1
        return b"%d " % self._number * self._random.choice([1, 30, 700])

    def put(self) -> None:
        self._d[self._key()] = self._value()

    def add(self) -> None:
        key = self._key()
        assert self._d.add(key, self._value()) == (key not in self.states[-1])

    def setdefault(self) -> None:
        self._d.setdefault(self._key(), self._value())

    def pop(self) -> None:
        key = self._known()
        assert self._d.pop(key, None) == self.states[-1].get(key)

    def popitem(self) -> None:
        if self._d:
            self._d.popitem()

    def delete(self) -> None:
        if self._d:
            del self._d[self._known()]

    def update(self) -> None:
        self._d.update({self._key(): self._value() for _ in range(5)})

    def close(self) -> None:
        self._d.close()

    def open_anew(self) -> None:
        self._d = self._reopen()

    def pack(self) -> None:
        self._d.pack()

    def clear(self) -> None:
        self._d.clear()


# --- what is found after a cut ---------------------------------------------------------------


class Cut:
    """A cut after so many events, and what may be found then."""

    def __init__(self, events: list[Event], marks: list[int], position: int, work: Work) -> None:
        done = bisect.bisect_right(marks, position)
        if position in marks:  # acknowledged, and nothing else was begun
            self.before = self.after = work.states[done]
        else:
            self.before, self.after = work.states[done], work.states[min(done + 1, len(marks))]
        last = work.names[done] if done < len(work.names) else "nothing"
        self._text = f"cut at event {position} of {len(events)}, {done} calls done, in {last}"

    def check(self, found: State, where: str) -> None:
        for key in {**self.before, **self.after, **found}:
            allowed = [state.get(key) for state in (self.before, self.after)]
            assert found.get(key) in allowed, (self._text, where, key, found.get(key), allowed)


def scan(store: Path) -> State:
    """What the value files hold, read by nobody's code but pickle's."""
    return dict(pickle.loads(path.read_bytes()) for path in store.glob("??/*.pkl"))


def inspect(package: Any, base: Path, cut: Cut) -> None:
    """Whatever opens the store finds what the files hold, and that is what it may be."""
    found = scan(base / "store")
    cut.check(found, "the files")
    opened = package.NfsDict("store", base, read_only=True)
    assert dict(opened) == found, "the index contradicts the files"
    opened = package.NfsDict("store", base, lazy=True)
    assert len(opened) == len(found)
    assert dict(opened) == found, "the index contradicts the files"
    assert opened.verify().damaged == {}
    opened.repair(grace=0)
    cut.check(dict(opened), "after a repair")
    assert scan(base / "store") == dict(opened)
    assert not list(base.glob("store/**/.nfsdict-*"))


def positions(marks: list[int], choose: random.Random) -> list[int]:
    """Each mark, and between it and the one before two moments."""
    chosen = set(marks)
    for start, end in zip([0, *marks], marks):
        between = range(start + 1, end)
        chosen.update(choose.sample(between, min(2, len(between))))
    return sorted(chosen)


def inspect_all(package: Any, disk: LoggedDisk, work: Work, choose: random.Random) -> int:
    """The number of cuts."""
    events = disk.events()
    # The last mark is one that dm-log-writes makes at the end.
    marks = [at for at, event in enumerate(events) if isinstance(event, str)][:-1]
    assert len(marks) == len(work.names)
    wanted = positions(marks, choose)
    for position, image in disk.disks(events):
        if position in wanted:
            with disk.mounted(image) as where:
                if not (where / "store").exists():
                    assert position < marks[0]
                    continue
                inspect(package, where, Cut(events, marks, position, work))
    return len(wanted)


# --- the promises ----------------------------------------------------------------------------


@pytest.mark.nfs(version=("3", "4.2"), timeout=200 * FACTOR)
def test_what_was_acknowledged_survives(lab: Lab, package, disk: LoggedDisk) -> None:
    """On a local disk; the two versions only make two guests of it, and two seeds."""
    seed = 1 if lab.configuration.version == "3" else 2
    opened = lambda: package.NfsDict("store", LOGGED)  # noqa: E731
    work = Work(opened(), opened, seed)
    for number in range(CALLS):
        work.step()
        disk.mark(str(number))
    disk.end()
    assert inspect_all(package, disk, work, random.Random(seed)) >= 2 * CALLS


# --- the same of a server ----------------------------------------------------------------------

SHARED = EXPORT / "logged"
CLIENT = Path("/mnt/logged-client")


class Shared:
    """A recorded disk that a server exports, and a client that mounts it."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        self._lab = lab
        self._directory = directory
        self._number = 0
        self.disk = LoggedDisk(directory / "0", SHARED)
        self._export()
        three = lab.configuration.version == "3"
        source = f"127.0.0.1:{SHARED if three else '/logged'}"
        options = "vers=3,nolock" if three else f"vers={lab.configuration.version}"
        CLIENT.mkdir(exist_ok=True)
        run("mount", "-t", "nfs", "-o", f"{options},nosharecache", source, str(CLIENT))

    def _export(self) -> None:
        options = "rw,sync,no_root_squash,fsid=7,no_subtree_check,insecure"
        run("exportfs", "-o", options, f"*:{SHARED}")

    def _unexport(self) -> None:
        run("exportfs", "-u", f"*:{SHARED}")
        run("exportfs", "-f")

    def end(self) -> None:
        """Nothing more is recorded, and nobody has it mounted."""
        run("umount", str(CLIENT))
        self._unexport()
        self.disk.end()

    def cut(self) -> State:
        """Cut the server's power; what its files hold then."""
        self._lab.stop_server()
        self.disk.mark("cut")
        self._unexport()
        self.disk.end()
        events = self.disk.events()
        image = next(bytes(one) for at, one in self.disk.disks(events) if events[at] == "cut")
        self.disk.remove()
        self._number += 1
        self.disk = LoggedDisk(self._directory / str(self._number), SHARED, image)
        return scan(SHARED / "store")

    def come_back(self) -> None:
        """As it was left by the cut."""
        self._export()
        self._lab.start_server()


@pytest.fixture
def shared(lab: Lab, tmp_path: Path) -> Iterator[Shared]:
    shared = Shared(lab, tmp_path)
    try:
        yield shared
    finally:
        subprocess.run(["umount", "-q", "-f", "-l", CLIENT], check=False)
        subprocess.run(["exportfs", "-u", f"*:{SHARED}"], check=False, stderr=subprocess.DEVNULL)
        subprocess.run(["exportfs", "-f"], check=False)
        subprocess.run(["umount", "-q", SHARED], check=False)
        shared.disk.remove()


@pytest.mark.nfs(version=("3", "4.2"), timeout=200 * FACTOR)
def test_what_a_server_acknowledged_survives_its_power_cut(
    lab: Lab, package, shared: Shared
) -> None:
    opened = lambda: package.NfsDict("store", CLIENT)  # noqa: E731
    work = Work(opened(), opened, 3)
    for number in range(CALLS // 3):
        work.step()
        shared.disk.mark(str(number))
    del work._d
    shared.end()
    assert inspect_all(package, shared.disk, work, random.Random(3)) >= CALLS // 2


WRITER = """
    import os, sys, nfsdict
    base, acknowledged, end = sys.argv[1:]
    d = nfsdict.NfsDict("store", base)
    with open(acknowledged, "w", buffering=1) as log:
        number = 0
        while not os.path.exists(end):
            number += 1
            key = f"key {number % 25}"
            if number % 7 == 0:
                d.pop(key, None)
                log.write(f"{key}=\\n")
            elif number % 5 == 0:
                d.add(f"new {number}", number)
                log.write(f"new {number}={number}\\n")
            else:
                d[key] = number
                log.write(f"{key}={number}\\n")
"""


def states(lines: list[str]) -> list[State]:
    """What the store holds before and after each acknowledged call."""
    states: list[State] = [{}]
    for line in lines:
        key, _, value = line.partition("=")
        state = dict(states[-1])
        if value:
            state[key] = int(value)
        else:
            state.pop(key, None)
        states.append(state)
    return states


@pytest.mark.nfs(version=("3", "4.2"), timeout=150 * FACTOR)
def test_a_writer_goes_on_after_its_servers_power_cut(
    lab: Lab, package, shared: Shared, tmp_path: Path
) -> None:
    log, end = tmp_path / "acknowledged", tmp_path / "end"
    writer = lab.spawn(WRITER, CLIENT, log, end)

    def lines() -> list[str]:
        assert writer.poll() is None, writer.communicate()
        return log.read_text().split("\n")[:-1] if log.exists() else []

    def wait_for(count: int) -> None:
        limit = time.monotonic() + 90
        while len(lines()) < count:
            assert time.monotonic() < limit, "the writer stands still"
            time.sleep(0.02)

    cuts = []
    for _ in range(FACTOR * (4 if lab.configuration.version == "3" else 2)):
        wait_for(len(lines()) + 30)
        found = shared.cut()
        cuts.append((len(lines()), found))
        shared.come_back()
        wait_for(len(lines()) + 3)
    end.touch()
    _, errors = writer.communicate(timeout=60)
    assert writer.returncode == 0, errors
    known = states(log.read_text().split("\n")[:-1])
    for done, found in cuts:
        before, after = known[done], known[done + 1]
        for key in {**before, **after, **found}:
            assert found.get(key) in (before.get(key), after.get(key)), (done, key)
    assert dict(package.NfsDict("store", CLIENT)) == known[-1]
    assert scan(SHARED / "store") == known[-1]


# --- that these tests can fail -----------------------------------------------------------------

PUTS = """
    import os, stat, sys, nfsdict
    fsync = os.fsync

    def file_fsync(descriptor):
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            fsync(descriptor)

    base, without = sys.argv[1:]
    if without == "directory":
        os.fsync = file_fsync
    elif without == "file":
        os.fsync = lambda descriptor: None
    d = nfsdict.NfsDict("store", base, durable=without != "durable")
    for number in range(10):
        d[str(number)] = number
        print(number, flush=True)
        sys.stdin.readline()
"""


@pytest.mark.nfs(version="3", timeout=120)
@pytest.mark.parametrize("without", ["nothing", "durable", "directory", "file"])
def test_without_a_sync_writes_are_lost(lab: Lab, disk: LoggedDisk, without: str) -> None:
    """So the cuts are real, and each of the two syncs is needed."""
    writer = lab.spawn(PUTS, LOGGED, without, environment={"NFSDICT_BACKEND": "pure"})
    for number in range(10):
        assert writer.stdout.readline() == f"{number}\n", writer.communicate()
        disk.mark(str(number))
        writer.stdin.write("\n")
        writer.stdin.flush()
    writer.wait(30)
    disk.end()
    events = disk.events()
    lost = 0
    for position, image in disk.disks(events):
        if position < len(events) and str(events[position]).isdigit():
            with disk.mounted(image) as where:
                number = str(events[position])
                files = where.glob(f"store/??/{digest(number)}.pkl")
                whole = [file for file in files if file.stat().st_size]
                lost += len(whole) != 1
    assert lost == 0 if without == "nothing" else lost >= 5
