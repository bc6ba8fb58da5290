"""Exceptions in quick succession: a second one comes while the first one is dealt with.

So does who presses Ctrl-C twice, and a scheduler that warns before it kills. What each call has to
put right after an exception is put right nevertheless.
"""

from __future__ import annotations

import gc
import importlib
import subprocess
import sys
import time

import pytest

from support.aging import age


class Interrupted(BaseException):
    """As KeyboardInterrupt, which pytest would take for the user's."""


class Bursts:
    """Raises at these calls of ``original``, counted from 1: before it is made, or afterwards."""

    def __init__(self, original, numbers, after=False):
        self._original = original
        self._numbers = numbers
        self._after = after
        self.calls = 0

    def __call__(self, *arguments):
        self.calls += 1
        number = self.calls
        if number in self._numbers and not self._after:
            raise Interrupted
        result = self._original(*arguments)
        if number in self._numbers:
            raise Interrupted
        return result


AT = [[1], [1, 2, 3], [2, 5, 9], [3, 4, 6, 7]]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("numbers", AT, ids=str)
def test_an_interrupted_update_forgets_what_it_may_have_written(
    opened, monkeypatch, numbers, after
):
    d = opened(workers=1)
    old = {f"key {number}": 0 for number in range(60)}
    d.update(old)
    values, state = d._storage.values, d._state
    with monkeypatch.context() as patch:
        patch.setattr(values, "write", Bursts(values.write, [1], after=True))
        patch.setattr(state, "invalidate", Bursts(state.invalidate, numbers, after))
        with pytest.raises(Interrupted):
            d.update(dict.fromkeys(old, 1))
    there = dict(opened())
    assert 1 in there.values()
    assert {key: d[key] for key in old} == there
    assert dict(opened()) == there  # by the index that d has written


@pytest.mark.parametrize("numbers", AT, ids=str)
def test_an_interrupted_clear_forgets_what_it_may_have_removed(opened, monkeypatch, numbers):
    d = opened(workers=1)
    d.update({f"key {number}": 0 for number in range(2000)})
    values, state = d._storage.values, d._state
    with monkeypatch.context() as patch:
        patch.setattr(values, "remove", Bursts(values.remove, [1], after=True))
        patch.setattr(state, "invalidate", Bursts(state.invalidate, numbers))
        with pytest.raises(Interrupted):
            d.clear()
    there = dict(opened())
    assert 0 < len(there) < 2000
    assert {key: d[key] for key in list(d) if d.get(key) is not None} == there


@pytest.mark.parametrize("numbers", [[1], [1, 2, 3]], ids=str)
def test_an_interrupted_load_leaves_no_temporary_files(opened, monkeypatch, numbers):
    d = opened(workers=1)
    pairs = {f"key {number}": number for number in range(3000)}
    values = d._storage.values
    with monkeypatch.context() as patch:
        patch.setattr(values, "prepare", Bursts(values.prepare, [3], after=True))
        patch.setattr(values, "discard", Bursts(values.discard, numbers))
        with pytest.raises(Interrupted):
            d.update(pairs)
    assert list(d.path.glob("??/.nfsdict-*")) == []
    d.update(pairs)
    assert dict(opened()) == pairs


@pytest.mark.parametrize("numbers", [[1], [1, 2, 3]], ids=str)
def test_an_interrupted_removal_forgets_the_value(opened, monkeypatch, numbers):
    d = opened(workers=1)
    d["key"] = "value"
    values, state = d._storage.values, d._state
    with monkeypatch.context() as patch:
        patch.setattr(values, "remove", Bursts(values.remove, [1], after=True))
        patch.setattr(state, "invalidate", Bursts(state.invalidate, numbers))
        with pytest.raises(Interrupted):
            del d["key"]
    assert d.get("key") is None


@pytest.mark.parametrize("numbers", AT, ids=str)
def test_an_interrupted_prune_forgets_what_it_may_have_removed(opened, monkeypatch, numbers):
    d = opened(workers=1)
    d.update({f"key {number}": 0 for number in range(2000)})
    state, removal = d._state, d._storage.removal
    with monkeypatch.context() as patch:
        removed = Bursts(removal.remove_unchanged, [3], after=True)
        patch.setattr(removal, "remove_unchanged", removed)
        patch.setattr(state, "invalidate", Bursts(state.invalidate, numbers))
        with pytest.raises(Interrupted):
            d.prune(max_items=0)
    there = dict(opened())
    assert 0 < len(there) < 2000
    assert {key: d[key] for key in list(d) if d.get(key) is not None} == there


@pytest.mark.parametrize("numbers", [[], [1], [1, 2, 3], [100, 150]], ids=str)
def test_after_an_interrupted_refresh_the_index_says_what_the_files_say(
    opened, tmp_path, monkeypatch, numbers
):
    """What it was about to tell is told later, with what has changed since in the same shards."""
    d = opened(workers=1)
    d.update({f"key {number}": 0 for number in range(1000)})
    age(tmp_path)
    d.pack()
    d.update({f"key {number}": 1 for number in range(500, 1500)})
    age(tmp_path)
    packs, index = d._writer._packs, d._state.index
    with monkeypatch.context() as patch:
        patch.setattr(packs, "append", Bursts(packs.append, [1]))
        patch.setattr(index, "rollback", Bursts(index.rollback, numbers))
        with pytest.raises(Interrupted):
            d.refresh()
    d.update({f"late {number}": 2 for number in range(1000)})
    age(tmp_path)
    d.refresh()
    d.close()
    assert dict(opened(lazy=False)) == {
        **{f"key {number}": 0 for number in range(500)},
        **{f"key {number}": 1 for number in range(500, 1500)},
        **{f"late {number}": 2 for number in range(1000)},
    }


@pytest.mark.parametrize("step", ["create", "look"])
@pytest.mark.parametrize("numbers", [[1], [1, 2, 3]], ids=str)
def test_an_interrupted_attempt_for_a_lease_leaves_none(opened, monkeypatch, numbers, step):
    d = opened()
    leases = d._leases
    files, renewer = leases._files, leases._renewer
    with monkeypatch.context() as patch:
        number = {"create": 1, "look": 2}[step]  # the first look is before there is a file
        patch.setattr(files, step, Bursts(getattr(files, step), [number], after=True))
        patch.setattr(renewer, "watch", Bursts(renewer.watch, numbers))
        with pytest.raises(Interrupted):
            d.lease("key", 60)
    end = time.monotonic() + 10
    while list(d.path.glob(".nfsdict-leases/*")) and time.monotonic() < end:
        time.sleep(0.01)
    assert list(d.path.glob(".nfsdict-leases/*")) == []
    with d.lease("key", 60, timeout=0):
        pass


def test_a_loop_whose_making_was_interrupted_ends_without_an_error(nfsdict):
    loop = importlib.import_module("nfsdict.read_ahead")._Loop
    loop.__new__(loop)  # what its end raises is an error of this test
    gc.collect()


POPS = """
import _imp, faulthandler, os, sys, nfsdict
d = nfsdict.NfsDict("s", sys.argv[1])
d["k"] = "value"
def interrupted(private):
    raise KeyboardInterrupt
d._storage.exclusive.discard = interrupted
faulthandler.dump_traceback_later(20, exit=True)
_imp.acquire_lock()
try:
    d.pop("k")
except KeyboardInterrupt:
    print(d["k"], nfsdict.NfsDict("s", sys.argv[1])["k"], flush=True)
"""


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="calls CPython's import system")
def test_a_pop_is_undone_while_its_caller_holds_the_lock_of_imports(nfsdict, tmp_path):
    """As a handler's exception that comes at a bad moment of an import leaves it."""
    command = [sys.executable, "-c", POPS, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == "value value\n", done.stderr[-3000:]
