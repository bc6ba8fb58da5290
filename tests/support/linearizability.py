"""Whether a history of calls on one key could have come from calls made one after another.

The search of Wing and Gong (1993) with Lowe's memory of what was tried (2017), as in Porcupine and
Knossos, cut where no call was under way.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple, Optional

Value = Optional[str]
"""What a key holds; None: it is absent. No value is written twice."""


class Call(NamedTuple):
    """One call: ``end`` is infinite, and ``result`` of no meaning, if nobody knows what it did.

    A "gap" is no call of its own: it says of the put with the same value, start and end that the
    key may have been absent for a moment before it.
    """

    kind: str
    value: Value
    result: Value | bool
    start: float
    end: float

    @property
    def unknown(self) -> bool:
        """Whether it may have taken effect at any time since, or never will."""
        return self.end == math.inf


class Impossible(enum.Enum):
    """What a key holds after a call that can't have had its result."""

    IMPOSSIBLE = enum.auto()


IMPOSSIBLE: Final = Impossible.IMPOSSIBLE


def after(call: Call, held: Value) -> Value | Impossible:
    """What the key holds after this call, if that can have had its result on what it held."""
    kind, value, result = call.kind, call.value, call.result
    if kind == "put":
        return value
    if kind == "gap":
        return None
    if kind == "get":
        return held if call.unknown or held == result else IMPOSSIBLE
    if kind == "add":
        if call.unknown:
            return value if held is None else held
        if result:
            return value if held is None else IMPOSSIBLE
        return held if held is not None else IMPOSSIBLE
    if kind == "del":  # False: KeyError
        return None if call.unknown or result or held is None else IMPOSSIBLE
    if kind == "pop":
        return None if call.unknown or held == result else IMPOSSIBLE
    raise ValueError(kind)


def linearizable(calls: Iterable[Call], held: Value = None) -> bool:
    """Whether there is an order of these calls, each between its start and its end, in which each
    has its result."""
    possible = {held}
    pieces = list(_pieces(sorted(calls, key=lambda call: call.start)))
    for number, piece in enumerate(pieces, 1):
        last = number == len(pieces)
        possible = {end for start in possible for end in _ends(piece, start, last)}
    return bool(possible)


def with_gaps(calls: list[Call]) -> list[Call]:
    """The same, where each put may make the key absent for a moment before it."""
    return calls + [call._replace(kind="gap") for call in calls if call.kind == "put"]


def _pieces(calls: list[Call]) -> Iterator[list[Call]]:
    """Cut where all earlier calls had ended."""
    piece: list[Call] = []
    end = -math.inf
    for call in calls:
        if call.start > end and piece:
            yield piece
            piece = []
        piece.append(call)
        end = max(end, call.end)
    if piece:
        yield piece


def looks(call: Call) -> bool:
    """Whether it has changed nothing, by its result."""
    return call.kind == "get" or call.result is False or (call.kind == "pop" and not call.result)


def _looked(calls: list[Call], done: int, first: int, held: Value) -> int:
    """Also done: what may take effect now, fits what is held, and changes nothing.

    Taking that at once can hinder nothing later."""
    while True:
        before, earliest_end = done, math.inf
        for at in range(first, len(calls)):
            if calls[at].start > earliest_end:
                break
            if not done >> at & 1:
                earliest_end = min(earliest_end, calls[at].end)
        for at in range(first, len(calls)):
            call = calls[at]
            if call.start > earliest_end:
                break
            free = not done >> at & 1 and not call.unknown and looks(call)
            if free and after(call, held) is not IMPOSSIBLE:
                done |= 1 << at
        if done == before:
            return done


def _ends(calls: list[Call], held: Value, last: bool) -> set[Value]:
    """What the key may hold after all of them; of the ``last`` ones anything that it may."""
    all_known = sum(1 << at for at, call in enumerate(calls) if not call.unknown)
    # Taken to be done with its put: before it may take effect, or not, and after it no more.
    gaps = {call.value: 1 << at for at, call in enumerate(calls) if call.kind == "gap"}
    ends: set[Value] = set()
    begun = (0, 0, held)  # which have taken effect, how many of the first of them, what is held
    tried = {begun}
    todo = [begun]
    while todo:
        done, first, held = todo.pop()
        done = _looked(calls, done, first, held)
        while done >> first & 1:
            first += 1
        if done & all_known == all_known:
            ends.add(held)
            if last:
                break  # what it holds then matters no more
        earliest_end, beyond = math.inf, len(calls)
        for at in range(first, len(calls)):
            call = calls[at]
            if call.start > earliest_end:
                beyond = at  # another one must take effect first
                break
            if done >> at & 1:
                continue
            earliest_end = min(earliest_end, call.end)
        for at in reversed(range(first, beyond)):  # so that the first is tried first
            call = calls[at]
            if call.start > earliest_end or done >> at & 1:
                continue
            held_then = after(call, held)
            if held_then is IMPOSSIBLE:
                continue
            gap = gaps.get(call.value, 0) if call.kind == "put" else 0
            state = (done | 1 << at | gap, first, held_then)
            if state not in tried:
                tried.add(state)
                todo.append(state)
    return ends
