"""Calls that interrupt another call of the same dictionary in the same thread.

A signal handler, the ``__del__`` of something that is collected, or the handler of a log record may
use the dictionary while its thread holds some of its locks. Such a call takes none, as it would
wait for what it has interrupted, or for a thread that waits for that. It goes to the disk, whose
calls are atomic, and has the cache forget the key, so that the next access asks the disk.
"""

from __future__ import annotations

from typing import Any

from .content import Content
from .core import MISSING, digest
from .entries import Entries
from .errors import BatchError
from .state import StoreState
from .storage.store import Store
from .taking import Taking


class Interrupting:
    """What ``NfsDict``'s methods do then, by digest and key. Errors are theirs."""

    def __init__(self, known: StoreState, store: Store, entries: Entries) -> None:
        self._known = known
        self._store = store
        self._entries = entries

    def lookup(self, key: str, fresh: bool) -> Any:
        entry = self._entries.find(key, fresh)
        return MISSING if entry is None else entry.value

    def exists(self, name: str) -> bool:
        return self._store.look(name) is not None

    def put(self, name: str, key: str, data: Content) -> None:
        try:
            self._store.put(name, data)
        finally:
            self._known.record_interrupting(name, key, there=True)

    def add(self, name: str, key: str, data: Content) -> bool:
        try:
            return self._store.add(name, data) is not None
        finally:
            self._known.record_interrupting(name, key, there=True)

    def take(self, taking: Taking, name: str, key: str) -> bool:
        try:
            return taking.take()
        finally:
            self._known.record_interrupting(name, key, there=False)

    def remove(self, name: str, key: str) -> bool:
        try:
            [outcome] = self._store.remove([self._store.path_of(name)])
        finally:
            self._known.record_interrupting(name, key, there=False)
        if isinstance(outcome, OSError):
            raise outcome
        return outcome

    def clear(self) -> None:
        failed: dict[str, OSError] = {}
        try:
            for shard in self._store.shards():
                paths = [self._store.path_of(name) for name in self._store.list(shard).signatures]
                outcomes = zip(paths, self._store.remove(paths))
                failed.update(
                    (path, error) for path, error in outcomes if isinstance(error, OSError)
                )
        finally:
            for key in self._known.cached_keys():
                self._known.record_interrupting(digest(key), key, there=bool(failed))
        if failed:
            raise BatchError(failed)
