"""The programs of docs/optuna-joblib-asyncio.md, as they stand there."""

from __future__ import annotations

import subprocess
import sys

import pytest

from support.needed import needed
from support.pages import programs_in

PROGRAMS = programs_in("docs/optuna-joblib-asyncio.md")


@pytest.fixture
def start(nfsdict, tmp_path):
    """Start a program of the page in the shared directory; what waits for its output."""

    def start(name):
        (tmp_path / name).write_text(PROGRAMS[name])
        process = subprocess.Popen(
            [sys.executable, "-W", "error", name, str(tmp_path / "shared")],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

        def output():
            out, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors
            return out

        return output

    return start


def test_the_page_has_three_programs():
    assert list(PROGRAMS) == ["study.py", "cache.py", "service.py"]


def test_a_study_is_shared(start):
    needed("optuna")
    outputs = [output() for output in [start("study.py"), start("study.py")]]
    assert max(outputs) == "40 trials, the best with 1 layer\n"


def test_results_of_joblib_are_kept(start):
    needed("joblib")
    computing = [f"computing {x}" for x in range(10)]
    assert start("cache.py")().splitlines() == [*computing, "285"]
    assert len(start("cache.py")().splitlines()) == 5 + 1  # five were removed


def test_an_event_loop(start):
    for _ in range(2):  # the second one meets the entries of the first
        assert start("service.py")() == "ready 961 1002\n"
