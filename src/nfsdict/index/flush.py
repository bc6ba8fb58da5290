"""Flush: what the disk is told besides the value files, at close or interpreter exit."""

from __future__ import annotations

import logging
import os
import weakref

from ..storage.store import Store
from .writer import IndexWriter

log = logging.getLogger("nfsdict")
_all: weakref.WeakSet[Flush] = weakref.WeakSet()


class Flush:
    """Has the index written, and removes that of release 0.2.1, when there is something to say.

    It refers to no dictionary, so that it can outlive one. A forked child leaves the index to its
    parent.
    """

    def __init__(self, notes: IndexWriter, store: Store) -> None:
        self._notes = notes
        self._store = store
        self._keys_changed = False
        _all.add(self)

    def _forked(self) -> None:
        self._notes.writes = False  # the parent does
        self._keys_changed = False  # not by this process

    def keys_change(self) -> None:
        """The set of keys is about to change: remove the index of release 0.2.1, so that it scans.

        Release 0.2.1 believes its index. It is removed before the first change, and once more at
        the end, for a process of that release that wrote it meanwhile.
        """
        if not self._keys_changed:
            self._keys_changed = True  # first: a handler of log records may write to the dictionary
            self._remove_old_index()

    def _remove_old_index(self) -> None:
        try:
            self._store.remove_old_index()
        except OSError as error:
            log.warning("can't remove release 0.2.1's index, which will hide changes: %s", error)

    def __call__(self) -> None:
        """Never raises OSError: what is lost is the next opener's time."""
        if self._keys_changed:
            self._remove_old_index()
            self._keys_changed = False
        self._notes.flush()


def _forked_all() -> None:
    for flush in list(_all):
        flush._forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked_all)
