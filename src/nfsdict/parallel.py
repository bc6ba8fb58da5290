"""The same call for many items: in threads that wait for the server together, where it waits."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
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
    rest = items[done:]
    if len(rest) < 2:
        yield from map(function, rest)
        return
    size = -(-len(rest) // (_PIECES * threads))
    pieces = [rest[start : start + size] for start in range(0, len(rest), size)]

    ended = threading.Event()

    def of_piece(piece: Sequence[A]) -> list[B]:
        return [function(item) for item in piece if not ended.is_set()]

    with ThreadPoolExecutor(min(threads, len(pieces)), "nfsdict") as pool:
        try:
            for results in pool.map(of_piece, pieces):
                yield from results
        except BaseException:
            ended.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
