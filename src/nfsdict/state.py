"""Store state: what one dictionary knows of its store, cache and index kept in step."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .cache_bound import CacheBound
from .core import MISSING, digest
from .entries import Entry
from .errors import UncertainWriteError
from .index.memory import Index, IndexEntry
from .index.pack import UNKNOWN
from .locks import Locks
from .storage.store import SHARDS, Stamp
from .survey import ShardScan


class Read:
    """A lookup of one key under way, which holds no lock: it may be overtaken."""

    __slots__ = ("generation", "key", "outdated")

    def __init__(self, key: str, generation: object) -> None:
        self.key = key
        self.generation = generation
        self.outdated = False
        """whether the key was changed or looked up by another call since this one began"""


class Scan:
    """A scan under way, beside others perhaps."""

    __slots__ = ("found", "known_before", "overtaken")

    def __init__(self, known_before: set[str] | None) -> None:
        self.overtaken: set[str] = set()
        """keys that this process changed or looked up meanwhile: it knows better of them"""
        self.found: set[str] = set()
        """keys that others changed"""
        self.known_before = known_before
        """of a first listing the keys that were known: all others are no news. Else None"""


class StoreState:
    """What is known: ``cache`` (key to value, or MISSING: not read) and the index of signatures.

    ``lazy`` leaves the values of known names unread; ``cache_bytes`` bounds those that are kept.
    Callers have entered their thread's guard; each method holds the lock ``state`` for a moment.
    What a method returns as replaced is let go of when no lock is held: the last reference to a
    value may run its ``__del__``.
    """

    def __init__(
        self, index: Index, cache: dict[str, Any], locks: Locks, lazy: bool, cache_bytes: int | None
    ) -> None:
        self.index = index
        self._cache = cache
        self._locks = locks
        self._lazy = lazy
        self._bound = None if cache_bytes is None else CacheBound(cache, cache_bytes)
        # The directory that the index is about.
        self._root: tuple[int, int] | None = None
        # Shards whose listed keys aren't all in the cache yet: putting a million there takes longer
        # than reading them all from the index.
        self._unmaterialized_shards: set[str] = set()
        self.generation = object()
        """another one since each scan that began, and each change that an interrupting call made:
        what was seen or done before that may be older than what the cache and the disk have now"""
        self._reads: dict[str, set[Read]] = {}
        self._scans: list[Scan] = []
        # The number of the last look at each shard that was applied, as long as there are scans,
        # and of the last look that began.
        self._applied: dict[str, int] = {}
        self._looks = 0
        # What interrupting calls did: digest, key, and whether the key has a file since.
        self._interrupted: list[tuple[str, str, bool]] = []
        self._unreported: set[str] = set()

    # --- one key -------------------------------------------------------------------------------

    def begin_read(self, key: str) -> Read:
        """A lookup of this key begins. To be ended by ``end_read``, whatever happens."""
        read = Read(key, self.generation)
        with self._locks.state:
            self._reads.setdefault(key, set()).add(read)
        return read

    def end_read(self, read: Read) -> None:
        """The lookup is over."""
        with self._locks.state:
            reads = self._reads.get(read.key)
            if reads is not None:
                reads.discard(read)
                if not reads:
                    del self._reads[read.key]

    def record_read(self, name: str, read: Read, entry: Entry, fresh: bool) -> Any:
        """The file of this digest was read. The value to hand out, and what was replaced.

        Nothing is taken over if the key was changed here since: what is known is newer.
        """
        replaced = None
        known = IndexEntry(entry.key, entry.signature, entry.fingerprint)
        with self._locks.state:
            if self._interrupted:
                self._settle_interrupted()
            if read.outdated:
                # By another lookup, most often: its object is handed out then, as ever after.
                held = MISSING if fresh else self._cache.get(entry.key, MISSING)
                return entry.value if held is MISSING else held, None
            if read.generation is self.generation:
                replaced = self._hold(entry.key, entry.value, len(entry.data))
                self.index.read(name, known)
            if read.generation is not self.generation:
                self._mark_unknown(name, entry.key)
            self._overtake(entry.key)
        return entry.value, replaced

    def record_seen(self, name: str, read: Read, signature: bytes, unread: int) -> None:
        """The file of this digest was seen to be there, and not read."""
        with self._locks.state:
            if self._interrupted:
                self._settle_interrupted()
            if not read.outdated and read.key not in self._cache:
                self._cache[read.key] = MISSING
                self.index.wrote(name, IndexEntry(read.key, signature, unread))
                if read.generation is not self.generation:
                    self._mark_unknown(name, read.key)
                self._overtake(read.key)

    def record_miss(self, name: str, read: Read) -> Any:
        """The key was seen to have no file, or none that is whole. What was replaced."""
        key = read.key
        replaced = None
        with self._locks.state:
            if self._interrupted:
                self._settle_interrupted()
            if read.outdated:
                return None
            if read.generation is self.generation:
                replaced = self._drop(key)
                self.index.drop(name, key)
            elif key in self._cache:
                self._mark_unknown(name, key)
            self._overtake(key)
        return replaced

    def record_write(
        self,
        name: str,
        key: str,
        value: Any,
        signature: bytes,
        fingerprint: int | None,
        size: int,
        generation: object,
    ) -> Any:
        """The file of this digest was made as given here. What was replaced.

        ``generation`` is what it was before the file was written.
        """
        with self._locks.state:
            if self._interrupted:
                self._settle_interrupted()
            if self._bound is None:
                replaced = self._cache.get(key)
                self._cache[key] = value
            else:
                replaced = self._bound.hold(key, value, size)
            self.index.wrote(name, IndexEntry(key, signature, fingerprint))
            if self._reads or self._scans or self._unreported:
                self._overtake(key)
                self._no_news(key)
            # Looked at last: an interrupting call may have come in between.
            if generation is not self.generation:
                self._mark_unknown(name, key)
        return replaced

    def record_delete(self, name: str, key: str) -> Any:
        """The key's file was removed. What was replaced."""
        with self._locks.state:
            if self._interrupted:
                self._settle_interrupted()
            replaced = self._drop(key)
            self.index.drop(name, key)
            self._overtake(key)
            self._no_news(key)
        return replaced

    def invalidate(self, name: str, key: str) -> Any:
        """What the key's file holds isn't known: the next access asks the disk."""
        with self._locks.state:
            if self._interrupted:
                self._settle_interrupted()
            replaced = self._cache.get(key)
            if key in self._cache or self.index.shard(name).find(name, key) is not None:
                self._mark_unknown(name, key)
            self._overtake(key)
        return replaced

    def invalidate_if_uncertain(self, name: str, key: str, error: BaseException) -> Any:
        """A write was refused, and nothing has changed; or else nobody knows what it did."""
        if isinstance(error, OSError) and not isinstance(error, UncertainWriteError):
            return None
        return self.invalidate(name, key)

    def record_interrupting(self, name: str, key: str, there: bool) -> Any:
        """An interrupting call changed the key's file: the next access asks the disk.

        It holds no lock, and what it interrupted may hold ``state``. So each step is one that no
        thread can come between, and they are in this order: who commits something looks at
        generation, reads and scans afterwards, and withdraws it.
        """
        replaced = self._cache.get(key)
        self.generation = object()
        for read in tuple(self._reads.get(key, ())):
            read.outdated = True
        for scan in tuple(self._scans):
            scan.overtaken.add(key)
        self._interrupted.append((name, key, there))
        if there:
            self._cache[key] = MISSING
        else:
            self._cache.pop(key, None)
        return replaced

    def _settle_interrupted(self) -> None:
        """Take over what interrupting calls did, before anything newer is noted."""
        while self._interrupted:
            name, key, there = self._interrupted.pop(0)
            if there:
                self._mark_unknown(name, key)
            else:
                self._drop(key)
                self.index.drop(name, key)

    def _hold(self, key: str, value: Any, size: int) -> Any:
        if self._bound is not None:
            return self._bound.hold(key, value, size)
        replaced = self._cache.get(key)
        self._cache[key] = value
        return replaced

    def _drop(self, key: str) -> Any:
        if self._bound is not None:
            self._bound.drop(key)
        return self._cache.pop(key, None)

    def _mark_unknown(self, name: str, key: str) -> None:
        if self._bound is not None:
            self._bound.drop(key)
        self._cache[key] = MISSING
        self.index.wrote(name, IndexEntry(key, UNKNOWN, None))

    def _overtake(self, key: str) -> None:
        for read in self._reads.get(key, ()):
            read.outdated = True
        for scan in self._scans:
            scan.overtaken.add(key)

    def _no_news(self, key: str) -> None:
        """This process has changed the key since others did."""
        self._unreported.discard(key)
        for scan in self._scans:
            scan.found.discard(key)

    # --- all keys ------------------------------------------------------------------------------

    def materialize_keys(self) -> None:
        """Put each listed key into the cache, with its value still to be read."""
        if not self._unmaterialized_shards:
            return
        with self._locks.state:
            looked_up = dict(self._cache)
            for name in sorted(self._unmaterialized_shards):
                self._cache.update(dict.fromkeys(self.index.shard(name).names(), MISSING))
            self._cache.update(looked_up)
            self._unmaterialized_shards = set()
            self._settle_interrupted()

    def knows(self, key: str) -> bool:
        """Whether the key is known to exist."""
        self.materialize_keys()
        return key in self._cache

    def has_all(self, keys: Iterable[str]) -> bool:
        """Whether the cache has these keys: it may not have all that are known."""
        return all(key in self._cache for key in keys)

    def cached_keys(self) -> list[str]:
        """Those in the cache; without a lock."""
        return list(self._cache)

    def entries(self, shard: str) -> dict[str, IndexEntry]:
        """What is known of this shard's files, by digest."""
        with self._locks.state:
            return self.index.shard(shard).entries()

    def count(self) -> int:
        """How many keys are known."""
        with self._locks.state:
            listed = sum(
                len(self.index.shard(name).names()) for name in self._unmaterialized_shards
            )
            if len(self._cache) <= listed // 8:
                return listed + sum(
                    digest(key)[:2] not in self._unmaterialized_shards for key in self._cache
                )
        self.materialize_keys()
        return len(self._cache)

    def shards(self) -> set[str]:
        """Those that something is known of."""
        with self._locks.state:
            return {name for name in SHARDS if self.index.shard(name).holds_any()}

    def stamps(self) -> dict[str, Stamp]:
        """Those of all shards, as they were listed, or NO_STAMP."""
        with self._locks.state:
            return {name: self.index.shard(name).stamp for name in SHARDS}

    def distrust(self, shards: set[str]) -> None:
        """The next scan lists these, whatever their stamps."""
        with self._locks.state:
            self.index.distrust(shards)

    def settled(self) -> bool:
        """Whether the listings of all shards with keys are proven."""
        shards = self.shards()
        with self._locks.state:
            return all(self.index.shard(name).stamp for name in shards)

    # --- scans ---------------------------------------------------------------------------------

    def begin_scan(self, root: tuple[int, int] | None, known_before: set[str] | None) -> Scan:
        """A scan of this directory begins. To be ended by ``end_scan``."""
        scan = Scan(known_before)
        with self._locks.state:
            self._settle_interrupted()
            if root != self._root:
                self._root = root
                self.index.distrust()
            self.generation = object()
            self._scans = [*self._scans, scan]
        return scan

    def end_scan(self, scan: Scan) -> None:
        """The scan is over. What it found is told by the next ``take_changes``, if not before."""
        with self._locks.state:
            self._scans = [other for other in self._scans if other is not scan]
            if not self._scans:
                self._applied.clear()
            self._unreported |= scan.found

    def begin_look(self, shard: str) -> tuple[int, dict[str, IndexEntry]]:
        """The number of a look at this shard, and what is known of it now, by digest."""
        with self._locks.state:
            self._looks += 1
            return self._looks, self.index.shard(shard).entries()

    def room(self, reread: bool = False) -> int | None:
        """Bytes of values that fit into the cache, in place of all when they are read again; None:
        any number."""
        if self._bound is None:
            return None
        return self._bound.limit if reread else self._bound.room

    def leave_unfilled(self, shards: set[str]) -> None:
        """The keys of these shards are in the index, and go into the cache when they are needed."""
        with self._locks.state:
            self._unmaterialized_shards |= shards

    def hold_unpacked(self, shard: str, values: dict[str, Any]) -> bool:
        """Put these values of a clean shard into an opening's cache, if they are those of all its
        keys. Whether they are."""
        with self._locks.state:
            if len(values) < len(self.index.shard(shard).names()):
                return False
            if self._bound is None:
                self._cache.update(values)
            else:
                for entry in self.index.shard(shard).entries().values():
                    self._hold_if_room(entry.key, values[entry.key], entry.size)
        return True

    def _hold_if_room(self, key: str, value: Any, size: int) -> Any:
        if self._bound is not None and size > self._bound.room:
            value = MISSING
        return self._hold(key, value, size)

    def apply(
        self,
        view: ShardScan,
        server_time_ns: int | None,
        reread: bool,
        clean: bool,
        scan: Scan,
    ) -> Any:
        """Take over what a look found, but for what this process changed meanwhile, and for what a
        later look has found already. What was replaced.

        """
        replaced: list[Any] = []
        overtaken = scan.overtaken
        with self._locks.state:
            if view.number < self._applied.get(view.shard, 0):
                return replaced
            self._applied[view.shard] = view.number
            for key in view.gone - overtaken:
                replaced.append(self._drop(key))
            for name, known in view.entries.items():
                key = known.key
                if key in overtaken:
                    continue
                # A lazy dictionary reads an unknown file for its key, and keeps no value of it.
                held = self._cache.get(key, MISSING) is not MISSING
                if key in view.values and (not self._lazy or (held and not reread)):
                    hold = self._hold if held or reread else self._hold_if_room
                    replaced.append(hold(key, view.values[key], known.size))
                elif reread or key in view.unread:
                    replaced.append(self._hold(key, MISSING, 0))
                else:
                    self._cache.setdefault(key, MISSING)
                if clean:
                    self.index.read(name, known)
            if not clean:
                self.index.replace(view.shard, view.stamp, view.entries, server_time_ns, overtaken)
            if not reread:
                self.index.mark_dirty(view.shard, view.data)
            # What was gone, and has been looked up or written meanwhile, may be there or not.
            for key in view.gone & overtaken:
                name = digest(key)
                if key in self._cache and self.index.shard(name).find(name, key) is None:
                    replaced.append(self._cache[key])
                    self._mark_unknown(name, key)
            self._settle_interrupted()
            changed = (view.changed | view.gone) - overtaken
            scan.found |= changed if scan.known_before is None else changed & scan.known_before
        return replaced

    def take_changes(self) -> set[str]:
        """The keys that others changed, as scans that have ended found it since the last call."""
        with self._locks.state:
            changes, self._unreported = self._unreported, set()
        return changes

    def drop_changes(self, scan: Scan) -> None:
        """What this scan found is told nobody."""
        with self._locks.state:
            scan.found = set()
