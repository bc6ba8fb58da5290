"""ServerClock: a lower bound of the server's clock, learnt from timestamps on its files.

The local clock says nothing about those (nfs(5)). But a time once seen there has come, and a second
that passes here passes there. So a stamp is known to be old without a call to the server, and never
wrongly, unless somebody sets the server's clock back.
"""

from __future__ import annotations

import time

# A clock that is being corrected runs slower than true by far less than this.
_PACE = 0.9
# Linux stamps files by a clock that it advances 100 to 1000 times a second. A time in whole
# microseconds or seconds may come from a file system that keeps no finer one (FAT: 2 s).
_FINE = 100_000_000
_COARSE = 3_000_000_000


class ServerClock:
    """All times in ns. Safe for threads: at worst a time that was seen is forgotten."""

    def __init__(self) -> None:
        self._seen = (0, time.monotonic_ns())

    def observe(self, time_ns: int) -> None:
        """This time was on a file, where the server itself had put it: a ctime, or an mtime that
        nobody set."""
        if time_ns > self.lower_bound():
            self._seen = (time_ns, time.monotonic_ns())

    def lower_bound(self) -> int:
        """It is at least as late as this at the server."""
        time_ns, here = self._seen
        return time_ns + int(_PACE * (time.monotonic_ns() - here))

    def is_past(self, stamp: int) -> bool:
        """Whether a change made from now on will certainly bear a later time."""
        return self.lower_bound() - stamp > (_FINE if stamp % 1000 else _COARSE)
