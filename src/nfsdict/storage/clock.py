"""ServerClock: a lower bound of the server's clock, learnt from timestamps on its files.

The local clock may differ from the server's (nfs(5)). But the server's clock has reached every
time that it put on a file, and while a second passes here, one passes there. So a stamp is known to
be old without a call to the server. That is wrong only if somebody sets the server's clock back.
"""

from __future__ import annotations

import time

# A clock that is being corrected runs slower than true by far less than this.
_PACE = 0.9
# Linux stamps files by a clock that advances 100 to 1000 times a second: in steps of 10 ms at most.
# A time in whole microseconds or seconds may come from a file system that keeps no finer times
# (FAT: 2 s).
_FINE = 100_000_000
_COARSE = 3_000_000_000


class ServerClock:
    """All times in ns. Safe for threads: at worst an observed time is lost."""

    def __init__(self) -> None:
        self._seen = (0, time.monotonic_ns())

    def observe(self, time_ns: int) -> None:
        """Note a time that the server itself put on a file: a ctime, or an mtime that no client
        set."""
        if time_ns > self.lower_bound():
            self._seen = (time_ns, time.monotonic_ns())

    def lower_bound(self) -> int:
        """The server's clock shows this time or a later one."""
        time_ns, here = self._seen
        return time_ns + int(_PACE * (time.monotonic_ns() - here))

    @staticmethod
    def is_past(stamp: int, moment: int) -> bool:
        """Whether a change made after this moment, a ``lower_bound``, certainly bears a later time.

        The moment is taken before the directory is asked. Taken afterwards it proves nothing: the
        thread may have stood still in between, for longer than a tick of the clock.
        """
        return moment - stamp > (_FINE if stamp % 1000 else _COARSE)
