"""Calls in threads, at most so many at a time, which end when there is nothing to do."""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from typing import Callable

_all: weakref.WeakSet[Background] = weakref.WeakSet()

# Seconds after which a thread without a call ends. At once would be too soon: ``Thread.start``
# waits until the new thread runs, and one for each of 300 calls stopped an event loop for several
# times as long as ``asyncio.to_thread`` did.
_IDLE = 0.1


class Background:
    """Runs the calls that are given to it, in their order, in daemon threads.

    A thread is started for a call if none is idle and fewer than ``threads`` run, and ends when it
    has had none for 0.1 s. So nobody has to close this. A forked child has threads of its own.
    """

    def __init__(self, threads: int) -> None:
        self._most = threads
        self.begin_anew()
        _all.add(self)

    def begin_anew(self) -> None:
        """Forget all calls: after a fork, whose child has no thread but one."""
        self._lock = threading.Condition(threading.Lock())
        self._waiting: deque[Callable[[], None]] = deque()
        self._threads = self._idle = 0

    def run(self, call: Callable[[], None]) -> None:
        """Run this, which must not raise, in a thread. RuntimeError if there is none to be had."""
        with self._lock:
            self._waiting.append(call)
            if self._idle:
                self._lock.notify()
            if self._idle >= len(self._waiting) or self._threads == self._most:
                return
            self._threads += 1
        try:
            threading.Thread(target=self._work, name="nfsdict-aio", daemon=True).start()
        except BaseException:
            with self._lock:
                self._threads -= 1
                if self._threads or call not in self._waiting:
                    return  # another thread has it, or will have
                self._waiting.remove(call)
            raise

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting and not self._call_comes():
                    self._threads -= 1
                    return
                call = self._waiting.popleft()
            call()
            del call  # what it refers to isn't kept while this waits

    def _call_comes(self) -> bool:
        """Wait for a call, with the lock, which is free meanwhile. Whether one has come in time."""
        self._idle += 1
        comes = self._lock.wait_for(lambda: self._waiting, _IDLE)
        self._idle -= 1
        return bool(comes)


def _forked() -> None:
    for background in list(_all):
        background.begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
