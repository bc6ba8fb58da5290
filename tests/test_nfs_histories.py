"""Processes on two clients of an NFS server: what they did to each key is linearizable.

See test_histories.py for what is promised.
"""

from __future__ import annotations

import pytest

from history import check, of_processes
from lab.laboratory import Lab
from proof import FACTOR


@pytest.mark.nfs(version=("3", "4.2"), timeout=60 + 60 * FACTOR)
@pytest.mark.parametrize("keys", [1, 4])
def test_two_clients(lab: Lab, keys: int) -> None:
    bases = [str(lab.a), str(lab.b)] * 2
    assert check(of_processes(bases, 8.0 * FACTOR, keys, {})) > 200
