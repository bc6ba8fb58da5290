"""The measure of leaks sees each kind of them."""

from __future__ import annotations

import ctypes
import os
import sys
import threading

import pytest

from support.growth import MEASURES, growth, settled

kept = []


def keep_object():
    kept.append(object())


def keep_memory():
    """16 bytes are the least that malloc gives."""
    malloc = ctypes.CDLL(None).malloc
    malloc.restype = ctypes.c_void_p
    malloc(1)


def keep_descriptor():
    kept.append(os.open(os.devnull, os.O_RDONLY))


ended = threading.Event()


def keep_thread():
    kept.append(threading.Thread(target=ended.wait))
    kept[-1].start()


@pytest.fixture(autouse=True)
def freed():
    """Nothing is kept for other tests but a few kilobytes."""
    with settled():
        yield
    for one in kept:
        if isinstance(one, int):
            os.close(one)
        elif isinstance(one, threading.Thread):
            ended.set()
            one.join()
    kept.clear()
    ended.clear()


@pytest.mark.parametrize(
    ("leak", "count", "seen"),
    [
        (keep_object, 1000, "Python's blocks"),
        (keep_memory, 1000, "bytes of malloc"),
        (keep_descriptor, 5, "descriptors"),
        (keep_thread, 2, "threads"),
    ],
)
def test_a_leak_is_seen(leak, count, seen):
    if seen not in MEASURES:
        pytest.skip(f"{seen} can't be told here")
    assert seen in growth(leak, count)


@pytest.mark.skipif(
    sys.platform != "linux" or sys.implementation.name != "cpython",
    reason="other systems don't tell what malloc gave, PyPy doesn't count objects",
)
def test_everything_is_counted():
    assert len(MEASURES) == 4


def test_what_is_freed_is_no_leak():
    def use():
        descriptor = os.open(os.devnull, os.O_RDONLY)
        thread = threading.Thread(target=os.close, args=[descriptor])
        thread.start()
        thread.join()
        return [object(), bytes(10_000)]

    assert growth(use, 100) == {}
