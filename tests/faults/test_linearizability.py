"""The checker of histories, on histories that are right and wrong."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.linearizability import IMPOSSIBLE, Call, after, linearizable, with_gaps

NEVER = math.inf


def call(kind, value, result, start, end):
    return Call(kind, value, result, start, end)


RIGHT = {
    "nothing": [],
    "read what was written": [call("put", "a", None, 0, 1), call("get", None, "a", 2, 3)],
    "read while it is written, before": [
        call("put", "a", None, 0, 9),
        call("get", None, None, 1, 2),
    ],
    "read while it is written, after": [call("put", "a", None, 0, 9), call("get", None, "a", 1, 2)],
    "two writes, either order": [
        call("put", "a", None, 0, 9),
        call("put", "b", None, 1, 8),
        call("get", None, "a", 10, 11),
    ],
    "added once": [
        call("add", "a", True, 0, 9),
        call("add", "b", False, 0, 9),
        call("get", None, "a", 10, 11),
    ],
    "popped once": [
        call("put", "a", None, 0, 1),
        call("pop", None, "a", 2, 9),
        call("pop", None, None, 2, 9),
    ],
    "deleted, and missing for the next": [
        call("put", "a", None, 0, 1),
        call("del", None, True, 2, 9),
        call("del", None, False, 3, 8),
    ],
    "an unknown write took effect late": [
        call("put", "a", None, 0, NEVER),
        call("get", None, None, 1, 2),
        call("get", None, "a", 3, 4),
    ],
    "an unknown write never did": [
        call("put", "a", None, 0, NEVER),
        call("get", None, None, 1, 2),
        call("get", None, None, 3, 4),
    ],
    "an unknown pop": [
        call("put", "a", None, 0, 1),
        call("pop", None, None, 2, NEVER),
        call("get", None, "a", 3, 4),
        call("get", None, None, 5, 6),
    ],
}

WRONG = {
    "stale read": [call("put", "a", None, 0, 1), call("get", None, None, 2, 3)],
    "stale read of a value": [
        call("put", "a", None, 0, 1),
        call("put", "b", None, 2, 3),
        call("get", None, "a", 4, 5),
    ],
    "read backwards": [
        call("put", "a", None, 0, 1),
        call("put", "b", None, 2, 9),
        call("get", None, "b", 3, 4),
        call("get", None, "a", 5, 6),
    ],
    "lost update": [
        call("put", "a", None, 0, 1),
        call("get", None, "a", 2, 3),
        call("get", None, None, 4, 5),
    ],
    "two winners": [call("add", "a", True, 0, 9), call("add", "b", True, 0, 9)],
    "no winner": [call("add", "a", False, 0, 9), call("add", "b", False, 0, 9)],
    "two takers": [
        call("put", "a", None, 0, 1),
        call("pop", None, "a", 2, 9),
        call("pop", None, "a", 2, 9),
    ],
    "never written": [call("put", "a", None, 0, 1), call("get", None, "b", 2, 3)],
    "resurrected": [
        call("put", "a", None, 0, 1),
        call("del", None, True, 2, 3),
        call("get", None, "a", 4, 5),
    ],
    "missing for a deleter while it is there": [
        call("put", "a", None, 0, 1),
        call("del", None, False, 2, 3),
    ],
    "an unknown write came and went": [
        call("put", "a", None, 0, NEVER),
        call("get", None, "a", 1, 2),
        call("get", None, None, 3, 4),
    ],
    "before it was begun": [call("get", None, "a", 0, 1), call("put", "a", None, 2, 3)],
}


# What processes on two clients of an NFS server did, as it was measured, in ms.
FOUND_GAP = [
    call("get", None, "147", -71.4, 81.1),
    call("add", "133", True, 0.0, 34.6),
    call("get", None, "147", 2.3, 79.3),
    call("pop", None, None, 10.9, 49.8),
    call("pop", None, "133", 22.1, 114.4),
    call("put", "147", None, 23.2, 38.1),
    call("add", "123", True, 25.4, 42.0),
    call("add", "134", False, 34.6, 64.9),
    call("put", "148", None, 38.3, 74.7),
    call("get", None, "147", 42.2, 67.6),
    call("get", None, None, 65.1, 119.3),  # though there was always a value
    call("get", None, "148", 67.7, 83.1),
    call("get", None, "148", 74.7, 85.4),
    call("get", None, "148", 81.3, 115.5),
    call("put", "126", None, 83.3, 120.9),
    call("put", "145", None, 115.7, 132.0),
]
FOUND_STALE = [
    call("put", "156", None, 49.6, 84.1),
    call("get", None, "156", 37.8, 87.9),
    call("put", "59", None, 77.5, 92.1),
    call("get", None, None, 85.9, 91.1),
    call("get", None, "156", 91.2, 93.9),  # a setdefault that believed what the client remembered
]
WRONG["setdefault of a value that was replaced"] = FOUND_STALE
WITH_GAPS = {
    "found: absent while it is replaced": FOUND_GAP,
    "absent while it is replaced": [
        call("put", "a", None, 0, 1),
        call("put", "b", None, 2, 9),
        call("get", None, None, 3, 4),
        call("get", None, "b", 5, 6),
    ],
    "added while it is replaced": [
        call("put", "a", None, 0, 1),
        call("put", "b", None, 2, 9),
        call("add", "c", True, 3, 4),
        call("get", None, "b", 10, 11),
    ],
    "replaced and absent for ever, by nobody knows what": [
        call("put", "a", None, 0, 1),
        call("put", "b", None, 2, NEVER),
        call("get", None, None, 3, 4),
    ],
}
WRONG_WITH_GAPS = {
    **WRONG,
    "absent after it was replaced": [
        call("put", "a", None, 0, 1),
        call("put", "b", None, 2, 9),
        call("get", None, "b", 3, 4),
        call("get", None, None, 5, 6),
    ],
    "back after it was absent": [
        call("put", "a", None, 0, 1),
        call("put", "b", None, 2, 9),
        call("get", None, None, 3, 4),
        call("get", None, "a", 5, 6),
    ],
    "absent before the other put": [
        call("put", "a", None, 0, 1),
        call("get", None, None, 2, 3),
        call("put", "b", None, 4, 5),
    ],
}


@pytest.mark.parametrize("name", RIGHT)
def test_right(name):
    assert linearizable(RIGHT[name])
    assert linearizable(with_gaps(RIGHT[name]))


@pytest.mark.parametrize("name", WITH_GAPS)
def test_right_only_with_gaps(name):
    assert not linearizable(WITH_GAPS[name])
    assert linearizable(with_gaps(WITH_GAPS[name]))


# What is good and ends with an absent key, before anything else.
BEFORE = [call("put", f"v{n}", None, n - 200, n - 199.5) for n in range(90)]
BEFORE.append(call("del", None, True, -105, -104))


@pytest.mark.parametrize("name", WRONG)
def test_wrong(name):
    assert not linearizable(WRONG[name])
    assert not linearizable(BEFORE + WRONG[name])


@pytest.mark.parametrize("name", WRONG_WITH_GAPS)
def test_wrong_with_gaps(name):
    assert not linearizable(with_gaps(WRONG_WITH_GAPS[name]))
    assert not linearizable(with_gaps(BEFORE + WRONG_WITH_GAPS[name]))


def brute_force(calls):
    """Each order, tried. A gap may be left out, and comes before its put."""
    known = [one for one in calls if not one.unknown and one.kind != "gap"]
    unknown = [one for one in calls if one.unknown or one.kind == "gap"]
    for count in range(len(unknown) + 1):
        for chosen in itertools.combinations(unknown, count):
            for order in itertools.permutations([*known, *chosen]):
                if any(
                    later.end < earlier.start for earlier, later in itertools.combinations(order, 2)
                ):
                    continue
                if any(
                    later == earlier._replace(kind="gap")
                    for earlier, later in itertools.combinations(order, 2)
                ):
                    continue
                held = None
                for one in order:
                    held = after(one, held)
                    if held is IMPOSSIBLE:
                        break
                else:
                    return True
    return False


KINDS = {"put": [None], "get": [None, "0", "1", "2"], "add": [True, False]}
KINDS |= {"del": [True, False], "pop": [None, "0", "1", "2"]}


@st.composite
def histories(draw):
    calls = []
    for number in range(draw(st.integers(1, 5))):
        kind = draw(st.sampled_from(sorted(KINDS)))
        value = str(number) if kind in ("put", "add") else None
        start = draw(st.integers(0, 9))
        end = draw(st.one_of(st.integers(start, 12), st.just(NEVER)))
        calls.append(Call(kind, value, draw(st.sampled_from(KINDS[kind])), start, end))
    return calls


@given(histories())
def test_it_says_what_trying_each_order_says(calls):
    assert linearizable(calls) == brute_force(calls)


@given(histories().map(with_gaps).filter(lambda calls: len(calls) < 8))
def test_it_says_what_trying_each_order_with_gaps_says(calls):
    assert linearizable(calls) == brute_force(calls)


@given(
    st.lists(
        st.tuples(st.sampled_from(sorted(KINDS)), st.floats(0, 3), st.floats(0, 3)), max_size=40
    )
)
def test_what_was_done_in_order_is_accepted(done):
    """However long before and after its moment each call began and ended."""
    held, calls = None, []
    for moment, (kind, before, later) in enumerate(done):
        value = str(moment) if kind in ("put", "add") else None
        result = {"get": held, "pop": held, "put": None}.get(kind, held is None)
        if kind == "del":
            result = held is not None
        one = Call(kind, value, result, moment - before, moment + later)
        held = after(one, held)
        assert held is not IMPOSSIBLE
        calls.append(one)
    assert linearizable(calls)
