"""Processes and threads on one host: what they did to each key is linearizable.

Promised is: ``d[k] = v``, ``del``, ``pop``, ``add``, ``get(k, fresh=True)``, and a lookup that
misses, of all processes on all hosts, as if made one after another. A read from memory gives what
the same dictionary has seen last.
"""

from __future__ import annotations

import pytest

from support.history import check, of_processes, of_threads
from support.proof import FACTOR


@pytest.mark.parametrize("options", [{}, {"serializer": "json"}], ids=["pickle", "json"])
def test_processes(nfsdict, tmp_path, options):
    histories = of_processes([str(tmp_path)] * 4, 1.5 * FACTOR, 3, options)
    assert check(histories) > 200


def test_threads(nfsdict, tmp_path):
    d = nfsdict.NfsDict("store", tmp_path, lazy=True, durable=False)
    assert check(of_threads(d, 4, 1.0 * FACTOR, 3), alone=False) > 100


def test_two_stores_are_not_one(nfsdict, tmp_path):
    """This is seen: so is any other staleness."""
    bases = [str(tmp_path / name) for name in "ab"]
    with pytest.raises(AssertionError, match="key 0"):
        check(of_processes(bases, 1.0, 1, {}))
