"""One key: look it up, create or remove it, with cache and index in step.

A lookup holds no lock while it waits for the disk. A change holds the lock of the key's shard, so
that the order of changes in the cache is that on disk; ``NfsDict.__setitem__`` does the same,
written out for speed. A value that a call replaces in the cache is bound to a name until all locks
are released: dropping the last reference may run its ``__del__``, which could wait for them.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from .content import Content
from .core import MISSING, digest
from .entries import Entries
from .errors import CorruptValueError
from .index.shard import UNREAD
from .index.writer import IndexWriter
from .interrupting import Interrupting
from .read_ahead import ReadAhead
from .state import StoreState
from .storage import Storage
from .undoing import insist


class OneKey:
    """What the methods of ``NfsDict`` do for one key, which is an exact ``str``."""

    def __init__(
        self,
        state: StoreState,
        writer: IndexWriter,
        storage: Storage,
        entries: Entries,
        interrupting: Interrupting,
        ahead: ReadAhead,
    ) -> None:
        self._state = state
        self._locks = state.locks
        self._writer = writer
        self._values = storage.values
        self._exclusive = storage.exclusive
        self._entries = entries
        self._interrupting = interrupting
        self._ahead = ahead

    def find(self, key: str, fresh: bool) -> Any:
        """The key's value from its file, or MISSING. Raises as ``Entries.find_entry``.

        In a loop over the keys it may come from a pack, see ``read_ahead``.
        """
        hexdigest = digest(key)
        if self._locks.interrupted:
            return self._interrupting.lookup(hexdigest, key, fresh)
        if not fresh:
            value, replaced = self._ahead.take(hexdigest, key)
            if value is not MISSING:
                return value
        guard = self._locks.guard
        with guard:
            read = self._state.begin_read(key)
        try:
            entry = self._entries.find_entry(hexdigest, key, fresh)
            with guard:
                if entry is not None:
                    value, replaced = self._state.record_read(hexdigest, read, entry, fresh)
                else:
                    value, replaced = MISSING, self._state.record_miss(hexdigest, read)
        except CorruptValueError:
            with guard:
                replaced = self._state.record_miss(hexdigest, read)
            raise
        finally:
            with guard:
                self._state.end_read(read)
        del replaced
        return value

    def exists(self, key: str) -> bool:
        """Whether the key is known, or if not, whether it has a file. Reads no value."""
        hexdigest = digest(key)
        if self._locks.interrupted:
            return self._interrupting.exists(hexdigest)
        guard = self._locks.guard
        with guard:
            if self._state.knows(key):
                return True
            read = self._state.begin_read(key)
        try:
            signature = self._values.look(hexdigest)
            if signature is not None:
                with guard:
                    self._state.record_seen(hexdigest, read, signature, UNREAD)
            else:
                self._state.counters.misses += 1
        finally:
            with guard:
                self._state.end_read(read)
        return signature is not None

    def add(self, key: str, value: Any, data: Content) -> bool:
        """Create the entry with ``data`` in its file. False if any host has created it before."""
        hexdigest = digest(key)
        guard = self._locks.guard
        if guard.locked():
            return self._interrupting.add(hexdigest, key, data)
        self._writer.invalidate_legacy_index()
        replaced = None
        with guard, self._locks.shard(hexdigest):
            if self._state.knows(key) and self._values.look(hexdigest):
                return False  # saves writing a file in vain
            generation = self._state.generation
            try:
                signature = self._exclusive.add(hexdigest, data)
                if signature is not None:
                    replaced = self._state.record_write(
                        hexdigest, key, value, signature, data, generation
                    )
            except BaseException as error:
                replaced = replaced, self._state.invalidate_if_uncertain(hexdigest, key, error)
                raise
        del replaced
        return signature is not None

    def remove(self, key: str) -> bool:
        """Remove the entry. Whether there was one.

        A known key that has no file counts as removed here: another process was faster, or our own
        first call was carried out and its reply lost.
        """
        hexdigest = digest(key)
        guard = self._locks.guard
        if guard.locked():
            return self._interrupting.remove(hexdigest, key)
        self._writer.invalidate_legacy_index()
        replaced: list[Any] = []
        forget = partial(self._state.invalidate_all, [(hexdigest, key)], replaced)
        with guard, self._locks.shard(hexdigest):
            known = self._state.knows(key)
            try:
                [outcome] = self._values.remove([hexdigest])
                if isinstance(outcome, OSError):
                    raise outcome
                replaced.append(self._state.record_delete(hexdigest, key, outcome))
            except BaseException:
                try:
                    insist(forget)
                finally:
                    insist(forget)
                raise
        del replaced
        return outcome or known
