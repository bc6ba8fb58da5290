"""A pickle that fails the test that unpickles it."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import NoReturn


class Ran(KeyboardInterrupt):
    """It was unpickled. Whatever else a value raises costs its own key; this goes on."""


def run() -> NoReturn:
    raise Ran


class Evil:
    def __reduce__(self) -> tuple[Callable[[], NoReturn], tuple[()]]:
        return run, ()


def evil(key: str) -> bytes:
    """A value file that whoever can write to the store may plant."""
    return pickle.dumps((key, Evil()))
