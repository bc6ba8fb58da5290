"""Taking: one ``pop``, from reading the entry to handing out its value, and how it is undone."""

from __future__ import annotations

import errno
import logging

from .entries import Entries, Entry
from .errors import UncertainWriteError
from .storage.nfs import TRIES
from .storage.store import Store
from .storage.values import Found

log = logging.getLogger("nfsdict")


class Taking:
    """Takes the entry of one key from the store.

    The caller calls ``find``, ``take`` and ``finish`` in this order, and ``undo`` after any
    exception, whatever it is and wherever it came: then the value wasn't handed out, and the entry
    is back under its key before the exception goes on. A process that is killed leaves it under a
    private name, from where ``repair`` gives it back.
    """

    def __init__(self, store: Store, entries: Entries, key: str, name: str) -> None:
        self._store = store
        self._entries = entries
        self._key = key
        self._name = name
        # Chosen before anything is done, so that ``undo`` knows where to look.
        self._private = store.private_name(name)
        self._returning = store.private_name(name)
        self._entry: Entry | None = None
        self._taking = False
        self._removing: Found | None = None

    def find(self) -> bool:
        """Read and decode the entry under its name. Whether there is one.

        What can't be read or decoded stays where it is; errors are those of ``Entries.find``.
        """
        self._entry = self._entries.find(self._key, fresh=True)
        return self._entry is not None

    def take(self) -> bool:
        """Take the file from its name. Whether it was there, and nobody was faster."""
        self._taking = True
        taken = self._store.take(self._name, self._private)
        self._taking = taken
        return taken

    def finish(self) -> Entry:
        """The entry that was taken, its file removed.

        Another host may have replaced the file since it was read: what was taken counts, and is
        decoded. UncertainWriteError if it is gone: whoever took this process for dead has given it
        back, and another one may have it.
        """
        content = self._store.read_taken(self._private)
        if content is None:
            raise self._gone()
        entry = self._entry
        if entry is None or entry.data != content[0]:
            entry = self._entries.load_taken(self._name, content)
        self._removing = content
        try:
            self._store.discard(self._private)
        except FileNotFoundError:
            raise self._gone() from None
        return entry

    def _gone(self) -> UncertainWriteError:
        self._taking = False
        return UncertainWriteError(
            errno.ENOENT,
            f"the entry {self._key!r:.200} was taken, and its file is gone: a repair gave it back, "
            "or its removal was carried out and the reply lost; another process may have it",
            self._store.path_of(self._name),
        )

    def undo(self) -> bool:
        """Put the entry back if it was taken. Whether that may have changed anything.

        Further exceptions that signals raise meanwhile are passed over, for the first one goes on
        as soon as this is done.
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
        back = self._store.give_back(self._private, self._returning)
        if not back and self._removing is not None:
            # Removed already, its value not handed out; or put back by a call that was interrupted.
            self._store.add(self._name, self._removing[0])
        self._taking = False
