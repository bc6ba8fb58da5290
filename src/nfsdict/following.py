"""The methods of ``NfsDict`` that follow what other processes write."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Callable, Generic, cast

from .arguments import checked_seconds, deadline, plain
from .core import MISSING
from .logs import told

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    from .locks import Locks
    from .scan import Scanner
    from .state import StoreState
    from .watching import Watching

    V = TypeVar("V", default=Any)
else:
    from typing import TypeVar

    V = TypeVar("V")


class Following(Generic[V]):
    """Base class of ``NfsDict``, which sets the attributes."""

    _locks: Locks
    _scanner: Scanner
    _state: StoreState
    _watching: Watching

    @told("sync")
    def sync(self) -> None:
        """Re-read everything from disk. When lazy: list the keys, and read values when accessed.

        Every directory is listed with the attributes of its files. What a pack has of a file that
        still has the same signature is decoded anew from there; other files are read, and all of
        them where an NFS client's listing brings no attributes. Afterwards this dictionary has what
        the store held when the call began, or newer. The next ``refresh`` doesn't report changes
        found here. OSError if a directory can't be listed; what is known of it stays.
        """
        self._scanner.scan(reread=True, telling=False)

    def refresh(self) -> set[str]:
        """Take over what others changed, and return the keys that they added, replaced or removed.

        A replacement by an equal value is told too, as its file is another one.
        Costs at most 4 calls to an NFS server if nothing changed, or one for each of up to 256
        directories where a listing brings no attributes. Each directory that changed is listed, and
        its new files are read. Values that were read before are read again if they were replaced.
        A lazy dictionary that has listed nothing yet lists everything, and returns only those of
        the keys it knew that changed. After an exception, also of a signal or log handler, the next
        call returns them.
        """
        return self._kept(self._refresh)

    def _kept(self, take: Callable[[set[str]], set[str]]) -> set[str]:
        """The news that ``take`` has put into its set; after an exception the next refresh's."""
        taken: set[str] = set()
        try:
            return take(taken)
        except BaseException:
            if taken:
                with self._locks.guard:
                    self._state.news.give_back(taken)
            raise

    @told("refresh")
    def _refresh(self, taken: set[str]) -> set[str]:
        self._scanner.scan()
        return taken if self._locks.interrupted else self._take_news(taken)

    def _take_news(self, taken: set[str]) -> set[str]:
        with self._locks.guard:
            return self._state.news.take(taken)

    def watch(self, interval: float = 1.0) -> Generator[set[str], None, None]:
        """Be told of what others change: yields the keys that they added, replaced or removed.

        Does what ``refresh`` does at once, and then every ``interval`` seconds, counted from the
        beginning of one to that of the next. Yields when there are such keys, and only then, so
        that each set has at least one. What was changed between the call of this method and the
        first set is told too. While the caller works on a set nothing is done. ``close`` of the
        dictionary ends the loop at once, from another thread or a signal handler too, and so does
        ``close`` of the generator, or leaving the loop.

        Each watch tells every change, a replacement by an equal value too, whatever other watches,
        ``refresh``, ``refresh_every``, ``sync`` and lookups have found meanwhile, unless this
        process has changed the key since. A lazy dictionary that has listed nothing yet begins with
        a listing at the first look, which tells only of keys that it knew: what was written to
        others before that look is not told. In a call that interrupts another one, and while a
        value is decoded, an empty set is yielded, as such a call can't look.

        A look costs an NFS server what ``refresh`` costs: while nothing changes 4 calls and up to
        100 KiB of replies, as they have the attributes of 256 directories, twice. So a thousand
        hosts that watch once a second cost it 4,000 calls and 100 MB a second; with a longer
        ``interval`` in proportion less. An OSError is logged, once while others follow, and the
        next look comes as usual. ValueError unless ``interval`` is finite and 1 ms at least.
        """
        return self._watching.watch(self, checked_seconds("interval", interval))

    @told("wait_for")
    def wait_for(self, key: str, timeout: float | None = None) -> V:
        """Wait until some host has written the key, and return its value.

        Asks the server after pauses of 10 ms at first, growing to 1 s. TimeoutError if there is no
        value after ``timeout`` seconds; None waits for ever. ValueError or TypeError for a timeout
        that is negative or no number.
        """
        key = plain(key)  # TypeError for one that isn't a str: waiting would never end
        end = deadline(timeout)
        pause = 0.01
        while True:
            value: Any = cast(Any, self).get(key, MISSING, fresh=True)
            if value is not MISSING:
                return value  # type: ignore[no-any-return]
            left = pause if end is None else end - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"nobody wrote {key!r} within {timeout} s")
            time.sleep(min(pause, left))
            pause = min(1.5 * pause, 1.0)
