"""Runs a benchmark in the laboratory's guest: a Linux NFS server and its clients, see tests/lab."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import release021

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from lab.guest import Guest, obstacle

_RUN = "LAB_RUN"  # set for what runs in the guest


def run_in_guest(benchmark: Callable[[], None], limit: float) -> int:
    """Run this program once more, as it was called, in a guest, and there ``benchmark``.

    The exit status. The guest is killed after ``limit`` seconds.
    """
    if _RUN in os.environ:
        benchmark()
        return 0
    reason = obstacle(["knfsd"])
    if reason:
        print(reason, file=sys.stderr)
        return 1
    release021.load()  # the guest has no network to fetch it by
    environment = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    with Guest() as guest:
        guest.boot([sys.executable, *sys.argv], environment=environment)
        guest.wait(limit)
        print(guest.console_tail())
        return 1 if guest.status is None else guest.status
