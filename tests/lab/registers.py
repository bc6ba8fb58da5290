"""Processors with more registers than User-mode Linux 6.1 knows; see ``registers.c``."""

from __future__ import annotations

import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("registers.c")


def are_too_many() -> bool:
    """Whether this machine has registers that the guest's kernel has no room for: those of AMX."""
    return "amx_tile" in Path("/proc/cpuinfo").read_text().split()


def preload(directory: Path) -> dict[str, str]:
    """What the guest's kernel needs in its environment to run here. Builds in this directory."""
    if not are_too_many():
        return {}
    library = directory / "registers.so"
    subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"], check=True)
    return {"LD_PRELOAD": str(library)}
