"""The same call for many items: in threads that wait for the server together, where it waits."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from queue import SimpleQueue
from typing import Callable, TypeVar

A = TypeVar("A")
B = TypeVar("B")

# One future for each file ate all that the threads gained on a mount with 1 ms round trips.
_CHUNK = 64
# More pieces than threads, as some take longer than others.
_PIECES = 4
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
    function: Callable[[A], B], items: Iterable[A], workers: int, *, without_gil: bool = False
) -> Iterator[B]:
    """``map``, results in the order of the items, in ``workers`` threads if the calls wait.

    It begins without, and measures that. Calls that don't wait, but spend most of their time
    ``without_gil``, get a thread for each processor. The threads live as long as the call: none is
    left for a fork to lose. After an exception what hasn't begun is dropped. One worker starts no
    thread.
    """
    items = list(items)
    done = 0
    waited = computed = 0.0
    threads = 1
    while done < len(items) and threads == 1:
        wall, processor = time.perf_counter(), time.thread_time()
        result = function(items[done])
        processor = time.thread_time() - processor
        waited += time.perf_counter() - wall - processor
        computed += processor
        done += 1
        yield result
        if waited >= max(_WAITED, computed):
            threads = workers
        elif without_gil and computed >= _WAITED:
            threads = min(workers, _processors())
    yield from _in_threads(function, items[done:], threads)


def _in_threads(function: Callable[[A], B], items: list[A], threads: int) -> Iterator[B]:
    """In so many threads; in the calling one what those that can be started don't do.

    None can be where the system's limit is reached, or the interpreter shuts down. None is where
    this call has interrupted another one that starts threads: that holds locks of ``threading``.
    """
    size = max(1, -(-len(items) // (_PIECES * threads)))
    pieces = [items[start : start + size] for start in range(0, len(items), size)]
    if len(pieces) < 2 or _mine.starting.locked():
        yield from map(function, items)
        return
    waiting = deque(enumerate(pieces))
    ended: list[bool] = []
    started: list[threading.Thread] = []
    results: SimpleQueue[tuple[int, list[B], BaseException | None] | None] = SimpleQueue()

    def work() -> None:
        try:
            while waiting:
                try:
                    number, piece = waiting.popleft()
                except IndexError:
                    break  # another thread took the last one
                try:
                    found = [function(item) for item in piece if not ended]
                    results.put((number, found, None))
                except BaseException as error:
                    results.put((number, [], error))
        finally:
            results.put(None)

    done: dict[int, tuple[list[B], BaseException | None]] = {}
    try:
        _start(work, min(threads, len(pieces)), started)
        running = len(started)
        for number in range(len(pieces)):
            while number not in done:
                if not running:
                    work()
                    running = 1
                result = results.get()
                if result is None:
                    running -= 1
                else:
                    done[result[0]] = result[1:]
            values, error = done.pop(number)
            if error is not None:
                raise error
            yield from values
    finally:
        ended.append(True)
        waiting.clear()
        for thread in started:
            thread.join()


class _Mine(threading.local):
    def __init__(self) -> None:
        self.starting = threading.Lock()


_mine = _Mine()


def _start(work: Callable[[], None], count: int, started: list[threading.Thread]) -> None:
    """Start so many threads, or as many as can be."""
    with _mine.starting:
        for _ in range(count):
            thread = threading.Thread(target=work, name="nfsdict", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                break
            started.append(thread)
