"""Lease watch: what a contender has seen of lease files, and so which of them are dead."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import NamedTuple

from ..layout import LeaseName
from ..storage.lease_files import LeaseFiles, States
from ..storage.processes import has_ended


class Look(NamedTuple):
    """What one look has found, whatever others find meanwhile."""

    states: States
    """all leases"""
    alive: list[LeaseName]
    dead: list[LeaseName]

    def generation(self, hexdigest: str) -> int:
        """The next one of this key: 1 more than that of the dead. Whoever is alive may only have
        tried to hold it, and several who did so in turn would each count as an attempt."""
        return 1 + _highest(self.dead_of(hexdigest))

    def newest(self, hexdigest: str) -> int:
        """The highest generation of this key's leases, dead or alive; 0 if there are none."""
        return _highest(_of(self.states, hexdigest))

    def left(self, hexdigest: str) -> LeaseName | None:
        """The file that the last holder of this key's lease left behind: see ``Lease.leave``."""
        left = (one for one in self.dead_of(hexdigest) if not one.duration_ms)
        return max(left, key=lambda one: one.generation, default=None)

    def alive_of(self, hexdigest: str) -> list[LeaseName]:
        """The leases of this key that are alive."""
        return _of(self.alive, hexdigest)

    def dead_of(self, hexdigest: str) -> list[LeaseName]:
        """The dead leases of this key."""
        return _of(self.dead, hexdigest)


class Watch:
    """What a contender has seen of the files of a key, or of all keys, and since when.

    Threads may share one: each goes by the look that it made itself.
    """

    def __init__(self, files: LeaseFiles, hexdigest: str = "") -> None:
        self._files = files
        self._hexdigest = hexdigest
        self._seen: dict[LeaseName, tuple[frozenset[str], int]] = {}
        self.last = Look({}, [], [])
        """that of any thread"""

    def look(self, strict: bool = True) -> Look:
        """Ask the server. Without ``strict`` a lease may be missed."""
        begun = time.monotonic_ns()
        states = self._files.look(self._hexdigest, strict)
        ended = time.monotonic_ns()
        seen = {lease: (state, ended) for lease, state in states.items()}
        for lease, before in self._seen.items():
            if states.get(lease) == before[0]:
                seen[lease] = before
        self._seen = seen
        found = Look(states, [], [])
        for lease, (_, since) in seen.items():
            (found.dead if is_dead(lease, since, begun) else found.alive).append(lease)
        self.last = found
        return found

    def next_death(self, leases: list[LeaseName]) -> float:
        """Seconds until the first of these is dead, if it isn't renewed."""
        ends = (self._seen[lease][1] / 1e9 + lease.duration_ms / 1e3 for lease in leases)
        return min(ends, default=0.0) - time.monotonic()


def _of(leases: Iterable[LeaseName], hexdigest: str) -> list[LeaseName]:
    return [one for one in leases if one.hexdigest == hexdigest]


def _highest(leases: list[LeaseName]) -> int:
    return max((one.generation for one in leases), default=0)


def is_dead(lease: LeaseName, since: int, moment: int) -> bool:
    """Whether the lease, seen unchanged since then, is dead at this moment: both in ns, by one
    clock."""
    if not lease.duration_ms:  # as ``Lease.leave`` leaves it
        return True
    outlived = since + lease.duration_ms * 1_000_000 <= moment
    return outlived or has_ended(lease.host, lease.process, lease.start)
