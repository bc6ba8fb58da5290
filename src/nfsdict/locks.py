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
# Elsewhere a signal can come between the end of a ``with`` block and the release of its lock.
_WITH_IS_ATOMIC = sys.implementation.name == "cpython" and sys.version_info >= (3, 11)


class _Guard:
    """A lock of one thread, which it doesn't keep though a signal has kept it from releasing it.

    It knows the call that entered it: when that has ended, so has its being inside. The ``with``
    statement of a guard is around those of all other locks, and an exception that came at the end
    of one of them comes by here: ``release`` releases them.
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


class Locks:
    """A thread takes them in this order: its ``guard``, one of ``index`` and ``shards``, ``state``.

    A shard's lock orders the changes of file and cache for its keys, and is held during I/O; of
    several the lower is taken first. ``index`` is held while the index is written; nobody waits for
    it. ``state`` is held over cache and index in memory together, for moments and never during
    I/O.

    No code of the user's is called under any of them: values are serialized before and decoded
    after. But a signal handler, the ``__del__`` of something that is collected, or the handler of a
    log record can run anywhere, in a thread that holds some. So whoever takes a lock enters the
    thread's ``guard`` first. A call that finds it entered has interrupted another call of the same
    dictionary: it takes no lock (see ``interrupting``), and so waits for nobody.
    """

    def __init__(self) -> None:
        self._renew()
        _all.add(self)

    def _renew(self) -> None:
        # Of an RLock it can be told whether a thread owns it.
        new: Callable[[], Any] = threading.Lock if _WITH_IS_ATOMIC else threading.RLock
        self._thread = threading.local()
        self._shards: dict[str, threading.Lock] = {shard: new() for shard in SHARDS}
        self.state: threading.Lock = new()
        self.index: threading.Lock = new()

    def _release_owned(self) -> None:
        """Release those, but for guards, that the calling thread has. They are RLocks."""
        lock: Any
        for lock in (self.state, self.index, *self._shards.values()):
            while lock._is_owned():
                lock.release()

    # Both are locks that only one thread takes, so that the ``with`` statement leaves them as it
    # found them whatever exception arrives at whatever moment.

    @property
    def guard(self) -> threading.Lock:
        """The calling thread's; to be entered before any other is taken."""
        try:
            return self._thread.guard  # type: ignore[no-any-return]
        except AttributeError:
            return self._own(
                "guard", threading.Lock() if _WITH_IS_ATOMIC else _Guard(self._release_owned)
            )

    @property
    def interrupted(self) -> bool:
        """Whether the calling thread is inside a call that holds locks, or is about to."""
        return self.guard.locked()

    @property
    def decoding(self) -> threading.Lock:
        """The calling thread's; to be entered while a value is decoded, which can run any code."""
        try:
            return self._thread.decoding  # type: ignore[no-any-return]
        except AttributeError:
            return self._own(
                "decoding", threading.Lock() if _WITH_IS_ATOMIC else _Guard(lambda: None)
            )

    def _own(self, name: str, new: threading.Lock | _Guard) -> threading.Lock:
        """In one step, as an interrupting call may be the first."""
        lock: threading.Lock = vars(self._thread).setdefault(name, new)
        return lock

    def shard(self, name: str) -> threading.Lock:
        """The lock of the shard of this digest."""
        return self._shards[name[:2]]

    def holding(self, names: Iterable[str], call: Callable[[], T]) -> T:
        """The call's result, with the locks of the shards of these digests held meanwhile."""
        return _holding(
            [self._shards[shard] for shard in sorted({name[:2] for name in names})], call
        )


def _holding(locks: list[threading.Lock], call: Callable[[], T]) -> T:
    """By recursion: no exception can come between a lock and the ``with`` that releases it."""
    if not locks:
        return call()
    with locks[0]:
        return _holding(locks[1:], call)


def _renew_all() -> None:
    for locks in list(_all):
        locks._renew()


# A lock that another thread held at the moment of the fork has nobody to release it in the child.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)
