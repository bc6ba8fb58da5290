"""Player: what one of two hosts does in the store that both share, when it is asked to."""

from __future__ import annotations

import random
import time
from contextlib import suppress
from typing import Any, Callable

from ..errors import NfsDictError, described
from .stores import opened

CALLS = {
    "in": "`in` after a miss",
    "fresh": "`get(fresh=True)`",
    "refresh": "`refresh()`",
    "opening": "a new `NfsDict`",
}
"""The calls that promise to see what another host has finished, and how they are called here."""

LATEST = 1.0  # seconds for which a change is looked for
_PAUSE = 0.005
_LEASE = 10.0  # seconds: the duration of leases, and how long one is waited for
_NAME = "peer"
LEASE, INSIDE = "lease", "inside"


class Player:
    """One host's dictionaries of the shared store, and what is done with them. ``me`` is the value
    that it writes."""

    def __init__(self, directory: str, me: str) -> None:
        self._directory = directory
        self._me = me
        self._exact = opened(_NAME, directory, lazy=True)
        self._whole = opened(_NAME, directory)

    def close(self) -> None:
        """Write nothing after this."""
        for one in (self._exact, self._whole):
            with suppress(OSError):
                one.close()

    def ask(self, what: str, *arguments: Any) -> Any:
        """Do this, and give its result; or ``{"error": text, "errno": number}``: what the system
        or nfsdict said. The number is 0 where there is none."""
        actions: dict[str, Callable[..., Any]] = {
            "answer": self.answer,
            "change": self.change,
            "prime": self.prime,
            "observe": self.observe,
            "add": self.add,
            "pop": self.pop,
            "lease": self.lease,
        }
        try:
            return actions[what](*arguments)
        except (OSError, NfsDictError, KeyError) as error:
            number = getattr(error, "errno", None) or 0
            return {"error": f"{what}: {described(error)}", "errno": number}

    def answer(self) -> None:
        """Do nothing: who asks wants to know whether this host is still there."""

    # --- one changes, the other one looks --------------------------------------------------------

    def change(self, key: str, value: Any) -> None:
        """Put this value, or delete the entry if it is None."""
        if value is None:
            del self._exact[key]
        else:
            self._exact[key] = value

    def prime(self, call: str, key: str) -> None:
        """Look the key up as it is before the change, so that the client remembers that."""
        if call == "refresh":
            self._whole.refresh()
        elif call == "in":
            self._exact.get(key)
        self._exact.get(key, fresh=True)

    def observe(self, call: str, key: str, value: Any) -> tuple[int, float | None]:
        """Look until the change shows: how many times, and for how many seconds; None if it
        didn't."""
        looks: dict[str, Callable[[], bool]] = {
            "in": lambda: key in self._exact,
            "fresh": lambda: self._exact.get(key, fresh=True) == value,
            "refresh": lambda: key in self._whole.refresh(),
            "opening": lambda: opened(_NAME, self._directory, read_only=True).get(key) == value,
        }
        begun = time.perf_counter()
        tries = 0
        while True:
            tries += 1
            seen = looks[call]()
            passed = time.perf_counter() - begun
            if seen or passed > LATEST:
                return tries, passed if seen else None
            time.sleep(_PAUSE)

    # --- both at once ----------------------------------------------------------------------------

    def add(self, keys: list[str]) -> list[str]:
        """Add these keys, in an order of one's own; those that this call has won."""
        return [key for key in _shuffled(keys) if self._exact.add(key, self._me)]

    def pop(self, keys: list[str]) -> list[tuple[str, Any]]:
        """Pop these keys, in an order of one's own; those that this call has got, and what."""
        got = ((key, self._exact.pop(key, None)) for key in _shuffled(keys))
        return [(key, value) for key, value in got if value is not None]

    def lease(self, times: int) -> int:
        """Hold a lease so many times. How often someone else held it meanwhile."""
        others = 0
        for _ in range(times):
            with self._exact.lease(LEASE, _LEASE, timeout=_LEASE):
                if self._exact.add(INSIDE, self._me):
                    self._exact.pop(INSIDE)
                else:
                    others += 1
        return others


def _shuffled(keys: list[str]) -> list[str]:
    return random.sample(keys, len(keys))
