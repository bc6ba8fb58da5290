"""The programs in the documentation, as they stand there, many at a time."""

from __future__ import annotations

import subprocess
import sys

import pytest

from support.pages import programs_in

PROGRAMS = programs_in("docs/compute-once.md")


@pytest.fixture
def start(nfsdict, tmp_path):
    """Start a program of the page in the shared directory; its process."""

    def start(name, *arguments):
        if not (tmp_path / name).exists():  # one that has started may be reading it
            (tmp_path / name).write_text(PROGRAMS[name])
        return subprocess.Popen(
            [sys.executable, "-W", "error", name, str(tmp_path), *arguments],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def output(process):
    out, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (0, "")
    return out


def test_the_page_has_three_programs():
    assert list(PROGRAMS) == ["sweep.py", "worklist.py", "registry.py"]


def test_a_sweep_computes_each_setting_once(start, tmp_path):
    outputs = [output(job) for job in [start("sweep.py") for _ in range(3)]]
    computed = [line for out in outputs for line in out.splitlines() if "computing" in line]
    assert len(computed) == len(set(computed)) == 9
    assert {out.splitlines()[-1] for out in outputs} == {"best 0.03 4 0.0"}
    assert output(start("sweep.py")) == "best 0.03 4 0.0\n"
    peek = "import sys; sys.argv = ['', '.']; import sweep; print(sweep.train.peek(0.03, 4))"
    done = subprocess.run(
        [sys.executable, "-c", peek], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "0.0\n"


def test_a_work_list_is_done_although_a_worker_is_killed(start, nfsdict, tmp_path):
    assert output(start("worklist.py")) == "40 results, 1 worker killed, 0 tasks failed\n"
    assert dict(nfsdict.NfsDict("tasks", tmp_path)) == {}


def test_a_registry_loses_no_edit(start, nfsdict, tmp_path):
    hosts = [f"host-{number}" for number in range(4)]
    outputs = [output(job) for job in [start("registry.py", host) for host in hosts]]
    assert any("sees 40 runs by host-0 host-1 host-2 host-3" in out for out in outputs)
    registry = nfsdict.NfsDict("registry", tmp_path, nfsdict.json_format(indent=2))
    assert dict(registry) == {"model-7": {"hosts": hosts, "runs": 40}}
