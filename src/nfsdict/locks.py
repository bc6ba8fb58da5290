"""The locks of one dictionary, and how a thread knows that it is inside one of its own calls."""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections.abc import Iterable
from types import FrameType
from typing import Any, Callable, TypeVar

from .layout import SHARDS

T = TypeVar("T")

_all: weakref.WeakSet[Locks] = weakref.WeakSet()
# On other interpreters a signal can come between the end of a ``with`` block and the release of its
# lock.
_WITH_IS_ATOMIC = sys.implementation.name == "cpython" and sys.version_info >= (3, 11)


class _Guard:
    """A guard that doesn't stay locked if a signal kept its thread from releasing it.

    The guard remembers the frame that entered it: when that frame has ended, the guard counts as
    released. Its ``with`` statement encloses those of all other locks. So an exception that kept
    one of those from being released passes through here, and ``release`` then releases them.
    """

    def __init__(self, release: Callable[[], None]) -> None:
        self._release = release
        self._inside: FrameType | None = None

    def locked(self) -> bool:
        inside = self._inside
        if inside is None:
            return False
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            if frame is inside:
                return True
            frame = frame.f_back
        self._release()
        self._inside = None
        return False

    def __enter__(self) -> None:
        self._inside = sys._getframe(1)

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            if kind is not None:
                self._release()
        finally:
            self._inside = None


def of_this_thread(local: threading.local, name: str, new: Callable[[], T]) -> T:
    """The calling thread's object of this name, which is made when it is first asked for.

    An ``__init__`` of a ``threading.local`` can't make it: a signal handler or a finalizer that
    comes while it runs would find no such attribute.
    """
    own: dict[str, T] = vars(local)
    try:
        return own[name]
    except KeyError:
        return own.setdefault(name, new())


_guards = threading.local()


def _guards_by_id() -> dict[int, weakref.ref[Any]]:
    """The guards of the calling thread, of all dictionaries."""
    return of_this_thread(_guards, "by_id", dict)


def in_a_call() -> bool:
    """Whether the calling thread is inside a call of some dictionary that may hold locks."""
    guards = [found() for found in _guards_by_id().copy().values()]
    return any(guard is not None and guard.locked() for guard in guards)


class Locks:
    """A thread takes them in this order: its ``guard``, one of ``index`` and ``shards``, ``state``.

    A shard's lock keeps the changes of file and cache in the same order for its keys. It is held
    during I/O; of several the lower one is taken first. ``index`` is held while the index is
    written; no thread waits for it. ``state`` protects cache and index in memory together; it is
    held for moments and never during I/O. ``loads`` is held alone, while a spool is used.

    No user code is called while a lock is held: values are serialized before and decoded after. But
    a signal handler, the ``__del__`` of a collected object, or a log handler can run anywhere, also
    in a thread that holds locks. So every call enters its thread's ``guard`` before it takes a
    lock. A call that finds the guard entered has interrupted another call of the same dictionary.
    It takes no lock (see ``interrupting``), as it could wait for ever.
    """

    def __init__(self) -> None:
        self._renew()
        _all.add(self)

    def _renew(self) -> None:
        # An RLock can tell whether the calling thread owns it.
        new: Callable[[], Any] = threading.Lock if _WITH_IS_ATOMIC else threading.RLock
        self._thread = threading.local()
        self._shards: dict[str, threading.Lock] = {shard: new() for shard in SHARDS}
        self.state: threading.Lock = new()
        self.index: threading.Lock = new()
        self.loads: threading.Lock = new()

    def _release_owned(self) -> None:
        """Release the locks, which are RLocks here, that the calling thread owns. Not its guard."""
        lock: Any
        for lock in (self.state, self.index, self.loads, *self._shards.values()):
            while lock._is_owned():
                lock.release()

    # Only one thread takes this lock. So a ``with`` statement leaves it as it found it, whichever
    # exception comes at whichever moment.

    @property
    def guard(self) -> threading.Lock:
        """The calling thread's guard, which it enters before it takes any lock."""
        try:
            return self._thread.guard  # type: ignore[no-any-return]
        except AttributeError:
            return of_this_thread(self._thread, "guard", self._new_guard)

    def _new_guard(self) -> threading.Lock:
        new: Any = threading.Lock() if _WITH_IS_ATOMIC else _Guard(self._release_owned)
        guards, number = _guards_by_id(), id(new)
        guards[number] = weakref.ref(new, lambda _: guards.pop(number, None))
        return new  # type: ignore[no-any-return]

    @property
    def interrupted(self) -> bool:
        """Whether the calling thread is already inside a call that holds or is to take locks."""
        return self.guard.locked()

    def shard(self, name: str) -> threading.Lock:
        """The lock of the shard of this digest."""
        return self._shards[name[:2]]

    def holding(self, names: Iterable[str], call: Callable[[], T]) -> T:
        """Run the call with the locks of these digests' shards held, and return its result."""
        return _holding(
            [self._shards[shard] for shard in sorted({name[:2] for name in names})], call
        )


def _holding(locks: list[threading.Lock], call: Callable[[], T]) -> T:
    """Recursive, so that no exception can come between a lock and the ``with`` that releases it."""
    if not locks:
        return call()
    with locks[0]:
        return _holding(locks[1:], call)


class _Decoding(threading.local):
    inherited: frozenset[str] = frozenset()

    @property
    def locks(self) -> dict[str, Any]:
        """By the store that is being decoded while one is held."""
        return of_this_thread(self, "by_store", dict)


_decoding = _Decoding()


def decoding(store: str) -> threading.Lock:
    """The calling thread's lock around decoding values of the store in this directory.

    Decoding can run any code. If that opens or scans the same store, by whichever dictionary, the
    scan would decode the same value again, and so for ever: ``is_decoding`` tells it not to begin.
    """
    try:
        return _decoding.locks[store]  # type: ignore[no-any-return]
    except KeyError:
        new = threading.Lock() if _WITH_IS_ATOMIC else _Guard(lambda: None)
        return _decoding.locks.setdefault(store, new)  # type: ignore[no-any-return]


def is_decoding(store: str) -> bool:
    """Whether the calling thread is decoding a value of this store, or works for one that is."""
    return store in _decoding.inherited or decoding(store).locked()


def stores_decoding() -> frozenset[str]:
    """The stores of which the calling thread is decoding a value; for ``inherit_decoding``."""
    locks = list(_decoding.locks.items())
    return _decoding.inherited.union(store for store, lock in locks if lock.locked())


def inherit_decoding(stores: frozenset[str]) -> None:
    """Note in a new thread what the thread that it works for is decoding."""
    _decoding.inherited = stores


def _renew_all() -> None:
    for locks in list(_all):
        locks._renew()


# If another thread holds a lock during a fork, nobody can release it in the child.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)
