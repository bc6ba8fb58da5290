"""Store state: what one dictionary knows of its store, cache and index kept in step."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .cache_bound import CacheBound
from .content import Content, fingerprint, size_of
from .core import MISSING, digest
from .entries import Entry
from .errors import UncertainWriteError
from .in_flight import InFlight, Read, Scan
from .index.memory import Index, IndexEntry
from .layout import SHARDS, UNKNOWN, Stamp
from .locks import Locks
from .shard_scan import ReadPolicy, ShardScan


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
        self.locks = locks
        self.lazy = lazy
        self._bound = None if cache_bytes is None else CacheBound(cache, cache_bytes)
        # The directory that the index is about.
        self._root: tuple[int, int] | None = None
        # Shards whose listed keys aren't all in the cache yet: putting a million there takes longer
        # than reading them all from the index.
        self._unmaterialized_shards: set[str] = set()
        self.generation = object()
        """another one since each scan that began, and each change that an interrupting call made:
        what was seen or done before that may be older than what the cache and the disk have now"""
        self._in_flight = InFlight()
        # What interrupting calls did: digest, key, and whether the key has a file since.
        self._interrupted: list[tuple[str, str, bool]] = []

    # --- one key -------------------------------------------------------------------------------

    def begin_read(self, key: str) -> Read:
        """A lookup of this key begins. To be ended by ``end_read``, whatever happens."""
        generation = self.generation
        with self.locks.state:
            return self._in_flight.begin_read(key, generation)

    def end_read(self, read: Read) -> None:
        """The lookup is over."""
        with self.locks.state:
            self._in_flight.end_read(read)

    def record_read(self, hexdigest: str, read: Read, entry: Entry, fresh: bool) -> Any:
        """The file of this digest was read. The value to hand out, and what was replaced.

        Nothing is taken over if the key was changed here since: what is known is newer.
        """
        replaced = None
        known = IndexEntry(entry.key, entry.signature, entry.fingerprint)
        with self.locks.state:
            if self._interrupted:
                self._settle_interrupted()
            if read.outdated:
                # By another lookup, most often: its object is handed out then, as ever after.
                held = MISSING if fresh else self._cache.get(entry.key, MISSING)
                return entry.value if held is MISSING else held, None
            if read.generation is self.generation:
                replaced = self._hold(entry.key, entry.value, len(entry.data))
                self.index.note_read(hexdigest, known)
            if read.generation is not self.generation:
                self._mark_unknown(hexdigest, entry.key)
            self._in_flight.overtake(entry.key)
        return entry.value, replaced

    def record_seen(self, hexdigest: str, read: Read, signature: bytes, unread: int) -> None:
        """The file of this digest was seen to be there, and not read."""
        with self.locks.state:
            if self._interrupted:
                self._settle_interrupted()
            if not read.outdated and read.key not in self._cache:
                self._cache[read.key] = MISSING
                self.index.note_written(hexdigest, IndexEntry(read.key, signature, unread))
                if read.generation is not self.generation:
                    self._mark_unknown(hexdigest, read.key)
                self._in_flight.overtake(read.key)

    def record_miss(self, hexdigest: str, read: Read) -> Any:
        """The key was seen to have no file, or none that is whole. What was replaced."""
        key = read.key
        replaced = None
        with self.locks.state:
            if self._interrupted:
                self._settle_interrupted()
            if read.outdated:
                return None
            if read.generation is self.generation:
                replaced = self._drop(key)
                self.index.note_gone(hexdigest, key)
            elif key in self._cache:
                self._mark_unknown(hexdigest, key)
            self._in_flight.overtake(key)
        return replaced

    def record_write(
        self,
        hexdigest: str,
        key: str,
        value: Any,
        signature: bytes,
        data: Content,
        generation: object,
    ) -> Any:
        """The file of this digest was made, and holds ``data``. What was replaced.

        ``generation`` is what it was before the file was written.
        """
        entry = IndexEntry(key, signature, fingerprint(data))
        with self.locks.state:
            if self._interrupted:
                self._settle_interrupted()
            if self._bound is None:
                replaced = self._cache.get(key)
                self._cache[key] = value
            else:
                replaced = self._bound.hold(key, value, size_of(data))
            self.index.note_written(hexdigest, entry)
            flight = self._in_flight
            if flight.reads or flight.scans or flight.unreported:
                flight.overtake(key)
                flight.drop_news(key)
            # Looked at last: an interrupting call may have come in between.
            if generation is not self.generation:
                self._mark_unknown(hexdigest, key)
        return replaced

    def record_delete(self, hexdigest: str, key: str) -> Any:
        """The key's file was removed. What was replaced."""
        with self.locks.state:
            if self._interrupted:
                self._settle_interrupted()
            replaced = self._drop(key)
            self.index.note_gone(hexdigest, key)
            self._in_flight.overtake(key)
            self._in_flight.drop_news(key)
        return replaced

    def invalidate(self, hexdigest: str, key: str) -> Any:
        """What the key's file holds isn't known: the next access asks the disk."""
        with self.locks.state:
            if self._interrupted:
                self._settle_interrupted()
            replaced = self._cache.get(key)
            if key in self._cache or self.index.shard(hexdigest).find(hexdigest, key) is not None:
                self._mark_unknown(hexdigest, key)
            self._in_flight.overtake(key)
        return replaced

    def invalidate_if_uncertain(self, hexdigest: str, key: str, error: BaseException) -> Any:
        """A write was refused, and nothing has changed; or else nobody knows what it did."""
        if isinstance(error, OSError) and not isinstance(error, UncertainWriteError):
            return None
        return self.invalidate(hexdigest, key)

    def record_interrupting(self, hexdigest: str, key: str, there: bool) -> Any:
        """An interrupting call changed the key's file: the next access asks the disk.

        It holds no lock, and what it interrupted may hold ``state``. So each step is one that no
        thread can come between, and they are in this order: who commits something looks at
        generation, reads and scans afterwards, and withdraws it.
        """
        replaced = self._cache.get(key)
        self.generation = object()
        self._in_flight.overtake_interrupting(key)
        self._interrupted.append((hexdigest, key, there))
        if there:
            self._cache[key] = MISSING
        else:
            self._cache.pop(key, None)
        return replaced

    def _settle_interrupted(self) -> None:
        """Take over what interrupting calls did, before anything newer is noted."""
        while self._interrupted:
            hexdigest, key, there = self._interrupted.pop(0)
            if there:
                self._mark_unknown(hexdigest, key)
            else:
                self._drop(key)
                self.index.note_gone(hexdigest, key)

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

    def _mark_unknown(self, hexdigest: str, key: str) -> None:
        if self._bound is not None:
            self._bound.drop(key)
        self._cache[key] = MISSING
        self.index.note_written(hexdigest, IndexEntry(key, UNKNOWN, None))

    # --- all keys ------------------------------------------------------------------------------

    def materialize_keys(self) -> None:
        """Put each listed key into the cache, with its value still to be read."""
        if not self._unmaterialized_shards:
            return
        with self.locks.state:
            looked_up = dict(self._cache)
            for shard in sorted(self._unmaterialized_shards):
                self._cache.update(dict.fromkeys(self.index.shard(shard).names(), MISSING))
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
        with self.locks.state:
            return self.index.shard(shard).entries()

    def count(self) -> int:
        """How many keys are known."""
        with self.locks.state:
            listed = sum(
                len(self.index.shard(shard).names()) for shard in self._unmaterialized_shards
            )
            if len(self._cache) <= listed // 8:
                return listed + sum(
                    digest(key)[:2] not in self._unmaterialized_shards for key in self._cache
                )
        self.materialize_keys()
        return len(self._cache)

    def shards(self) -> set[str]:
        """Those that something is known of."""
        with self.locks.state:
            return {shard for shard in SHARDS if self.index.shard(shard).holds_any()}

    def stamps(self) -> dict[str, Stamp]:
        """Those of all shards, as they were listed, or NO_STAMP."""
        with self.locks.state:
            return {shard: self.index.shard(shard).stamp for shard in SHARDS}

    def distrust(self, shards: set[str]) -> None:
        """The next scan lists these, whatever their stamps."""
        with self.locks.state:
            self.index.distrust(shards)

    def settled(self) -> bool:
        """Whether the listings of all shards with keys are proven."""
        shards = self.shards()
        with self.locks.state:
            return all(self.index.shard(shard).stamp for shard in shards)

    # --- scans ---------------------------------------------------------------------------------

    def begin_scan(self, root: tuple[int, int] | None, scan: Scan) -> None:
        """A scan of this directory begins. To be ended by ``end_scan``."""
        with self.locks.state:
            self._settle_interrupted()
            if root != self._root:
                self._root = root
                self.index.distrust()
            self.generation = object()
            self._in_flight.begin_scan(scan)

    def end_scan(self, scan: Scan) -> None:
        """The scan is over. What it found is told by the next ``take_changes``, if not before."""
        with self.locks.state:
            self._in_flight.end_scan(scan)

    def begin_look(self, shard: str) -> tuple[int, dict[str, IndexEntry]]:
        """The number of a look at this shard, and what is known of it now, by digest."""
        with self.locks.state:
            return self._in_flight.begin_look(), self.index.shard(shard).entries()

    def room(self) -> int | None:
        """Bytes of values that fit into the cache; None: any number."""
        return None if self._bound is None else self._bound.room

    def read_policy(self, reread: bool) -> ReadPolicy:
        """Which files a scan is to read that begins now. All are read in place of those that are
        there with ``reread``."""
        room = self._bound.limit if self._bound and reread else self.room()
        return ReadPolicy(self._cache, self.lazy, reread, room)

    def leave_unmaterialized(self, shards: set[str]) -> None:
        """The keys of these shards are in the index, and go into the cache when they are needed."""
        with self.locks.state:
            self._unmaterialized_shards |= shards

    def hold_unpacked(self, shard: str, values: dict[str, Any]) -> bool:
        """Put these values of a clean shard into an opening's cache, if they are those of all its
        keys. Whether they are."""
        with self.locks.state:
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

    def apply(self, found: ShardScan, scan: Scan) -> Any:
        """Take over what a look found. What was replaced.

        But for what this process changed meanwhile, and for what a later look has found already.
        """
        with self.locks.state:
            if not self._in_flight.apply_look(found.shard, found.number):
                return None
            replaced = [self._drop(key) for key in found.gone - scan.overtaken]
            for hexdigest, entry in found.entries.items():
                if entry.key not in scan.overtaken:
                    replaced.append(self._apply_value(found, entry, scan.reread))
                    if found.clean:
                        self.index.note_read(hexdigest, entry)
            if not found.clean:
                self.index.replace(
                    found.shard, found.stamp, found.entries, scan.server_time_ns, scan.overtaken
                )
            if not scan.reread:
                self.index.mark_dirty(found.shard, found.data)
            replaced.extend(self._apply_uncertain(found.gone & scan.overtaken))
            self._settle_interrupted()
            changed = (found.changed | found.gone) - scan.overtaken
            scan.found |= changed if scan.known_before is None else changed & scan.known_before
        return replaced

    def _apply_value(self, found: ShardScan, entry: IndexEntry, reread: bool) -> Any:
        """Put what was read of this entry into the cache, or its key alone. What was replaced."""
        key = entry.key
        held = self._cache.get(key, MISSING) is not MISSING
        # A lazy dictionary reads an unknown file for its key, and keeps no value of it.
        if key in found.values and (not self.lazy or (held and not reread)):
            hold = self._hold if held or reread else self._hold_if_room
            return hold(key, found.values[key], entry.size)
        if reread or key in found.unread:
            return self._hold(key, MISSING, 0)
        self._cache.setdefault(key, MISSING)
        return None

    def _apply_uncertain(self, keys: set[str]) -> list[Any]:
        """These were gone, and have been looked up or written meanwhile: they may be there or not.
        What was replaced."""
        replaced = []
        for key in keys:
            hexdigest = digest(key)
            if key in self._cache and self.index.shard(hexdigest).find(hexdigest, key) is None:
                replaced.append(self._cache[key])
                self._mark_unknown(hexdigest, key)
        return replaced

    def take_changes(self) -> set[str]:
        """The keys that others changed, as scans that have ended found it since the last call."""
        with self.locks.state:
            return self._in_flight.take_changes()

    def drop_changes(self, scan: Scan) -> None:
        """What this scan found is told nobody."""
        with self.locks.state:
            scan.found = set()
