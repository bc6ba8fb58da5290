"""Speed: how long what users call takes here, and beside it on a local disk."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from typing import Callable, NamedTuple, Optional

from ..errors import NfsDictError, described
from ..mapping import NfsDict
from ..storage.probes import local_directory, same_device
from .report import Finding, duration
from .stores import opened

Counter = Callable[[], Optional[int]]
"""The calls that were sent to the server so far; None where they can't be counted."""

_ROUNDS, _LEAST = 40, 3
_SECONDS = 1.0  # for each kind of call, if it is slow
# Seconds for a key (a put over NFS is 4 calls to the server), and for the whole store.
_SLOW, _SLOW_WHOLE = 0.1, 1.0
_NAME, _VALUE = "speed", "x" * 100


class Timing(NamedTuple):
    """One kind of call, made again and again."""

    rounds: int
    median: float
    """seconds"""
    high: float
    """seconds: 95 of 100 took no longer"""
    calls: float | None
    """to the server, each time"""


def speed(directory: str, counter: Counter) -> Iterator[Finding]:
    """Time calls of a store that it makes in this directory, and of one on a local disk, unless
    there is something wrong with that."""
    here = dict(_timings(directory, counter))
    there: dict[str, Timing] = {}
    place = ""
    try:
        with local_directory() as local:
            same = same_device(local, directory)
            there = dict(_timings(local, lambda: None))
            place = os.path.dirname(local) + (", the same file system" if same else "")
    except (OSError, NfsDictError) as error:
        yield _uncompared(error)
    for name, timing in here.items():
        yield _finding(name, timing, there.get(name), place)


def _uncompared(error: Exception) -> Finding:
    seen = f"a local disk wasn't timed to compare with, {described(error)}."
    breaks = "nothing in the directory that is examined."
    advice = "name a local directory that can be written to by TMPDIR."
    return Finding("speed", "local disk", "WARN", seen, breaks, advice)


def _finding(name: str, timing: Timing, local: Timing | None, place: str) -> Finding:
    calls = "" if timing.calls is None else f", {timing.calls:.3g} calls to the server"
    seen = f"{duration(timing.median)}, 95 % within {duration(timing.high)}{calls}"
    if local is not None:
        seen += f"; locally ({place}) {duration(local.median)}, 95 % within {duration(local.high)}"
    seen += "."
    figures = {
        "rounds": timing.rounds,
        "median_s": timing.median,
        "p95_s": timing.high,
        "calls": timing.calls,
        "local_median_s": None if local is None else local.median,
        "local_p95_s": None if local is None else local.high,
    }
    if timing.median < (_SLOW_WHOLE if name in ("listing", "refresh") else _SLOW):
        return Finding("speed", name, "OK", seen, figures=figures)
    breaks = "no promise, but it takes long."
    advice = "use `update` for many keys, and fewer, larger values."
    return Finding("speed", name, "WARN", seen, breaks, advice, figures)


def _timings(directory: str, counter: Counter) -> Iterator[tuple[str, Timing]]:
    keys = [f"key {number}" for number in range(_ROUNDS)]

    def timed(name: str, call: Callable[[str], object], of: Iterable[str]) -> tuple[str, Timing]:
        return name, _timing(call, of, counter)

    with opened(_NAME, directory) as store:
        yield timed("put", lambda key: store.__setitem__(key, _VALUE), keys)
        yield timed("add", lambda key: store.add(f"added {key}", _VALUE), keys)
        written = list(store)
        yield timed("cached get", store.get, written)
        yield timed("miss", lambda key: f"missing {key}" in store, keys)
        cold = _anew(directory)
        yield timed("cold get", lambda key: _found(cold, key), written)
        yield timed("listing", lambda _: len(_anew(directory)), keys[:_LEAST])
        store.refresh()
        yield timed("refresh", lambda _: store.refresh(), keys)


def _found(store: NfsDict[str], key: str) -> None:
    if store.get(key) is None:
        told = f"what this host has just put is not found in {store.path_of(key)}"
        raise NfsDictError(told)


def _anew(directory: str) -> NfsDict[str]:
    """The store, with nothing known of it. It has nothing to write, and needs no closing."""
    return opened(_NAME, directory, lazy=True, read_only=True)


def _timing(call: Callable[[str], object], of: Iterable[str], counter: Counter) -> Timing:
    times: list[float] = []
    before = counter()
    begun = time.monotonic()
    for key in of:
        start = time.perf_counter()
        call(key)
        times.append(time.perf_counter() - start)
        if len(times) >= _LEAST and time.monotonic() - begun > _SECONDS:
            break
    after = counter()
    calls = None if before is None or after is None else (after - before) / len(times)
    times.sort()
    high = times[min(len(times) - 1, int(0.95 * len(times)))]
    return Timing(len(times), times[len(times) // 2], high, calls)
