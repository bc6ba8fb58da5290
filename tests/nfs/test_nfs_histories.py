"""Processes on two clients of a real server: what they did to each key is linearizable.

See test_histories.py for what is promised, and test_nfs_gaps.py for the one thing more that a put
may do here.
"""

from __future__ import annotations

import pytest

from lab.laboratory import Lab
from lab.servers import SERVERS
from support.history import KINDS, WITHOUT_ADD, check, of_processes
from support.proof import FACTOR


@pytest.mark.nfs(version=("3", "4.2"), timeout=240 + 60 * FACTOR)
@pytest.mark.shared(timeout=240 + 60 * FACTOR)
@pytest.mark.parametrize("keys", [1, 4])
def test_two_clients(lab: Lab, keys: int) -> None:
    bases = [str(lab.a), str(lab.b)] * 2
    if lab.configuration.server == "knfsd":
        assert check(of_processes(bases, 5.0 * FACTOR, keys, {}), gaps=True) > 200
    else:  # some are slow, so that seconds alone would be few calls
        kinds = KINDS if SERVERS[lab.configuration.server].LINKS else WITHOUT_ADD
        histories = of_processes(bases, 2.0 * FACTOR, keys, {}, 25 * FACTOR, kinds)
        assert check(histories, gaps=True) > 50


@pytest.mark.nfs(version=("3", "4.2"), rtt_ms=1, timeout=240 + 60 * FACTOR)
def test_four_processes_on_each_client_one_key(lab: Lab) -> None:
    """So that they come in each other's way at each step."""
    bases = [str(lab.a), str(lab.b)] * 4
    assert check(of_processes(bases, 5.0 * FACTOR, 1, {}), gaps=True) > 200
