"""Holding: what a process holds, renewed by a thread, and given up at the latest at exit.

A hold counts as lost before others may take over. Others wait for a whole duration in which they
see no renewal, by their own clocks. The holder counts less than that, from the moment before it
asked for the last renewal, by a clock that goes on while its host is suspended. Whatever happens
between the two, the holder's time is over first. A hold that is lost stays lost.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from ..starting import start_thread

if TYPE_CHECKING:
    from ..layout import LeaseName
    from ..storage.lease_files import LeaseFiles

log = logging.getLogger("nfsdict")

# Of its duration, how much a hold may count on. The rest makes up for clocks of different pace.
_SURE = 0.9
# Renewals in one duration; a failed one is repeated after a tenth of that time, a second at most.
_RENEWALS = 3
_AGAIN = 10
_SECOND = 1_000_000_000

if hasattr(time, "CLOCK_BOOTTIME"):

    def clock_ns() -> int:
        """Goes on while the host is suspended (clock_gettime(2)), where there is such a clock."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)

else:
    clock_ns = time.monotonic_ns

_all: weakref.WeakSet[Hold] = weakref.WeakSet()


class Hold:
    """A lease of this process, from before its file is made until after that is removed.

    Args:
        files: those of the store.
        name: of the lease file, which the caller makes afterwards.
    """

    def __init__(self, files: LeaseFiles, name: LeaseName) -> None:
        self.name = name
        self.ended = False
        """whether it was given up; its files may still be there then"""
        self.watched = False
        """whether a thread renews it, or removes its files"""
        self.owner: Callable[[], object] | None = None
        """tells who refers to it, if that is known: None if nobody does any more"""
        self._files = files
        self._pid = os.getpid()
        self._duration = name.duration_ms * 1_000_000
        self._lost = False
        self._begun(clock_ns())
        self._number = 0
        # The names that the second file may have.
        self._renewed: list[str] = []
        self._removed = False
        # Reentrant, as a signal handler may release what its thread is just releasing.
        self._lock = threading.RLock()
        _all.add(self)

    def _begun(self, moment: int) -> None:
        self._until = moment + int(_SURE * self._duration)
        self.due = moment + self._duration // _RENEWALS
        """when to renew it, by ``clock_ns``"""

    @property
    def mine(self) -> bool:
        """Whether this process took it: a forked child has only a copy."""
        return self._pid == os.getpid()

    @property
    def held(self) -> bool:
        """Whether no other can hold it now."""
        if clock_ns() >= self._until:
            self._lost = True
        return self.mine and not (self.ended or self._lost)

    def renew(self) -> None:
        """Show the others that it is held. After an OSError ``due`` is soon, until it is lost."""
        with self._lock:
            if not self.held:
                return
            moment = clock_ns()
            try:
                there = self._renew()
            except OSError as error:
                failed = error
                self.due = moment + min(self._duration // _RENEWALS // _AGAIN, _SECOND)
            else:
                if self.held:  # otherwise others may have taken over before this renewal
                    self._begun(moment)
                self._lost = self._lost or not there
                return
        log.info("%s is renewed again: %s", self.name, failed)

    def _renew(self) -> bool:
        self._number += 1
        olds = self._renewed or [self.name.renewed(0)]
        new = self.name.renewed(self._number)
        self._renewed = [*olds, new]
        self._files.renew(olds, new)
        self._files.remove(olds[:-1])
        self._renewed = [new]
        # Somebody may have removed the file, as a repair does after an hour.
        return str(self.name) in self._files.look(self.name.hexdigest).get(self.name, ())

    def release(self) -> None:
        """Give it up, and remove its files. OSError if they may still be there."""
        if not self.mine:
            return
        self.ended = True
        with self._lock:
            if not self._removed:
                self._files.remove([*self._renewed, str(self.name)])
                self._removed = True

    def leave(self, generation: int, content: bytes | None) -> None:
        """Give it up, and leave one file, with this content if there is any: that of a lease which
        has run out when it is seen."""
        if not self.mine:
            return
        left = self.name._replace(generation=generation, duration_ms=0)
        with self._lock:
            if self._removed:
                return
            self.ended = True  # not before, as the thread releases what has ended
            if content is None:
                self._files.rename(str(self.name), str(left))
            else:
                self._files.create(left, content)
                self._files.remove([str(self.name)])
            self._files.remove(self._renewed)
            self._removed = True


class Renewer:
    """Renews the holds of one store in a daemon thread, which runs while there are any.

    Each store has its own, so that a server that doesn't answer stops none of another's renewals.
    """

    def __init__(self) -> None:
        self._forget_thread()
        _renewers.add(self)

    def _forget_thread(self) -> None:
        # Its ``put`` may interrupt itself, as a finalizer does.
        self._new: SimpleQueue[Hold] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.RLock()

    def watch(self, hold: Hold) -> None:
        """Renew this hold until it is lost or ended; and if that is so now, remove its files.

        Without a thread to be had, as at interpreter exit, it runs out by itself.
        """
        self._new.put(hold)
        with self._lock:
            # One whose start was interrupted isn't alive. Two of them do no harm.
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(
                    target=self._run, name="nfsdict-leases", daemon=True
                )
                with suppress(RuntimeError):
                    start_thread(self._thread)
        hold.watched = True

    def give_up(self, hold: Hold) -> None:
        """Have the thread remove the files of a hold that it may not know."""
        hold.ended = True
        if not hold.watched:
            self.watch(hold)

    def end(self, hold: Hold) -> None:
        """Have the thread remove the files of a hold that it watches. Takes no lock, so that a
        finalizer can call it."""
        hold.ended = True
        self._new.put(hold)

    def _run(self) -> None:
        holds: set[Hold] = set()
        while holds or not self._stop():
            due = min((hold.due for hold in holds), default=0)
            with suppress(Empty):
                holds.add(self._new.get(timeout=max(0, due - clock_ns()) / _SECOND))
            for hold in list(holds):
                # As ``end`` would have told, unless the finalizer that called it was interrupted.
                if hold.owner and hold.owner() is None:
                    hold.ended = True
                if hold.ended:
                    with suppress(OSError):
                        hold.release()
                elif hold.due <= clock_ns():
                    with suppress(Exception):  # of a log handler
                        hold.renew()
                if not hold.held:
                    holds.discard(hold)
                    if not hold.ended:
                        with suppress(Exception):  # of a log handler
                            log.warning(
                                "%s is lost, as it was not renewed in time or was removed, and "
                                "others may hold it: see what kept server or process from working",
                                hold.name,
                            )

    def _stop(self) -> bool:
        with self._lock:
            if self._new.empty():
                self._thread = None
                return True
            return False


_renewers: weakref.WeakSet[Renewer] = weakref.WeakSet()


def _release_all() -> None:
    for hold in list(_all):
        with suppress(OSError):
            hold.release()


def _forget_threads() -> None:
    for renewer in list(_renewers):
        renewer._forget_thread()


atexit.register(_release_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)
