"""News: the keys that others changed, gathered for ``refresh`` and each watch until they ask."""

from __future__ import annotations

from collections.abc import Iterable

from .index.memory import Index
from .index.shard import IndexEntry
from .locks import Locks


class News:
    """Each who asks has a set of keys of its own, so that nobody takes another's news.

    Callers have entered their thread's guard; those of ``add``, ``drop`` and ``note_lookup`` hold
    the lock ``state``.
    """

    def __init__(self, locks: Locks) -> None:
        self._locks = locks
        self.unreported: set[str] = set()
        """for the next ``refresh``"""
        self.watched: dict[int, set[str]] = {}
        """for each watch, by the set's id"""

    def add(self, keys: set[str], to_refresh: bool) -> None:
        """Tell each watch that others changed these keys, and the next ``refresh`` if wanted."""
        if to_refresh:
            self.unreported |= keys
        self._tell_watches(keys)

    def drop(self, key: str) -> None:
        """Don't tell of this key any more: this process has changed it since."""
        self.unreported.discard(key)
        for news in list(self.watched.values()):
            news.discard(key)

    def note_lookup(self, index: Index, hexdigest: str, key: str, found: IndexEntry | None) -> None:
        """Tell watches if a lookup has found another file than the index has, or none any more.

        Called before the index is changed. Until the store was listed nobody knows what is new.
        """
        if not index.listed:
            return
        known = index.shard(hexdigest).find(hexdigest, key)
        if known.replaced_by(found) if known and found else known is not found:
            self._tell_watches([key])

    def _tell_watches(self, keys: Iterable[str]) -> None:
        for news in list(self.watched.values()):
            news.update(keys)

    def take(self, taken: set[str]) -> set[str]:
        """Move what there is for ``refresh`` into this set, and return it. It is not told again,
        unless the caller gives it back."""
        with self._locks.state:
            taken |= self.unreported  # first: an exception may come between the two
            self.unreported = set()
        return taken

    def give_back(self, taken: set[str]) -> None:
        """Have the next ``refresh`` tell of these keys."""
        with self._locks.state:
            self.unreported |= taken

    # --- for watches -----------------------------------------------------------------------------

    def begin_watch(self, news: set[str]) -> None:
        """Put all news into this set from now on, until ``end_watch``."""
        self.watched[id(news)] = news

    def take_from(self, news: set[str]) -> set[str]:
        """What there is in this set of ``begin_watch``; it is not told again."""
        with self._locks.state:
            taken = set(news)
            news.clear()
        return taken

    def end_watch(self, news: set[str]) -> None:
        """Put nothing more into this set. Takes no lock: a watch may be collected at any moment."""
        self.watched.pop(id(news), None)
