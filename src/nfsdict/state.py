"""Store state: what one dictionary knows of its store, with cache and index kept in step."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Callable

from .cache_bound import CacheBound
from .content import Content, size_of
from .core import MISSING, digest
from .counters import Counters
from .entries import Entry
from .errors import UncertainWriteError
from .in_flight import InFlight, Read, Scan
from .index.memory import Index
from .index.shard import UNREAD, IndexEntry, Kept, ShardIndex
from .layout import SHARDS, UNKNOWN, Stamp
from .locks import Locks
from .news import News
from .shard_scan import ReadPolicy, ShardScan


class StoreState:
    """``cache`` (key to value, or to MISSING if the value isn't loaded) and the index, in step.

    ``lazy``: a scan leaves the values of known keys unread. ``cache_bytes``: the limit on values in
    the cache. ``fingerprint``: that of ``Entries``. Callers have entered their thread's guard; each
    method holds the lock ``state`` for a moment. Most methods return the values that they replaced:
    the caller keeps them until it has released all locks, as dropping the last reference to a value
    may run its ``__del__``.
    """

    def __init__(
        self,
        index: Index,
        cache: dict[str, Any],
        locks: Locks,
        lazy: bool,
        cache_bytes: int | None,
        fingerprint: Callable[[Content], int],
        counters: Counters,
    ) -> None:
        self.index = index
        self._cache = cache
        self.locks = locks
        self.lazy = lazy
        self._fingerprint = fingerprint
        self.counters = counters
        self._bound = None if cache_bytes is None else CacheBound(cache, cache_bytes)
        # Device and inode of the root that the index describes.
        self._root: tuple[int, int] | None = None
        # Shards whose listed keys aren't all in the cache yet. They are put there only when needed:
        # with a million keys that takes longer than reading them all from the index.
        self._unmaterialized_shards: set[str] = set()
        self.generation = object()
        """replaced by a new object when a scan begins, and when an interrupting call changes a key.
        Callers read it before their I/O and pass it back; if it is another one by then, the result
        may be outdated: the value isn't kept, and the next scan looks at the key"""
        self._in_flight = InFlight()
        self.news = News(locks)
        self.begin_refreshing: Callable[[], bool] | None = None
        """what starts the thread of ``refresh_every`` at the first lookup, write or scan, and tells
        whether it could; else it is called at the next one"""
        # Changes by interrupting calls, as ``record_interrupting`` has them.
        self._interrupted: list[tuple[str, str, bool, bool]] = []

    # --- one key -------------------------------------------------------------------------------

    def begin_read(self, key: str) -> Read:
        """Note that a lookup begins. The caller ends it with ``end_read``, whatever happens."""
        generation = self.generation
        with self.locks.state:
            self._note_use()
            return self._in_flight.begin_read(key, generation)

    def end_read(self, read: Read) -> None:
        """Note that the lookup has ended."""
        with self.locks.state:
            self._in_flight.end_read(read)

    def record_read(self, hexdigest: str, read: Read, entry: Entry, fresh: bool) -> Any:
        """Note what a lookup read. Returns the value to hand out, and the value replaced.

        If the key was changed or looked up here since the lookup began, nothing is noted: what is
        known is newer.
        """
        replaced = None
        known = IndexEntry(entry.key, entry.signature, entry.fingerprint)
        with self.locks.state:
            self.counters.reads += 1
            self.counters.fresh_reads += fresh
            if self._interrupted:
                self._settle_interrupted()
            if read.outdated:
                # Most often by another lookup. Its object is handed out, as it will be from now on.
                held = MISSING if fresh else self._cache.get(entry.key, MISSING)
                return entry.value if held is MISSING else held, None
            if self.news.watched:
                self.news.note_lookup(self.index, hexdigest, entry.key, known)
            if read.generation is self.generation:
                replaced = self._hold(entry.key, entry.value, len(entry.data))
            self.index.note_read(hexdigest, known)
            if read.generation is not self.generation:
                replaced = replaced, self._doubt(hexdigest, entry.key)
            self._in_flight.overtake(entry.key)
        return entry.value, replaced

    def record_unpacked(
        self, hexdigest: str, key: str, value: Any, signature: bytes
    ) -> tuple[Any, Any]:
        """Note a value that a pack has, with the signature that the file had a moment ago.

        Returns the value and the one replaced; MISSING and None, with nothing noted, if the file
        may be another one by what is known here, or if a lookup or a scan is under way that may
        know more. Those aren't overtaken, as the value may be older than they are.
        """
        generation = self.generation
        with self.locks.state:
            if self._interrupted:
                self._settle_interrupted()
            known = self.index.shard(hexdigest).find(hexdigest, key)
            if known is None or not known.proven or known.signature != signature:
                return MISSING, None
            if self._in_flight.scans or key in self._in_flight.reads:
                return MISSING, None
            if self._cache.get(key) is not MISSING:
                return MISSING, None
            self.counters.reads += 1
            replaced = self._hold(key, value, known.size)
            if generation is not self.generation:
                return MISSING, (replaced, self._doubt(hexdigest, key))
        return value, replaced

    def record_seen(self, hexdigest: str, read: Read, signature: bytes, unread: int) -> None:
        """Note that the digest's file exists. It wasn't read."""
        with self.locks.state:
            if self._interrupted:
                self._settle_interrupted()
            if not read.outdated and read.key not in self._cache:
                known = IndexEntry(read.key, signature, unread)
                if self.news.watched:
                    self.news.note_lookup(self.index, hexdigest, read.key, known)
                self._cache[read.key] = MISSING
                self.index.note_written(hexdigest, known)
                self._in_flight.overtake(read.key)

    def record_miss(self, hexdigest: str, read: Read) -> Any:
        """Note that the key has no file, or a damaged one. Returns the value replaced."""
        key = read.key
        replaced = None
        with self.locks.state:
            self.counters.misses += 1
            if self._interrupted:
                self._settle_interrupted()
            if read.outdated:
                return None
            if self.news.watched:
                self.news.note_lookup(self.index, hexdigest, key, None)
            if read.generation is self.generation:
                replaced = self._note_gone(hexdigest, key)
            elif key in self._cache:
                replaced = self._doubt(hexdigest, key)
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
        entry: IndexEntry | None = None,
    ) -> Any:
        """Note that this digest's file was written with ``data``. Returns the value replaced.

        ``generation``: the attribute's value from before the write. ``entry``: what is known of the
        file; else that it has this signature.
        """
        if entry is None:
            entry = IndexEntry(key, signature, self._fingerprint(data))
        with self.locks.state:
            self._note_use()
            self.counters.puts += 1
            if self._interrupted:
                self._settle_interrupted()
            if self._bound is None:
                replaced = self._cache.get(key)
                self._cache[key] = value
            else:
                replaced = self._bound.hold(key, value, size_of(data))
            self.index.note_written(hexdigest, entry)
            flight, news = self._in_flight, self.news
            if flight.reads or flight.scans or news.unreported or news.watched:
                flight.overtake(key)
                flight.drop_found(key)
                news.drop(key)
            # Compared last, as an interrupting call may come at any moment before.
            if generation is not self.generation:
                replaced = replaced, self._doubt(hexdigest, key)
        return replaced

    def count_deletes(self, number: int) -> None:
        """Count so many files that were removed."""
        with self.locks.state:
            self.counters.deletes += number

    def record_gone(self, hexdigest: str, key: str) -> Any:
        """Note that another process has removed the key's file. Returns the value replaced."""
        with self.locks.state:
            if self._interrupted:
                self._settle_interrupted()
            if self.news.watched:
                self.news.note_lookup(self.index, hexdigest, key, None)
            replaced = self._note_gone(hexdigest, key)
            self._in_flight.overtake(key)
        return replaced

    def record_delete(self, hexdigest: str, key: str, removed: bool = True) -> Any:
        """Note that the key has no file any more. Returns the value replaced.

        ``removed``: whether there was one, which is counted.
        """
        with self.locks.state:
            self.counters.deletes += removed
            if self._interrupted:
                self._settle_interrupted()
            replaced = self._note_gone(hexdigest, key)
            self._in_flight.overtake(key)
            self._in_flight.drop_found(key)
            self.news.drop(key)
        return replaced

    def invalidate(self, hexdigest: str, key: str) -> Any:
        """Forget the key's value: the next access asks the disk, and so does the next scan, which
        tells of a change that others have made since. Returns the value replaced."""
        with self.locks.state:
            if self._interrupted:
                self._settle_interrupted()
            replaced = self._cache.get(key)
            if key in self._cache or self.index.shard(hexdigest).find(hexdigest, key) is not None:
                self._doubt(hexdigest, key)
            self._in_flight.overtake(key)
        return replaced

    def invalidate_all(self, uncertain: list[tuple[str, str]], replaced: list[Any]) -> None:
        """Invalidate these digests and keys, each of which leaves the list then; see ``undoing``.
        ``replaced`` gets the values replaced."""
        while uncertain:
            replaced.append(self.invalidate(*uncertain[-1]))
            uncertain.pop()

    def invalidate_if_uncertain(self, hexdigest: str, key: str, error: BaseException) -> Any:
        """As ``invalidate``, unless this error of a write means that nothing has changed."""
        if isinstance(error, OSError) and not isinstance(error, UncertainWriteError):
            return None
        return self.invalidate(hexdigest, key)

    def record_interrupting(
        self, hexdigest: str, key: str, there: bool, changed: bool = True
    ) -> Any:
        """Note that an interrupting call changed the key's file: the next access asks the disk.

        ``there``: whether the key may have a file now. ``changed``: whether it may have another one
        than before, of this process.

        The call holds no lock, and the call that it has interrupted may hold ``state``. So each
        step here is atomic, and their order matters: a call that records something looks at
        generation, reads and scans last, sees this change there, and marks the key as unknown.
        """
        replaced = self._cache.get(key)
        self.generation = object()
        self._in_flight.overtake_interrupting(key)
        self._interrupted.append((hexdigest, key, there, changed))
        if there:
            self._cache[key] = MISSING
        else:
            self._cache.pop(key, None)
        return replaced

    def _settle_interrupted(self) -> None:
        """Note in the index what interrupting calls did, before anything newer is noted."""
        while self._interrupted:
            hexdigest, key, there, changed = self._interrupted.pop(0)
            if there and changed:
                self._mark_unknown(hexdigest, key)
            elif there:
                self._doubt(hexdigest, key)
            else:
                self._note_gone(hexdigest, key)

    def _note_use(self) -> None:
        """From here on the cache has values that can grow old."""
        if self.begin_refreshing is not None and self.begin_refreshing():
            self.begin_refreshing = None

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

    def _note_gone(self, hexdigest: str, key: str) -> Any:
        """Forget the key, which has no file. Returns the value replaced."""
        replaced = self._drop(key)
        self.index.note_gone(hexdigest, key)
        return replaced

    def _doubt(self, hexdigest: str, key: str) -> Any:
        """Forget the key's value, and don't believe its signature: the next access asks the disk,
        and so does the next scan. It compares what it finds with what was known, and tells of a
        change. Returns the value replaced."""
        replaced = self._cache.get(key)
        known = self.index.shard(hexdigest).find(hexdigest, key)
        self._mark_unknown(hexdigest, key)
        if known is not None:
            if known.fingerprint is None:
                known = IndexEntry(key, known.signature, UNREAD)
            self.index.note_written(hexdigest, known)
        return replaced

    def _mark_unknown(self, hexdigest: str, key: str) -> None:
        if self._bound is not None:
            self._bound.drop(key)
        self._cache[key] = MISSING
        self.index.note_written(hexdigest, IndexEntry(key, UNKNOWN, None))

    # --- all keys ------------------------------------------------------------------------------

    def materialize_keys(self) -> None:
        """Put each listed key into the cache, with MISSING for a value that isn't loaded."""
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
        """Whether the cache has all these keys. It may lack some that the index has."""
        return all(key in self._cache for key in keys)

    def lacks(self, key: str) -> bool:
        """Whether the key is known and its value isn't loaded. Takes no lock."""
        return self._cache.get(key) is MISSING

    def cached_keys(self) -> list[str]:
        """The keys in the cache. Takes no lock."""
        return list(self._cache)

    def entries(self, shard: str) -> dict[str, IndexEntry]:
        """What is known of this shard's files, by digest."""
        with self.locks.state:
            return self.index.shard(shard).entries()

    def names(self, shard: str) -> dict[str, str]:
        """The keys of this shard that are known, and all that are being looked up, by digest."""
        with self.locks.state:
            keys = [*self.index.shard(shard).names(), *self._in_flight.reads]
        return {digest(key): key for key in keys}

    def snapshot(self) -> dict[str, ShardIndex]:
        """What is known of each shard now, whatever is noted later."""
        with self.locks.state:
            return {shard: self.index.shard(shard).copy() for shard in SHARDS}

    def count(self) -> int:
        """How many keys are known."""
        with self.locks.state:
            listed = sum(
                len(self.index.shard(shard).names()) for shard in self._unmaterialized_shards
            )
            if len(self._cache) <= listed // 8:
                return listed + sum(
                    digest(key)[:2] not in self._unmaterialized_shards for key in self.cached_keys()
                )
        self.materialize_keys()
        return len(self._cache)

    def shards(self) -> set[str]:
        """The shards with known keys."""
        with self.locks.state:
            return {shard for shard in SHARDS if self.index.shard(shard).holds_any()}

    def stamps(self) -> dict[str, Stamp]:
        """The stamp of each shard, as it was listed; NO_STAMP if it isn't known."""
        with self.locks.state:
            return {shard: self.index.shard(shard).stamp for shard in SHARDS}

    def stamp(self, shard: str) -> Stamp:
        """The stamp of this shard, as it was listed; NO_STAMP if it isn't known."""
        with self.locks.state:
            return self.index.shard(shard).stamp

    def known(self, key: str) -> tuple[IndexEntry | None, Any]:
        """What the index knows of this key's file, None if it knows of none; and the value in the
        cache, or MISSING."""
        hexdigest = digest(key)
        with self.locks.state:
            entry = self.index.shard(hexdigest).find(hexdigest, key)
            return entry, self._cache.get(key, MISSING)

    def distrust(self, shards: set[str]) -> None:
        """Have the next scan list these shards, whatever their stamps."""
        with self.locks.state:
            self.index.distrust(shards)

    def settled(self) -> bool:
        """Whether all shards with known keys have a stamp that is proven."""
        shards = self.shards()
        with self.locks.state:
            return all(self.index.shard(shard).stamp for shard in shards)

    # --- scans ---------------------------------------------------------------------------------

    def begin_scan(self, root: tuple[int, int] | None, scan: Scan) -> None:
        """Note that a scan of this root begins. The caller ends it with ``end_scan``.

        If the root is another directory than before, no stamp is trusted any more.
        """
        with self.locks.state:
            self._note_use()
            self._settle_interrupted()
            if root != self._root:
                self._root = root
                self.index.forget_stamps()
            self.generation = object()
            self._in_flight.begin_scan(scan)

    def end_scan(self, scan: Scan) -> None:
        """Note that the scan has ended, and what it found as news."""
        with self.locks.state:
            self.counters.scans += 1
            self._in_flight.end_scan(scan)
            self.news.add(scan.found, to_refresh=scan.telling)

    def begin_look(self, shard: str) -> tuple[int, ShardIndex]:
        """The number of a new look at this shard, and what is known of it now."""
        with self.locks.state:
            return self._in_flight.begin_look(), self.index.shard(shard).copy()

    def room(self) -> int | None:
        """How many bytes of values still fit into the cache; None if there is no limit."""
        return None if self._bound is None else self._bound.room

    def read_policy(self, reread: bool) -> ReadPolicy:
        """The policy for a scan that begins now. With ``reread`` the values that are read replace
        those in the cache, so the whole limit is room for them."""
        room = self._bound.limit if self._bound and reread else self.room()
        return ReadPolicy(self._cache, self.lazy, reread, room)

    def leave_unmaterialized(self, shards: set[str]) -> None:
        """Leave the keys of these shards in the index alone until ``materialize_keys``."""
        with self.locks.state:
            self._unmaterialized_shards |= shards

    def hold_unpacked(self, shard: str, values: dict[str, Any]) -> bool:
        """Put these values of a clean shard into an opening's cache. False, with nothing done, if
        some key of the shard has no value among them."""
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
        """Take over what a look found. Returns the values replaced.

        Keys that this process changed or looked up meanwhile stay as they are. Nothing is taken
        over if a later look at the shard was applied already.
        """
        with self.locks.state:
            if not self._in_flight.apply_look(found.shard, found.number):
                return None
            replaced = [self._drop(key) for key in found.gone - scan.overtaken]
            replaced.append(self._apply_unpacked(found.unpacked, scan.overtaken))
            for key, size in found.unchanged:
                if key not in scan.overtaken:
                    replaced.append(self._apply_value(found, key, size, scan.reread))
            for hexdigest, entry in found.entries.items():
                if entry.key not in scan.overtaken:
                    replaced.append(self._apply_value(found, entry.key, entry.size, scan.reread))
                    if found.clean:
                        self.index.note_read(hexdigest, entry)
            if not found.clean:
                self.index.replace(
                    found.shard,
                    found.stamp,
                    found.entries,
                    scan.server_time_ns,
                    scan.overtaken,
                    Kept(found.before, found.without),
                )
            if self.lazy and scan.known_before is not None:
                self._unmaterialized_shards.add(found.shard)  # keys that are as the packs have them
            if not scan.reread:
                self.index.mark_dirty(found.shard, found.data)
            replaced.extend(self._apply_uncertain(found.gone & scan.overtaken))
            self._settle_interrupted()
            changed = (found.changed | found.gone) - scan.overtaken
            scan.found |= changed if scan.known_before is None else changed & scan.known_before
        return replaced

    def _apply_unpacked(self, values: dict[str, Any], overtaken: set[str]) -> list[Any]:
        """Put these values into a cache without a limit. Returns the values replaced."""
        for key in list(overtaken):  # in one step, as an interrupting call may add to them
            values.pop(key, None)
        replaced = [self._cache.get(key) for key in values]
        self._cache.update(values)
        return replaced

    def _apply_value(self, found: ShardScan, key: str, size: int, reread: bool) -> Any:
        """Put this key's value into the cache, or only the key. Returns the value replaced."""
        held = self._cache.get(key, MISSING) is not MISSING
        # A lazy dictionary reads an unknown file only for its key, and keeps no value.
        if key in found.values and (not self.lazy or (held and not reread)):
            hold = self._hold if held or reread else self._hold_if_room
            return hold(key, found.values[key], size)
        if reread or key in found.unread:
            return self._hold(key, MISSING, 0)
        self._cache.setdefault(key, MISSING)
        return None

    def _apply_uncertain(self, keys: set[str]) -> list[Any]:
        """Mark as unknown those of these keys that the cache has and the index doesn't know.

        The look found their files gone, but they were looked up or written meanwhile, so they may
        exist or not. Returns the values replaced.
        """
        replaced = []
        for key in keys:
            hexdigest = digest(key)
            if key in self._cache and self.index.shard(hexdigest).find(hexdigest, key) is None:
                replaced.append(self._cache.get(key))
                self._mark_unknown(hexdigest, key)
        return replaced
