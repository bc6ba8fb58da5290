"""The warning that others can write to a store of pickles."""

from __future__ import annotations

import grp
import importlib
import inspect
import os
import pickle
import pwd
import subprocess
import sys
import warnings
from types import SimpleNamespace

import pytest

from support.planted import Evil, Ran

KEY = bytes(16)


@pytest.fixture
def store(tmp_path):
    """The store's directory, that others can write to."""
    path = tmp_path / "s"
    path.mkdir()
    os.chmod(path, 0o777)
    return path


@pytest.fixture
def Warned(nfsdict):
    return nfsdict.UntrustedPickleWarning


@pytest.fixture
def alone(nfsdict, monkeypatch):
    """Tell whether the owner is alone in the directory's group."""
    trust = importlib.import_module("nfsdict.trust")
    return lambda answer: monkeypatch.setattr(trust, "_alone", lambda status: answer)


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("read_only", [False, True])
def test_it_warns_the_caller_once(store, opened, Warned, nfsdict, lazy, read_only):
    with pytest.warns(Warned) as caught:
        nfsdict.NfsDict("s", store.parent, lazy=lazy, read_only=read_only)
    [warned] = caught
    assert (warned.filename, warned.lineno) == (__file__, inspect.currentframe().f_lineno - 2)
    text = str(warned.message)
    for word in (str(store), "signed(", "'json'", "chmod -R o-w", "simplefilter('ignore'"):
        assert word in text
    assert issubclass(Warned, UserWarning)
    for again in (opened(), opened(lazy=True), pickle.loads(pickle.dumps(opened()))):
        again["key"] = 1


def test_each_store_warns(store, opened, Warned):
    with pytest.warns(Warned):
        opened()
    other = store.with_name("t")
    other.mkdir()
    os.chmod(other, 0o777)
    with pytest.warns(Warned, match=f"{other}"):
        opened(name="t")


def test_each_process_warns(store, opened, Warned):
    with pytest.warns(Warned):
        opened()
    code = f"import nfsdict; nfsdict.NfsDict('s', {str(store.parent)!r})\n" * 2
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.count("UntrustedPickleWarning: everybody") == 1


@pytest.mark.parametrize(
    ("bits", "mode", "warns"),
    [
        (0o755, None, False),
        (0o700, None, False),
        (0o775, None, True),
        (0o2770, None, True),
        (0o775, 0o644, True),
        (0o775, 0o660, False),
        (0o2770, 0o664, False),
        (0o757, 0o660, True),
        (0o777, 0o660, True),
        (0o777, 0o666, True),
        (0o1777, None, True),
        (0o702, None, True),
    ],
)
def test_who_may_write(store, opened, Warned, alone, bits, mode, warns):
    alone(False)
    os.chmod(store, bits)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        opened(mode=mode)
    assert [warned.category for warned in caught] == [Warned] * warns
    if warns:
        assert ("0o660" in str(caught[0].message)) == (not bits & 0o002)


def test_a_group_of_the_owner_alone(store, opened, Warned, alone):
    os.chmod(store, 0o775)
    alone(True)
    opened()
    os.chmod(store, 0o777)
    with pytest.warns(Warned):
        opened()


@pytest.mark.parametrize(
    ("owner", "group", "members", "alone"),
    [
        ("ann", "ann", [], True),
        ("ann", "ann", ["ann"], True),
        ("ann", "ann", ["ann", "bob"], False),
        ("ann", "users", [], False),
        (None, "ann", [], False),
        ("ann", None, [], False),
    ],
)
def test_whose_group_it_is(nfsdict, store, monkeypatch, owner, group, members, alone):
    def known(name, **attributes):
        def get(number):
            if name is None:
                raise KeyError(number)
            return SimpleNamespace(**attributes)

        return get

    monkeypatch.setattr(pwd, "getpwuid", known(owner, pw_name=owner))
    monkeypatch.setattr(grp, "getgrgid", known(group, gr_name=group, gr_mem=members))
    trust = importlib.import_module("nfsdict.trust")
    assert trust._alone(os.stat(store)) is alone


def test_buffers_are_pickles(store, opened, Warned):
    with pytest.warns(Warned):
        opened(serializer="buffers")


def test_what_runs_no_code_warns_of_nothing(store, opened, nfsdict):
    class BuiltinSerializer:
        extension = ".own"

        def dumps(self, obj):
            return repr(obj).encode()

        def loads(self, data):
            raise ValueError

    for serializer in ("json", "bytes", nfsdict.signed(key=KEY), BuiltinSerializer()):
        opened(serializer=serializer)


def test_as_an_error_it_comes_before_anything_is_read(store, opened, Warned, nfsdict):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Warned)
        d = opened()
        d["key"] = 1
    [path] = store.glob("??/*")
    path.write_bytes(pickle.dumps(("key", Evil())))
    forget = importlib.import_module("nfsdict.trust")._warned.clear
    forget()
    for _ in range(2):  # and each time
        with warnings.catch_warnings():
            warnings.simplefilter("error", Warned)
            with pytest.raises(Warned):
                opened()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Warned)
        with pytest.raises(Ran):
            opened()


def test_attributes_that_cannot_be_read_are_no_reason(store, opened, nfsdict, monkeypatch):
    stat = os.stat

    def refused(path, *arguments, **options):
        if refusing and path == str(store):
            raise PermissionError
        return stat(path, *arguments, **options)

    refusing = False
    original = importlib.import_module("nfsdict.trust").warn_of_writers

    def warn_of_writers(*arguments):
        nonlocal refusing
        refusing = True
        original(*arguments)
        refusing = False

    parts = importlib.import_module("nfsdict.parts")
    monkeypatch.setattr(os, "stat", refused)
    monkeypatch.setattr(parts, "warn_of_writers", warn_of_writers)
    opened(lazy=True)["key"] = 1


def test_the_commands_tell_it_in_one_line(store):
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-m", "nfsdict", "set", "--base-dir", store.parent, "s", "k", "v"],
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stdout) == (0, "")
        [line] = done.stderr.splitlines()
        assert line.startswith("nfsdict: warning: everybody can write to")
