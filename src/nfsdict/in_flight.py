"""In flight: lookups and scans that hold no lock while they wait, and what overtakes them.

Whoever commits something says so here; a lookup or scan that began before knows less of that key,
and leaves it alone when it ends.
"""

from __future__ import annotations


class Read:
    """A lookup of one key under way."""

    __slots__ = ("generation", "key", "outdated")

    def __init__(self, key: str, generation: object) -> None:
        self.key = key
        self.generation = generation
        self.outdated = False
        """whether the key was changed or looked up by another call since this one began"""


class Scan:
    """A scan under way, beside others perhaps."""

    __slots__ = ("found", "known_before", "overtaken", "reread", "server_time_ns")

    def __init__(self, known_before: set[str] | None, reread: bool) -> None:
        self.overtaken: set[str] = set()
        """keys that this process changed or looked up meanwhile: it knows better of them"""
        self.found: set[str] = set()
        """keys that others changed"""
        self.known_before = known_before
        """of a first listing the keys that were known: all others are no news. Else None"""
        self.reread = reread
        """whether every file is read, whatever its signature"""
        self.server_time_ns: int | None = None
        """the server's time before anything was listed; None: nothing is listed"""


class InFlight:
    """What is under way in one dictionary. Used with its lock ``state`` held, but where it is said
    otherwise."""

    def __init__(self) -> None:
        self.reads: dict[str, set[Read]] = {}
        self.scans: list[Scan] = []
        self.unreported: set[str] = set()
        """keys that others changed, as scans that have ended found it, told nobody yet"""
        # The number of the last look at each shard that was applied, as long as there are scans,
        # and of the last look that began.
        self._applied: dict[str, int] = {}
        self._looks = 0

    def begin_read(self, key: str, generation: object) -> Read:
        """To be ended by ``end_read``, whatever happens."""
        read = Read(key, generation)
        self.reads.setdefault(key, set()).add(read)
        return read

    def end_read(self, read: Read) -> None:
        """The lookup is over."""
        reads = self.reads.get(read.key)
        if reads is not None:
            reads.discard(read)
            if not reads:
                del self.reads[read.key]

    def begin_scan(self, scan: Scan) -> None:
        """To be ended by ``end_scan``, whatever happens."""
        self.scans = [*self.scans, scan]

    def end_scan(self, scan: Scan) -> None:
        """The scan is over. What it found is told by the next ``take_changes``, if not before."""
        self.scans = [other for other in self.scans if other is not scan]
        if not self.scans:
            self._applied.clear()
        self.unreported |= scan.found

    def begin_look(self) -> int:
        """The number of a look at a shard: they are numbered in the order in which they begin."""
        self._looks += 1
        return self._looks

    def apply_look(self, shard: str, number: int) -> bool:
        """Whether this look is to be applied: no later one was."""
        if number < self._applied.get(shard, 0):
            return False
        self._applied[shard] = number
        return True

    def overtake(self, key: str) -> None:
        """This process has changed or looked up the key."""
        for read in self.reads.get(key, ()):
            read.outdated = True
        for scan in self.scans:
            scan.overtaken.add(key)

    def overtake_interrupting(self, key: str) -> None:
        """As ``overtake``, of a call that holds no lock: another one may be in the middle of it."""
        for read in tuple(self.reads.get(key, ())):
            read.outdated = True
        for scan in tuple(self.scans):
            scan.overtaken.add(key)

    def drop_news(self, key: str) -> None:
        """This process has changed the key since others did."""
        self.unreported.discard(key)
        for scan in self.scans:
            scan.found.discard(key)

    def take_changes(self) -> set[str]:
        """The keys that others changed, as scans that have ended found it since the last call."""
        changes, self.unreported = self.unreported, set()
        return changes
