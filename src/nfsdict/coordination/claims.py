"""Claims: entries as tasks. A worker holds the lease of a task's key while it works on the task.

The number of an attempt is the lease's generation, so it costs nothing: a worker that dies leaves
its lease file behind, and one that fails leaves a file in its place, which counts as dead. Whoever
gets the lease next has the next generation. What has failed too often is moved: its entry gets the
key ``failed/`` + key. A task that is done leaves no entry and no file.

Workers that start together spread by themselves. Each has the known keys in the order of their
digests, begins at a random one, and goes on with the next one. Where it meets a key that is gone or
claimed, another worker has been, perhaps all along; so it goes on from another random key.
"""

from __future__ import annotations

import logging
import random
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ..core import MISSING, digest
from ..errors import CorruptValueError
from ..scan import Scanner
from ..storage import Storage
from .leases import Lease, Leases

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Protocol

    from typing_extensions import Self

    from .compute import Store

    class TaskStore(Store, Protocol):
        """What of ``NfsDict`` is used here."""

        def __delitem__(self, key: str, /) -> None: ...


V = TypeVar("V")

log = logging.getLogger("nfsdict")

FAILED = "failed/"
# The system's randomness: forked processes, and those with the same seed, must spread, too.
_RANDOM = random.SystemRandom()


class Task(Generic[V]):
    """An entry that this process works on, as a context manager.

    Leaving the block removes the entry. An exception gives it back to be claimed again, or sets it
    aside if that was the last attempt; one that isn't an ``Exception``, as KeyboardInterrupt, gives
    it back and doesn't count. If the process is killed, others can claim the task when the lease
    has run out. A task that is dropped without a block is given back.

    If the lease is lost, because it couldn't be renewed in time, another worker may have claimed
    the task: then leaving the block is a LeaseLostError, and the entry stays to that one.
    """

    key: str
    value: V
    attempt: int
    """1 for the first one; those of workers that died count"""
    lease: Lease
    """renewed meanwhile; ``lease.check()`` tells whether it is still held"""

    def __init__(
        self, store: TaskStore, key: str, value: V, lease: Lease, max_attempts: int
    ) -> None:
        self.key = key
        self.value = value
        self.attempt = lease.generation
        self.lease = lease
        self._store = store
        self._max_attempts = max_attempts

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self._finish()
        elif self.lease.held:
            self._give_back(error)
        else:
            with suppress(OSError):
                self.lease.release()

    def _finish(self) -> None:
        try:
            self.lease.check()
            with suppress(KeyError):  # somebody else has removed it
                del self._store[self.key]
        finally:
            with suppress(OSError):  # it runs out by itself
                self.lease.release()

    def _give_back(self, error: BaseException) -> None:
        counts = isinstance(error, Exception)
        try:
            if counts and self.attempt >= self._max_attempts:
                log.warning("%r is set aside after attempt %d: %r", self.key, self.attempt, error)
                set_aside(self._store, self.key)
                self.lease.release()
            else:
                self.lease.leave(self.attempt if counts else self.attempt - 1)
        except OSError as problem:  # the exception that is on its way says more
            log.warning("%r can be claimed when its lease has run out: %s", self.key, problem)

    def __repr__(self) -> str:
        return f"<Task {self.key!r:.200}, attempt {self.attempt}>"


def set_aside(store: TaskStore, key: str) -> None:
    """Move the entry under ``failed/``. If this is cut short, the next attempt does it again."""
    value = store.get(key, MISSING, fresh=True)
    if value is not MISSING:
        store[FAILED + key] = value
        with suppress(KeyError):
            del store[key]


class Claims:
    """Finds tasks for one dictionary, which passes itself to each call."""

    def __init__(self, leases: Leases, scanner: Scanner, storage: Storage) -> None:
        self._leases = leases
        self._scanner = scanner
        self._values = storage.values
        self._watch = leases.watch()
        # Threads take from one list. That it changes between two steps of one of them does no harm.
        self._keys: list[str] = []
        self._claimed: set[str] = set()
        self._at = 0
        # Whether another worker may have been where the next key is.
        self._unsure = False

    def claim(self, store: TaskStore, duration: float, max_attempts: int) -> Task[Any] | None:
        """See ``NfsDict.claim``."""
        task = self._first(store, duration, max_attempts)
        if task is None:
            self._scanner.scan()
            keys = (key for key in self._scanner.known_keys() if not key.startswith(FAILED))
            self._keys = sorted(keys, key=digest)
            self._claimed = {lease.hexdigest for lease in self._watch.look()}
            self._jump()
            task = self._first(store, duration, max_attempts)
        return task

    def _first(self, store: TaskStore, duration: float, max_attempts: int) -> Task[Any] | None:
        """The first of the keys that are left that can be claimed."""
        while True:
            key = self._next()
            if key is None:
                return None
            if not (self._unsure and self._is_gone(digest(key))):
                task = self._try(store, key, duration, max_attempts)
                if task is not None:
                    self._unsure = False
                    return task
            self._jump()

    def _next(self) -> str | None:
        """Take a key from the list, of those that weren't claimed when it was made."""
        keys = self._keys
        while keys:
            with suppress(IndexError, ZeroDivisionError):  # another thread took the last one
                key = keys.pop(self._at % len(keys))
                if digest(key) not in self._claimed:
                    return key
        return None

    def _jump(self) -> None:
        self._unsure = True
        self._at = _RANDOM.randrange(len(self._keys) or 1)

    def _is_gone(self, hexdigest: str) -> bool:
        """Ask first where other workers have been: one call in place of making a lease in vain."""
        return self._values.look(hexdigest) is None

    def _try(
        self, store: TaskStore, key: str, duration: float, max_attempts: int
    ) -> Task[Any] | None:
        """The task, if its lease is to be had and its entry is still there."""
        lease = self._leases.contend(key, duration, self._watch)
        if lease is None:
            return None
        try:
            value = store.get(key, MISSING, fresh=True)
            if value is not MISSING and lease.generation <= max_attempts:
                return Task(store, key, value, lease, max_attempts)
            if value is not MISSING:
                log.warning("%r is set aside: its worker died in attempt %d", key, max_attempts)
                set_aside(store, key)
        except CorruptValueError as error:
            log.warning("%r can't be claimed: %s", key, error)
        except BaseException:
            lease.leave(lease.generation - 1)
            raise
        lease.release()
        return None

    def failed(self) -> list[str]:
        """See ``NfsDict.failed``."""
        self._scanner.scan()
        keys = self._scanner.known_keys()
        return sorted(key[len(FAILED) :] for key in keys if key.startswith(FAILED))

    def retry(self, store: TaskStore, key: str) -> None:
        """See ``NfsDict.retry``."""
        value = store.get(FAILED + key, MISSING, fresh=True)
        if value is MISSING:
            raise KeyError(key)
        store.add(key, value)
        with suppress(KeyError):
            del store[FAILED + key]
