"""The switch: which core runs, and that a core that should run and can't is never passed over."""

from __future__ import annotations

import importlib
import importlib.machinery
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SHOW = "import nfsdict.core; print(nfsdict.core.BACKEND, nfsdict.core.digest.__module__)"


@pytest.fixture
def backend(nfsdict):
    return importlib.import_module("nfsdict.backend")


@pytest.fixture
def switch(monkeypatch, backend):
    """Set or unset the switch, and pretend to be another interpreter."""

    def set_to(choice, implementation="cpython", platform="linux"):
        if choice is None:
            monkeypatch.delenv("NFSDICT_BACKEND", raising=False)
        else:
            monkeypatch.setenv("NFSDICT_BACKEND", choice)
        monkeypatch.setattr(sys.implementation, "name", implementation)
        monkeypatch.setattr(sys, "platform", platform)

    return set_to


class Installation:
    """A copy of the installed package without its extension, to be asked which core runs."""

    def __init__(self, nfsdict, directory):
        self.directory = directory
        self.package = directory / "nfsdict"
        shutil.copytree(
            Path(nfsdict.__file__).parent,
            self.package,
            ignore=shutil.ignore_patterns("_core.*so", "__pycache__"),
        )

    def ask(self, choice):
        environment = dict(os.environ, PYTHONPATH=str(self.directory), NFSDICT_BACKEND=choice)
        return subprocess.run(
            [sys.executable, "-c", SHOW], env=environment, capture_output=True, text=True
        )


@pytest.fixture
def installation(nfsdict, tmp_path):
    return Installation(nfsdict, tmp_path)


@pytest.mark.parametrize(
    ("choice", "implementation", "platform", "expected"),
    [
        (None, "cpython", "linux", True),
        ("", "cpython", "darwin", True),
        ("auto", "cpython", "linux", True),
        ("compiled", "cpython", "linux", True),
        ("pure", "cpython", "linux", False),
        ("auto", "cpython", "win32", False),
        ("auto", "pypy", "linux", False),
        ("pure", "pypy", "linux", False),
    ],
)
def test_an_extension_is_expected_on_cpython_but_for_windows_unless_pure_is_asked_for(
    backend, switch, choice, implementation, platform, expected
):
    switch(choice, implementation, platform)
    assert backend.expects_extension() is expected


@pytest.mark.parametrize(("implementation", "platform"), [("pypy", "linux"), ("cpython", "win32")])
def test_compiled_where_there_is_no_compiled_core_is_an_error(
    backend, switch, implementation, platform
):
    switch("compiled", implementation, platform)
    with pytest.raises(ImportError, match="NFSDICT_BACKEND=pure"):
        backend.expects_extension()


def test_an_unknown_choice_is_an_error_that_lists_the_known(backend, switch):
    switch("fast")
    with pytest.raises(ValueError, match=r"'fast'.*auto, compiled, pure"):
        backend.running(extension_installed=True)


def test_the_core_is_the_one_asked_for(nfsdict):
    core = importlib.import_module("nfsdict.core")
    twin = {"compiled": "nfsdict._core", "pure": "nfsdict._pure"}[nfsdict.BACKEND]
    assert core.BACKEND == nfsdict.BACKEND == os.environ["NFSDICT_BACKEND"]
    assert {getattr(core, name).__module__ for name in ("ReadCache", "digest", "read_files")} == {
        twin
    }


def test_core_gives_what_the_contract_names(nfsdict):
    core = importlib.import_module("nfsdict.core")
    twin = importlib.import_module(core.digest.__module__)
    assert all(getattr(core, name) is getattr(twin, name) for name in core.__all__[1:])


def test_without_an_extension_auto_is_pure(installation):
    answer = installation.ask("auto")
    assert (answer.stdout, answer.stderr) == ("pure nfsdict._pure\n", "")


def test_without_an_extension_compiled_is_an_error_that_says_what_to_do(installation):
    answer = installation.ask("compiled")
    assert answer.returncode == 1
    assert "ImportError: NFSDICT_BACKEND=compiled" in answer.stderr


def test_an_unknown_choice_stops_the_import(installation):
    answer = installation.ask("fast")
    assert answer.returncode == 1
    assert "ValueError: NFSDICT_BACKEND is 'fast'" in answer.stderr


@pytest.mark.parametrize("choice", ["auto", "compiled", "pure"])
def test_an_extension_that_is_expected_and_cannot_be_imported_is_an_error(
    backend, installation, monkeypatch, choice
):
    monkeypatch.setenv("NFSDICT_BACKEND", "auto")
    fatal = choice == "compiled" or (choice == "auto" and backend.expects_extension())
    suffix = importlib.machinery.EXTENSION_SUFFIXES[0]
    (installation.package / f"_core{suffix}").write_bytes(b"no shared object")
    answer = installation.ask(choice)
    if fatal:
        assert answer.returncode == 1
        assert "ImportError" in answer.stderr
    else:
        assert answer.stdout == "pure nfsdict._pure\n"
