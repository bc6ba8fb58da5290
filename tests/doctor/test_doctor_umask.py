"""The doctor under a umask that takes from the owner what he makes himself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

# What the command needs is imported as root, whoever may read it.
EXAMINE = """
import encodings.ascii, json, os, shutil, sys, tempfile, nfsdict.doctor.examination
from nfsdict.cli import main
from nfsdict.storage import probes
os.getuid() or os.setuid(65534)
os.umask({mask})
{before}
sys.exit(main(["doctor", {path!r}, "--json"]))
"""
INTERRUPTED = """
def make(self, mode):
    os.mkdir(self.path, mode)
    raise KeyboardInterrupt
probes.PrivateDirectory.make = lambda self, mode=0o777: make(self, mode)
"""


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory in which every user can write, and none but its owner remove others' files."""
    with tempfile.TemporaryDirectory() as path:
        os.chmod(path, 0o1777)
        yield Path(path)


def examined(path: Path, mask: int, before: str = "") -> subprocess.CompletedProcess[str]:
    """As another user than root, who may everything."""
    code = EXAMINE.format(mask=mask, path=str(path), before=before)
    environment = {**os.environ, "TMPDIR": str(path)}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )


@pytest.mark.parametrize("mask", [0o777, 0o477, 0o277, 0o377, 0o667])
def test_a_umask_that_takes_from_the_owner_is_no_fault_of_the_file_system(public, mask):
    done = examined(public, mask)
    assert done.stderr == "" and os.listdir(public) == []
    found = {(one["section"], one["probe"]): one for one in json.loads(done.stdout)["findings"]}
    failed = {name for name, one in found.items() if one["verdict"] == "FAIL"}
    assert failed - {("room", "bytes"), ("room", "inodes")} == set()
    modes = found["semantics", "modes and umask"]
    assert modes["verdict"] == "WARN" and f"umask {mask:o}" in modes["seen"]
    assert "umask" in found["speed", "all"]["seen"] and found["speed", "all"]["verdict"] == "WARN"


def test_what_was_interrupted_before_it_had_its_mode_is_removed(public):
    done = examined(public, 0o777, INTERRUPTED)
    assert done.returncode == 130
    assert os.listdir(public) == []
