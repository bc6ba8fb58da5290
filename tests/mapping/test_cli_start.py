"""Ctrl-C while the command starts, before its own lines run, and when it has done its work."""

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


END = """
import atexit, os, signal, sys
def press():
    os.kill(os.getpid(), signal.SIGINT)
when = sys.argv.pop(1)
if when == "after all callbacks":
    atexit.register(press)
from {module} import {attr}
status = {attr}()
if when == "after the result":
    press()
if when == "in a callback":
    atexit.register(press)
sys.exit(status)
"""


@pytest.mark.parametrize(
    ("when", "status"),
    [
        ("after the result", 130),
        ("in a callback", 130),
        ("after all callbacks", 0),
    ],
)
def test_ctrl_c_after_the_result_is_quiet(package, tmp_path, when, status):
    [entry] = distribution("nfsdict").entry_points.select(group="console_scripts", name="nfsdict")
    package.NfsDict("s", tmp_path)["k"] = 1
    done = subprocess.run(
        [sys.executable, "-c", END.format(module=entry.module, attr=entry.attr), when, "ls", "s"],
        env={**os.environ, "NFSDICT_BASE_DIR": str(tmp_path)},
        capture_output=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (status, b"")
    assert done.stdout == b"k\n"
