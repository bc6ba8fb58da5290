"""Whether something that is done again and again keeps memory, descriptors or threads."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# A leak grows in each round. The allocators' own pools, and tables that double, don't.
ROUNDS = 10


class _Mallinfo2(ctypes.Structure):
    """As in malloc.h of the GNU C library, 2.33 and newer."""

    _fields_ = [
        ("arena", ctypes.c_size_t),
        ("ordblks", ctypes.c_size_t),
        ("smblks", ctypes.c_size_t),
        ("hblks", ctypes.c_size_t),
        ("hblkhd", ctypes.c_size_t),
        ("usmblks", ctypes.c_size_t),
        ("fsmblks", ctypes.c_size_t),
        ("uordblks", ctypes.c_size_t),
        ("fordblks", ctypes.c_size_t),
        ("keepcost", ctypes.c_size_t),
    ]


def _heap() -> Callable[[], int] | None:
    """Gives the bytes that are allocated with malloc; None where the C library doesn't tell."""
    try:
        mallinfo2 = ctypes.CDLL(None).mallinfo2
    except AttributeError:
        return None
    mallinfo2.restype = _Mallinfo2

    def heap() -> int:
        info = mallinfo2()
        return int(info.uordblks + info.hblkhd)

    return heap


def _descriptors() -> int:
    return len(os.listdir("/dev/fd" if sys.platform == "darwin" else "/proc/self/fd"))


def _threads() -> int:
    """Those of the system too, where it tells."""
    tasks = "/proc/self/task"
    return len(os.listdir(tasks)) if os.path.isdir(tasks) else threading.active_count()


# What is counted, and how much of it must not be kept by one call: less than the least that can be.
# CPython keeps objects of up to 512 bytes, each a block, in memory of its own; others are malloc's.
MEASURES: dict[str, tuple[Callable[[], int], float]] = {
    "descriptors": (_descriptors, 0),
    "threads": (_threads, 0),
}
if hasattr(sys, "getallocatedblocks"):
    MEASURES["Python's blocks"] = (sys.getallocatedblocks, 0.5)
_malloc = _heap()
if _malloc is not None and sys.implementation.name == "cpython":
    MEASURES["bytes of malloc"] = (_malloc, 8)


@contextmanager
def settled() -> Iterator[None]:
    """What there is already is no garbage, so that looking for garbage is quick."""
    gc.collect()
    if hasattr(gc, "freeze"):
        gc.freeze()
    try:
        yield
    finally:
        if hasattr(gc, "unfreeze"):
            gc.unfreeze()


def _measured() -> dict[str, int]:
    gc.collect()
    return {name: measure() for name, (measure, _) in MEASURES.items()}


def growth(call: Callable[[], object], count: int) -> dict[str, list[int]]:
    """What grew in each of several rounds of this many calls, by how much; nothing: no leak."""
    repeated = [None] * count
    for _ in repeated:
        call()
    grown: dict[str, list[int]] = {}
    before = _measured()
    for turn in range(ROUNDS):
        for _ in repeated:
            call()
        after = _measured()
        grown = {
            name: [*grown.get(name, []), after[name] - before[name]]
            for name, (_, most) in MEASURES.items()
            if after[name] - before[name] > most * count and (turn == 0 or name in grown)
        }
        if not grown:
            break
        before = after
    return grown
