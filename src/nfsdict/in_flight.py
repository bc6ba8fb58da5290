"""In flight: lookups and scans that hold no lock while they wait, and what overtakes them.

A call that changes or looks up a key notes that here. A lookup or scan that began before may have
seen an older state of the key, so it leaves the key alone when it ends.
"""

from __future__ import annotations


class Read:
    """One lookup that is under way."""

    __slots__ = ("generation", "key", "outdated")

    def __init__(self, key: str, generation: object) -> None:
        self.key = key
        self.generation = generation
        self.outdated = False
        """whether the key was changed or looked up by another call since this one began"""


class Scan:
    """One scan that is under way; there may be others."""

    __slots__ = ("found", "known_before", "overtaken", "reread", "server_time_ns", "telling")

    def __init__(self, known_before: set[str] | None, reread: bool) -> None:
        self.overtaken: set[str] = set()
        """keys that this process changed or looked up meanwhile: what it knows is newer"""
        self.found: set[str] = set()
        """keys that others changed, as this scan found"""
        self.known_before = known_before
        """for a first listing, the keys known before, as other keys aren't reported; else None"""
        self.reread = reread
        """whether files are read whatever their signatures; see ``ReadPolicy``"""
        self.telling = True
        """whether the next ``refresh`` is to tell what it found; watches always do"""
        self.server_time_ns: int | None = None
        """the server's time before anything was listed; None if nothing is to be listed"""


class InFlight:
    """The lookups and scans under way in one dictionary.

    Callers hold its lock ``state``, except for ``overtake_interrupting``.
    """

    def __init__(self) -> None:
        self.reads: dict[str, set[Read]] = {}
        self.scans: list[Scan] = []
        # The number of the last applied look at each shard (kept while there are scans), and of the
        # last look that began.
        self._applied: dict[str, int] = {}
        self._looks = 0

    def begin_read(self, key: str, generation: object) -> Read:
        """Note that a lookup begins. The caller ends it with ``end_read``, whatever happens."""
        read = Read(key, generation)
        self.reads.setdefault(key, set()).add(read)
        return read

    def end_read(self, read: Read) -> None:
        """Note that the lookup has ended."""
        reads = self.reads.get(read.key)
        if reads is not None:
            reads.discard(read)
            if not reads:
                del self.reads[read.key]

    def begin_scan(self, scan: Scan) -> None:
        """Note that a scan begins. The caller ends it with ``end_scan``, whatever happens."""
        self.scans = [*self.scans, scan]

    def end_scan(self, scan: Scan) -> None:
        """Note that the scan has ended."""
        self.scans = [other for other in self.scans if other is not scan]
        if not self.scans:
            self._applied.clear()

    def begin_look(self) -> int:
        """The number of a new look: looks are numbered in the order in which they begin."""
        self._looks += 1
        return self._looks

    def apply_look(self, shard: str, number: int) -> bool:
        """Whether to apply this look: False if a later look at the shard was applied."""
        if number < self._applied.get(shard, 0):
            return False
        self._applied[shard] = number
        return True

    def overtake(self, key: str) -> None:
        """Note that this process has changed or looked up the key."""
        for read in self.reads.get(key, ()):
            read.outdated = True
        for scan in self.scans:
            scan.overtaken.add(key)

    def overtake_interrupting(self, key: str) -> None:
        """As ``overtake``, for an interrupting call: it holds no lock, so the set may be changing.

        ``list`` copies a set in one step, without a GIL too; ``tuple`` doesn't.
        """
        for read in list(self.reads.get(key, ())):
            read.outdated = True
        for scan in self.scans:  # a list that is never changed
            scan.overtaken.add(key)

    def drop_found(self, key: str) -> None:
        """Forget that others have changed this key, as this process has changed it since."""
        for scan in self.scans:
            scan.found.discard(key)
