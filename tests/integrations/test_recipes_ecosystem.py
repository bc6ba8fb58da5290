"""The programs in docs/recipes-ecosystem.md, as they stand there, with the real packages.

With the core that the package finds: the mapping that they use is tested over both elsewhere.
"""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from support.pages import ROOT, programs_in

PROGRAMS = programs_in("docs/recipes-ecosystem.md")
# What distributed logs on a busy machine: a worker that takes 4 s to end, long garbage collections.
SLOW = re.compile(r"^.* - distributed\.(nanny|utils_perf) - WARNING - .*\n", re.MULTILINE)


@pytest.fixture
def run(tmp_path):
    """Run a program of the page to its end; the lines that it prints."""

    def run(name):
        (tmp_path / name).write_text(PROGRAMS[name])
        done = subprocess.run(
            [sys.executable, "-W", "error", name, str(tmp_path / "shared")],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert (done.returncode, SLOW.sub("", done.stderr)) == (0, "")
        return done.stdout.splitlines()

    return run


def test_each_program_has_a_test():
    assert list(PROGRAMS) == ["arrays.py", "layers.py", "cluster.py", "worker.py"]
    page = ROOT / "docs/recipes-ecosystem.md"
    assert page.read_text().count("```python") == len(PROGRAMS)


def test_arrays(run):
    assert run("arrays.py") == ["500.0 499500 12.5"]


def test_layers(run):
    lines = run("layers.py")
    assert lines[:2] == ["100 900 49", "0 1000"]
    assert lines[2].startswith("3000 ") and int(lines[2].split()[1]) < 100
    assert lines[3:] == ["['7', '8', '9']"]


def test_a_cluster_whose_tasks_share_a_store(run, package, tmp_path):
    assert run("cluster.py") == ["1140", "10 81"]
    assert dict(package.NfsDict("squares", tmp_path / "shared")) == {
        f"square/{number}": number**2 for number in range(10)
    }


def test_the_results_of_a_worker(run):
    total, places = run("worker.py")
    assert total == "31999996000000"
    megabytes, in_files = map(int, re.findall(r"\d+", places))
    assert 40 <= megabytes <= 50 and in_files >= 4  # of 64 MB in 16 values
