"""Commands of the guest, and what it keeps to itself of the host's files."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


def run(*command: str, input: str | None = None) -> str:
    """Run *command* and return what it printed; RuntimeError with that if it fails."""
    done = subprocess.run(
        command, input=input, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: status {done.returncode}\n{done.stdout}")
    return done.stdout


def modprobe(*modules: str) -> None:
    """Load these modules of the guest's kernel; nothing if they are loaded."""
    run("modprobe", "-a", "-d", "/run/modules", *modules)


def hide(directory: str | Path) -> None:
    """Give the guest an empty directory of its own in place of this one of the host's.

    The guest's root is the host's file tree: what a server keeps there would be left on the host.
    """
    if not os.path.ismount(directory):
        run("mount", "-t", "tmpfs", "-o", "mode=755", "none", str(directory))
