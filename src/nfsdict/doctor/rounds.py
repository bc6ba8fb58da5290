"""Rounds: what two hosts try by turns in a store that they share, and what came of it."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from functools import partial
from typing import Any, Callable, NamedTuple

from .meeting import NoRoom
from .player import CALLS, LATEST
from .report import FULL, Finding, duration
from .semantics import ELSEWHERE

Ask = Callable[..., Any]
"""Has one host do something, see ``Player.ask``."""
Both = Callable[[str, Any], "tuple[Any, Any]"]
"""Has both do something at once."""

HOSTS = ("first", "second")
_KEYS, _HOLDS = 20, 3  # of a race
# A shard that nobody has changed for so many seconds is believed by its stamp, see
# ``layout.Stamp`` and the racy window.
_SETTLED = 4.0
_SETTLED_KEYS = 2

_BREAKS = {
    "in": "a key that was missed once stays missing, though another host has written it.",
    "fresh": "`get(fresh=True)` gives a value that another host has replaced or deleted.",
    "refresh": "`refresh` and `watch` don't tell what another host has changed.",
    "opening": "a new dictionary serves what another host has replaced or deleted.",
    "add": "`add`, `setdefault`, `get_or_create`: two callers win, or none.",
    "pop": "`pop`, `popitem` and claims: two callers get one value, or none does.",
    "lease": "leases, `modify`, `claim`: two hold one lease.",
}
_OPTIONS = "mount as `nfsdict doctor` without --peer says on each host, or " + ELSEWHERE
ONE_USER = "run both commands as one user, or as users of one group with umask 002."


class Look(NamedTuple):
    """One change, looked for by the other host."""

    change: str
    tries: int
    seconds: float | None
    """None if it didn't show"""


class Rounds:
    """What was tried so far."""

    def __init__(self, hosts: dict[str, Ask], both: Both) -> None:
        self._hosts = hosts
        self._both = both
        self.looks: dict[str, dict[str, list[Look]]] = {
            call: {host: [] for host in HOSTS} for call in CALLS
        }
        self.races: dict[str, list[bool]] = {"add": [], "pop": [], "lease": []}
        """whether each had exactly one winner"""
        self.won = dict.fromkeys(HOSTS, 0)
        self.errors: list[str] = []
        self._refused = False

    def play(self, seconds: float) -> None:
        """Go through all once, and then again until so many seconds have passed. NoRoom if a host
        has none."""
        begun = time.monotonic()
        settled = {host: self._settle(host) for host in HOSTS}
        since = time.monotonic()
        for number, turn in enumerate(self._turns()):
            if number >= self._least and time.monotonic() - begun > seconds:
                break
            turn()
        if time.monotonic() - since > _SETTLED:
            for host, keys in settled.items():
                for key in keys:
                    self._round("replace", "refresh", host, key, "settled")

    # One life of a key for each call and host, and the races of both.
    _least = 2 * len(CALLS) + 2

    def _turns(self) -> Iterator[Callable[[], None]]:
        number = 0
        while True:
            number += 1
            keys = [f"race {number} {one}" for one in range(_KEYS)]
            yield partial(self._race, keys)
            yield self._leases
            for host in HOSTS:
                for call in CALLS:
                    yield partial(self._life, call, host, f"{call} {host} {number}")

    # --- one changes, the other one looks ---------------------------------------------------------

    def _life(self, call: str, host: str, key: str) -> None:
        """A key is created, replaced and deleted, and this host looks for each by this call."""
        self._round("create", call, host, key, "new")
        if call == "in":  # that a key isn't there any more, only the others promise
            self._asked(_other(host), "change", key, None)
            return
        self._round("replace", call, host, key, "other")
        self._round("delete", call, host, key, None)

    def _round(self, change: str, call: str, host: str, key: str, value: str | None) -> None:
        self._asked(host, "prime", call, key)
        if self._asked(_other(host), "change", key, value) is not _FAILED:
            found = self._asked(host, "observe", call, key, value)
            if found is not _FAILED:
                tries, seconds = found
                self.looks[call][host].append(Look(change, tries, seconds))

    def _settle(self, host: str) -> list[str]:
        """Keys that this host has seen, and that nobody changes for a while."""
        keys = [f"settled {host} {number}" for number in range(_SETTLED_KEYS)]
        for key in keys:
            self._asked(_other(host), "change", key, "old")
        return keys

    def _asked(self, host: str, what: str, *arguments: Any) -> Any:
        return self._checked(host, self._hosts[host](what, *arguments))

    def _checked(self, host: str, result: Any) -> Any:
        if not isinstance(result, dict):
            return result
        told = f"{host} host, {result['error']}"
        if result["errno"] in FULL:
            raise NoRoom(told)
        self.errors.append(told)
        self._refused = self._refused or result["errno"] == errno.EACCES
        return _FAILED

    # --- both at once -----------------------------------------------------------------------------

    def _race(self, keys: list[str]) -> None:
        """Both add the same keys, then both pop them."""
        added = self._at_once("add", keys)
        if added is None:
            return
        winners: dict[str, list[str]] = {key: [] for key in keys}
        for host, won in added.items():
            self.won[host] += len(won)
            for key in won:
                winners[key].append(host)
        self.races["add"] += [len(hosts) == 1 for hosts in winners.values()]
        popped = self._at_once("pop", keys)
        if popped is None:
            return
        values: dict[str, list[str]] = {key: [] for key in keys}
        for got in popped.values():
            for key, value in got:
                values[key].append(value)
        self.races["pop"] += [
            len(values[key]) == 1 and values[key][0] in winners[key] for key in keys
        ]

    def _leases(self) -> None:
        held = self._at_once("lease", _HOLDS)
        if held is not None:
            others = sum(held.values())
            self.races["lease"] += [False] * others + [True] * (2 * _HOLDS - others)

    def _at_once(self, what: str, argument: Any) -> dict[str, Any] | None:
        results = {
            host: self._checked(host, result)
            for host, result in zip(HOSTS, self._both(what, argument))
        }
        return None if _FAILED in results.values() else results

    # --- what came of it --------------------------------------------------------------------------

    def findings(self, untried: str) -> Iterator[Finding]:
        """``untried``: why something may not have been tried."""
        for call, looks in self.looks.items():
            yield _of_looks(call, looks, untried)
        for what, outcomes in self.races.items():
            yield self._of_races(what, outcomes, untried)
        if self.errors:
            first = "; ".join(self.errors[:3])
            seen = f"{len(self.errors)} calls failed, the first: {first}."
            breaks = "the calls that failed; what they had begun may be done or not."
            advice = ONE_USER if self._refused else _OPTIONS
            yield Finding("peer", "errors", "FAIL", seen, breaks, advice)

    def _of_races(self, what: str, outcomes: list[bool], untried: str) -> Finding:
        probe = f"races of `{what}`"
        wrong = outcomes.count(False)
        figures = {"races": len(outcomes), "without_one_winner": wrong}
        if not outcomes:
            return _untried(probe, untried)
        seen = f"{wrong} of {len(outcomes)} had not exactly one winner"
        if what == "add":
            seen += f" (the first host won {self.won['first']}, the second {self.won['second']})"
        if wrong:
            return Finding("peer", probe, "FAIL", f"{seen}.", _BREAKS[what], _OPTIONS, figures)
        return Finding("peer", probe, "OK", f"{seen}.", figures=figures)


_FAILED: Any = object()


def _other(host: str) -> str:
    return HOSTS[1 - HOSTS.index(host)]


def _untried(probe: str, why: str) -> Finding:
    breaks = "nothing that is known."
    return Finding("peer", probe, "WARN", f"it wasn't tried: {why}", breaks)


def _of_looks(call: str, looks: dict[str, list[Look]], untried: str) -> Finding:
    """How long until each host saw the other's changes by this call."""
    probe = CALLS[call]
    if not all(looks.values()):
        return _untried(probe, untried)
    told = []
    figures: dict[str, Any] = {}
    late = False
    for host, those in looks.items():
        at_once = sum(look.tries == 1 and look.seconds is not None for look in those)
        never = sum(look.seconds is None for look in those)
        times = sorted(look.seconds for look in those if look.seconds is not None)
        late = late or at_once < len(those)
        text = f"the {host} host saw {at_once} of {len(those)} changes at its first look"
        if times:
            text += f" ({duration(times[len(times) // 2])}, at most {duration(times[-1])})"
        if never:
            text += f", {never} not within {duration(LATEST)}"
        told.append(text)
        figures[host] = {
            "changes": len(those),
            "at_first_look": at_once,
            "never": never,
            "median_s": times[len(times) // 2] if times else None,
            "longest_s": times[-1] if times else None,
        }
    seen = "; ".join(told) + "."
    if late:
        return Finding("peer", probe, "FAIL", seen, _BREAKS[call], _OPTIONS, figures)
    return Finding("peer", probe, "OK", seen, figures=figures)
