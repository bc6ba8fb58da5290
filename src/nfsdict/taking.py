"""Taking: one ``pop``, from reading the entry to returning its value, and how it is undone."""

from __future__ import annotations

import errno
import logging
import sys
from _thread import start_new_thread
from contextlib import nullcontext, suppress
from functools import partial
from typing import Any, Callable

from .content import holds
from .core import MISSING, digest, outlast
from .entries import Entries, Entry
from .errors import UncertainWriteError
from .index.writer import IndexWriter
from .state import StoreState
from .storage import Storage
from .storage.files import Found
from .storage.passing import TRIES

log = logging.getLogger("nfsdict")


class Taking:
    """Takes the entry of one key from the store.

    The caller calls ``find``, ``take`` and ``finish`` in this order. After any exception, whatever
    it is and wherever it came, the value wasn't handed out: if the taking has ``begun``, ``Undo``
    puts the entry back under its key before the exception goes on. If the process is killed, the
    entry stays under a private name, and ``repair`` gives it back.
    """

    def __init__(self, storage: Storage, entries: Entries, key: str, hexdigest: str) -> None:
        self._storage = storage
        self._entries = entries
        self.key = key
        self.hexdigest = hexdigest
        # Both names are chosen before anything is done, so that ``put_back`` knows where to look.
        self.private = storage.values.private_path_of(hexdigest)
        self._returning = storage.values.private_path_of(hexdigest)
        self._entry: Entry | None = None
        self._removing: Found | None = None
        self.begun = False
        """whether the file may have been taken, and must be put back after an exception"""
        self.failure: OSError | None = None
        """why the file stays under its private name, if it couldn't be put back"""

    def find(self) -> bool:
        """Read and decode the entry under its key. False if there is none.

        Raises as ``Entries.find_entry``; the file stays in place then.
        """
        self._entry = self._entries.find_entry(self.hexdigest, self.key, fresh=True)
        return self._entry is not None

    def take(self) -> bool:
        """Rename the file to a private name. False if it is gone: another process was faster."""
        self.begun = True
        taken = self._storage.exclusive.take(self.hexdigest, self.private)
        self.begun = taken
        return taken

    def finish(self) -> Entry:
        """Remove the file that was taken, and return its entry.

        If another host replaced the file between ``find`` and ``take``, the new content is decoded
        and returned. UncertainWriteError if the file is gone: a ``repair`` that took this process
        for dead has given it back, and another process may have taken it.
        """
        content = self._storage.exclusive.read_taken(self.private)
        if content is None:
            self.begun = False
            raise self._gone()
        entry = self._entry
        if entry is None or not holds(content[0], entry.data):
            entry = self._entries.load_taken(self.hexdigest, content)
        self._removing = content
        try:
            self._storage.exclusive.discard(self.private)
        except FileNotFoundError:
            self.begun = False
            raise self._gone() from None
        return entry

    def _gone(self) -> UncertainWriteError:
        return UncertainWriteError(
            errno.ENOENT,
            f"the entry {self.key!r:.200} was taken, and its file is gone: a repair gave it back, "
            "or its removal was carried out and the reply lost; another process may have it",
            self._storage.values.path_of(self.hexdigest),
        )

    def put_back(self) -> None:
        """Put the entry back under its key. OSError if that fails: then ``repair`` does it."""
        back = self._storage.exclusive.give_back(self.private, self._returning)
        if not back and self._removing is not None:
            # The file was removed and its value not handed out. Or an interrupted call has put it
            # back already, and then ``add`` changes nothing.
            self._storage.exclusive.add(self.hexdigest, [self._removing[0]])


class Undo:
    """Puts back what one taking took, whatever exceptions signal handlers raise meanwhile.

    A new thread does it, as such handlers run in the main thread only. After an exception, if
    the taking has begun, the caller calls ``start``, whatever that raises, ``wait`` and ``finish``.

    ``start`` is one call in C, and CPython from 3.11 on looks for signals only when such a call has
    ended: so the thread is started, though an exception may come at once. It is started once.
    """

    def __init__(self, put_back: Callable[[Taking], None], taking: Taking) -> None:
        self._put_back = put_back
        self._taking = taking
        started: list[int] = []
        ended: list[bool] = []
        arguments = put_back, taking, ended
        # A thread that is started while the interpreter ends would never run.
        threads = () if sys.is_finalizing() else map(start_new_thread, (_put_back,), (arguments,))
        self.start = partial(started.extend, threads)
        """start the thread. RuntimeError where none can be started: ``finish`` does it then"""
        self.wait = partial(outlast, started, ended)
        """wait for the thread, if there is one. See the core's ``outlast``"""

    def finish(self) -> None:
        """Do what no thread did; and log why the file stays under its private name, if it does."""
        for _ in range(TRIES):
            if not self._taking.begun:
                break
            with suppress(BaseException):
                self._put_back(self._taking)
        if self._taking.failure is not None:
            log.warning(
                "%s stays until repair() gives it back: %s",
                self._taking.private,
                self._taking.failure,
            )


def _put_back(put_back: Callable[[Taking], None], taking: Taking, ended: list[bool]) -> None:
    try:
        put_back(taking)
    finally:
        ended.append(True)


class Taker:
    """Takes entries for one dictionary, and keeps cache and index in step."""

    def __init__(
        self, state: StoreState, writer: IndexWriter, storage: Storage, entries: Entries
    ) -> None:
        self._state = state
        self._writer = writer
        self._storage = storage
        self._entries = entries

    def begin(self, key: str) -> tuple[Taking, Undo]:
        """A new taking, for ``take_entry``, and what undoes it after any exception."""
        taking = Taking(self._storage, self._entries, key, digest(key))
        return taking, Undo(self._put_back, taking)

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
                record = self._state.record_delete if taken else self._state.record_gone
                replaced = record(hexdigest, key)
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

    def _put_back(self, taking: Taking) -> None:
        """Put the entry back. As it was, or may be, the cache forgets its value.

        The thread enters its guard: the call that is undone may have interrupted another one, whose
        locks nothing may wait for here.
        """
        locks = self._state.locks
        with nullcontext() if locks.interrupted else locks.guard:
            try:
                taking.put_back()
            except OSError as error:
                taking.failure = error
            self._state.record_interrupting(taking.hexdigest, taking.key, there=True, changed=False)
        taking.begun = False
