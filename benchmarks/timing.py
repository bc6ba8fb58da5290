"""Timing in turns: every contender runs once in each round, and ratios are taken within a round.

A machine's speed drifts from one second to the next, so that two times taken one after the
other say little. Here the contenders take turns (A B C, B C A, C A B, ...), and a ratio is the
median over rounds of what the same round saw. The clock is ``time.perf_counter``; the garbage
collector is emptied before each timed piece and off during it.
"""

from __future__ import annotations

import gc
import itertools
import statistics
import time
import timeit
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

T = TypeVar("T")
Seen = dict[str, dict[str, list[float]]]
"""Operation -> contender -> seconds in each round."""


def seconds(action: Callable[[], object]) -> float:
    """How long one call of ``action`` takes; what it returns is freed outside of that."""
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        start = time.perf_counter()
        result = action()
        elapsed = time.perf_counter() - start
    finally:
        if enabled:
            gc.enable()
    del result
    return elapsed


def statement(code: str, number: int, **names: Any) -> Callable[[], float]:
    """A contender: ``number`` runs of ``code``, compiled for itself, with ``names`` as locals.

    Each has bytecode of its own, so that what the interpreter learns about the types in one
    contender does not slow down another.
    """
    setup = "; ".join(f"{name} = _names[{name!r}]" for name in names) or "pass"
    timer = timeit.Timer(code, setup, globals={"_names": names})

    def run() -> float:
        gc.collect()
        return timer.timeit(number)

    return run


def interleave(contenders: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """What each contender returned in each round, after one round that does not count."""
    names = list(contenders)
    seen: dict[str, list[T]] = {name: [] for name in names}
    for turn in range(rounds + 1):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            result = contenders[name]()
            if turn:
                seen[name].append(result)
    return seen


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """The median over rounds of numerator / denominator, each pair from one round."""
    return statistics.median(a / b for a, b in zip(numerators, denominators))


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, its columns padded so that it reads well in a terminal too."""
    lines = [list(heads), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |"
        for line in lines
    )


def measure(
    title: str,
    operations: dict[str, dict[str, Callable[[], float]]],
    count: int,
    rounds: int,
) -> Seen:
    """Time the contenders of each operation in turns and print them; the first is the baseline."""
    seen = {name: interleave(contenders, rounds) for name, contenders in operations.items()}
    contenders = list(dict.fromkeys(itertools.chain.from_iterable(seen.values())))
    baseline = contenders[0]
    rows = []
    for contender in contenders:
        cells = []
        for times in seen.values():
            if contender in times:
                one = duration(statistics.median(times[contender]) / count)
                cells.append(f"{one} ({ratio(times[contender], times[baseline]):.2f}x)")
            else:
                cells.append("")
        rows.append([contender, *cells])
    print(f"\n{title}\n\n{table(['', *seen], rows)}", flush=True)
    return seen


def duration(value: float) -> str:
    """Seconds for a person: three digits and a unit."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value / 1e-9:.3g} ns"
