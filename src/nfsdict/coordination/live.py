"""Live leases: of which keys some process holds the lease, for who leaves their entries alone."""

from __future__ import annotations

from ..storage import Storage
from .lease_watch import Watch, is_dead


class LiveLeases:
    """The leases of one store, looked at again and again."""

    def __init__(self, storage: Storage) -> None:
        self._watch = Watch(storage.leases)
        # What wasn't renewed in time is not held again. Where hosts stamp files by their own clocks
        # that can't be told, and only those count as dead that a watch sees die.
        self._expired = set()
        if storage.rules.mounted.one_clock and self._watch.look().alive:
            now = storage.files.server_time_ns()
            self._expired = {
                name
                for name, times in storage.leases.times().items()
                if is_dead(name, times.renewed, now)
            }

    def digests(self) -> set[str]:
        """The digests of the keys whose leases are held, or are about to be."""
        alive = self._watch.look().alive
        return {lease.hexdigest for lease in alive if lease not in self._expired}
