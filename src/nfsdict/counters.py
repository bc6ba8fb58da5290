"""Counters: what a dictionary has done so far, as numbers, for whoever exports metrics."""

from __future__ import annotations

import os
import weakref
from dataclasses import dataclass, fields


@dataclass(eq=False)
class Counters:
    """What one dictionary has done in this process. What each number means, ``NfsDict.counters``
    says. Whoever does it adds to the attribute, most of them under the lock ``state``; where there
    is no lock, of two threads that add at the same moment one may be lost. A forked child begins
    at 0."""

    reads: int = 0
    fresh_reads: int = 0
    misses: int = 0
    puts: int = 0
    deletes: int = 0
    scans: int = 0
    packs_written: int = 0
    retries: int = 0
    stale_handles: int = 0
    lease_takeovers: int = 0

    def __post_init__(self) -> None:
        _all.add(self)

    def numbers(self) -> dict[str, int]:
        """The numbers by their names."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def _forked(self) -> None:
        for field in fields(self):
            setattr(self, field.name, 0)


_all: weakref.WeakSet[Counters] = weakref.WeakSet()


def _forked_all() -> None:
    for counters in list(_all):
        counters._forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked_all)
