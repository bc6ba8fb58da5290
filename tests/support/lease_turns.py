"""Processes on two clients that take turns at one lease, and write down what each does."""

from __future__ import annotations

from pathlib import Path

from lab.laboratory import Lab

# Both clients have one kernel, but are to be two hosts.
HOSTS = """
    import os, sys, time
    import nfsdict, nfsdict.storage.processes
    host = "a" if "/a/" in sys.argv[1] else "b"
    nfsdict.storage.processes._this_host = lambda: host
    d = nfsdict.NfsDict("store", sys.argv[1], lazy=True)
"""

_TAKE_TURNS = (
    HOSTS
    + """
    log, number = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND), int(sys.argv[3])
    for _ in range(number):
        with d.lease("key", float(sys.argv[4])) as lease:
            os.write(log, b"%d begins\\n" % os.getpid())
            os.write(log, b"%d ends\\n" % os.getpid())
            assert lease.held
"""
)


def take_turns(
    lab: Lab, directory: Path, processes: int, number: int, duration: float, seconds: float
) -> None:
    """Have so many processes take so many turns each, with a lease of this duration: no two
    overlap."""
    log = directory / "log"
    log.touch()
    started = [
        lab.spawn(_TAKE_TURNS, (lab.a, lab.b)[one % 2], log, number, duration)
        for one in range(processes)
    ]
    for process in started:
        _, errors = process.communicate(timeout=seconds)
        assert process.returncode == 0, errors
    turns = [line.split() for line in log.read_text().splitlines()]
    assert len(turns) == 2 * processes * number
    for (one, begins), (another, ends) in zip(turns[::2], turns[1::2]):
        assert (one, begins, ends) == (another, "begins", "ends")
