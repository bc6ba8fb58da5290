"""Processes on two clients of an NFS server: what they did to each key is linearizable.

See test_histories.py for what is promised. What only looks may be late here by a tick of the
server's clock, or as long as another process of the same host reads the directory: the client gives
out what that one is being told. What changes something, and exactly-once, are strict.
"""

from __future__ import annotations

import pytest

from history import check, of_processes
from lab.laboratory import Lab
from proof import FACTOR

LATE = 0.1  # seconds


@pytest.mark.nfs(version=("3", "4.2"), timeout=60 + 60 * FACTOR)
@pytest.mark.parametrize("keys", [1, 4])
def test_two_clients(lab: Lab, keys: int) -> None:
    bases = [str(lab.a), str(lab.b)] * 2
    assert check(of_processes(bases, 5.0 * FACTOR, keys, {}), late=LATE) > 200
