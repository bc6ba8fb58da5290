"""The same call for many items: in threads that wait for the server together, where it waits."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from itertools import groupby
from queue import SimpleQueue
from typing import Callable, TypeVar

A = TypeVar("A")
B = TypeVar("B")

# One future for each file ate all that the threads gained on a mount with 1 ms round trips.
_CHUNK = 64
# So many items for each thread are taken ahead, as some take longer than others.
_AHEAD = 2
# Bytes of files that are read ahead. What they are decoded to takes about as much again.
IN_FLIGHT = 24 << 20
# Calls must have waited for so many seconds, and for as long as they computed, before there are
# threads: where nothing is waited for, as on a warm local disk, those make an opening two to seven
# times slower.
_WAITED = 0.002


def chunks(items: Sequence[A], workers: int, group: Callable[[A], object]) -> list[list[A]]:
    """The items in order, in pieces so small that each worker has one.

    Neighbours of one group stay together, so that what is done once for a group is done once.
    """
    size = min(_CHUNK, -(-len(items) // workers))
    pieces: list[list[A]] = []
    for _, neighbours in groupby(items, group):
        if not pieces or len(pieces[-1]) >= size:
            pieces.append([])
        pieces[-1].extend(neighbours)
    return pieces


def _processors() -> int:
    """How many this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def in_parallel(
    function: Callable[[A], B],
    items: Iterable[A],
    workers: int,
    *,
    without_gil: bool = False,
    size: Callable[[A], int] | None = None,
) -> Iterator[B]:
    """``map``, results in the order of the items, in ``workers`` threads if the calls wait.

    It begins without, and measures that. Calls that don't wait, but spend most of their time
    ``without_gil``, get a thread for each processor. The threads live as long as the call: none is
    left for a fork to lose. After an exception what hasn't begun is dropped. One worker starts no
    thread.

    Items are taken one by one as threads get to them, few ahead of what the caller has got. With
    ``size``, the bytes that an item stands for, those of all that are ahead are ``IN_FLIGHT``
    together at most, or one alone is larger.
    """
    coming = iter(items)
    waits = _Waits(workers, without_gil)
    while waits.threads == 1:
        try:
            item = next(coming)
        except StopIteration:
            return
        with waits:
            result = function(item)
        yield result
        if workers == 1:
            yield from map(function, coming)
            return
    yield from _in_threads(function, coming, waits.threads, size or (lambda item: 0))


class _Waits:
    """How long calls waited, and how long they computed: so how many threads are worth having."""

    def __init__(self, workers: int, without_gil: bool) -> None:
        self._workers = workers
        self._without_gil = without_gil
        self._waited = self._computed = 0.0
        self._wall = self._processor = 0.0
        self.threads = 1

    def __enter__(self) -> None:
        self._wall, self._processor = time.perf_counter(), time.thread_time()

    def __exit__(self, *error: object) -> None:
        processor = time.thread_time() - self._processor
        self._waited += time.perf_counter() - self._wall - processor
        self._computed += processor
        if self._waited >= max(_WAITED, self._computed):
            self.threads = self._workers
        elif self._without_gil and self._computed >= _WAITED:
            self.threads = min(self._workers, _processors())


def _in_threads(
    function: Callable[[A], B], coming: Iterator[A], threads: int, size: Callable[[A], int]
) -> Iterator[B]:
    """In so many threads; in the calling one what those that can be started don't do.

    None can be where the system's limit is reached, or the interpreter shuts down. None is where
    this call has interrupted another one that starts threads: that holds locks of ``threading``.
    """
    ended: list[bool] = []
    pool: list[threading.Thread] = []
    tasks: SimpleQueue[tuple[int, A] | None] = SimpleQueue()
    results: SimpleQueue[tuple[int, B | None, BaseException | None]] = SimpleQueue()

    def do(number: int, item: A) -> None:
        try:
            results.put((number, function(item), None))
        except BaseException as error:
            results.put((number, None, error))

    def work() -> None:
        while True:
            task = tasks.get()
            if task is None or ended:
                tasks.put(None)  # for all others, also those that nobody knows of
                return
            do(*task)

    flying: deque[int] = deque()  # the sizes of what is sent and not given yet, in order
    sent = 0
    done: dict[int, tuple[B | None, BaseException | None]] = {}
    ahead: list[A] = []  # the next item, if there is no room for it yet
    exhausted = False
    try:
        while True:
            while not exhausted and len(flying) < _AHEAD * threads:
                if not ahead:
                    try:
                        ahead.append(next(coming))
                    except StopIteration:
                        exhausted = True
                        break
                if flying and sum(flying) + size(ahead[0]) > IN_FLIGHT:
                    break
                item = ahead.pop()
                flying.append(size(item))
                tasks.put((sent, item))
                sent += 1
                # The first one waits for a second, or is done here. No more threads than there is
                # room for: each keeps memory of its own for what it has read.
                if sent > 1 and len(pool) < min(threads, len(flying)):
                    _start(work, 1 if pool else 2, pool)
            if not flying:
                return
            number = sent - len(flying)
            while number not in done:
                if not pool:
                    task = tasks.get()
                    assert task is not None
                    do(*task)
                finished, value, error = results.get()
                done[finished] = value, error
            value, error = done.pop(number)
            flying.popleft()
            if error is not None:
                raise error
            yield value  # type: ignore[misc]
    finally:
        ended.append(True)
        tasks.put(None)
        _join(pool)
        if isinstance(coming, Generator):
            coming.close()


class _Mine(threading.local):
    def __init__(self) -> None:
        self.starting = threading.Lock()


_mine = _Mine()


def _start(work: Callable[[], None], count: int, pool: list[threading.Thread]) -> None:
    """Start so many threads, or as many as can be.

    None while the interpreter shuts down: those that are started then never run.
    """
    if _mine.starting.locked() or sys.is_finalizing():
        return
    with _mine.starting:
        for _ in range(count):
            thread = threading.Thread(target=work, name="nfsdict", daemon=True)
            # Noted first: an exception may come just when it runs.
            pool.append(thread)
            try:
                thread.start()
            except RuntimeError:
                pool.remove(thread)
                return


def _join(pool: list[threading.Thread]) -> None:
    """Wait until all have ended, whatever a signal raises meanwhile: that goes on afterwards."""
    late: BaseException | None = None
    for thread in pool:
        while thread.is_alive():
            try:
                thread.join()
            except BaseException as error:
                late = error
    if late is not None:
        raise late
