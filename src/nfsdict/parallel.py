"""The same call over many chunks, in a few threads that wait for the server together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Callable, TypeVar

A = TypeVar("A")
B = TypeVar("B")

# One future for each file ate all that the threads gained on a mount with 1 ms round trips.
_CHUNK = 64


def chunks(items: Sequence[A], workers: int) -> list[Sequence[A]]:
    """The items in order, in so many pieces that each worker has one, and none gets too large."""
    size = min(_CHUNK, max(1, -(-len(items) // workers)))
    return [items[start : start + size] for start in range(0, len(items), size)]


def in_parallel(function: Callable[[A], B], items: Iterable[A], workers: int) -> Iterator[B]:
    """``map`` over ``workers`` threads, results in the order of the items.

    The threads live as long as the call: none is left for a fork to lose. After an exception
    what hasn't begun is dropped. One worker, or one item, starts no thread.
    """
    items = list(items)
    if workers == 1 or len(items) < 2:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(min(workers, len(items)), "nfsdict") as pool:
        try:
            yield from pool.map(function, items)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
