"""How much memory something takes, in a process of its own, over the core that is tested."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

MIB = 1 << 20

# The kernel's own figure, whoever allocates: tracemalloc sees neither malloc nor what the garbage
# collector of PyPy holds.
PROLOGUE = f"""
import sys
import nfsdict

def status(name):
    for line in open("/proc/self/status"):
        if line.startswith(name):
            return int(line.split()[1]) / 1024

def peak(act):
    "MiB above what was resident before: at most meanwhile, and afterwards."
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = status("VmRSS")
    result = act()
    most, after = status("VmHWM") - before, status("VmRSS") - before
    print(most, after)
    return result

MIB = {MIB}
base = sys.argv[1]
"""


def peaks(script: str, base: Path) -> list[tuple[float, float]]:
    """For each ``peak(…)`` in this script, which knows ``base``, the MiB that it took and kept."""
    if not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("the kernel doesn't tell the most memory that was resident")
    # What is freed goes back to the kernel at once, so that nothing hides behind it.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PROLOGUE + script, str(base)],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    return [(float(most), float(after)) for most, after in lines]
