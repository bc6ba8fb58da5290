"""add, setdefault, pop, popitem, refresh and wait_for: what they return, and who wins."""

from __future__ import annotations

import errno
import importlib
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from support.aging import age
from support.meeting import MEET, WITHOUT_LINKS

ROUNDS = int(os.environ.get("NFSDICT_RACE_ROUNDS", "1000"))
PROCESSES = 4
# By what a file system without hard links refuses them.
NO_LINKS = [errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK]


@pytest.fixture
def contests(nfsdict):
    return importlib.import_module("nfsdict.storage.exclusive")


@pytest.fixture
def files(nfsdict):
    return importlib.import_module("nfsdict.storage.files")


def value_file(d, key):
    return Path(importlib.import_module("nfsdict.core").value_path(str(d.path), key, ".pkl"))


def left_behind(d):
    return list(d.path.glob("**/.nfsdict-*"))


# --- as a dict does it ------------------------------------------------------------------------


def test_add_creates_once(opened):
    d, other = opened(), opened()
    assert d.add("k", 1) is True
    assert d.add("k", 2) is False
    assert other.add("k", 3) is False
    assert d["k"] == other["k"] == opened()["k"] == 1
    assert left_behind(d) == []


def test_add_that_lost_leaves_the_cache_to_the_disk(opened):
    d = opened()
    assert "k" not in d
    opened()["k"] = "theirs"
    assert d.add("k", "mine") is False
    assert d["k"] == "theirs"


def test_add_after_another_removed_it(opened):
    d, other = opened(), opened()
    d["k"] = 1
    del other["k"]
    assert d["k"] == 1  # cached
    assert d.add("k", 2) is True
    assert other["k"] == 2


def test_setdefault_is_that_of_dict(opened):
    d, model = opened(), {}
    for key, value in [("a", 1), ("a", 2), ("none", None), ("none", 3)]:
        assert d.setdefault(key, value) == model.setdefault(key, value)
    assert d.setdefault("bare") is model.setdefault("bare") is None
    assert dict(d) == dict(opened()) == model


def test_setdefault_returns_what_another_wrote(opened):
    d = opened()
    assert d.get("k") is None
    opened()["k"] = "theirs"
    assert d.setdefault("k", "mine") == "theirs"


def test_pop_is_that_of_dict(opened):
    d = opened()
    d.update({"a": 1, "b": None})
    assert d.pop("a") == 1
    assert d.pop("b", "default") is None
    assert d.pop("a", "default") == "default"
    assert d.pop("a", None) is None
    with pytest.raises(KeyError) as caught:
        d.pop("a")
    assert caught.value.args == ("a",)
    assert dict(d) == dict(opened()) == {}
    assert left_behind(d) == []


def test_pop_gives_what_is_on_the_disk(opened):
    d, other = opened(), opened()
    d["k"] = "old"
    other["k"] = "new"
    assert d.pop("k") == "new"
    d["k"] = "old"
    assert other.pop("k") == "old"
    assert d["k"] == "old"  # cached
    assert d.pop("k", "gone") == "gone"
    assert "k" not in d


def test_popitem_is_that_of_dict(opened):
    d, model = opened(), {}
    for key in "abc":
        d[key] = model[key] = key * 2
    assert {d.popitem() for _ in "abc"} == {model.popitem() for _ in "abc"}
    with pytest.raises(KeyError):
        d.popitem()


def test_popitem_passes_over_what_others_took(opened):
    d, other = opened(), opened()
    d.update({"a": 1, "b": 2})
    del other["b"]
    assert d.popitem() == ("a", 1)
    with pytest.raises(KeyError):
        d.popitem()


@pytest.mark.parametrize("call", ["add", "setdefault", "pop"])
def test_keys_are_str_and_a_read_only_store_changes_nothing(nfsdict, opened, call):
    d = opened()
    arguments = ("v",) if call != "pop" else ()
    with pytest.raises(TypeError if arguments else KeyError):  # nothing is there under such a key
        getattr(d, call)(1, *arguments)
    with pytest.raises(nfsdict.ReadOnlyError):
        getattr(opened(read_only=True), call)("k", *arguments)
    assert dict(d) == {}


# --- races ------------------------------------------------------------------------------------

RACE = """
import json, sys
import nfsdict
base, who, processes, rounds = sys.argv[1], *map(int, sys.argv[2:5])
board = base + "/board"
d = nfsdict.NfsDict("s", base, lazy=True, durable=False)
results = []
"""
ROUND = """
for number in range(rounds):
    key = f"key {number}"
    meet()
"""


def race(base, call, rounds=ROUNDS, prologue=""):
    """For each round what the call gave in each process."""
    (base / "board").write_bytes(bytes(8 * PROCESSES))
    each = f"{ROUND}    results.append({call})\n"
    script = prologue + RACE + MEET + each + "print(json.dumps(results))\n"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, *map(str, (base, who, PROCESSES, rounds))],
            stdout=subprocess.PIPE,
            text=True,
        )
        for who in range(PROCESSES)
    ]
    try:
        outputs = [process.communicate(timeout=120)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * PROCESSES
    results = list(zip(*map(json.loads, outputs)))
    assert len(results) == rounds
    return results


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_exactly_one_of_many_adds(opened, tmp_path, links):
    rounds = ROUNDS if links else ROUNDS // 2
    results = race(tmp_path, "d.add(key, who)", rounds, "" if links else WITHOUT_LINKS)
    assert all(sum(won) == 1 for won in results)
    winners = {f"key {number}": won.index(True) for number, won in enumerate(results)}
    assert len(set(winners.values())) > 1
    d = opened()
    assert dict(d) == winners
    assert left_behind(d) == []


def test_exactly_one_of_many_sets_a_default(opened, tmp_path):
    results = race(tmp_path, "d.setdefault(key, who)")
    assert all(len(set(values)) == 1 for values in results)
    assert len(set(results)) > 1
    assert dict(opened()) == {f"key {i}": values[0] for i, values in enumerate(results)}


def test_exactly_one_of_many_pops(opened, tmp_path):
    d = opened(durable=False)
    d.update({f"key {number}": number for number in range(ROUNDS)})
    results = race(tmp_path, "d.pop(key, None)")
    for number, values in enumerate(results):
        assert sorted(values, key=str) == [number, None, None, None]
    assert len({values.index(number) for number, values in enumerate(results)}) > 1
    d.sync()
    assert dict(d) == {}
    assert left_behind(d) == []


def test_each_item_is_popped_by_exactly_one(opened, tmp_path):
    opened(durable=False).update({f"key {number}": number for number in range(ROUNDS)})
    call = "d.popitem() if len(d) else None"
    results = race(tmp_path, call, ROUNDS // PROCESSES)
    items = [tuple(item) for values in results for item in values]
    assert sorted(items) == sorted((f"key {number}", number) for number in range(ROUNDS))


def test_exactly_one_thread_of_one_dictionary_wins(opened):
    d = opened(durable=False)
    for number in range(200):
        won, popped = [], []
        barrier = threading.Barrier(4)

        def contend(who, won=won, popped=popped, barrier=barrier):
            barrier.wait()
            won.append(d.add("k", who))
            barrier.wait()
            popped.append(d.pop("k", None))

        threads = [threading.Thread(target=contend, args=(who,)) for who in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert won.count(True) == 1, number
        assert popped.count(None) == 3, number


# --- lost replies -----------------------------------------------------------------------------


def losing_reply(monkeypatch, call, number, times=1, carried_out=True):
    """So often the call of ``os`` reports that error, all the same if it is carried out."""
    original = getattr(os, call)
    lost = []

    def losing(*arguments, **options):
        losing = len(lost) < times
        result = original(*arguments, **options) if carried_out or not losing else None
        if losing:
            lost.append(arguments)
            raise OSError(number, os.strerror(number), arguments[0])
        return result

    monkeypatch.setattr(os, call, losing)
    return lost


LINK_SHIM = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <string.h>
static int lost(const char *call, int done) {
    if (done == 0) { errno = EEXIST; return -1; }
    return done;
}
int link(const char *old, const char *new) {
    int (*real)(const char *, const char *) = dlsym(RTLD_NEXT, "link");
    return lost("link", real(old, new));
}
int linkat(int from, const char *old, int to, const char *new, int flags) {
    int (*real)(int, const char *, int, const char *, int) = dlsym(RTLD_NEXT, "linkat");
    return lost("linkat", real(from, old, to, new, flags));
}
"""


@pytest.fixture(scope="session")
def every_link_loses_its_reply(tmp_path_factory):
    """A library to preload: link() is carried out and answers EEXIST."""
    directory = tmp_path_factory.mktemp("shim")
    (directory / "shim.c").write_text(LINK_SHIM)
    compiler = os.environ.get("CC", "cc").split()
    command = [*compiler, "-shared", "-fPIC", "-o", "shim.so", "shim.c", "-ldl"]
    subprocess.run(command, cwd=directory, check=True)
    return directory / "shim.so"


@pytest.mark.skipif(sys.platform != "linux", reason="preloads a library as Linux does")
def test_a_link_whose_reply_was_lost_has_won(nfsdict, tmp_path, every_link_loses_its_reply):
    script = """
import sys, nfsdict
d = nfsdict.NfsDict("s", sys.argv[1])
assert d.add("k", 1) is True
assert d.add("k", 2) is False
assert nfsdict.NfsDict("s", sys.argv[1]).add("k", 3) is False
assert d["k"] == 1 and d.get("k", fresh=True) == 1
"""
    environment = {**os.environ, "LD_PRELOAD": str(every_link_loses_its_reply)}
    command = [sys.executable, "-c", script, str(tmp_path)]
    subprocess.run(command, env=environment, check=True)
    assert left_behind(nfsdict.NfsDict("s", tmp_path)) == []


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EIO, errno.ETIMEDOUT])
def test_a_taking_rename_whose_reply_was_lost_has_won(opened, monkeypatch, number):
    d = opened()
    d["k"] = 1
    lost = losing_reply(monkeypatch, "rename", number)
    assert d.pop("k") == 1
    assert len(lost) == 1
    assert d.pop("k", None) is None
    assert left_behind(d) == []


def test_an_unlink_whose_reply_was_lost_has_removed(opened, monkeypatch):
    d = opened()
    d["k"] = 1
    lost = losing_reply(monkeypatch, "unlink", errno.EIO)
    assert d.pop("k") == 1
    assert lost
    assert left_behind(d) == []


def test_an_unlink_that_finds_nothing_is_uncertain(nfsdict, opened, monkeypatch):
    """Its own reply was lost, or somebody has given the entry back: that looks the same."""
    d = opened()
    d["k"] = 1
    losing_reply(monkeypatch, "unlink", errno.ENOENT)
    with pytest.raises(nfsdict.UncertainWriteError):
        d.pop("k")
    assert left_behind(d) == []


def test_a_pop_of_unknown_outcome_is_uncertain(nfsdict, opened, monkeypatch):
    d = opened()
    d["k"] = 1
    with monkeypatch.context() as patch:
        losing_reply(patch, "rename", errno.EIO, carried_out=False)
        with pytest.raises(nfsdict.UncertainWriteError):
            d.pop("k", None)
    assert d["k"] == 1
    assert d.pop("k") == 1


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES])
def test_a_pop_that_cannot_remove_gives_back(opened, monkeypatch, number):
    d = opened()
    d["k"] = 1
    with monkeypatch.context() as patch:
        losing_reply(patch, "unlink", number, carried_out=False)
        with pytest.raises(OSError) as caught:
            d.pop("k", None)
    assert caught.value.errno == number
    assert left_behind(d) == []
    assert d["k"] == 1 and d.get("k", fresh=True) == 1
    assert d.pop("k") == 1


def test_a_popped_value_is_not_lost_to_a_directory_that_is_not_synced(opened, monkeypatch, caplog):
    d = opened()
    d["k"] = 1
    Files = importlib.import_module("nfsdict.storage.files").Files

    def unsynced(self, path):
        raise OSError(errno.EIO, "no")

    monkeypatch.setattr(Files, "sync_directory", unsynced)
    assert d.pop("k") == 1
    assert "may come back" in caplog.text
    assert "k" not in d


def test_popitem_passes_over_what_is_damaged(opened):
    d = opened()
    d["whole"] = 1
    d["damaged"] = 2
    value_file(d, "damaged").write_bytes(b"junk")
    assert d.popitem() == ("whole", 1)
    with pytest.raises(KeyError):
        d.popitem()
    assert value_file(d, "damaged").read_bytes() == b"junk"


def test_a_pop_whose_unlink_was_carried_out_has_removed(opened, monkeypatch):
    d = opened()
    d["k"] = 1
    losing_reply(monkeypatch, "unlink", errno.EIO)
    assert d.pop("k") == 1
    assert d.pop("k", None) is None
    assert left_behind(d) == []


@pytest.mark.parametrize("call", ["add", "in", "pop"])
def test_a_look_that_fails_is_not_absence(opened, monkeypatch, call):
    d = opened(lazy=True)
    opened()["k"] = 1
    with monkeypatch.context() as patch:
        if call == "pop":
            losing_reply(patch, "rename", errno.ENOENT)
        losing_reply(patch, "lstat", errno.EIO, times=100)
        with pytest.raises(OSError) as caught:
            {"add": lambda: d.add("k", 2), "in": lambda: "k" in d, "pop": lambda: d.pop("k", None)}[
                call
            ]()
    assert caught.value.errno == errno.EIO


def test_an_add_of_unknown_outcome_is_uncertain(nfsdict, opened, files, monkeypatch):
    original = files.write_files

    def write_files(targets, mode, durable, synced, exclusive):
        assert exclusive
        outcomes = original(targets, mode, durable, synced, exclusive)
        return [(1, errno.EIO) if isinstance(done, bytes) else done for done in outcomes]

    d = opened()
    with monkeypatch.context() as patch:
        patch.setattr(files, "write_files", write_files)
        with pytest.raises(nfsdict.UncertainWriteError) as caught:
            d.add("k", 1)
    assert caught.value.errno == errno.EIO
    assert d["k"] == 1  # the disk answers


# --- no hard links ----------------------------------------------------------------------------


@pytest.fixture
def refused(files, monkeypatch):
    """Hard links are refused with this errno."""
    original, link = files.write_files, os.link

    def refuse(number):
        def write_files(targets, mode, durable, synced, exclusive):
            if not exclusive:
                return original(targets, mode, durable, synced, exclusive)
            there = os.path.isdir(os.path.dirname(targets[0][0]))
            return [(1, number) if there else (0, errno.ENOENT)]

        def refused_link(old, new):
            raise OSError(number, os.strerror(number), old, None, new)

        monkeypatch.setattr(files, "write_files", write_files)
        monkeypatch.setattr(os, "link", refused_link)

    yield refuse
    monkeypatch.setattr(os, "link", link)


@pytest.mark.parametrize("number", NO_LINKS, ids=errno.errorcode.get)
def test_without_hard_links_add_creates_once(opened, refused, number):
    refused(number)
    d = opened()
    assert d.add("k", 1) is True
    assert d.add("k", 2) is False
    assert opened().add("k", 3) is False
    assert opened()["k"] == 1
    assert left_behind(d) == []


def claim_of(contests, d, key):
    path = value_file(d, key)
    path.parent.mkdir(exist_ok=True)
    claim = path.with_name(f".nfsdict-claim-{path.stem}")
    claim.touch()
    return claim


def test_a_claim_is_waited_for(opened, contests, refused):
    refused(errno.EPERM)
    d = opened()
    claim = claim_of(contests, d, "k")
    results = []
    thread = threading.Thread(target=lambda: results.append(d.add("k", "mine")), daemon=True)
    thread.start()
    time.sleep(0.3)
    assert results == []
    value = value_file(d, "k")
    other = opened()
    other["k"] = "theirs"
    thread.join(30)
    assert results == [False]
    assert value.exists() and claim.exists()  # it is its owner's to remove
    assert d["k"] == "theirs"


def test_a_claim_is_stale_by_the_servers_clock(opened, contests, files, refused, monkeypatch):
    refused(errno.EPERM)
    d = opened()
    claim = claim_of(contests, d, "k")
    server = os.stat(claim).st_mtime_ns
    monkeypatch.setattr(time, "time", lambda: server / 1e9 + 3600)  # the local one is of no account
    ahead = [29_000_000_000]
    monkeypatch.setattr(files.Files, "probe_clock", lambda self: server + ahead[0])
    results = []
    thread = threading.Thread(target=lambda: results.append(d.add("k", "mine")), daemon=True)
    thread.start()
    time.sleep(0.5)
    assert results == [] and claim.exists()
    ahead[0] = 31_000_000_000
    thread.join(30)
    assert results == [True]
    assert opened()["k"] == "mine"
    assert left_behind(d) == []


def test_a_crash_while_breaking_a_claim_is_got_over(opened, contests, files, refused, monkeypatch):
    refused(errno.EPERM)
    d = opened()
    claim = claim_of(contests, d, "k")
    claim.with_name(f"{claim.name}-breaking").touch()
    server = os.stat(claim).st_mtime_ns
    monkeypatch.setattr(files.Files, "probe_clock", lambda self: server + 31_000_000_000)
    assert d.add("k", 1)
    assert left_behind(d) == []


def test_a_claim_is_held_while_a_file_gets_its_name_and_not_while_it_is_written(
    opened, contests, refused, monkeypatch
):
    """So one that is older than seconds was left by a crash, however long values take to write."""
    refused(errno.EPERM)
    d = opened()
    claim = claim_of(contests, d, "k")
    claim.unlink()
    values = d._storage.values
    there = []

    def seen(name):
        call = getattr(values, name)

        def calls(*arguments):
            there.append((name, claim.exists()))
            return call(*arguments)

        monkeypatch.setattr(values, name, calls)

    seen("prepare")
    seen("publish")
    assert d.add("k", 1)
    assert there == [("prepare", False), ("publish", True)]
    assert not d.add("k", 2)
    assert len(there) == 2  # nothing is written in vain where there is an entry
    assert left_behind(d) == []


@pytest.mark.filterwarnings("ignore:.*is not safe with the options")
@pytest.mark.parametrize("kind", ["", "cifs"])
def test_an_add_that_stood_still_does_not_say_that_it_won(
    nfsdict, opened, contests, refused, monkeypatch, kind
):
    """Suspended with its claim for so long that another one has broken that and won."""
    if kind:
        module = importlib.import_module("nfsdict.storage.mounted")
        monkeypatch.setattr(module, "mount_of", lambda path: module.Mount(kind))
    refused(errno.EPERM)
    d, other = opened(lazy=True), opened(lazy=True)
    claim = claim_of(contests, d, "k")
    claim.unlink()
    publish, clock = d._storage.values.publish, time.monotonic
    stands = [0]

    def suspended(prepared):
        claim.unlink()  # as ``break_old`` does
        assert other.add("k", "theirs")
        claim.touch()  # of a third one
        stands[0] = 31
        return publish(prepared)

    monkeypatch.setattr(d._storage.values, "publish", suspended)
    monkeypatch.setattr(time, "monotonic", lambda: clock() + stands[0])
    with pytest.raises(nfsdict.UncertainWriteError, match="another one may have created the entry"):
        d.add("k", "mine")
    assert claim.exists()
    claim.unlink()
    assert left_behind(d) == []


def test_an_add_that_learns_late_of_its_claim_does_not_say_that_it_won(
    nfsdict, opened, contests, refused, monkeypatch
):
    """The server has made the claim, and its answer takes so long that another one has broken it.
    That one is about to give its file the name, and so isn't seen."""
    refused(errno.EPERM)
    d = opened(lazy=True)
    claims = d._storage.exclusive._claims
    create, clock = claims.try_claim, time.monotonic
    stands = [0]

    def answered_late(path):
        made = create(path)
        stands[0] = 31
        return made

    monkeypatch.setattr(claims, "try_claim", answered_late)
    monkeypatch.setattr(time, "monotonic", lambda: clock() + stands[0])
    with pytest.raises(nfsdict.UncertainWriteError, match="another one may have created the entry"):
        d.add("k", "mine")
    [claim] = left_behind(d)  # the other one's by now, as far as can be known
    assert "claim" in str(claim)


def test_an_add_that_loses_a_claim_leaves_nothing(opened, contests, refused, monkeypatch):
    refused(errno.EPERM)
    d, other = opened(lazy=True), opened(lazy=True)
    prepare = d._storage.values.prepare

    def overtaken(prepared):
        prepare(prepared)
        other["k"] = "theirs"

    monkeypatch.setattr(d._storage.values, "prepare", overtaken)
    assert not d.add("k", "mine")
    assert left_behind(d) == [] and opened()["k"] == "theirs"


def test_who_stood_still_before_it_breaks_a_claim_leaves_it(
    opened, contests, files, refused, monkeypatch
):
    """Another one has broken it and taken the turn to break, and a third one has claimed since."""
    d = opened()
    claims = d._storage.exclusive._claims
    claim = claim_of(contests, d, "k")
    later = os.stat(claim).st_ctime_ns + 31 * 10**9
    monkeypatch.setattr(files.Files, "probe_clock", lambda self: later)
    clock, old = time.monotonic, claims._old
    stands = [0]
    looks = []

    def suspended(path, age):
        found = old(path, age)
        looks.append(path)
        if len(looks) == 2:
            stands[0] = 31
        return found

    monkeypatch.setattr(claims, "_old", suspended)
    monkeypatch.setattr(time, "monotonic", lambda: clock() + stands[0])
    claims.break_old(str(claim), 30 * 10**9)
    assert claim.exists() and claim.with_name(f"{claim.name}-breaking").exists()
    claims.break_old(str(claim), 30 * 10**9)  # the turn that was left there is over
    claims.break_old(str(claim), 30 * 10**9)
    assert left_behind(d) == []


def test_who_looked_at_a_stale_claim_does_not_break_the_next_one(
    opened, contests, files, monkeypatch
):
    """Two see that a claim is stale; one breaks it and claims; the other comes late."""
    d = opened()
    claims = d._storage.exclusive._claims
    claim = claim_of(contests, d, "k")
    create, clock = claims.try_claim, files.Files.probe_clock
    later = os.stat(claim).st_ctime_ns + 700 * 10**9
    monkeypatch.setattr(files.Files, "probe_clock", lambda self: later)

    def late(path):
        monkeypatch.setattr(claims, "try_claim", create)
        claims.break_old(str(claim), 600 * 10**9)
        assert not claim.exists()
        claim.touch()
        monkeypatch.setattr(files.Files, "probe_clock", clock)
        return create(path)

    monkeypatch.setattr(claims, "try_claim", late)
    claims.break_old(str(claim), 600 * 10**9)
    assert left_behind(d) == [claim]


# --- pop and files that are no entries -------------------------------------------------------


def test_pop_of_a_damaged_entry_raises_and_leaves_it(nfsdict, opened):
    d = opened()
    d["k"] = "good"
    path = value_file(d, "k")
    path.write_bytes(b"damaged")
    for default in ((), ("default",)):
        with pytest.raises(nfsdict.CorruptValueError):
            d.pop("k", *default)
        assert path.read_bytes() == b"damaged"
        assert left_behind(d) == []
    assert "k" in d
    with pytest.raises(nfsdict.CorruptValueError):
        d["k"]


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES], ids=errno.errorcode.get)
def test_pop_of_an_unreadable_entry_raises_and_leaves_it(
    opened, files, refused, monkeypatch, number, links
):
    d = opened()
    d["k"] = "value"
    if not links:
        refused(errno.EPERM)
    with monkeypatch.context() as patch:
        patch.setattr(files, "read_files", lambda paths: [number] * len(paths))
        with pytest.raises(OSError) as caught:
            d.pop("k", "default")
    assert caught.value.errno == number and not isinstance(caught.value, KeyError)
    assert left_behind(d) == []
    assert d["k"] == opened()["k"] == "value"
    assert d.pop("k") == "value"


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_an_entry_given_back_does_not_replace_a_newer_one(
    opened, files, refused, monkeypatch, links
):
    d, other = opened(), opened()
    d["k"] = "old"
    if not links:
        refused(errno.EPERM)

    def read_files(paths):
        other["k"] = "newer"
        return [errno.EIO] * len(paths)

    with monkeypatch.context() as patch:
        patch.setattr(files, "read_files", read_files)
        with pytest.raises(OSError):
            d.pop("k")
    assert d.get("k", fresh=True) == "newer"
    assert left_behind(d) == []


KILLED = """
import os, sys, nfsdict
from nfsdict.entries import Entries
d = nfsdict.NfsDict("s", sys.argv[1])
def killed(*arguments):
    os.kill(os.getpid(), 9)
if sys.argv[2] == "before reading":
    d._storage.exclusive.read_taken = killed
else:
    d._storage.exclusive.discard = killed
d.pop("k")
"""


@pytest.mark.parametrize("when", ["before reading", "after reading"])
def test_what_a_killed_pop_took_repair_gives_back(opened, tmp_path, when):
    d = opened()
    d["k"] = "value"
    os.utime(value_file(d, "k"), (0, 0))  # an old entry is not an old taking
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), when])
    assert done.returncode == -9
    other = opened()
    assert "k" not in other
    assert other.repair().removed == []  # for all it knows the pop is under way
    assert "k" not in other
    [taken] = left_behind(d)
    time.sleep(0.05)
    assert other.repair(grace=0.01).removed == [str(taken)]
    assert other["k"] == opened()["k"] == "value"
    assert left_behind(d) == []


def test_repair_gives_back_nothing_over_a_newer_entry(opened, tmp_path):
    d = opened()
    d["k"] = "old"
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), "before reading"])
    d["k"] = "new"
    time.sleep(0.05)
    assert len(d.repair(grace=0.01).removed) == 1
    assert d["k"] == opened()["k"] == "new"
    assert left_behind(d) == []


def test_two_repairs_at_once_give_back_once(opened, contests, monkeypatch, tmp_path):
    d = opened()
    d["k"] = "value"
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), "before reading"])
    time.sleep(0.05)
    give_back = contests.Exclusive.give_back

    def twice(self, private):
        give_back(self, private)
        give_back(self, private)

    monkeypatch.setattr(contests.Exclusive, "give_back", twice)
    d.repair(grace=0.01)
    assert d["k"] == opened()["k"] == "value"


# --- refresh and wait_for ---------------------------------------------------------------------


@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
def test_refresh_returns_exactly_the_changed_keys(opened, lazy):
    other = opened()
    other.update({f"key {number}": number for number in range(50)})
    d = opened(lazy=lazy)
    assert len(d) == 50 and d["key 0"] == 0
    assert d.refresh() == set()
    other["added"] = 1
    other["key 0"] = "replaced"
    other["key 1"] = "replaced"
    del other["key 2"]
    other.pop("key 3")
    d["mine"] = 1
    assert d.refresh() == {"added", "key 0", "key 1", "key 2", "key 3"}
    assert dict(d) == dict(opened())
    assert d.refresh() == set()
    other.clear()
    assert d.refresh() == {"added", "mine", *(f"key {n}" for n in range(50))} - {"key 2", "key 3"}
    assert dict(d) == {}


def test_refresh_tells_of_a_key_that_was_only_seen_to_be_there(opened):
    d, other = opened(lazy=True), opened()
    len(d)
    other["k"] = 1
    assert "k" in d
    other["k"] = "replaced"
    assert d.refresh() == {"k"}
    assert d.refresh() == set()


def test_a_read_only_refresh_reads_nothing_again(opened, files, monkeypatch):
    other = opened()
    other.update({str(number): number for number in range(50)})
    age(other.path.parent)
    d = opened(read_only=True)
    d.refresh()
    reads = []
    read_files = files.read_files
    monkeypatch.setattr(files, "read_files", lambda paths: reads.extend(paths) or read_files(paths))
    assert d.refresh() == set()
    assert reads == []
    other["0"] = "replaced"
    assert d.refresh() == {"0"}


@pytest.mark.parametrize("call", ["lookup", "put"])
def test_what_began_before_a_sync_is_no_newer(opened, files, monkeypatch, call):
    """It has done its work and is held up; another process writes; then comes the sync, which waits
    for a put: else that one's file would look like another's."""
    d, other = opened(), opened()
    other["k"] = "first"
    held, go_on = threading.Event(), threading.Event()
    name = "read_files" if call == "lookup" else "write_file"
    values = importlib.import_module("nfsdict.storage.values")
    module = files if call == "lookup" else values
    original = getattr(module, name)

    def slow(*arguments):
        result = original(*arguments)
        if threading.current_thread() is thread:
            held.set()
            go_on.wait(30)
        return result

    monkeypatch.setattr(module, name, slow)
    calls = {"lookup": lambda: d.get("k"), "put": lambda: d.__setitem__("k", "own")}
    thread = threading.Thread(target=calls[call])
    thread.start()
    assert held.wait(30)
    other["k"] = "last"
    syncing = threading.Thread(target=d.sync)
    syncing.start()
    syncing.join(0.2 if call == "put" else None)
    assert syncing.is_alive() == (call == "put")
    go_on.set()
    for one in (thread, syncing):
        one.join()
    assert d["k"] == "last"


def test_a_refresh_that_raises_keeps_what_it_had_found(opened, monkeypatch):
    d, other = opened(workers=1), opened()
    other.update({f"key {n}": n for n in range(50)})
    d.refresh()
    other.update({f"key {n}": -1 - n for n in range(50)})
    listed, shards = d._storage.shards.list, []

    def fails(shard, *known):
        shards.append(shard)
        if len(shards) == 10:
            raise OSError(errno.EIO, "no")
        return listed(shard, *known)

    with monkeypatch.context() as patch:
        patch.setattr(d._storage.shards, "list", fails)
        with pytest.raises(OSError):
            d.refresh()
    assert d.refresh() == {f"key {n}" for n in range(50)}
    assert d.refresh() == set()


def test_a_key_that_was_popped_while_a_refresh_read_is_not_listed(opened, monkeypatch):
    d, other = opened(lazy=True), opened()
    assert len(d) == 0
    other["k"] = 1
    read = d._entries.read_entries

    def late(digests, keep):
        found = read(digests, keep)
        assert d.pop("k") == 1
        return found

    with monkeypatch.context() as patch:
        patch.setattr(d._entries, "read_entries", late)
        d.refresh()
    assert list(d) == [] and len(d) == 0


@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
def test_a_key_looked_up_while_a_refresh_runs_and_deleted_is_not_listed_for_good(
    opened, monkeypatch, lazy
):
    other = opened()
    other.update({"k": 1, "l": 2})
    age(other.path)
    d = opened(lazy=lazy)
    assert len(d) == 2 and d["k"] == 1
    age(other.path)
    d.refresh()
    stamps = d._storage.shards.stamps

    def late(shards):
        assert d.get("k", fresh=True) == 1
        del other["k"]
        monkeypatch.undo()
        return stamps(shards)

    monkeypatch.setattr(d._storage.shards, "stamps", late)
    told = d.refresh() | d.refresh()
    assert told == {"k"}
    assert list(d) == ["l"] and len(d) == 1 and "k" not in d


def test_a_change_of_a_file_that_cannot_be_read_is_told_of_when_it_can(opened, files, monkeypatch):
    d, other = opened(), opened()
    other["k"] = 1
    age(other.path)
    d.refresh()
    other["k"] = 2
    with monkeypatch.context() as patch:
        patch.setattr(files, "read_files", lambda paths: [errno.EACCES] * len(paths))
        assert d.refresh() == set()
    assert d.refresh() == {"k"}
    assert d["k"] == 2 and d.refresh() == set()


def test_a_sync_takes_nothing_from_what_a_refresh_is_to_tell(opened, monkeypatch):
    d, other = opened(workers=1), opened()
    other["k"] = 1
    other["l"] = 2
    apply = d._state.apply

    def once(*arguments):
        apply(*arguments)
        raise OSError(errno.EIO, "half-way")

    with monkeypatch.context() as patch:
        patch.setattr(d._state, "apply", once)
        with pytest.raises(OSError):
            d.refresh()
    told = set(d._cache)
    d.sync()
    assert d.refresh() == told != set()


def test_wait_for_looks_at_the_disk_and_not_the_cache(opened):
    d = opened()
    d["k"] = "old"
    opened()["k"] = "new"
    assert d.wait_for("k", timeout=0) == "new"
    del opened()["k"]
    with pytest.raises(TimeoutError):
        d.wait_for("k", timeout=0)


def test_wait_for_returns_what_is_there(opened):
    d = opened()
    opened()["k"] = None
    assert d.wait_for("k", timeout=0) is None


def test_wait_for_returns_what_comes(opened):
    d = opened()
    timer = threading.Timer(0.3, lambda: opened().__setitem__("k", "value"))
    timer.start()
    assert d.wait_for("k") == "value"
    timer.join()


def test_wait_for_ends_with_a_timeout_error(opened):
    d = opened()
    start = time.monotonic()
    with pytest.raises(TimeoutError, match="'k'"):
        d.wait_for("k", timeout=0.3)
    assert 0.3 <= time.monotonic() - start < 5
    with pytest.raises(TimeoutError):
        d.wait_for("k", timeout=0)


def test_wait_for_reports_what_goes_wrong(nfsdict, opened):
    d = opened()
    value_file(d, "k").parent.mkdir()
    value_file(d, "k").write_bytes(b"damaged")
    with pytest.raises(nfsdict.CorruptValueError):
        d.wait_for("k", timeout=30)
