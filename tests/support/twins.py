"""Both twins of the core, given the same: what they return or raise has to be the same too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from types import ModuleType
from typing import TypeVar

from hypothesis import strategies as st

T = TypeVar("T")

# Lone surrogates are characters like any other here, and random text has none of itself.
characters = st.one_of(st.characters(), st.integers(0xD800, 0xDFFF).map(chr))
texts = st.text(characters)
no_texts = st.sampled_from([None, b"key", 0, 1.5, (), [], object()])


def outcome(call: Callable[[], T]) -> T | type[Exception]:
    """What it returns, or the type of what it raises."""
    try:
        return call()
    except Exception as error:
        return type(error)


def agreed(twins: Sequence[ModuleType], call: Callable[[ModuleType], T]) -> T | type[Exception]:
    """The outcome of ``call(twin)``, which has to be the same for all."""
    first, *others = [outcome(partial(call, twin)) for twin in twins]
    for other in others:
        assert other == first
    return first
