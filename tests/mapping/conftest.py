"""The command, run in this process: that takes milliseconds, a process of its own a second."""

from __future__ import annotations

import importlib
import sys
from typing import NamedTuple

import pytest


class Done(NamedTuple):
    """What a command printed, and its exit status."""

    status: int
    out: bytes
    err: str


@pytest.fixture
def terminal(monkeypatch):
    """Have ``cli`` take its output and errors for a terminal."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)


@pytest.fixture
def cli(nfsdict, tmp_path, capfdbinary, request):
    """Run the command over stores below tmp_path."""
    main = importlib.import_module("nfsdict.cli").main

    def run(name, *arguments):
        capfdbinary.readouterr()
        with pytest.MonkeyPatch.context() as patch:
            if "terminal" in request.fixturenames:
                for stream in (sys.stdout, sys.stderr):
                    patch.setattr(stream, "isatty", lambda: True)
            status = main([name, "--base-dir", str(tmp_path), *map(str, arguments)])
        out, err = capfdbinary.readouterr()
        return Done(status, out, err.decode("utf-8", "surrogateescape"))

    return run
