"""Read ahead: a loop over a dictionary gets values from the packs, shard by shard, in order.

Iteration gives keys whose values may not be in the cache: those of a lazy dictionary, and those
that ``cache_bytes`` has no room for. If they are then looked up in this order, each as soon as the
loop has got it, as ``values`` and ``items`` do, or after it has got all, as ``dict(d)`` does, the
values come from the packs: by one read for each shard in place of one for each file.

A value is taken from a pack if the shard's directory had, at most a second ago, the stamp that the
index has, and if the signature beside the value is the one that the index has for the key. What
this process has changed or read since is in the index, so such keys are read from their files.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Iterator
from itertools import islice
from typing import Any

from .core import MISSING
from .entries import Entries
from .index.pack import Packed
from .index.stack import PackStack
from .layout import Stamp
from .state import StoreState
from .storage import Storage

# So many keys of a loop are read from their files, before the packs are opened: that takes about
# ten calls to the server, and reads the keys of the whole store.
_PAYS = 8
# For so many seconds what the server has told of stamps counts.
_FRESH = 1.0
# So many bytes of values of other shards are kept beside those of the shard that the loop has come
# to, as its keys may not be in the order of shards. A shard is read once.
_KEPT = 16 << 20


class _Loop(Iterator[str]):
    """One loop over keys."""

    # Here, as an exception within ``__init__`` doesn't keep ``__del__`` from being called.
    _packs: PackStack | None = None

    def __init__(self, keys: list[str], mine: _Mine, state: StoreState, storage: Storage) -> None:
        self._keys = keys
        self._mine = mine
        self._self = weakref.ref(self)
        self._state = state
        self._storage = storage
        self._left = iter(keys)
        self._last: str | None = None
        self._next = 0
        self._reading = threading.Lock()
        self._looked_up = 0
        self._stamps: dict[str, Stamp] | None = None
        self._told = 0.0
        # Of the shards that the loop has come to: bytes in the packs, values that weren't looked up
        # yet, and when it was seen that they are what the files have.
        self._sizes: dict[str, int] = {}
        self._values: dict[str, dict[str, Packed]] = {}
        self._proven: dict[str, float] = {}

    def __next__(self) -> str:
        mine = self._mine
        try:
            key = self._last = next(self._left)
        except StopIteration:
            self._last = None
            if not self._looked_up:
                mine.drained = self
            raise
        mine.loop = self._self  # each time, as loops may be nested
        return key

    def __del__(self) -> None:
        if self._packs is not None:
            self._packs.close_packs()

    def has_just_got(self, key: str) -> bool:
        """Whether this is the loop's last key, and wasn't looked up since."""
        found = self._last == key
        if found:
            self._last = None
        return found

    def comes_to(self, key: str) -> bool:
        """Whether this is the next one of the keys that has no value in the cache."""
        for at in range(self._next, len(self._keys)):
            coming = self._keys[at]
            if coming == key or self._state.lacks(coming):
                self._next = at + 1
                return coming == key
        return False

    @property
    def exhausted(self) -> bool:
        """Whether none of the keys to come lacks a value."""
        return not any(map(self._state.lacks, islice(self._keys, self._next, None)))

    def find(self, hexdigest: str, key: str) -> Packed | None:
        """The content of this key's file; None if the packs have none that is proven.

        OSError if the shard's stamp can't be told.
        """
        # Only threads that share the loop, or a log handler, find it locked.
        if not self._reading.acquire(blocking=False):
            return None
        try:
            self._looked_up += 1
            if self._looked_up <= _PAYS:
                return None
            shard = hexdigest[:2]
            if shard not in self._sizes:
                self._read(shard)
            values = self._values.get(shard)
            if values and time.monotonic() - self._proven[shard] > _FRESH:
                self._prove(shard, values)
            return values.pop(key, None) if values else None
        finally:
            self._reading.release()

    def _prove(self, shard: str, values: dict[str, Packed]) -> None:
        """Drop these values if the shard has changed since they were read."""
        self._proven[shard] = time.monotonic()
        with self._state.locks.guard:
            stamp = self._state.stamp(shard)
        if not stamp or self._storage.shards.stamps([shard]) != [stamp]:
            values.clear()

    def _read(self, shard: str) -> None:
        """Read this shard's values from the packs, unless it has changed."""
        self._sizes[shard] = 0
        if self._packs is None:
            self._packs = PackStack(self._storage.index)
            self._packs.load_manifest()
        with self._state.locks.guard:
            stamp = self._state.stamp(shard)
        size = self._packs.size(shard)
        if not size or not stamp or self._stamp(shard) != stamp:
            return
        self._proven[shard] = self._told
        self._values = {kept: values for kept, values in self._values.items() if values}
        for kept in list(self._values):
            if sum(self._sizes[one] for one in self._values) + size <= _KEPT:
                break
            del self._values[kept]
        self._sizes[shard] = size
        self._values[shard] = self._packs.packed(shard)

    def _stamp(self, shard: str) -> Stamp | None:
        """The shard's stamp, by the server's word at the time ``_told`` or later."""
        now = time.monotonic()
        if self._stamps is None or now - self._told > _FRESH:
            self._told = now
            self._stamps = self._storage.shards.present_with_stamps()
        if self._stamps is None:
            return self._storage.shards.stamps([shard])[0]
        return self._stamps.get(shard)


class _Mine(threading.local):
    """Of each thread."""

    loop: weakref.ref[_Loop] | None = None
    """the loop in which it has got a key last"""
    drained: _Loop | None = None
    """a loop that has got all its keys before any was looked up, as ``dict(d)`` does; until another
    key is looked up than comes next"""

    def looks_up(self, key: str) -> _Loop | None:
        """The loop, if any, that looks up this key."""
        loop = None if self.loop is None else self.loop()
        if loop is not None and loop.has_just_got(key):
            return loop
        drained = self.drained
        if drained is None:
            return None
        found = drained.comes_to(key)
        if not found or drained.exhausted:
            self.drained = None
        return drained if found else None


class ReadAhead:
    """The loops over the keys of one dictionary."""

    def __init__(self, state: StoreState, storage: Storage, entries: Entries) -> None:
        self._state = state
        self._storage = storage
        self._entries = entries
        self._mine = _Mine()

    def over(self, keys: list[str]) -> Iterator[str]:
        """An iterator over these keys, for a loop that may look them up."""
        if not self._state.lazy and self._state.room() is None:
            return iter(keys)  # all values are in the cache
        return _Loop(keys, self._mine, self._state, self._storage)

    def take(self, hexdigest: str, key: str) -> tuple[Any, Any]:
        """The value of the key, if a loop of this thread looks it up and a pack has it; and the
        value replaced in the cache. MISSING and None if the file has to be read.
        """
        loop = self._mine.looks_up(key)
        if loop is None:
            return MISSING, None
        try:
            packed = loop.find(hexdigest, key)
        except OSError:
            packed = None  # reading the file tells more
        if packed is None:
            return MISSING, None
        value = self._entries.unpack({key: packed.data}).get(key, MISSING)
        if value is MISSING:
            return MISSING, None
        with self._state.locks.guard:
            return self._state.record_unpacked(hexdigest, key, value, packed.signature)
