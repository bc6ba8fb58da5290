"""The programs in the README, as they stand there."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from support.pages import programs_in

PROGRAMS = programs_in("README.md")


@pytest.fixture
def run(nfsdict, tmp_path):
    """Run a program in several processes at once; the sorted last lines of what they print."""

    def run(name, *arguments, processes=3):
        (tmp_path / name).write_text(PROGRAMS[name])
        command = [sys.executable, "-W", "error", name, str(tmp_path), *arguments]
        started = [
            subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
            for _ in range(processes)
        ]
        printed = [process.communicate(timeout=300)[0] for process in started]
        assert [process.returncode for process in started] == [0] * processes
        return sorted(out.splitlines()[-1] for out in printed)

    return run


def test_it_has_three_programs():
    assert list(PROGRAMS) == ["sweep.py", "work.py", "registry.py"]


def test_a_sweep(run, nfsdict, tmp_path):
    assert set(run("sweep.py")) == {"best (0.03, 4)"}
    assert len(nfsdict.NfsDict("sweep", tmp_path)) == 4


def test_a_work_list(run, nfsdict, tmp_path):
    run("work.py", "fill", processes=1)
    squares = {f"square/{number}": number**2 for number in range(40)}
    assert dict(nfsdict.NfsDict("results", tmp_path)) == squares
    nfsdict.NfsDict("tasks", tmp_path).update({f"square/{number}": number for number in range(40)})
    run("work.py")
    assert dict(nfsdict.NfsDict("tasks", tmp_path)) == {}
    assert dict(nfsdict.NfsDict("results", tmp_path)) == squares


def test_a_registry(run):
    assert set(run("registry.py")) == {f"seen so far: {socket.gethostname()}"}
