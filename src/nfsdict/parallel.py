"""The same call for many items, in several threads if the calls wait, as for a server."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from queue import SimpleQueue
from typing import Callable, TypeVar

from .locks import inherit_decoding, of_this_thread, stores_decoding
from .logs import handed_out, work_for
from .starting import start_thread
from .undoing import insist

log = logging.getLogger("nfsdict")

A = TypeVar("A")
B = TypeVar("B")

# Items in one chunk at most. One future for each file cost as much as the threads gained, on a
# mount with 1 ms round trips.
_CHUNK = 64
# Items taken ahead for each thread, so that it has work while a slow item is waited for.
_AHEAD = 2
# Bytes of files that are read ahead. One value of each batch is decoded at a time beside them; how
# large that is, its class decides.
IN_FLIGHT = 24 << 20
# Threads are started once the calls have waited for this many seconds, and for as long as they have
# computed. If calls don't wait, as on a warm local disk, threads make an opening two to seven times
# slower.
_WAITED = 0.002


def chunks(items: Sequence[A], workers: int, group: Callable[[A], object]) -> list[list[A]]:
    """The items in order, in pieces small enough that each worker gets one.

    Neighbours of one group stay in one piece, so that work for a whole group is done once.
    """
    size = min(_CHUNK, -(-len(items) // workers))
    pieces: list[list[A]] = []
    for _, neighbours in groupby(items, group):
        if not pieces or len(pieces[-1]) >= size:
            pieces.append([])
        pieces[-1].extend(neighbours)
    return pieces


def _processors() -> int:
    """How many processors this process may use."""
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
) -> Generator[B, None, None]:
    """``map``, with results in the order of the items, in ``workers`` threads if the calls wait.

    It begins in the calling thread, and measures how long the calls wait. Calls that don't wait but
    spend most of their time ``without_gil`` get at most one thread for each processor. All threads
    end with this call, so that a fork afterwards loses none. After an exception, items that haven't
    begun are dropped. With one worker no thread is started.

    Items are taken one by one as threads get to them, few ahead of the results that the caller has
    taken. Who doesn't take all closes it, which ends the threads. ``size`` tells how many bytes an
    item stands for: those ahead have at most ``IN_FLIGHT`` bytes together, or it is a single larger
    item.
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
    """Measures how long calls waited and computed, and so how many threads pay."""

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
    """Run the calls in so many threads, or in the calling thread if none can be started.

    None can be started at the system's limit, or while the interpreter shuts down. Nor is any if
    this call has interrupted another one that is starting threads, as that one holds locks of
    ``threading``.
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

    decoding, record = stores_decoding(), handed_out()

    def work() -> None:
        inherit_decoding(decoding)
        work_for(record)
        while True:
            task = tasks.get()
            if task is None or ended:
                tasks.put(None)  # for all other threads, even those missing in ``pool``
                return
            do(*task)

    flying: deque[int] = deque()  # sizes of items sent whose results aren't yielded, in order
    sent = 0
    done: dict[int, tuple[B | None, BaseException | None]] = {}
    ahead: list[A] = []  # the next item, while there is no room for it
    exhausted = False
    end = partial(_end, ended, tasks, pool)
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
                # The first item waits for a second one, or is done in this thread. No more threads
                # than items are flying, as each keeps memory of its own for what it has read.
                if sent > 1 and len(pool) < min(threads, len(flying)):
                    start(work, 1 if pool else 2, pool)
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
        try:
            insist(end)
        finally:
            insist(end)
        if isinstance(coming, Generator):
            coming.close()


_mine = threading.local()


def start(work: Callable[[], None], count: int, pool: list[threading.Thread]) -> None:
    """Start so many daemon threads, or as many as can be started, and append them to ``pool``.

    None while the interpreter shuts down, as a thread started then would never run.
    """
    starting = of_this_thread(_mine, "starting", threading.Lock)
    if starting.locked() or sys.is_finalizing():
        return
    with starting:
        for _ in range(count):
            thread = threading.Thread(target=work, name="nfsdict", daemon=True)
            # Noted before the start: an exception may come just after it.
            pool.append(thread)
            try:
                start_thread(thread)
            except RuntimeError as error:
                pool.remove(thread)
                log.info("%s: the calling thread does the work", error)
                return


def _end(
    ended: list[bool], tasks: SimpleQueue[tuple[int, A] | None], pool: list[threading.Thread]
) -> None:
    """Drop what hasn't begun, and wait until all threads have ended: what one wrote later could
    replace what the program has put since. An exception that a signal raises meanwhile goes on
    afterwards."""
    late: BaseException | None = None
    ended.append(True)
    tasks.put(None)
    for thread in pool:
        while thread.is_alive():
            try:
                thread.join()
            except BaseException as error:
                late = error
    if late is not None:
        try:
            raise late
        finally:
            del late  # it refers to this frame
