"""Failing calls and kills: whichever call fails, or is the last one, nothing is lost or torn.

tests/faults/driver.py has the operations, the cases, and what is checked after each.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.proof import FACTOR

FAULTS = Path(__file__).parent
METHODS = ("fork", "spawn")

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or sys.implementation.name != "cpython",
    reason="replaces calls of glibc, as CPython and the compiled core make them",
)


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tmp_path_factory.mktemp("faults") / "shim.so"
    command = ["cc", "-shared", "-fPIC", "-O1", "-Wall", "-o", library, FAULTS / "shim.c", "-ldl"]
    subprocess.run(command, check=True)
    return library


@pytest.fixture
def bases(tmp_path: Path) -> Iterator[list[str]]:
    """Where the processes work, in memory if there is some: nothing here is about durability."""
    directory = tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else tmp_path)
    yield [f"{directory}/{method}" for method in METHODS]
    shutil.rmtree(directory)


@pytest.mark.parametrize(
    ("what", "kind", "least"),
    [("fail", "", 750), ("kill", "", 100), ("fail", "cifs", 100), ("kill", "cifs", 30)],
)
def test_each_call_of_each_operation(nfsdict, shim, bases, what, kind, least):
    """The processes, one for each way to start one, share the cases, and in a default run those of
    the two cores do. On SMB only writes differ."""
    cores, core = (1, 0) if FACTOR > 1 else (2, nfsdict.BACKEND == "pure")
    processes = [
        subprocess.Popen(
            [
                *(sys.executable, FAULTS / "driver.py", what, method),
                *(f"{cores * part + core}/{cores * len(METHODS)}", str(FACTOR), base),
            ],
            env={**os.environ, "LD_PRELOAD": str(shim), "MOUNTED_AS": kind},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for part, (method, base) in enumerate(zip(METHODS, bases))
    ]
    cases = 0
    outputs = [process.communicate() for process in processes]
    for process, (output, errors) in zip(processes, outputs):
        assert process.returncode == 0, errors[-3000:]
        *wrong, last = output.splitlines()
        assert wrong == []
        cases += int(last.removeprefix("cases: "))
    assert cases >= least
