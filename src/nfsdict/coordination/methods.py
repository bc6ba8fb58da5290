"""The methods of ``NfsDict`` that coordinate processes. Each calls a room of this package."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Generic, cast

from ..arguments import checked_seconds, plain
from ..core import MISSING
from ..first_use import at_first_use
from ..logs import told
from . import holding

if TYPE_CHECKING:
    from collections.abc import Collection

    from typing_extensions import TypeVar

    from ..aio import AsyncNfsDict
    from ..background import Background
    from ..entries import Entries
    from ..scan import Scanner
    from ..state import StoreState
    from ..storage import Storage
    from .claims import Claims, Task
    from .compute import ComputeOnce, Store
    from .leases import Lease, LeaseInfo, Leases
    from .memoize import Memoize

    V = TypeVar("V", default=Any)
else:
    from typing import TypeVar

    V = TypeVar("V")

# Imported with the package, so that it registers with ``atexit`` before the program does: what runs
# at exit under a lease still has it.
__all__ = ["Coordination", "holding"]


class Coordination(Generic[V]):
    """Base class of ``NfsDict``, which is a ``Store`` and sets the attributes."""

    _entries: Entries
    _scanner: Scanner
    _state: StoreState
    _storage: Storage
    _workers: int

    @at_first_use
    def _leases(self) -> Leases:
        from .leases import Leases

        return Leases(self._storage)

    @at_first_use
    def _compute(self) -> ComputeOnce:
        from .compute import ComputeOnce

        return ComputeOnce(self._leases, self._state, self._storage, self._entries.freeze)

    @at_first_use
    def _claims(self) -> Claims:
        from .claims import Claims

        return Claims(self._leases, self._scanner, self._state, self._storage)

    @at_first_use
    def _background(self) -> Background:
        from ..background import Background

        return Background(self._workers)

    @property
    def _store(self) -> Store:
        return cast("Store", self)

    @property
    def aio(self) -> AsyncNfsDict[V]:
        """This dictionary's methods as coroutines: see ``nfsdict.aio.AsyncNfsDict``."""
        from ..aio import AsyncNfsDict  # asyncio is large

        return AsyncNfsDict(cast(Any, self))

    @told("lease")
    def lease(self, key: str, duration: float = 60.0, *, timeout: float | None = None) -> Lease:
        """Hold the lease of a key: of all who ask for it, on all hosts, one has it at a time.

        Use it as a context manager::

            with d.lease("nightly") as lease:
                ...
                lease.check()  # LeaseLostError if another process may hold it by now

        A daemon thread renews it three times in its duration, until it is released. If the process
        is killed or its host lost, others get it after the duration; on the same Linux host, at
        once. If the holder can't renew it in time, as it is suspended or the server doesn't answer,
        others get it as well, and ``held`` is False: see ``Lease``. A call that keeps the GIL for
        most of the duration keeps the thread from renewing.

        A lease guards nothing on the disk: entries of that key can be read and written by all, the
        holder of a lost lease included. ``add`` does what only one process may succeed in. Who
        waits asks the server after pauses of 10 ms at first, growing to 1 s. A thread that holds a
        lease and asks for it again waits for itself.

        Args:
            key: any ``str``, whether there is such an entry or not.
            duration: seconds, many times what a call to the server takes.
            timeout: TimeoutError if it can't be had within so many seconds; 0 tries once, None
                waits for ever.

        Raises:
            ValueError, TypeError: a key, duration or timeout that can't be one.
            ReadOnlyError: this dictionary is read-only.
            OSError: the server couldn't be asked.
        """
        self._store._writable()
        lease = self._leases.acquire(plain(key), duration, timeout)
        assert lease is not None
        return lease

    def leases(self) -> list[LeaseInfo]:
        """The leases that are held now, by any process on any host, sorted by their keys.

        One that wasn't renewed for its duration, by the server's clock, isn't held. A read-only
        dictionary can't ask for the server's time, and may list one that has just run out.
        """
        return self._leases.held()

    def get_or_create(
        self,
        key: str,
        creator: Callable[[], V],
        *,
        lease: float = 60.0,
        timeout: float | None = None,
        max_age: float | None = None,
        stale: bool = False,
    ) -> V:
        """The entry's value. If there is none, of all callers on all hosts one makes it.

        A value that was read here before is answered from memory, as by ``d[key]``, also if another
        host has removed its entry since; ``refresh()`` before tells.

        That one calls ``creator()`` while it holds the key's lease, and writes what that returns,
        as ``add`` does. The others wait, and all return the value that was written. If the caller
        that makes it is killed or suspended, another one takes over when the lease has run out;
        should both finish, the first value counts, and both return it. An exception of the creator
        goes to its caller, and nothing is written; the next of those who wait calls its own.

        Who waits asks the server for entry and lease, after pauses of 10 ms at first, growing to
        1 s; threads that use the same dictionary wait for one of them, which asks for all. A
        creator that asks this dictionary for its own key gets RuntimeError. The lease is that of
        ``lease(key)``: a caller that holds it waits for itself, and so does a creator that asks
        another dictionary of the same store, or this one by its other face: a plain creator
        ``d.aio``, or one of ``d.aio`` the plain method.

        Args:
            key: any ``str``.
            creator: called without arguments, under no lock, in the calling thread. A coroutine
                function belongs to ``d.aio.get_or_create``, and is a TypeError here.
            lease: seconds without a sign of life after which another caller takes over.
            timeout: TimeoutError if others make no value within so many seconds; None waits for
                ever. The creator's own time isn't limited.
            max_age: a value written more than so many seconds ago, by the server's clock, counts as
                none, and is replaced.
            stale: return the value that is older than ``max_age`` at once while others make a new
                one.

        Raises:
            ReadOnlyError: this dictionary is read-only, and there is no value.
            OSError, TypeError, ValueError: as an assignment, and as ``lease``.
        """
        value: V = self._compute.get_or_create(
            self._store, plain(key), creator, lease, timeout, max_age, stale
        )
        return value

    @told("modify")
    def modify(
        self,
        key: str,
        function: Callable[[V], V],
        default: V = MISSING,  # type: ignore[assignment]
        *,
        lease: float = 60.0,
        timeout: float | None = None,
    ) -> V:
        """Replace the entry's value by ``function(value)``, and return that.

        The value is read past the cache, and the key's lease is held meanwhile. So of those who use
        ``modify`` for a key, on all hosts, one at a time does all this. Others aren't kept from
        writing: what they assign meanwhile is replaced. Nothing is written if the function raises,
        or if the lease was lost, which is a LeaseLostError: another process may have gone on then.
        A function that modifies its own key gets RuntimeError.

        Args:
            key: any ``str``.
            function: called with the value, under no lock. It may change that in place and return
                it.
            default: passed to the function if there is no entry; without one that is a KeyError.
            lease, timeout: as for ``lease``.
        """
        value: V = self._compute.modify(self._store, plain(key), function, default, lease, timeout)
        return value

    def memoize(
        self,
        name: str | None = None,
        *,
        version: str | int | None = None,
        key: Callable[..., object] | None = None,
        ignore: Collection[str] = (),
        lease: float = 60.0,
        max_age: float | None = None,
        stale: bool = False,
    ) -> Memoize:
        """A decorator: results of the function are kept here, computed once on all hosts.

        Use it with parentheses::

            @d.memoize()
            def train(rate, layers=3): ...

        A call looks for its result in the store, as ``get_or_create`` does, and calls the function
        if there is none: of all callers on all hosts one, while the others wait for its result. An
        exception goes to its caller and isn't kept. ``docs/call-keys.md`` says under which key a
        result is kept, and which arguments can be part of one; for a call with others, TypeError.

        A coroutine function becomes one whose calls wait in threads of their own, a thread for each
        result that is not in memory, while the function runs in the event loop; the calls in one
        event loop wait for one task, which is cancelled when all of them are.

        The function gets these attributes, which take its arguments (of a memoised coroutine
        function those that ask the store are coroutine functions):

        - ``cache_key(*args)``: the key of the call's result in the store.
        - ``peek(*args)``: the result, if there is one, however old; else KeyError.
        - ``put(value, *args)``: keep this value as the result.
        - ``refresh(*args)``: call the function and keep its result, whether there is one or not.
        - ``discard(*args)``: remove the result, if there is one.
        - ``cache_info()``: ``CacheInfo(hits, misses, waited, errors)``, calls of this process.
        - ``cache_clear()``: remove all results of this name and version, on all hosts. Processes
          that have read one go on with it until ``refresh()`` of their dictionary.
        - ``__wrapped__``: the function as it was.

        Of a method, call them of the class, as ``Trainer.train.peek(trainer, 0.1)``.

        Args:
            name: what stands for the function in the keys; None is its module and qualified name.
            version: give another one when the function's results change; without a ``/``.
            key: called with the arguments, defaults applied; what it returns identifies the call.
            ignore: names of parameters that don't matter.
            lease: seconds without a sign of life after which another caller takes over.
            max_age, stale: as for ``get_or_create``.

        Raises:
            TypeError: the function is a generator; it is inside a function, a lambda, or defined at
                a prompt, in a notebook or in a ``__main__.py``, and has no ``name``; or it is a
                method, and neither ``key`` nor ``ignore`` says what counts.
            ValueError: a ``name`` or ``version`` that can't be part of a key; an ``ignore`` that is
                no parameter; a ``lease`` or ``max_age`` that is no number of seconds.
        """
        if name is not None and not isinstance(name, str):
            raise TypeError("write @d.memoize() with parentheses; name is a str")

        # Who memoizes no function does without ``inspect`` and what these import.
        from .calls import Calls
        from .memo import Memo
        from .memoize import memoized

        def decorate(function: Callable[..., Any]) -> Any:
            calls = Calls(function, name, version, key, ignore)
            memo = Memo(cast(Any, self), self._compute, calls, lease, max_age, stale)
            return memoized(function, memo)

        return decorate

    @told("claim")
    def claim(self, lease: float = 300.0, *, max_attempts: int = 3) -> Task[V] | None:
        """An entry that nobody works on now, to work on it; None if there is none.

        The entries are a work list::

            while (task := d.claim()) is not None:
                with task:
                    work_on(task.key, task.value)

        The entry stays in the store until the block is left, which removes it, whatever its value
        is by then. An exception gives it back, and so does the end of the lease if the worker was
        killed (on the same Linux host, at once): see ``Task``. What failed in ``max_attempts``
        attempts, by exceptions or because workers died, is set aside: see ``failed``. An attempt of
        which nobody has heard for an hour can be forgotten by ``repair()``. So each task is worked
        on until it is done, by one worker at a time; by two if one of them can't reach the server
        and doesn't know yet that its lease is lost.

        Attempts are counted by the leases of a key, whatever they are of. An entry that is put anew
        under the key of one that has failed goes on with its attempts. A holder that dies counts,
        also one of ``lease``, ``modify`` or ``get_or_create``, and once such a one has released the
        lease, or a task was dropped without its block, the next attempt is the first again.

        An entry that is damaged, or can't be unpickled here, is logged and passed over.

        None means that a scan of the store, begun after the call by this or another worker, found
        no entry that could be claimed. It doesn't mean that all is done: others may be at work, or
        have died and not be known to be dead. This dictionary knows it when it has seen their lease
        unchanged for its duration, so it must be asked again.

        Args:
            lease: seconds without a sign of life after which others can claim the task.
            max_attempts: after so many attempts a task is set aside.

        Raises:
            ReadOnlyError: this dictionary is read-only.
            OSError, ValueError, TypeError: as ``lease``.
        """
        self._store._writable()
        if not max_attempts >= 1:  # nan isn't
            raise ValueError(f"max_attempts must be at least 1, not {max_attempts}")
        return self._claims.claim(cast(Any, self), checked_seconds("lease", lease), max_attempts)

    @told("failed")
    def failed(self) -> list[str]:
        """The keys of the tasks that were set aside, sorted, by the server's word.

        The entry of each is kept as ``d["failed/" + key]``, which ``claim`` passes over. Keep no
        entries of your own under such keys: a task that is set aside replaces what is there, also
        what was set aside of an earlier task of the same key.
        """
        return self._claims.failed()

    @told("retry")
    def retry(self, key: str) -> None:
        """Make a task that was set aside one to be claimed again, with all its attempts.

        KeyError if there is none. If there is an entry of that key again, that one stays, and the
        one that was set aside is removed; while somebody works on it, this call waits.
        """
        self._store._writable()
        self._claims.retry(cast(Any, self), plain(key))
