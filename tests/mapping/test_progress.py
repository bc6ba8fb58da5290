"""Progress: long calls tell how far they have come, to a function or a class of bars."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import threading
from itertools import groupby

import pytest

from support.aging import age

KEYS = {str(number): "x" * number for number in range(60)}


class Told:
    """Keeps what it is told; raises at the update with this number, if there is one."""

    def __init__(self):
        self.updates = []
        self.raises_at = None

    def __call__(self, now):
        self.updates.append(now)
        if len(self.updates) == self.raises_at:
            raise ZeroDivisionError("the function's")

    def take(self):
        taken, self.updates = self.updates, []
        return taken

    def operations(self):
        """The operations in order, with the last update of each."""
        runs = []
        for now in self.take():
            if not now.done and not now.bytes:
                runs.append([])
            runs[-1].append(now)
        for run in runs:
            assert run[0].done == 0 and run[-1].done == run[-1].total
            for before, after in zip(run, run[1:]):
                assert before.done <= after.done and before.bytes <= after.bytes
                assert before[:2] == after[:2] and before.unit == after.unit
        return [(run[-1].operation, run[-1]) for run in runs]


@pytest.fixture
def told():
    return Told()


@pytest.fixture
def d(opened, told):
    """A store with entries, opened; what it does is told."""
    opened(lazy=True).update(KEYS)
    d = opened(progress_bar=told)
    told.take()
    return d


CALLS = {
    "sync": (lambda d: d.sync(), "shard"),
    "update": (lambda d: d.update({f"new {n}": n for n in range(150)}), "key"),
    "load": (lambda d: d.update({f"new {n}": n for n in range(2000)}), "key"),
    "clear": (lambda d: d.clear(), "shard"),
    "pack": (lambda d: age(d.path) or d.pack(), "shard"),
    "verify": (lambda d: d.verify(), "shard"),
    "repair": (lambda d: d.repair(), "shard"),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_long_call_tells_how_far_it_is(d, told, name):
    call, unit = CALLS[name]
    call(d)
    operation, last = told.operations()[0]
    assert operation == {"load": "update"}.get(name, name)
    assert (last.store, last.unit) == ("s", unit)
    shards = len(list(d.path.glob("??")))
    expected = {"update": 150, "load": 2000}.get(name)
    assert last.total == (expected or {"clear": last.total}.get(name, shards))
    assert name == "clear" or last.bytes > 0


def test_an_opening_tells_how_far_it_is(opened, told):
    with opened() as d:
        d.update(KEYS)
        age(d.path)
        d.pack()
    opened(progress_bar=told)  # from packs
    assert sorted({operation for operation, _ in told.operations()}) == ["loading"]
    (d.path / next(d.path.glob("_index.nfsdict*"))).unlink()
    opened(progress_bar=told)  # from files
    [*_, (operation, last)] = told.operations()
    assert operation == "loading" and last.done > 0 and last.bytes > sum(map(len, KEYS.values()))


def test_short_calls_tell_nothing(d, told, opened):
    opened(lazy=True)["other"] = 1
    d["k"] = 1
    d.get("k", fresh=True)
    assert d.refresh() == {"other"}
    d.pop("k")
    assert told.take() == []


@pytest.mark.parametrize("at", [1, 5])
@pytest.mark.parametrize("name", CALLS)
def test_what_the_function_raises_comes_out_and_nothing_is_lost(d, told, opened, name, at):
    told.raises_at = at
    threads = set(threading.enumerate())  # some may end
    with pytest.raises(ZeroDivisionError, match="the function's"):
        CALLS[name][0](d)
    told.raises_at = None
    assert set(threading.enumerate()) <= threads
    assert not d._locks.interrupted
    left = opened()
    if name != "clear":
        assert dict(left).items() >= KEYS.items()
    assert list(d.path.rglob(".nfsdict-*")) == []
    d.sync()
    assert dict(d) == dict(left)
    CALLS[name][0](d)
    d.sync()
    assert dict(d) == dict(opened())


def test_an_opening_ends_with_what_the_function_raises(opened, told):
    opened(lazy=True).update(KEYS)
    told.raises_at = 3
    with pytest.raises(ZeroDivisionError):
        opened(progress_bar=told)
    assert opened() == KEYS


@pytest.mark.parametrize("name", CALLS)
def test_the_function_runs_under_no_lock(opened, name):
    """It uses the dictionary, and waits for another thread that does."""
    opened(lazy=True).update(KEYS)
    found = []

    def told(now):
        assert not d._locks.interrupted
        if name == "pack":  # which waits until what was written is old
            use, arguments = d.get, ("0",)
        else:
            use, arguments = d.__setitem__, ("0", now.done)
        use(*arguments)
        other = threading.Thread(target=use, args=arguments, daemon=True)
        other.start()
        other.join(30)
        found.append(other.is_alive())

    d = opened(lazy=True, progress_bar=told)
    CALLS[name][0](d)
    assert found and not any(found)


# --- tqdm's classes -----------------------------------------------------------------------------


class Bars:
    """A class that is used as tqdm's."""

    made: list[Bars]

    def __init__(self, *, desc, total, unit, leave):
        assert leave is False
        self.desc, self.total, self.unit = desc, total, unit
        self.n, self.postfix, self.closed = 0, "", False
        self.made.append(self)

    def set_postfix_str(self, text, refresh):
        assert refresh is False
        self.postfix = text

    def update(self, count):
        assert not self.closed
        self.n += count

    def close(self):
        self.closed = True


def test_a_class_of_bars(opened):
    Bars.made = []
    d = opened(progress_bar=Bars, lazy=True)
    d.update({f"{n}": b"x" * 10**5 for n in range(40)})
    d.sync()
    first = Bars.made[0]
    assert (first.desc, first.total, first.unit) == ("s: update", 40, "key")
    assert first.postfix == "4.0 MB"
    assert all(bar.closed and bar.n == bar.total for bar in Bars.made)


def test_a_bar_is_closed_after_an_error(opened, monkeypatch):
    Bars.made = []
    d = opened(progress_bar=Bars)
    monkeypatch.setattr(Bars, "update", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        d.update(a=1)
    assert [bar.closed for bar in Bars.made] == [True]
    assert opened() == {"a": 1}


def test_tqdms_own_class_is_shown_on_standard_error(opened, capsys):
    from tqdm import tqdm

    opened(progress_bar=tqdm, lazy=True).update(KEYS)
    seen = capsys.readouterr()
    assert seen.out == "" and "s: update" in seen.err and "/60 [" in seen.err


def test_tqdm_is_loaded_when_there_is_something_to_show(tmp_path):
    code = (
        "import sys, nfsdict; d = nfsdict.NfsDict('s', sys.argv[1], lazy=True, progress_bar=True)\n"
        "d['k'] = 1; assert 'tqdm' not in sys.modules\n"
        "d.sync(); assert 'tqdm' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path], check=True, timeout=60)


@pytest.mark.parametrize("wanted", ["yes", 1, None, [], int, dict])
def test_what_is_neither(opened, wanted):
    with pytest.raises(TypeError, match="progress_bar is a bool, a function or a tqdm class"):
        opened(progress_bar=wanted)


def test_pickles_and_copies_have_no_function(opened, d, told):
    assert pickle.loads(pickle.dumps(opened(progress_bar=lambda now: None))) == KEYS
    for again in (pickle.loads(pickle.dumps(d)), copy.copy(d)):
        again.sync()
        assert again == KEYS
    assert told.take() == []
    assert pickle.loads(pickle.dumps(opened(progress_bar=True)))._options["progress_bar"] is True


def test_each_operation_ends_before_the_next_begins(d, told):
    d.repair()
    names = [name for name, _ in groupby(now.operation for now in told.updates)]
    assert names == ["repair", "sync"]


def test_an_export_an_import_and_a_migration_tell(d, told, tmp_path, nfsdict):
    other = nfsdict.NfsDict("other", tmp_path, lazy=True, progress_bar=told)
    with open(tmp_path / "archive", "wb") as file:
        d.export_to(file)
    assert [name for name, _ in told.operations()] == ["reading"]
    with open(tmp_path / "archive", "rb") as file:
        other.import_from(file)
    [(name, last)] = told.operations()
    assert (name, last.total, last.unit) == ("writing", len(KEYS), "key") and last.bytes > 0
    nfsdict.NfsDict("third", tmp_path, lazy=True, progress_bar=told).copy_from(KEYS)
    [(name, last)] = told.operations()
    assert (name, last.total) == ("writing", len(KEYS))


def test_how_many_a_pipe_has_is_not_known(d, told, tmp_path, nfsdict):
    source = nfsdict.NfsDict("other", tmp_path, "json", lazy=True, progress_bar=told)
    source.import_from(iter([b'{"key": "a", "value": 1}\n']), jsonl=True)
    assert [(now.done, now.total) for now in told.take()] == [(0, 0), (1, 0)]
