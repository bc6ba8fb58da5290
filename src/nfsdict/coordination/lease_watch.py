"""Lease watch: what a contender has seen of lease files, and so which of them are dead."""

from __future__ import annotations

import time
from collections.abc import Iterable

from ..layout import LeaseName
from ..storage.lease_files import LeaseFiles
from ..storage.processes import has_ended


class Watch:
    """What a contender has seen of the files of a key, or of all keys, and since when."""

    def __init__(self, files: LeaseFiles, hexdigest: str = "") -> None:
        self._files = files
        self._hexdigest = hexdigest
        self._seen: dict[LeaseName, tuple[frozenset[str], int]] = {}
        # Those of them that were dead at the last look.
        self._dead: set[LeaseName] = set()

    def look(self, strict: bool = True) -> list[LeaseName]:
        """Ask the server. All leases that aren't dead; without ``strict`` one may be missed."""
        begun = time.monotonic_ns()
        states = self._files.look(self._hexdigest, strict)
        ended = time.monotonic_ns()
        seen = {lease: (state, ended) for lease, state in states.items()}
        for lease, before in self._seen.items():
            if states.get(lease) == before[0]:
                seen[lease] = before
        self._seen = seen
        self._dead = {lease for lease in states if is_dead(lease, seen[lease][1], begun)}
        return [lease for lease in states if lease not in self._dead]

    def next_death(self, leases: list[LeaseName]) -> float:
        """Seconds until the first of these is dead, if it isn't renewed."""
        ends = (self._seen[lease][1] / 1e9 + lease.duration_ms / 1e3 for lease in leases)
        return min(ends, default=0.0) - time.monotonic()

    def left(self, hexdigest: str) -> LeaseName | None:
        """The file that the last holder of this key's lease left behind: see ``Lease.leave``."""
        left = (one for one in self._seen if one.hexdigest == hexdigest and not one.duration_ms)
        return max(left, key=lambda one: one.generation, default=None)

    def generation(self, hexdigest: str) -> int:
        """The next one of this key: 1 more than that of the dead. Whoever is alive may only have
        tried to hold it, and several who did so in turn would each count as an attempt."""
        return 1 + _highest(self._dead, hexdigest)

    def newest(self, hexdigest: str) -> int:
        """The highest generation of this key's leases, dead or alive; 0 if there are none."""
        return _highest(self._seen, hexdigest)

    def taken_over(self, mine: LeaseName) -> bool:
        """Whether another one of this key, which is dead, was held until its holder died."""
        return any(
            lease != mine and lease.hexdigest == mine.hexdigest and lease.duration_ms > 0
            for lease in self._seen
        )

    def sweep(self, mine: LeaseName) -> None:
        """Remove the files of all others of this key, which are dead."""
        for lease, (state, _) in self._seen.items():
            if lease != mine and lease.hexdigest == mine.hexdigest:
                self._files.remove(state)


def _highest(leases: Iterable[LeaseName], hexdigest: str) -> int:
    return max((one.generation for one in leases if one.hexdigest == hexdigest), default=0)


def is_dead(lease: LeaseName, since: int, moment: int) -> bool:
    """Whether the lease, seen unchanged since then, is dead at this moment: both in ns, by one
    clock."""
    if not lease.duration_ms:  # as ``Lease.leave`` leaves it
        return True
    outlived = since + lease.duration_ms * 1_000_000 <= moment
    return outlived or has_ended(lease.host, lease.process, lease.start)
