"""Processes and threads on one host: what they did to each key is linearizable.

Promised is: ``d[k] = v``, ``del``, ``pop``, ``add``, ``get(k, fresh=True)``, and a lookup that
misses, of all processes on all hosts, as if made one after another. A read from memory gives what
the same dictionary has seen last.
"""

from __future__ import annotations

import pytest

from history import check, of_processes, of_threads
from proof import FACTOR


@pytest.mark.parametrize("options", [{}, {"serializer": "json"}], ids=["pickle", "json"])
def test_processes(nfsdict, tmp_path, options):
    histories = of_processes([str(tmp_path)] * 4, 1.5 * FACTOR, 3, options)
    assert check(histories) > 200


def test_threads(nfsdict, tmp_path):
    d = nfsdict.NfsDict("store", tmp_path, lazy=True, durable=False)
    assert check(of_threads(d, 4, 1.0 * FACTOR, 3), alone=False) > 100


def test_threads_of_two_dictionaries(nfsdict, tmp_path):
    histories = []
    for number in range(2):
        d = nfsdict.NfsDict(f"store {number}", tmp_path, lazy=True, durable=False)
        histories += of_threads(d, 2, 1.0, 1)
    with pytest.raises(AssertionError, match="key 0"):
        check(histories, alone=False)  # two stores are not one: this sees it
