"""Claims: entries as tasks. A worker holds the lease of a task's key while it works on the task.

The number of an attempt is the lease's generation, so it costs nothing: a worker that dies leaves
its lease file behind, and one that fails leaves a file in its place, which counts as dead. Whoever
gets the lease next has the next generation. What has failed too often is moved: its entry gets the
key ``failed/`` + key. A task that is done leaves no entry and no file.

Workers that start together spread by themselves. Each has the known keys in the order of their
digests, begins at a random one, and goes on with the next one. Where it meets a key that is gone or
claimed, another worker has been, perhaps all along; so it goes on from another random key. After a
few such keys its list is too old, and it goes on with a newer one: see ``Claims._scan``.
"""

from __future__ import annotations

import json
import logging
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from math import inf
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ..core import MISSING, digest
from ..errors import contained, described
from ..layout import LeaseName
from ..scan import Scanner
from ..state import StoreState
from ..storage import Storage
from .compute import forget
from .leases import Lease, Leases, pauses

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
# Whose lease a worker holds while it scans for tasks.
_SCAN = "nfsdict: scan for tasks"
_SCAN_DIGEST = digest(_SCAN)
_SCAN_SECONDS = 60.0
# For how long a task that is made one again is held.
_RETRY_SECONDS = 60.0
# Keys in a list that is left to others.
_MOST = 100_000
# After so many keys that were gone or claimed, newer knowledge costs less than the next ones.
_PATIENCE = 8
# The system's randomness: forked processes, and those with the same seed, must spread, too.
_RANDOM = random.SystemRandom()


class _Held(Exception):
    """Another worker holds the lease."""


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
        left = self.attempt if counts else self.attempt - 1
        # The exception that is on its way says more than those that come here.
        if counts and self.attempt >= self._max_attempts:
            why = described(error)
            log.warning("%r is set aside after attempt %d: %s", self.key, self.attempt, why)
            try:
                set_aside(self._store, self.key)
                left = 0
            except Exception as problem:
                log.warning("%r could not be set aside: %s", self.key, described(problem))
        try:
            self.lease.leave(left)
        except OSError as problem:
            log.warning("%r can be claimed when its lease has run out: %s", self.key, problem)

    def __repr__(self) -> str:
        return f"<Task {self.key!r:.200}, attempt {self.attempt}>"


def set_aside(store: TaskStore, key: str) -> None:
    """Move the entry under ``failed/``. If this is cut short, the next attempt does it again."""
    value = contained(lambda: store.get(key, MISSING, fresh=True))
    if value is not MISSING:
        store[FAILED + key] = value
        with suppress(KeyError):
            del store[key]


class Claims:
    """Finds tasks for one dictionary, which passes itself to each call."""

    def __init__(
        self, leases: Leases, scanner: Scanner, state: StoreState, storage: Storage
    ) -> None:
        self._leases = leases
        self._scanner = scanner
        self._state = state
        self._values = storage.values
        self._files = storage.leases
        self._watch = leases.watch()
        # Threads take from one list. That it changes between two steps of one of them does no harm.
        self._keys: list[str] | None = None
        self._claimed: set[str] = set()
        self._at = 0
        # How many keys in a row were gone or claimed.
        self._misses = 0
        # Whose list was read last.
        self._read: LeaseName | None = None

    def claim(self, store: TaskStore, duration: float, max_attempts: int) -> Task[Any] | None:
        """See ``NfsDict.claim``."""

        def first(patience: float = _PATIENCE) -> Task[Any] | None:
            return self._first(store, duration, max_attempts, patience)

        if self._keys is None:
            alive = self._watch.look().alive
            self._list(self._scanner.known_keys(), alive)
        return first() or self._scan(first)

    def _scan(self, first: Callable[..., Task[Any] | None]) -> Task[Any] | None:
        """The first task of a newer list: of another worker's, or of a scan of our own.

        Workers run out of keys at about the same time, and a scan costs many calls. So one of them
        scans, under a lease, and leaves what it found in a file, with the generation of the lease,
        to all others. None if nothing could be claimed of a scan that began after this call did.
        """
        look = self._watch.look()
        before = look.newest(_SCAN_DIGEST)
        waits = pauses()
        while True:
            left = look.left(_SCAN_DIGEST)
            if left is not None and left != self._read and self._load(left, look.alive):
                task = first()
                if task is not None or (left.generation > before and not self._keys):
                    return task
            elif not look.alive_of(_SCAN_DIGEST):
                with suppress(_Held), self._scanning():
                    return first(patience=inf)
            else:
                time.sleep(next(waits))
            look = self._watch.look()

    @contextmanager
    def _scanning(self) -> Iterator[None]:
        """Scan, make a list, and leave it to others afterwards.

        ``_Held`` if another worker is about to scan.
        """
        lease = self._leases.contend(_SCAN, _SCAN_SECONDS, self._watch)
        if lease is None:
            raise _Held
        with lease:
            self._scanner.scan()
            keys = self._scanner.known_keys()
            self._list(keys, self._watch.look().alive)
            keys = list(self._keys or ())
            yield
            with suppress(OSError):  # then others scan, too
                lease.leave(lease.generation, json.dumps(keys[:_MOST]).encode())

    def _load(self, left: LeaseName, alive: list[LeaseName]) -> bool:
        """Take over a list that another worker has left. False if it isn't there, or not whole."""
        try:
            keys = json.loads(self._files.contents([left])[0])
        except ValueError:
            return False
        self._read = left
        self._list(keys, alive)
        return True

    def _list(self, keys: list[str], alive: list[LeaseName]) -> None:
        """Begin with a new list of keys, and with what is known of leases."""
        self._keys = sorted((key for key in keys if not key.startswith(FAILED)), key=digest)
        self._claimed = {lease.hexdigest for lease in alive}
        self._jump()
        self._misses = 0

    def _first(
        self, store: TaskStore, duration: float, max_attempts: int, patience: float
    ) -> Task[Any] | None:
        """The first of the keys that are left that can be claimed; None if so many couldn't."""
        while self._misses < patience:
            key = self._next()
            if key is None:
                return None
            # Where other workers have been, one call comes before those that make a lease in vain.
            if not self._misses or self._values.look(digest(key)) is not None:
                task = self._try(store, key, duration, max_attempts)
                if task is not None:
                    self._misses = 0
                    return task
            self._misses += 1
            self._jump()
        return None

    def _next(self) -> str | None:
        """Take a key from the list, of those that weren't claimed when it was made."""
        keys = self._keys or []
        while keys:
            with suppress(IndexError, ZeroDivisionError):  # another thread took the last one
                key = keys.pop(self._at % len(keys))
                if digest(key) not in self._claimed:
                    return key
        return None

    def _jump(self) -> None:
        self._at = _RANDOM.randrange(len(self._keys or ()) or 1)

    def _try(
        self, store: TaskStore, key: str, duration: float, max_attempts: int
    ) -> Task[Any] | None:
        """The task, if its lease is to be had and its entry is still there."""
        lease = self._leases.contend(key, duration, self._watch)
        if lease is None:
            return None
        try:
            value = self._value(store, key, lease.generation)
            if value is not MISSING and lease.generation <= max_attempts:
                forget(self._state, key)  # the worker may change the object in place
                return Task(store, key, value, lease, max_attempts)
            if value is not MISSING:
                log.warning("%r is set aside: its worker died in attempt %d", key, max_attempts)
                set_aside(store, key)
        except BaseException as error:
            lease.leave(lease.generation - 1)
            if isinstance(error, OSError) or not isinstance(error, Exception):
                raise
            # It is damaged, or its own code refuses to be unpickled here.
            log.warning("%r can't be claimed: %s", key, described(error))
            return None
        lease.release()
        return None

    def _value(self, store: TaskStore, key: str, attempt: int) -> Any:
        """The value, or MISSING. One call, or two if the directory has changed, if it is in memory
        and the file is proven to be the same; but an earlier attempt may have changed the object.
        """
        locks = self._state.locks
        if attempt == 1 and not locks.interrupted:
            with locks.guard:
                known, value = self._state.known(key)
            if known is not None and known.proven and value is not MISSING:
                signature = self._values.look(digest(key))
                if signature is None:
                    return MISSING
                if signature == known.signature:
                    return value
        return contained(lambda: store.get(key, MISSING, fresh=True))

    def failed(self) -> list[str]:
        """See ``NfsDict.failed``."""
        self._scanner.scan()
        keys = self._scanner.known_keys()
        return sorted(key[len(FAILED) :] for key in keys if key.startswith(FAILED))

    def retry(self, store: TaskStore, key: str) -> None:
        """See ``NfsDict.retry``."""
        # Nobody works on the key meanwhile, and could set it aside again.
        lease = self._leases.acquire(key, _RETRY_SECONDS)
        assert lease is not None
        with lease:
            value = store.get(FAILED + key, MISSING, fresh=True)
            if value is MISSING:
                raise KeyError(key)
            store.add(key, value)
            with suppress(KeyError):
                del store[FAILED + key]
