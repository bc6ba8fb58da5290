"""Calls in threads, at most so many at a time, and none while there is nothing to do."""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from typing import Callable

_all: weakref.WeakSet[Background] = weakref.WeakSet()


class Background:
    """Runs the calls that are given to it, in their order, in daemon threads.

    A thread is started for a call if fewer than ``threads`` run, and ends when no call waits. So a
    fork between calls loses none, and nobody has to close this.
    """

    def __init__(self, threads: int) -> None:
        self._most = threads
        self.begin_anew()
        _all.add(self)

    def begin_anew(self) -> None:
        """Forget all calls: after a fork, whose child has no thread but one."""
        self._lock = threading.Lock()
        self._waiting: deque[Callable[[], None]] = deque()
        self._threads = 0

    def run(self, call: Callable[[], None]) -> None:
        """Run this, which must not raise, in a thread. RuntimeError if there is none to be had."""
        with self._lock:
            self._waiting.append(call)
            if self._threads == self._most:
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
                if not self._waiting:
                    self._threads -= 1
                    return
                call = self._waiting.popleft()
            call()
            del call  # what it refers to isn't kept while this waits


def _forked() -> None:
    for background in list(_all):
        background.begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
