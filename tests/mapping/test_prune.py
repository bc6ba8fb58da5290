"""Prune: the oldest go, nothing that was written since goes, and what is held by others stays."""

from __future__ import annotations

import errno
import importlib
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.aging import age
from support.layout import digest
from support.processes import processes

LONG_AGO = 100_000
COUNT = 40
KEYS = [f"key {number:02}" for number in range(COUNT)]


def date(d, ages):
    """Have these keys' files been written so many seconds ago."""
    now = time.time_ns()
    for key, seconds in ages.items():
        moment = now - int(seconds * 1e9)
        os.utime(d.path_of(key), ns=(moment, moment))


@pytest.fixture
def d(opened):
    """Forty entries, a minute between one and the next; the first one is the oldest."""
    with opened() as writer:
        writer.update({key: "x" * number for number, key in enumerate(KEYS)})
        date(writer, {key: LONG_AGO - 60 * number for number, key in enumerate(KEYS)})
    return opened()


@pytest.fixture
def before_each_rename(nfsdict, monkeypatch):
    """Have this called, with the key, when it was looked at and isn't renamed yet."""
    Exclusive = importlib.import_module("nfsdict.storage.exclusive").Exclusive
    original = Exclusive.take

    def before_each_rename(call):
        def take(self, hexdigest, private):
            call(next((key for key in KEYS if digest(key) == hexdigest), None))
            return original(self, hexdigest, private)

        monkeypatch.setattr(Exclusive, "take", take)

    return before_each_rename


def on_disk(d):
    return dict(pickle.loads(path.read_bytes()) for path in d.path.glob("??/*.pkl"))


def sizes(d):
    return {key: d.path_of(key).stat().st_size for key in KEYS}


def left_over(d):
    return [path.name for path in d.path.glob("??/.nfsdict-*")]


# --- which ones ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "removed"),
    [
        ({"max_items": 30}, 10),
        ({"max_items": 0}, COUNT),
        ({"max_items": COUNT}, 0),
        ({"max_age": LONG_AGO - 60 * 9.5}, 10),
        ({"max_age": 10 * LONG_AGO}, 0),
        ({"max_age": LONG_AGO - 60 * 9.5, "max_items": 20}, 20),
        ({"max_age": LONG_AGO - 60 * 19.5, "max_items": 30}, 20),
    ],
)
def test_the_oldest_go(opened, d, limits, removed):
    size = sizes(d)
    would = d.prune(**limits, dry_run=True)
    assert sorted(on_disk(d)) == KEYS
    report = d.prune(**limits)
    assert sorted(on_disk(d)) == sorted(d) == sorted(opened()) == KEYS[removed:]
    assert (report.removed, report.kept) == (removed, COUNT - removed)
    assert report.bytes == sum(size[key] for key in KEYS[:removed])
    assert report.kept_bytes == sum(size[key] for key in KEYS[removed:])
    assert report.complete and would.complete
    would.dry_run = False
    assert would == report
    assert left_over(d) == [] and d.leases() == []


@pytest.mark.parametrize("keep", [0, 1, 100, 1000, 10**9])
def test_bytes_are_those_of_the_files(d, keep):
    size = sizes(d)
    wanted = [key for n, key in enumerate(KEYS) if sum(size[one] for one in KEYS[n:]) <= keep]
    report = d.prune(max_bytes=keep)
    assert sorted(on_disk(d)) == wanted
    assert report.kept_bytes == sum(size[key] for key in wanted) <= keep


@pytest.mark.parametrize(("free", "removed"), [(100, 0), (107, 7), (10**6, COUNT), (None, 0)])
def test_files_that_the_file_system_has_room_for(nfsdict, d, monkeypatch, free, removed):
    files = importlib.import_module("nfsdict.storage.files").os
    counted = SimpleNamespace(f_files=0 if free is None else 1000, f_favail=100)
    monkeypatch.setattr(files, "statvfs", lambda path: counted, raising=False)
    report = d.prune(min_free_inodes=free or 10**6)
    assert (report.removed, sorted(on_disk(d))) == (removed, KEYS[removed:])


@pytest.mark.parametrize("free", [-1, 2**64 - 1])
def test_a_number_of_free_inodes_that_cannot_be_is_none(nfsdict, d, monkeypatch, free):
    """As CephFS's clients give it: nothing is removed for that."""
    files = importlib.import_module("nfsdict.storage.files").os
    counted = SimpleNamespace(f_files=2, f_favail=free)
    monkeypatch.setattr(files, "statvfs", lambda path: counted, raising=False)
    assert d.prune(min_free_inodes=10**6).removed == 0
    assert sorted(on_disk(d)) == KEYS


def test_of_the_same_time_the_order_is_that_of_digests(d):
    date(d, dict.fromkeys(KEYS, LONG_AGO))
    one = d.path_of(KEYS[0]).stat().st_mtime_ns
    for key in KEYS:
        os.utime(d.path_of(key), ns=(one, one))
    would = d.prune(max_items=13, dry_run=True)
    assert d.prune(max_items=13).bytes == would.bytes
    assert sorted(on_disk(d)) == sorted(sorted(KEYS, key=digest)[-13:])


def test_what_is_yet_to_come_is_not_older(d):
    """As a client whose clock is ahead stamps files, or ``touch``."""
    date(d, {KEYS[0]: -3600, KEYS[1]: -1e9})
    assert d.prune(max_items=10).removed == 30
    assert sorted(on_disk(d)) == KEYS[:2] + KEYS[-8:]
    assert d.prune(max_age=0, max_items=0, max_bytes=0).removed == 8
    assert sorted(on_disk(d)) == KEYS[:2]


def test_before_1970(d):
    os.utime(d.path_of(KEYS[5]), ns=(-(10**18), -(10**18)))
    assert d.prune(max_items=COUNT).removed == 0
    assert d.prune(max_items=COUNT - 1).removed == 1
    assert KEYS[5] not in on_disk(d)


def test_what_was_just_written_can_be_removed(opened):
    """It waits until a file's time tells it from a later one."""
    d = opened()
    d["a"] = 1
    assert d.prune(max_items=0).removed == 1
    assert on_disk(d) == {} == dict(d)


def test_an_empty_store(opened):
    assert opened().prune(max_items=0, max_age=0).removed == 0


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("lazy", [False, True])
def test_a_prefix(opened, d, reads, packed, lazy):
    """Of packs the keys are known; else each file is read, once."""
    d.update({f"other {number}": number for number in range(5)})
    date(d, {f"other {number}": 2 * LONG_AGO for number in range(5)})
    if packed:
        age(d.path.parent)
        opened().pack()
    pruned = opened(lazy=lazy)
    if not packed:
        for path in d.path.glob("_*"):
            path.unlink()
    reads.clear()
    report = pruned.prune(max_items=30, prefix="key ")
    assert (report.removed, report.kept) == (10, 30)
    assert sorted(key for key in on_disk(d) if key in KEYS) == KEYS[10:]
    assert sum(key.startswith("other") for key in on_disk(d)) == 5
    assert len(reads) == (45 if lazy and not packed else 0)
    assert pruned.prune(max_items=0, prefix="nothing").kept == 0


def test_damaged_files(opened, d):
    """They go with their age; a prefix they don't have, as nobody knows their keys."""
    d.path_of(KEYS[0]).write_bytes(b"torn")
    d.path_of(KEYS[1]).write_bytes(b"")
    date(d, {KEYS[0]: LONG_AGO, KEYS[1]: LONG_AGO})
    for path in d.path.glob("_*"):
        path.unlink()
    lazy = opened(lazy=True)
    assert lazy.prune(max_items=38, prefix="key").removed == 0
    assert lazy.prune(max_items=38).removed == 2
    assert sorted(on_disk(d)) == KEYS[2:]


def test_what_is_no_entry_stays(opened, d):
    shard = d.path / digest(KEYS[0])[:2]
    name = digest(KEYS[0])
    others = [shard / f"{name}.json", shard / f".nfsdict-{'0' * 24}", shard / "notes.txt"]
    others += [d.path / "mine", shard / f"{name}.pkl.damaged-000000000000"]
    for path in others:
        path.write_text("x")
        os.utime(path, (1, 1))
    (shard / f"{digest('directory')}.pkl").mkdir()
    assert d.prune(max_items=0, max_age=0).removed == COUNT
    assert all(path.exists() for path in others)


def test_a_file_of_unknown_attributes_is_told(nfsdict, d, monkeypatch):
    """As of a damaged inode. It isn't the oldest."""
    Shards = importlib.import_module("nfsdict.storage.shards").Shards
    original = Shards.list

    def listed(self, shard, *known):
        listing = original(self, shard, *known)
        listing.signatures.update({name: bytes(32) for name in listing.signatures if name == odd})
        return listing

    odd = digest(KEYS[7])
    monkeypatch.setattr(Shards, "list", listed)
    report = d.prune(max_items=0)
    assert (report.removed, report.failures, report.complete) == (COUNT - 1, 1, False)
    assert list(report.failed) == [str(d.path_of(KEYS[7]))]
    assert sorted(on_disk(d)) == [KEYS[7]]


ages = st.lists(st.tuples(st.integers(-(1 << 63), (1 << 63) - 1), st.integers(0, 1 << 40)))


@given(ages, st.integers(0, 40), st.integers(0, 1 << 42), st.sampled_from([4, 5, 16]))
def test_the_histogram_finds_the_same_as_sorting(entries, items, size, most):
    """With however few bins."""
    oldest = importlib.import_module("nfsdict.upkeep.oldest")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(oldest, "_MOST", most)
        ranks = sorted(dict(entries).items())
        ranks = [(oldest.first_rank(time) + 5, size) for time, size in ranks]
        wanted, before, passes = oldest.Amount(items, size), oldest.Amount(), 0
        rest = ranks
        while True:
            histogram = oldest.Histogram()
            for one in random.sample(rest, len(rest)):
                histogram.add(*one)
            assert len(histogram._bins) <= most
            found = histogram.bin_reaching(wanted.minus(before), 1 << 200)
            before, passes = before.plus(*found.before), passes + 1
            if found.inside.items <= 1:
                break
            rest = [one for one in rest if found.first <= one[0] < found.end]
    total, expected = oldest.Amount(), []
    for place, one in ranks:
        if expected and total.reaches(wanted):
            break
        expected.append(place)
        total = total.plus(1, one)
    if wanted.reaches(oldest.Amount(1, 0)) or size:
        assert [place for place, _ in ranks if place < found.end] == expected
        assert before.plus(*found.inside) == total


# --- what was written meanwhile --------------------------------------------------------------


def test_what_is_replaced_after_the_look_stays(opened, d, before_each_rename):
    """Whoever writes it, between the look and the removal."""
    other, written = opened(), {}

    def replace(key):
        if digest(key)[0] in "01234567":
            written[key] = other[key] = f"new {key}"

    before_each_rename(replace)
    report = d.prune(max_items=0)
    assert len(written) > 5
    assert on_disk(d) == written
    assert (report.removed, report.replaced) == (COUNT - len(written), len(written))
    assert report.kept == len(written) and report.complete
    assert left_over(d) == []
    assert d.refresh() == set(written)  # another one has changed these, and only these
    assert dict(d) == written == dict(opened())


@pytest.mark.parametrize("change", ["removed", "popped", "made anew"])
def test_what_others_take_after_the_look(opened, d, before_each_rename, change):
    other, acted = opened(), []

    def act(key):
        if key == KEYS[3] and not acted:
            acted.append(key)
            if change == "popped":
                assert other.pop(key) == "xxx"
            else:
                del other[key]
            if change == "made anew":
                assert other.add(key, "new")

    before_each_rename(act)
    report = d.prune(max_items=30)
    kept = [KEYS[3]] if change == "made anew" else []
    assert sorted(on_disk(d)) == kept + KEYS[10:]
    assert (report.removed, report.replaced) == (9, len(kept))
    assert (report.kept, report.complete) == (30 + len(kept), True)


@pytest.mark.parametrize("change", ["replaced", "removed"])
def test_what_others_change_before_its_directory_is_listed_again_is_not_left(
    opened, d, monkeypatch, change
):
    Prune = importlib.import_module("nfsdict.upkeep.prune").Prune
    original = Prune._plan

    def plan(self, shards):
        cut = original(self, shards)
        with opened() as other:
            if change == "replaced":
                other[KEYS[0]] = "new"
            else:
                del other[KEYS[0]]
        return cut

    monkeypatch.setattr(Prune, "_plan", plan)
    report = d.prune(max_items=30)
    assert (report.removed, report.left, report.complete) == (9, 0, True)


def test_an_edit_in_place_after_the_look_stays(d, before_each_rename):
    def edit(key):
        if key == KEYS[0]:
            d.path_of(key).write_bytes(pickle.dumps((key, "edited")))

    before_each_rename(edit)
    assert d.prune(max_items=30).replaced == 1
    assert on_disk(d)[KEYS[0]] == "edited"


def test_a_newer_one_has_the_last_word(opened, d, before_each_rename, nfsdict, monkeypatch):
    """A put while another one's file has a private name: that isn't given back over it."""
    other = opened()
    before_each_rename(lambda key: key == KEYS[0] and other.update({key: "second"}))
    Removal = importlib.import_module("nfsdict.storage.removal").Removal
    original = Removal._finish

    def finish(self, *arguments):
        if not d.path_of(KEYS[0]).exists():
            other[KEYS[0]] = "third"
        return original(self, *arguments)

    monkeypatch.setattr(Removal, "_finish", finish)
    d.prune(max_items=30)
    assert on_disk(d)[KEYS[0]] == "third"
    assert left_over(d) == []


def test_where_a_listing_does_not_bring_attributes(opened, d, before_each_rename, monkeypatch):
    """Each file is opened."""
    Mounted = importlib.import_module("nfsdict.storage.mounted").Mounted
    monkeypatch.setattr(Mounted, "lists_signatures", lambda self: False)
    other = opened()
    before_each_rename(lambda key: key == KEYS[0] and other.update({key: "new"}))
    report = d.prune(max_items=30)
    assert (report.removed, report.replaced) == (9, 1)
    assert sorted(on_disk(d)) == [KEYS[0], *KEYS[10:]]


WRITER = """
import os, sys, nfsdict
from contextlib import suppress
d = nfsdict.NfsDict("s", sys.argv[1], durable=False)
print("ready", flush=True)
number = 0
while True:
    for key in sys.argv[3:]:
        number += 1
        try:
            d[key] = (sys.argv[2], number)
        except OSError as error:
            print("error", error, flush=True)
        print(key, number, flush=True)
        if number % 3 == 0:
            # So that prune wants it. It may just be looking at this file.
            with suppress(FileNotFoundError):
                os.utime(d.path_of(key), (1, 1))
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kills by a signal")
def test_no_put_is_lost_to_a_pruner_beside_it(nfsdict, opened):
    """A process writes key after key, and some look old. The last one of each key that looks new
    is there after each prune, however they meet."""
    d = opened(durable=False)
    keys = [f"w{number}" for number in range(13)]
    environment = {**os.environ, "NFSDICT_BACKEND": nfsdict.BACKEND}
    pruned = 0
    with processes() as start:
        writer = start([sys.executable, "-c", WRITER, d.path.parent, "w", *keys], env=environment)
        lines = []
        reader = threading.Thread(target=lambda: lines.extend(writer.stdout))
        assert writer.stdout.readline() == b"ready\n"
        reader.start()
        end = time.monotonic() + 60
        while pruned < 60 and time.monotonic() < end and writer.poll() is None:
            report = d.prune(max_age=1000)
            assert report.failures == 0
            pruned += report.removed + report.replaced
        writer.kill()
        writer.wait()
        reader.join()
    assert pruned >= 60
    assert not [line for line in lines if line.startswith(b"error")]
    d.repair(grace=-1)
    last = {}
    # A line is printed before its file looks old. So the very last one counts, too.
    for line in lines:
        if line.endswith(b"\n"):
            key, number = line.split()
            last[key.decode()] = int(number)
    held = on_disk(d)
    assert left_over(d) == []
    for key, number in last.items():
        if number % 3 and number < len(lines) - 1:
            assert held[key][1] >= number, key


# --- leases and claims -----------------------------------------------------------------------


def test_what_is_leased_stays_and_the_next_goes(opened, d):
    with opened().lease(KEYS[0]), opened().lease(KEYS[35]), opened().lease("no entry"):
        assert d.prune(max_items=30, dry_run=True).removed == 10
        report = d.prune(max_items=30)
        assert (report.removed, report.leased, report.complete) == (10, 1, True)
        assert sorted(on_disk(d)) == [KEYS[0], *KEYS[11:]]
        assert d.prune(max_items=0).removed == 28
        assert sorted(on_disk(d)) == [KEYS[0], KEYS[35]]
    assert d.prune(max_items=0).removed == 2


@pytest.mark.parametrize(
    ("limits", "held", "leased"),
    [
        ({"max_items": 0}, KEYS, 40),
        ({"max_items": 0}, KEYS[:1], 1),
        ({"max_items": 1}, KEYS[38:], 2),  # the newest two, where one may stay
        ({"max_bytes": 0}, KEYS[39:], 1),
        ({"max_items": 2}, KEYS[38:], 0),  # the limit is kept with them
        ({"max_age": LONG_AGO - 90}, KEYS[:3], 2),
        ({"max_items": 0, "prefix": "key 0"}, KEYS[9:11], 1),
    ],
)
def test_leased_tells_why_a_limit_is_not_reached(opened, d, limits, held, leased):
    """As often as it is run: also when all others are gone."""
    holder = opened()
    leases = [holder.lease(key) for key in held]
    would = d.prune(**limits, dry_run=True)
    first, second = d.prune(**limits), d.prune(**limits)
    for report in (would, first, second):
        assert (report.leased, report.left, report.complete) == (leased, 0, True)
    assert (would.removed, would.kept) == (first.removed, first.kept)
    assert (second.removed, second.kept) == (0, first.kept)
    assert set(held) <= set(on_disk(d))
    for lease in leases:
        lease.release()


def test_a_lease_that_ends_while_it_runs(opened, d, monkeypatch):
    """Another entry is removed in its place: not both."""
    Prune = importlib.import_module("nfsdict.upkeep.prune").Prune
    original, lease = Prune._plan, opened().lease(KEYS[0])

    def plan(self, shards):
        cut = original(self, shards)
        lease.release()
        return cut

    monkeypatch.setattr(Prune, "_plan", plan)
    report = d.prune(max_items=30)
    assert (report.removed, report.leased, report.left) == (10, 1, 0)
    assert len(on_disk(d)) == 30 and KEYS[0] in on_disk(d)


def test_what_a_worker_has_claimed_stays(opened, d):
    with opened().claim() as task:
        d.prune(max_items=0)
        assert list(on_disk(d)) == [task.key]
    assert on_disk(d) == {}


def test_a_lease_that_comes_while_it_runs(opened, d, monkeypatch):
    """It is looked at before each group."""
    Prune = importlib.import_module("nfsdict.upkeep.prune").Prune
    original, leases = Prune._plan, []

    def plan(self, shards):
        cut = original(self, shards)
        leases.append(opened().lease(KEYS[0]))
        return cut

    monkeypatch.setattr(Prune, "_plan", plan)
    report = d.prune(max_items=30)
    assert (report.removed, report.leased, report.complete) == (9, 1, True)
    leases[0].release()
    assert KEYS[0] in on_disk(d)


@pytest.mark.skipif(sys.platform != "linux", reason="who has ended is known on Linux")
def test_a_dead_worker_keeps_nothing(nfsdict, d):
    script = (
        "import nfsdict, sys, os, signal;"
        "lease = nfsdict.NfsDict('s', sys.argv[1]).lease(sys.argv[2]);"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    environment = {**os.environ, "NFSDICT_BACKEND": nfsdict.BACKEND}
    subprocess.run([sys.executable, "-c", script, d.path.parent, KEYS[0]], env=environment)
    assert any(name.startswith(digest(KEYS[0])) for name in os.listdir(d.path / ".nfsdict-leases"))
    assert d.prune(max_items=39).removed == 1
    assert KEYS[0] not in on_disk(d)


def test_a_lease_of_another_host_that_has_run_out_keeps_nothing(nfsdict, d):
    layout = importlib.import_module("nfsdict.layout")
    leases = d.path / ".nfsdict-leases"
    leases.mkdir()
    for key, duration in ((KEYS[0], 50), (KEYS[1], 10**8)):
        name = layout.LeaseName(digest(key), 1, duration, "abcdef", 1, 1, layout.random_name())
        (leases / str(name)).symlink_to("{}")
    end = time.monotonic() + 0.2
    while time.monotonic() < end:
        time.sleep(0.01)
    assert d.prune(max_items=38).removed == 2
    assert sorted(on_disk(d)) == [KEYS[1], *KEYS[3:]]


# --- one at a time, interrupted, resumed -----------------------------------------------------


def test_one_process_prunes_at_a_time(opened, d, before_each_rename):
    other, refused = opened(), []

    def beside(key):
        if not refused:
            told = f"call of this process prunes .*: process {os.getpid()} on"
            with pytest.raises(OSError, match=told) as caught:
                other.prune(max_items=0)
            refused.append(caught.value.errno)
            assert other.prune(max_items=0, dry_run=True).removed == COUNT

    before_each_rename(beside)
    assert d.prune(max_items=30).removed == 10
    assert refused == [errno.EBUSY]
    assert other.prune(max_items=20).removed == 10


def test_a_lost_lease_ends_it(nfsdict, d, before_each_rename, monkeypatch):
    monkeypatch.setattr(importlib.import_module("nfsdict.upkeep.prune"), "_GROUP", 1)
    Hold = importlib.import_module("nfsdict.coordination.holding").Hold
    before_each_rename(lambda key: monkeypatch.setattr(Hold, "held", False))
    with pytest.raises(nfsdict.LeaseLostError):
        d.prune(max_items=0)
    assert len(on_disk(d)) == COUNT - 1


def test_a_time_limit(d, before_each_rename, monkeypatch):
    prune = importlib.import_module("nfsdict.upkeep.prune")
    monkeypatch.setattr(prune, "_GROUP", 2)
    report = d.prune(max_items=30, time_limit=0)
    assert (report.removed, report.left, report.complete, report.kept) == (0, 10, False, COUNT)
    renamed = []
    before_each_rename(renamed.append)
    later = SimpleNamespace(
        monotonic=lambda: time.monotonic() + 1000 * (len(renamed) >= 3), sleep=time.sleep
    )
    monkeypatch.setattr(prune, "time", later)
    report = d.prune(max_items=30, time_limit=500)
    assert 3 <= report.removed < 10
    assert report.left == 10 - report.removed
    monkeypatch.setattr(prune, "time", time)
    assert d.prune(max_items=30).removed == report.left
    assert sorted(on_disk(d)) == sorted(d) == KEYS[10:]


class Interrupted(BaseException):
    pass


def test_an_exception_at_each_file_leaves_all_consistent(opened, d, before_each_rename):
    """What has a private name by then is removed, or given back, before it goes on."""
    other = opened()
    for nth in range(1, 11):
        renamed = []

        def interrupt(key, renamed=renamed, nth=nth):
            renamed.append(key)
            if len(renamed) == 1:
                other[key] = "new"
            if len(renamed) == nth:
                raise Interrupted

        before_each_rename(interrupt)
        kept = len(on_disk(d))
        with pytest.raises(Interrupted):
            d.prune(max_items=COUNT - 10)
        assert left_over(d) == []
        assert nth == 1 or renamed[0] in on_disk(d)
        assert d.leases() == []
        d.refresh()
        assert {key: d.get(key) for key in KEYS} == {key: d.get(key, fresh=True) for key in KEYS}
        assert len(on_disk(d)) <= kept
        with opened() as writer:
            writer.update(dict.fromkeys(KEYS, "again"))
            date(writer, {key: LONG_AGO - 60 * number for number, key in enumerate(KEYS)})
        d.refresh()


# What a finalizer tells of a file that was just opened when the exception came.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timer signals")
def test_an_exception_at_any_moment(opened, d):
    """As Ctrl-C: no file has a private name afterwards, and what is in memory is on the disk."""

    def raise_it(*_):
        raise Interrupted

    before = signal.signal(signal.SIGALRM, raise_it)
    choose, interrupted = random.Random(1), 0
    try:
        for _ in range(20):
            d.update(dict.fromkeys(KEYS, "again"))
            date(d, {key: LONG_AGO - 60 * number for number, key in enumerate(KEYS)})
            signal.setitimer(signal.ITIMER_REAL, choose.uniform(0.001, 0.03))
            try:
                d.prune(max_items=10)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except Interrupted:
                interrupted += 1
            assert left_over(d) == []
            assert {key: d[key] for key in KEYS if d.get(key) is not None} == on_disk(d)
            held = d.leases()
            end = time.monotonic() + 30
            while held and time.monotonic() < end:  # its thread removes what was interrupted
                held = d.leases()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupted > 3
    assert d.prune(max_items=10).kept == 10


def test_what_can_not_be_removed_is_told(nfsdict, d, monkeypatch):
    exclusive = importlib.import_module("nfsdict.storage.exclusive")
    original = exclusive.Exclusive.take

    def take(self, hexdigest, private):
        if hexdigest == digest(KEYS[4]):
            raise PermissionError(errno.EACCES, "Permission denied", "f")
        return original(self, hexdigest, private)

    monkeypatch.setattr(exclusive.Exclusive, "take", take)
    report = d.prune(max_items=30)
    assert (report.removed, report.failures, report.left, report.complete) == (9, 1, 0, False)
    assert list(report.failed) == [str(d.path_of(KEYS[4]))]
    assert sorted(on_disk(d)) == [KEYS[4], *KEYS[10:]]
    assert d[KEYS[4]] == "xxxx"


def test_what_kept_and_replaced_count(nfsdict, opened, d, monkeypatch, before_each_rename):
    """Others change ten entries that are to go: before they are listed again, and after."""
    other = opened()
    plan = importlib.import_module("nfsdict.upkeep.prune").Prune._plan

    def planned(self, shards):
        found = plan(self, shards)
        other[KEYS[0]] = other["added"] = "new"
        del other[KEYS[1]], other[KEYS[39]]
        return found

    def change(key):
        if key == KEYS[2]:
            other[key] = "new"
        if key == KEYS[3]:
            del other[key]

    monkeypatch.setattr(importlib.import_module("nfsdict.upkeep.prune").Prune, "_plan", planned)
    before_each_rename(change)
    report = d.prune(max_items=30)
    assert (report.removed, report.replaced, report.kept) == (6, 1, COUNT - 6 - 1)
    assert len(on_disk(d)) == COUNT - 6 - 3 + 1


def test_a_pruner_that_died_on_another_host_is_taken_over(nfsdict, d):
    """Not before its lease has run out, and been watched for so long."""
    layout = importlib.import_module("nfsdict.layout")
    prune = importlib.import_module("nfsdict.upkeep.prune")
    name = layout.LeaseName(digest(prune.LEASE), 1, 1000, "a", 1, 1, layout.random_name())
    content = {"key": prune.LEASE, "host": "elsewhere", "process": 1}
    d._storage.leases.create(name, json.dumps(content).encode())
    with pytest.raises(OSError, match="process 1 on elsewhere") as caught:
        d.prune(max_items=30)
    assert caught.value.errno == errno.EBUSY
    end = time.monotonic() + 30
    while d.leases():
        assert time.monotonic() < end
        time.sleep(0.05)
    begin = time.monotonic()
    assert d.prune(max_items=30).removed == 10
    assert time.monotonic() - begin >= 1


def test_what_it_says_has_no_private_name(nfsdict, d, monkeypatch):
    rename = os.rename

    def refuse(source, target):
        if ".nfsdict-taken-" in target:
            raise PermissionError(errno.EACCES, "Permission denied", source, None, target)
        rename(source, target)

    monkeypatch.setattr(os, "rename", refuse)
    report = d.prune(max_items=39)
    path = str(d.path_of(KEYS[0]))
    assert report.failed == {path: f"[Errno 13] Permission denied: {path!r}"}


def test_if_what_was_renamed_can_not_be_looked_at_it_is_given_back(nfsdict, d, monkeypatch):
    Removal = importlib.import_module("nfsdict.storage.removal").Removal

    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Removal, "_signatures", fail)
    report = d.prune(max_items=30)
    assert (report.removed, report.failures, report.kept) == (0, 10, COUNT)
    assert sorted(on_disk(d)) == sorted(d) == KEYS
    assert left_over(d) == []


# --- what is known of it ---------------------------------------------------------------------


def test_others_are_told_and_this_process_is_not(opened, d):
    other = opened()
    watch, theirs = d.watch(interval=0.001), other.watch(interval=0.001)
    with opened() as writer:
        writer["told"] = 1
    assert (next(watch), next(theirs)) == ({"told"}, {"told"})
    d.refresh()
    other.refresh()
    d.prune(max_items=31)
    gone = set(KEYS[:10])
    assert next(theirs) == other.refresh() == gone
    assert d.refresh() == set()
    with opened() as writer:
        writer["more"] = 1
    assert next(watch) == {"more"} == d.refresh() == other.refresh()
    assert sorted(d) == sorted([*KEYS[10:], "told", "more"]) == sorted(other)
    watch.close()
    theirs.close()


@pytest.mark.parametrize("lazy", [False, True])
def test_no_pack_serves_what_was_removed(opened, d, lazy):
    age(d.path.parent)
    assert d.pack().packed == COUNT
    with opened(lazy=lazy) as pruning:
        pruning.prune(max_items=30)
        assert KEYS[0] not in pruning and pruning.get(KEYS[1]) is None
        assert sorted(pruning) == KEYS[10:]
    assert sorted(opened()) == KEYS[10:] == sorted(dict(opened().items()))


def test_a_lookup_under_way_does_not_keep_what_is_removed(opened, d, monkeypatch):
    """It has read the file before it was removed, and ends afterwards."""
    lazy = opened(lazy=True)
    Entries = importlib.import_module("nfsdict.entries").Entries
    original = Entries.find_entry

    def find_entry(self, hexdigest, key, fresh=False):
        found = original(self, hexdigest, key, fresh)
        if self is lazy._entries:
            lazy.prune(max_items=0)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(Entries, "find_entry", find_entry)
        assert lazy.get(KEYS[1]) == "x"
    assert lazy.get(KEYS[1]) is None


def test_writers_of_a_shard_and_the_pruner_in_one_process(opened):
    """Each put that has returned is there, in memory and on the disk alike."""
    d = opened(durable=False)
    stop, errors = threading.Event(), []

    def write(who):
        number = 0
        while not stop.is_set():
            number += 1
            key = f"{who} {number % 4}"
            d[key] = number
            if d.get(key) != number or d.get(key, fresh=True) != number:
                errors.append((key, number))
            if number % 2:
                with suppress(FileNotFoundError):
                    os.utime(d.path_of(key), (1, 1))

    threads = [threading.Thread(target=write, args=(who,)) for who in range(3)]
    for thread in threads:
        thread.start()
    removed, end = 0, time.monotonic() + 60
    try:
        while removed < 100 and not errors and time.monotonic() < end:
            removed += d.prune(max_age=1000).removed
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert errors == [] and removed >= 100
    assert dict(d) == on_disk(d)


def test_calls_a_shard_and_two_a_key(d, lists, monkeypatch):
    renames, unlinks = [], []
    rename, unlink = os.rename, os.unlink
    monkeypatch.setattr(os, "rename", lambda *names: renames.append(names) or rename(*names))
    monkeypatch.setattr(os, "unlink", lambda name: unlinks.append(name) or unlink(name))
    d.prune(max_items=30)
    shards = {digest(key)[:2] for key in KEYS}
    # One listing more for each group, after the decision, and one under the shard's lock.
    assert len(lists) == len(shards) + 2 * len({digest(key)[:2] for key in KEYS[:10]})
    assert len([one for one in renames if "taken" in one[1]]) == 10
    assert len([one for one in unlinks if "taken" in one]) == 10


# --- what is refused -------------------------------------------------------------------------


def test_read_only(nfsdict, opened, d):
    reader = opened(read_only=True)
    with pytest.raises(nfsdict.ReadOnlyError):
        reader.prune(max_items=0)
    names = sorted(path for path in d.path.rglob("*"))
    report = reader.prune(max_items=30, max_age=0, dry_run=True)
    assert report.dry_run and report.removed == COUNT
    assert sorted(path for path in d.path.rglob("*")) == names


@pytest.mark.parametrize(
    ("limits", "error"),
    [
        ({}, ValueError),
        ({"prefix": "key"}, ValueError),
        ({"max_age": -1}, ValueError),
        ({"max_age": "30d"}, TypeError),
        ({"max_age": float("nan")}, ValueError),
        ({"max_items": -1}, ValueError),
        ({"max_items": 1.5}, TypeError),
        ({"max_bytes": True}, TypeError),
        ({"min_free_inodes": "many"}, TypeError),
        ({"max_items": 1, "prefix": b"key"}, TypeError),
        ({"max_items": 1, "time_limit": -1}, ValueError),
    ],
)
def test_limits_that_are_none(d, limits, error):
    with pytest.raises(error):
        d.prune(**limits)
    assert sorted(on_disk(d)) == KEYS


def test_another_serializer_is_refused(nfsdict, opened, d):
    with pytest.raises(nfsdict.WrongSerializerError):
        opened(serializer="json", lazy=True).prune(max_items=0)
