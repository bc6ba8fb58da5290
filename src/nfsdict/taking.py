"""Taking: one ``pop``, from reading the entry to returning its value, and how it is undone."""

from __future__ import annotations

import errno
import logging
from typing import Any

from .content import holds
from .core import MISSING, digest
from .entries import Entries, Entry
from .errors import UncertainWriteError
from .index.writer import IndexWriter
from .state import StoreState
from .storage import Storage
from .storage.files import Found
from .storage.nfs import TRIES

log = logging.getLogger("nfsdict")


class Taking:
    """Takes the entry of one key from the store.

    The caller calls ``find``, ``take`` and ``finish`` in this order. After any exception, whatever
    it is and wherever it came, it calls ``undo``: the value wasn't handed out, so the entry is put
    back under its key before the exception goes on. If the process is killed, the entry stays under
    a private name, and ``repair`` gives it back.
    """

    def __init__(self, storage: Storage, entries: Entries, key: str, hexdigest: str) -> None:
        self._storage = storage
        self._entries = entries
        self.key = key
        self.hexdigest = hexdigest
        # Both names are chosen before anything is done, so that ``undo`` knows where to look.
        self._private = storage.values.private_path_of(hexdigest)
        self._returning = storage.values.private_path_of(hexdigest)
        self._entry: Entry | None = None
        self._taking = False
        self._removing: Found | None = None

    def find(self) -> bool:
        """Read and decode the entry under its key. False if there is none.

        Raises as ``Entries.find_entry``; the file stays in place then.
        """
        self._entry = self._entries.find_entry(self.hexdigest, self.key, fresh=True)
        return self._entry is not None

    def take(self) -> bool:
        """Rename the file to a private name. False if it is gone: another process was faster."""
        self._taking = True
        taken = self._storage.exclusive.take(self.hexdigest, self._private)
        self._taking = taken
        return taken

    def finish(self) -> Entry:
        """Remove the file that was taken, and return its entry.

        If another host replaced the file between ``find`` and ``take``, the new content is decoded
        and returned. UncertainWriteError if the file is gone: a ``repair`` that took this process
        for dead has given it back, and another process may have taken it.
        """
        content = self._storage.exclusive.read_taken(self._private)
        if content is None:
            raise self._gone()
        entry = self._entry
        if entry is None or not holds(content[0], entry.data):
            entry = self._entries.load_taken(self.hexdigest, content)
        self._removing = content
        try:
            self._storage.exclusive.discard(self._private)
        except FileNotFoundError:
            raise self._gone() from None
        return entry

    def _gone(self) -> UncertainWriteError:
        self._taking = False
        return UncertainWriteError(
            errno.ENOENT,
            f"the entry {self.key!r:.200} was taken, and its file is gone: a repair gave it back, "
            "or its removal was carried out and the reply lost; another process may have it",
            self._storage.values.path_of(self.hexdigest),
        )

    def undo(self) -> bool:
        """Put the entry back if it was taken. False if it wasn't, so that nothing has changed.

        Exceptions that signals raise meanwhile are dropped: the caller's first exception goes on as
        soon as this returns.
        """
        if not self._taking:
            return False
        for _ in range(TRIES):
            try:
                self._put_back()
                break
            except OSError as error:
                log.warning("%s stays until repair() gives it back: %s", self._private, error)
                break
            except BaseException:
                continue
        return True

    def _put_back(self) -> None:
        back = self._storage.exclusive.give_back(self._private, self._returning)
        if not back and self._removing is not None:
            # The file was removed and its value not handed out. Or an interrupted call has put it
            # back already, and then ``add`` changes nothing.
            self._storage.exclusive.add(self.hexdigest, [self._removing[0]])
        self._taking = False


class Taker:
    """Takes entries for one dictionary, and keeps cache and index in step."""

    def __init__(
        self, state: StoreState, writer: IndexWriter, storage: Storage, entries: Entries
    ) -> None:
        self._state = state
        self._writer = writer
        self._storage = storage
        self._entries = entries

    def begin(self, key: str) -> Taking:
        """A new taking, for ``take_entry``, and for ``put_back`` after any exception."""
        return Taking(self._storage, self._entries, key, digest(key))

    def take_entry(self, taking: Taking) -> Any:
        """Take the entry and return its value; MISSING if there is none, or another was faster."""
        locks = self._state.locks
        if locks.interrupted:
            return self._take_interrupting(taking)
        key, hexdigest = taking.key, taking.hexdigest
        guard = locks.guard
        replaced = None
        with guard:
            read = self._state.begin_read(key)
        try:
            if not taking.find():
                with guard:
                    replaced = self._state.record_miss(hexdigest, read)
                return MISSING
        except BaseException:
            with guard:
                replaced = self._state.invalidate(hexdigest, key)
            raise
        finally:
            with guard:
                self._state.end_read(read)
        self._writer.invalidate_legacy_index()
        with guard, locks.shard(hexdigest):
            try:
                taken = taking.take()
                replaced = self._state.record_delete(hexdigest, key)
            except BaseException:
                replaced = replaced, self._state.invalidate(hexdigest, key)
                raise
        del replaced
        return taking.finish().value if taken else MISSING

    def _take_interrupting(self, taking: Taking) -> Any:
        """As ``take_entry``, for a call that has interrupted another one (see ``interrupting``)."""
        taken = False
        if taking.find():
            try:
                taken = taking.take()
            finally:
                self._state.record_interrupting(taking.hexdigest, taking.key, there=False)
        return taking.finish().value if taken else MISSING

    def put_back(self, taking: Taking | None) -> None:
        """Undo the taking. If the entry was put back, or may be, the cache forgets its value."""
        if taking is not None and taking.undo():
            self._state.record_interrupting(taking.hexdigest, taking.key, there=True)
