"""Repair: what is damaged goes aside, nothing that may be a value does, and nothing stops it."""

from __future__ import annotations

import errno
import importlib
import logging
import os
import pickle
import signal
import sys
from pathlib import Path

import pytest

from support.aging import age


@pytest.fixture
def Files(nfsdict):
    return importlib.import_module("nfsdict.storage.files").Files


def value_file(d, key: str) -> Path:
    digest = importlib.import_module("nfsdict.core").digest
    return d.path / digest(key)[:2] / f"{digest(key)}.pkl"


@pytest.fixture
def damaged(opened):
    """A store of three keys, two of them damaged."""
    d = opened()
    d.update(a=1, b=2, c=3)
    for key in "ab":
        value_file(d, key).write_bytes(f"junk {key}".encode())
    return d


def test_what_is_damaged_is_moved_aside(damaged, opened):
    done = damaged.repair()
    assert set(done.quarantined) == set(done.report.damaged)
    asides = map(Path, done.quarantined.values())
    assert {aside.read_bytes() for aside in asides} == {b"junk a", b"junk b"}
    assert done.failed == {} and done.removed == []
    assert dict(damaged) == dict(opened()) == {"c": 3}
    found = damaged.verify()
    assert found.ok and found.unrecognized == []
    assert set(found.put_aside) == set(done.quarantined.values())


@pytest.mark.parametrize("when", ["after verify", "at the rename"])
def test_a_value_written_meanwhile_stays(damaged, opened, Files, monkeypatch, when):
    other = opened(lazy=True)

    def write(owner, name, applies):
        original = getattr(owner, name)

        def written_first(*arguments):
            if applies(arguments):
                monkeypatch.undo()
                other["a"] = "anew"
            return original(*arguments)

        monkeypatch.setattr(owner, name, written_first)

    if when == "after verify":
        write(Files, "probe_clock", lambda arguments: True)
    else:
        path = str(value_file(damaged, "a"))
        write(os, "rename", lambda arguments: arguments[0] == path)
    done = damaged.repair()
    assert set(done.quarantined) == {str(value_file(damaged, "b"))}
    assert dict(damaged) == dict(opened()) == {"a": "anew", "c": 3}
    assert len(list(damaged.path.glob("*/*damaged*"))) == 1


def test_what_cannot_be_done_stops_nothing(damaged, opened, monkeypatch):
    path = str(value_file(damaged, "a"))
    rename = os.rename

    def refused(source, target):
        if source == path:
            raise OSError(errno.EACCES, "no")
        rename(source, target)

    monkeypatch.setattr(os, "rename", refused)
    done = damaged.repair()
    assert set(done.quarantined) == {str(value_file(damaged, "b"))}
    assert set(done.failed) == {path}
    assert dict(opened()) == {"c": 3}


def test_a_damaged_file_that_is_gone_meanwhile_is_no_failure(damaged, Files, monkeypatch):
    clock = Files.probe_clock

    def removed(self):
        value_file(damaged, "a").unlink(missing_ok=True)
        return clock(self)

    monkeypatch.setattr(Files, "probe_clock", removed)
    done = damaged.repair()
    assert set(done.quarantined) == {str(value_file(damaged, "b"))}
    assert done.failed == {}


class Fails:
    """A value that is whole, and can't be unpickled here."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __reduce__(self):
        return fail, (self.error,)


def fail(error):
    if failing:
        raise error


failing = [True]


class Unprintable(RuntimeError):
    def __str__(self) -> str:
        raise ZeroDivisionError


@pytest.fixture
def plain(opened, tmp_path):
    """Writes a pickle without a checksum, as release 0.2.1 does."""
    opened()

    def plain(key: str, value: object) -> Path:
        path = value_file(opened(lazy=True), key)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(pickle.dumps((key, value)))
        return path

    return plain


def test_a_plain_pickle_whose_code_fails_stays(opened, plain):
    path = plain("key", Fails(KeyError("no GPU")))
    plain("good", 1)
    d = opened()
    assert dict(d) == {"good": 1}
    with pytest.raises(KeyError, match="no GPU"):
        d["key"]
    for report in (d.verify(), d.repair().report):
        assert (report.entries, report.damaged) == (1, {})
        assert report.unreadable == {str(path): "KeyError: 'no GPU'"}
    assert path.exists()
    path.write_bytes(path.read_bytes()[:-2] + b".")
    assert list(d.repair().quarantined) == [str(path)]


def test_an_exception_that_cannot_be_told_stops_nothing(opened, caplog):
    d = opened()
    d.update({"bad": Fails(Unprintable()), "good": 1, "damaged": 2})
    value_file(d, "damaged").write_bytes(b"junk")
    with caplog.at_level(logging.WARNING, "nfsdict"):
        d = opened()
    assert any("Unprintable" in record.getMessage() for record in caplog.records)
    report = d.verify()
    assert report.entries == 1 and list(report.damaged) == [str(value_file(d, "damaged"))]
    [text] = report.unreadable.values()
    assert text.startswith("Unprintable: ")
    done = d.repair()
    assert list(done.quarantined) == [str(value_file(d, "damaged"))]
    assert value_file(d, "bad").exists()


class Text(str):
    def __format__(self, spec):
        raise ZeroDivisionError


class OddText(Exception):
    def __str__(self) -> str:
        return Text("x")


class Meta(type):
    @property
    def __name__(cls):
        raise ZeroDivisionError


class Nameless(Exception, metaclass=Meta):
    pass


class Classless(Exception):
    @property
    def __class__(self):
        raise ZeroDivisionError


UNTOLD = {"OddText": OddText, "Nameless": Nameless, "Classless": Classless}


class FailsOddly:
    """A value that is whole, and raises one of these when it is unpickled."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __reduce__(self):
        return fail_oddly, (self.name,)


def fail_oddly(name):
    raise UNTOLD[name]


@pytest.mark.parametrize("name", UNTOLD)
def test_an_exception_whose_own_code_raises_costs_its_own_key(opened, name):
    d = opened()
    d.update({"bad": FailsOddly(name), "good": 1})
    assert dict(items(opened())) == dict(items(opened(lazy=True))) == {"good": 1}
    d.sync()
    for report in (d.verify(), d.repair(grace=-1).report):
        assert (report.entries, report.damaged) == (1, {})
        [(path, text)] = report.unreadable.items()
        assert path == str(value_file(d, "bad")) and name in text
    with pytest.raises(UNTOLD[name]):
        opened()["bad"]


def items(d):
    return ((key, d[key]) for key in d if key != "bad")


class Reads:
    """A value that reads another entry when it is unpickled."""

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.key = path, key

    def __setstate__(self, state):
        self.__dict__.update(state)
        self.value = importlib.import_module("nfsdict").NfsDict.open(self.path, lazy=True)[self.key]


@pytest.mark.parametrize("store", ["s", "another"])
def test_a_value_whose_code_reads_a_damaged_entry_is_not_damaged_itself(opened, store):
    d, there = opened(), opened(name=store)
    there["x"] = 1
    d["whole"] = Reads(there.path, "x")
    path, other = value_file(d, "whole"), value_file(there, "x")
    for check in (d.verify, lambda: d.repair().report):
        other.write_bytes(b"junk")
        report = check()
        assert set(report.damaged) == ({str(other)} if store == "s" else set())
        [(where, text)] = report.unreadable.items()
        assert where == str(path) and str(other) in text
    other.write_bytes(b"junk")
    lazy = opened(lazy=True)
    with pytest.raises(RuntimeError, match="'x'"):
        lazy["whole"]
    with pytest.raises(RuntimeError, match="'x'"):
        lazy.popitem()
    assert path.exists() and "whole" in lazy


class Own(BaseException):
    pass


@pytest.mark.parametrize("error", [SystemExit(3), GeneratorExit("x"), Own("x")], ids=repr)
@pytest.mark.parametrize("packed", [False, True])
def test_a_value_that_would_end_the_process_costs_its_own_key(
    opened, tmp_path, monkeypatch, error, packed
):
    """An exact lookup still raises what the value's code raises."""
    good = {str(number): number for number in range(20)}
    d = opened()
    d.update(good)
    d["bad"] = Fails(error)
    if packed:
        age(tmp_path)
        monkeypatch.setitem(globals(), "failing", [])  # so that a pack has its bytes
        lazy = opened(lazy=True)
        assert lazy.pack().packed == len(good) + 1
        monkeypatch.undo()
    path = value_file(d, "bad")
    again = opened()
    assert {key: again[key] for key in good} == good
    for call in (again.sync, again.refresh, opened(lazy=True).refresh):
        call()
    for report in (again.verify(), again.repair(grace=-1).report):
        assert (report.entries, report.damaged) == (len(good), {})
        [(where, text)] = report.unreadable.items()
        assert where == str(path) and type(error).__name__ in text
    again.pack()
    assert path.exists()
    with pytest.raises(type(error)):
        again["bad"]


class Signals:
    """Its unpickling is interrupted by a signal, once."""

    def __reduce__(self):
        return interrupted, ()


signalled: list[bool] = []


def interrupted():
    if not signalled:
        signalled.append(True)
        signal.raise_signal(signal.SIGTERM)
    return "value"


@pytest.mark.parametrize("call", ["open", "sync", "verify", "repair"])
def test_a_signal_handlers_exit_while_a_value_is_unpickled_ends_the_process(opened, call):
    d = opened()
    d.update({"key": Signals(), "good": 1})
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
    signalled.clear()
    try:
        with pytest.raises(SystemExit, match="5"):
            opened(workers=1) if call == "open" else getattr(d, call)()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert signalled and opened()["key"] == "value"


def test_a_users_damage_that_cannot_be_told_is_damage(nfsdict, tmp_path):
    class Untold(ValueError):
        def __str__(self) -> str:
            raise ZeroDivisionError

    class Odd:
        extension = ".odd"

        def dumps(self, obj):
            return b"odd"

        def loads(self, data):
            raise Untold

    d = nfsdict.NfsDict("s", tmp_path, Odd())
    d["key"] = 1
    assert len(d.verify().damaged) == 1
    assert len(d.repair().quarantined) == 1


@pytest.mark.parametrize("grace", [float("inf"), float("nan"), 1e300, -5, "x", True, None])
def test_a_grace_that_is_none(opened, grace):
    with pytest.raises((TypeError, ValueError), match="grace"):
        opened().repair(grace=grace)
