"""What one client sees of another one's changes, tried quickly."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from support.settling import SETTLED

Opens = Callable[..., Any]
KEYS = 5


def broken_promises(a: Opens, b: Opens) -> set[str]:
    """Which calls on A don't see what B has finished, on a settled store too."""
    broken = set()
    there = b(serializer="json")
    for settled in (False, True):
        keys = [f"{settled} {number}" for number in range(KEYS)]
        there.update(dict.fromkeys([f"old {key}" for key in keys], "old"))
        if settled:
            time.sleep(SETTLED)
            there.refresh()
        here, lazy = a(serializer="json"), a(serializer="json", lazy=True)
        for key in keys:
            assert key not in lazy
            assert here.get(f"old {key}", fresh=True) == "old"
            there[key] = "new"
            if key not in lazy:
                broken.add("in")
            there[f"old {key}"] = "new"
            if here.get(f"old {key}", fresh=True) != "new":
                broken.add("fresh")
            here.refresh()
            there[f"refreshed {key}"] = "new"
            if f"refreshed {key}" not in here.refresh():
                broken.add("refresh")
            if a(serializer="json").get(f"old {key}") != "new":
                broken.add("opening")
    return broken
