"""Calls that interrupt another call of the same dictionary in the same thread.

A signal handler, the ``__del__`` of a collected object, or a log handler may use the dictionary
while its thread holds some of the dictionary's locks. Such a call takes no lock: it would wait for
the call that it has interrupted, or for a thread that waits for that one, and so for ever. It works
on the disk, where each operation is atomic, and has the cache forget the key, so that the next
access asks the disk.
"""

from __future__ import annotations

from typing import Any

from .content import Content
from .core import MISSING, digest
from .entries import Entries
from .errors import BatchError
from .state import StoreState
from .storage import Storage


class Interrupting:
    """``NfsDict``'s methods for such calls, by digest and key. They raise what those raise."""

    def __init__(self, state: StoreState, storage: Storage, entries: Entries) -> None:
        self._state = state
        self._storage = storage
        self._entries = entries

    def lookup(self, hexdigest: str, key: str, fresh: bool) -> Any:
        entry = self._entries.find_entry(hexdigest, key, fresh)
        return MISSING if entry is None else entry.value

    def exists(self, hexdigest: str) -> bool:
        return self._storage.values.look(hexdigest) is not None

    def put(self, hexdigest: str, key: str, data: Content) -> None:
        try:
            self._storage.values.put(hexdigest, data)
        finally:
            self._state.record_interrupting(hexdigest, key, there=True)

    def add(self, hexdigest: str, key: str, data: Content) -> bool:
        try:
            return self._storage.exclusive.add(hexdigest, data) is not None
        finally:
            self._state.record_interrupting(hexdigest, key, there=True)

    def remove(self, hexdigest: str, key: str) -> bool:
        there = self._state.has_all([key])
        try:
            [outcome] = self._storage.values.remove([hexdigest])
            if isinstance(outcome, OSError):
                raise outcome
            there = False
        finally:
            self._state.record_interrupting(hexdigest, key, there, changed=not there)
        return outcome

    def clear(self) -> None:
        failed: dict[str, OSError] = {}
        values = self._storage.values
        gone = False
        try:
            for shard in self._storage.shards.present():
                hexdigests = list(self._storage.shards.list(shard).signatures)
                for hexdigest, outcome in zip(hexdigests, values.remove(hexdigests)):
                    if isinstance(outcome, OSError):
                        failed[values.path_of(hexdigest)] = outcome
            gone = not failed
        finally:
            for key in self._state.cached_keys():
                self._state.record_interrupting(digest(key), key, there=not gone)
        if failed:
            raise BatchError(failed)
