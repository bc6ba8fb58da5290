"""Ctrl-C while the command starts: before its own lines run, it imports for most of a second."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import distribution

import pytest

from support.processes import processes

# The file that pip makes of the entry point, with Ctrl-C at the import of this number, of those
# that follow the entry point's own.
SCRIPT = """
import os, signal, sys
count = 0
def note(event, arguments):
    global count
    if event == "import":
        count += 1
        if count == at:
            os.kill(os.getpid(), signal.SIGINT)
at = int(sys.argv.pop(1))
from {module} import {attr}
sys.addaudithook(note)
status = {attr}()
if status == 0:
    print(count, file=sys.stderr)
sys.exit(status)
"""


@pytest.fixture
def command(package, tmp_path):
    [entry] = distribution("nfsdict").entry_points.select(group="console_scripts", name="nfsdict")
    script = SCRIPT.format(module=entry.module, attr=entry.attr)
    package.NfsDict("s", tmp_path)["k"] = 1

    def run(at, *, before=()):
        with processes() as start:
            process = start(
                [*before, sys.executable, "-c", script, str(at), "ls", "s"],
                env={**os.environ, "NFSDICT_BASE_DIR": str(tmp_path)},
            )
            out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(at, process.returncode, out, err)

    return run


def test_ctrl_c_while_it_imports_is_quiet(command):
    well = command(0)
    assert (well.returncode, well.stdout) == (0, b"k\n")
    imports = int(well.stderr)
    assert imports > 100
    for at in (1, 2, imports // 3, imports // 2, imports - 1):
        done = command(at)
        assert (done.returncode, done.stdout, done.stderr) == (130, b"", b""), at


def test_in_the_background_of_a_shell_it_is_ignored(command):
    done = command(50, before=["env", "--ignore-signal=INT"])
    assert (done.returncode, done.stdout) == (0, b"k\n")
