"""The methods of ``NfsDict`` that coordinate processes. Each calls a room of this package."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic

from ..arguments import plain
from .leases import Lease, LeaseInfo, Leases

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    V = TypeVar("V", default=Any)
else:
    from typing import TypeVar

    V = TypeVar("V")


class Coordination(Generic[V]):
    """Base class of ``NfsDict``, which sets ``_leases`` and has ``_writable``."""

    _leases: Leases

    if TYPE_CHECKING:

        def _writable(self) -> None: ...

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
        self._writable()
        lease = self._leases.acquire(plain(key), duration, timeout)
        assert lease is not None
        return lease

    def leases(self) -> list[LeaseInfo]:
        """The leases that are held now, by any process on any host, sorted by their keys.

        One that wasn't renewed for its duration, by the server's clock, isn't held. A read-only
        dictionary can't ask for the server's time, and may list one that has just run out.
        """
        return self._leases.held()
