"""Work in threads: where it waits, in order, and no longer than the call."""

from __future__ import annotations

import importlib
import threading
import time
from itertools import count, groupby
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st


@pytest.fixture(scope="session")
def parallel(nfsdict):
    return importlib.import_module("nfsdict.parallel")


class Call:
    """Remembers the threads that it ran in, and how many ran it at once."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.threads: set[int] = set()
        self.begun = self.most = self.now = 0
        self._lock = threading.Lock()

    def __call__(self, number: int) -> int:
        with self._lock:
            self.begun += 1
            self.now += 1
            self.most = max(self.most, self.now)
        self.threads.add(threading.get_ident())
        if self.seconds:
            time.sleep(self.seconds)
        with self._lock:
            self.now -= 1
        return -number


def test_calls_that_wait_wait_together(parallel):
    before = set(threading.enumerate())  # some may end
    call = Call(0.02)
    assert list(parallel.in_parallel(call, range(100), 8)) == [-n for n in range(100)]
    assert 4 <= call.most <= 8
    assert set(threading.enumerate()) <= before


def only_computes(parallel, monkeypatch):
    """Of all that a busy machine may do meanwhile nothing counts as waiting: both clocks are asked
    together, and tell the same time."""
    asked = count()
    told = [0.0]

    def clock():
        if next(asked) % 2 == 0:
            told[0] = time.perf_counter()
        return told[0]

    monkeypatch.setattr(parallel, "time", SimpleNamespace(perf_counter=clock, thread_time=clock))


def test_calls_that_do_not_wait_start_no_thread(parallel, monkeypatch):
    only_computes(parallel, monkeypatch)
    call = Call(0)
    assert list(parallel.in_parallel(call, range(1000), 8)) == [-n for n in range(1000)]
    assert call.threads == {threading.get_ident()}


@pytest.mark.parametrize("without_gil", [True, False])
def test_calls_that_compute_without_the_gil_use_each_processor(parallel, monkeypatch, without_gil):
    only_computes(parallel, monkeypatch)
    monkeypatch.setattr(parallel, "_processors", lambda: 3)
    call = Call(0.005)  # which counts as computing here
    found = parallel.in_parallel(call, range(100), 8, without_gil=without_gil)
    assert list(found) == [-n for n in range(100)]
    assert call.most == (3 if without_gil else 1)


@pytest.mark.parametrize(("count", "workers"), [(20, 1), (1, 8), (0, 8)])
def test_one_worker_or_one_item_starts_no_thread(parallel, count, workers):
    call = Call(0.005)
    assert list(parallel.in_parallel(call, range(count), workers)) == [-n for n in range(count)]
    assert call.threads <= {threading.get_ident()}


def test_after_an_exception_the_rest_is_not_begun(parallel):
    before = set(threading.enumerate())  # some may end
    begun = []

    def failing(number: int) -> None:
        begun.append(number)
        time.sleep(0.01)
        if number == 3:
            raise OSError(number)

    with pytest.raises(OSError, match="3"):
        list(parallel.in_parallel(failing, range(1000), 4))
    assert 3 in begun and len(begun) < 200
    assert set(threading.enumerate()) <= before


@given(items=st.lists(st.integers(0, 9), max_size=300).map(sorted), workers=st.integers(1, 20))
def test_chunks_are_the_items_and_split_no_group(parallel, items, workers):
    pieces = parallel.chunks(items, workers, lambda item: item)
    assert [item for piece in pieces for item in piece] == items
    assert all(pieces)
    assert sum(len(set(piece)) for piece in pieces) == len(list(groupby(items)))


@pytest.mark.parametrize(("count", "workers", "most"), [(2000, 16, 64), (160, 16, 10), (5, 16, 1)])
def test_chunks_are_enough_for_all_workers_and_not_too_large(parallel, count, workers, most):
    pieces = parallel.chunks(range(count), workers, lambda item: item)
    assert max(map(len, pieces)) == most
    assert len(pieces) >= min(count, workers)
