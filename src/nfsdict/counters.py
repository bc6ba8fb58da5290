"""Counters: what a dictionary has done so far, as numbers, for whoever exports metrics."""

from __future__ import annotations

import os
import weakref


class Counters:
    """What one dictionary has done in this process. What each number means, ``NfsDict.counters``
    says. Whoever does it adds to the attribute, most of them under the lock ``state``; where there
    is no lock, of two threads that add at the same moment one may be lost. A forked child begins
    at 0."""

    def __init__(self) -> None:
        self.begin_anew()
        _all.add(self)

    def begin_anew(self) -> None:
        """Set all numbers to 0."""
        self.reads = 0
        self.fresh_reads = 0
        self.misses = 0
        self.puts = 0
        self.deletes = 0
        self.scans = 0
        self.packs_written = 0
        self.retries = 0
        self.stale_handles = 0
        self.lease_takeovers = 0

    def numbers(self) -> dict[str, int]:
        """The numbers by their names."""
        return dict(vars(self))


_all: weakref.WeakSet[Counters] = weakref.WeakSet()


def _forked_all() -> None:
    for counters in list(_all):
        counters.begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked_all)
