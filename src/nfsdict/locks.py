"""The locks of one dictionary: one a shard, and two over what is known. They outlive a fork."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

_all: weakref.WeakSet[Locks] = weakref.WeakSet()


class Locks:
    """Taken in this order: ``survey``, shards in ascending order, ``known``.

    A shard's lock orders file and cache for its keys, and is held during I/O; reentrant, as
    unpickling may use the dictionary. ``known`` is held over cache and index together, for moments
    and never during I/O. ``survey`` lets one survey run at a time.
    """

    def __init__(self) -> None:
        self._renew()
        _all.add(self)

    def _renew(self) -> None:
        self._shards = {f"{number:02x}": threading.RLock() for number in range(256)}
        self.known = threading.Lock()
        self.survey = threading.RLock()

    @contextmanager
    def shards(self, names: Iterable[str]) -> Iterator[None]:
        """Hold the locks of the shards of these digests."""
        held = []
        try:
            for shard in sorted({name[:2] for name in names}):
                lock = self._shards[shard]
                lock.acquire()
                held.append(lock)
            yield
        finally:
            for lock in held:
                lock.release()

    def shard(self, name: str) -> threading.RLock:
        """The lock of the shard of this digest."""
        return self._shards[name[:2]]


def _renew_all() -> None:
    for locks in list(_all):
        locks._renew()


# A lock that another thread held at the moment of the fork has nobody to release it in the child.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)
