"""Knowledge: what one dictionary knows of its store, cache and index kept together."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from typing import Any

from .core import MISSING, digest
from .entries import Entries, Entry
from .errors import UncertainWriteError
from .index import GRANULARITY, Index, Known
from .locks import Locks
from .notes import Notes, Packing
from .pack import UNKNOWN
from .parallel import in_parallel
from .progress import Progress
from .store import SHARDS, Stamp, Store
from .survey import View, look

log = logging.getLogger("nfsdict")

# So many shard directories are asked for their stamps in one call of the core.
_STAMPS = 4


class Knowledge:
    """What is known: ``cache`` (key to value, or MISSING: not read) and the index of signatures.

    ``lazy`` leaves the values of known names unread. ``proving`` is whether a file may be made to
    learn the server's time, without which nothing that is seen proves anything later.
    """

    def __init__(
        self,
        index: Index,
        notes: Notes,
        cache: dict[str, Any],
        store: Store,
        entries: Entries,
        locks: Locks,
        progress: Progress,
        *,
        lazy: bool,
        proving: bool,
        workers: int,
    ) -> None:
        self.index = index
        self._notes = notes
        self._cache = cache
        self._store = store
        self._entries = entries
        self._locks = locks
        self._progress = progress
        self._lazy = lazy
        self._proving = proving
        self._workers = workers
        # The directory that the index is about.
        self._root: tuple[int, int] | None = None
        # Shards whose listed keys aren't all in the cache yet: putting a million there takes longer
        # than reading them all from the index.
        self._unfilled: set[str] = set()
        self.surveys = 0
        """how many have begun"""
        # Keys that this process changed or looked up while a survey runs: it knows better then.
        self._touched: set[str] | None = None

    # --- one key, its shard's lock held --------------------------------------------------------

    # ``surveys`` is how many had begun when the caller began: what was seen or done before the last
    # of them is older than what that one finds.

    def know(
        self,
        name: str,
        key: str,
        value: Any,
        signature: bytes,
        fingerprint: int | None,
        surveys: int,
    ) -> None:
        """The file of this digest was made as given here."""
        known = Known(key, signature, fingerprint)
        with self._locks.known:
            if surveys != self.surveys:
                value, known = MISSING, Known(key, UNKNOWN, None)
            self._cache[key] = value
            self.index.wrote(name, known)
            if self._touched is not None:  # as _touch, in the hottest path of all
                self._touched.add(key)

    def read(self, name: str, entry: Entry, surveys: int) -> None:
        """The file of this digest was read."""
        with self._locks.known:
            if surveys == self.surveys:
                self._cache[entry.key] = entry.value
                self.index.read(name, Known(entry.key, entry.signature, entry.fingerprint))
            else:
                self._unsure(name, entry.key)
            self._touch(entry.key)

    def missed(self, name: str, key: str, surveys: int) -> None:
        """The key was seen to have no file, or none that is whole."""
        with self._locks.known:
            if surveys == self.surveys:
                self._cache.pop(key, None)
                self.index.drop(name, key)
            elif key in self._cache:
                self._unsure(name, key)
            self._touch(key)

    def _unsure(self, name: str, key: str) -> None:
        """A survey that began meanwhile may find or have found more than was seen here, or less."""
        self._cache[key] = MISSING
        self.index.wrote(name, Known(key, UNKNOWN, None))

    def drop(self, name: str, key: str) -> None:
        """The key's file was removed."""
        with self._locks.known:
            self._cache.pop(key, None)
            self.index.drop(name, key)
            self._touch(key)

    def forget(self, name: str, key: str) -> None:
        """What the key's file holds isn't known: the next access asks the disk."""
        if self.knows(key):
            self.know(name, key, MISSING, UNKNOWN, None, self.surveys)

    def doubt(self, name: str, key: str, error: BaseException) -> None:
        """A write was refused, and nothing has changed; or else nobody knows what it did."""
        if not isinstance(error, OSError) or isinstance(error, UncertainWriteError):
            self.forget(name, key)

    def _touch(self, key: str) -> None:
        if self._touched is not None:
            self._touched.add(key)

    # --- all keys ------------------------------------------------------------------------------

    def fill(self) -> None:
        """Put each listed key into the cache, with its value still to be read."""
        if not self._unfilled:
            return
        with self._locks.known:
            looked_up = dict(self._cache)
            for name in sorted(self._unfilled):
                self._cache.update(dict.fromkeys(self.index.shard(name).names(), MISSING))
            self._cache.update(looked_up)
            self._unfilled = set()

    def knows(self, key: str) -> bool:
        """Whether the key is known to exist."""
        self.fill()
        return key in self._cache

    def has_all(self, keys: Iterable[str]) -> bool:
        """Whether the cache has these keys: it may not have all that are known."""
        return all(key in self._cache for key in keys)

    def entries(self, shard: str) -> dict[str, Known]:
        """What is known of this shard's files, by digest."""
        with self._locks.known:
            return self.index.shard(shard).entries()

    def count(self) -> int:
        """How many keys are known."""
        with self._locks.known:
            listed = sum(len(self.index.shard(name).names()) for name in self._unfilled)
            if len(self._cache) <= listed // 8:
                return listed + sum(digest(key)[:2] not in self._unfilled for key in self._cache)
        self.fill()
        return len(self._cache)

    # --- the whole store -----------------------------------------------------------------------

    def survey(self, reread: bool = False) -> set[str]:
        """Bring cache and index up to date with the store; the keys that others changed."""
        with self._locks.survey:
            if self._lazy or self.index.listed:  # else it was found just now, at opening
                self._store.find_root()
            if self._store.root != self._root:
                self._root = self._store.root
                with self._locks.known:
                    self.index.distrust()
            if not self.index.listed:
                self._notes.load()
            with self._locks.known:
                self._touched = set()
                self.surveys += 1
            try:
                return self._look_at_shards(reread)
            finally:
                self._notes.loaded()
                with self._locks.known:
                    self._touched = None

    def pack(self) -> Packing:
        """Bring all that is known and all small values into one pack; see ``NfsDict.pack``."""
        self.survey()
        packing = self._notes.pack(self._workers)
        if packing.fresh or not self._settled():
            time.sleep(GRANULARITY / 1e9)
            self.survey()
            packing = self._notes.pack(self._workers)
        return packing

    def _settled(self) -> bool:
        """Whether the listings of all shards with keys are proven."""
        shards = self.shards()
        with self._locks.known:
            return all(self.index.shard(name).stamp for name in shards)

    def shards(self) -> set[str]:
        """Those that something is known of."""
        with self._locks.known:
            return {name for name in SHARDS if self.index.shard(name).holds_any()}

    def _look_at_shards(self, reread: bool) -> set[str]:
        present = set(self._store.shards())
        with self._locks.known:
            stamps = {name: self.index.shard(name).stamp for name in SHARDS}
        kept = self.shards() - present
        believed = [] if reread else [name for name in SHARDS if name in present and stamps[name]]
        clean = {name for name, stamp in self._stamps(believed) if stamp == stamps[name]}
        # Asked before anything is listed: what changes from here on bears this time or a later one.
        moment = None if clean == present else self._clock()
        # A clean shard has nothing new; it may have values that nobody has read yet.
        first = not self.index.listed
        unpacked: dict[str, dict[str, Any]] = {}
        if first and self._lazy:
            self._unfilled = set(clean)
        elif first:
            unpacked = self._unpack(clean)
        changed: set[str] = set()

        def wanted(key: str, proven: bool) -> bool:
            if reread or self._cache.get(key, MISSING) is MISSING:
                return not self._lazy
            return not proven

        def look_at(name: str) -> View:
            with self._locks.known:
                known = self.index.shard(name).entries()
            stamp, values = None, {}
            if name in clean:
                stamp, values = stamps[name], unpacked[name]
            elif first and not self._lazy:
                values = self._entries.unpack(self._notes.values(name))
            return look(self._store, self._entries, name, stamp, known, values, wanted)

        todo = sorted(present - clean | unpacked.keys() | kept)
        views = in_parallel(look_at, todo, self._workers)
        # Reading all again finds files that were changed in place, which nothing else shows.
        with self._notes.adding(even_little=reread) as notes:
            for view in self._progress.over(views, len(todo)):
                with self._locks.known:
                    changed |= self._apply(view, moment, reread, view.shard in clean)
                notes.add(view.shard, view.data)
            self.index.listed = True
        return changed

    def _stamps(self, shards: list[str]) -> Iterator[tuple[str, Stamp | None]]:
        pieces = [shards[start : start + _STAMPS] for start in range(0, len(shards), _STAMPS)]
        for piece, stamps in zip(pieces, in_parallel(self._store.stamps, pieces, self._workers)):
            yield from zip(piece, stamps)

    def _unpack(self, shards: set[str]) -> dict[str, dict[str, Any]]:
        """Take the values of these clean shards from the packs. What they gave of the others."""
        partly = {}
        for name in self._progress.over(sorted(shards), len(shards)):
            values = self._entries.unpack(self._notes.values(name))
            with self._locks.known:
                if len(values) < len(self.index.shard(name).names()):
                    partly[name] = values
                else:
                    self._cache.update(values)
        return partly

    def _clock(self) -> int:
        """The server's time. Where no file may be made, it is at least what its stamps showed, and
        what was changed just before the last of them isn't proven yet."""
        if self._proving:
            try:
                return self._store.clock()
            except OSError as error:
                log.info("can't learn the server's time: %s", error)
        return self._store.times.now()

    def _apply(self, view: View, moment: int | None, reread: bool, clean: bool) -> set[str]:
        """Take over what a survey found, but for what this process changed meanwhile."""
        touched = self._touched or set()
        for key in view.gone - touched:
            self._cache.pop(key, None)
        for name, known in view.entries.items():
            key = known.key
            if key in touched:
                continue
            # A lazy dictionary reads an unknown file for its key, and has no room for its value.
            held = not self._lazy or (not reread and self._cache.get(key, MISSING) is not MISSING)
            if held and key in view.values:
                self._cache[key] = view.values[key]
            elif reread or key in view.unread:
                self._cache[key] = MISSING
            else:
                self._cache.setdefault(key, MISSING)
            if clean:
                self.index.read(name, known)
        if not clean:
            self.index.replace(view.shard, view.stamp, view.entries, moment, touched)
        if not reread:
            self.index.repeat(view.shard, view.data)
        return (view.changed | view.gone) - touched
