"""A model of the leases' protocol, and an explorer of all that it can do.

Each contender is a program whose steps are calls to the server. Between any two of them, the others
may do any of theirs, and the time may go on by one tick. A contender that is suspended is one whose
next call doesn't come for a while, and so is one whose answer comes late; only of a renewal it
matters when the answer comes, so that is a step of its own. Any contender may crash at any moment:
the call that it was about to make is then carried out at any later time, or never.

All clocks go at the same pace, but none reads another's: a contender has only the ticks since it
saw a file as it is, and a holder those since its last renewal.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

DURATION = 2  # ticks

RULES = frozenset(
    {
        "lists again after its own file is made",
        "waits for a whole duration",
        "counts its duration from when it asked",
        "stays lost",
        "looks at all files",
        "uses no name twice",
        "steps back",
        "looks again when it has stepped back",
        "removes its file when it is done",
        "removes the files of the dead",
    }
)


class File(NamedTuple):
    """One on the server."""

    generation: int
    name: tuple[int, ...]
    owner: int
    renewals: int


class Contender(NamedTuple):
    """One process."""

    step: str = "look"
    """its next call: look, make, verify, sweep, renew, release, or back, which removes its own file
    to try again; or no call: renewed, which waits for the answer, hold, done"""
    seen: tuple[tuple[File, int], ...] = ()
    """the files of others at its last look, and for how many ticks it has seen each so"""
    mine: File | None = None
    left: int = 0
    """ticks for which it counts on the lease"""
    asked: int = 0
    """what that will be when the answer to its renewal comes"""
    tries: int = 0
    renewals: int = 0
    crashed: bool = False
    gave_up: bool = False

    @property
    def holds(self) -> bool:
        holding = self.step in ("sweep", "hold", "renew", "renewed")
        return holding and self.left > 0 and not self.crashed


Files = frozenset[File]
Outcome = tuple[Files, Contender]
State = tuple[Files, tuple[Contender, ...]]


class Model:
    """The protocol by these rules. Contenders try, and renew, at most so often.

    A patient one waits, as ``Leases.acquire``. Another one doesn't look before it tries for the
    first time, and gives up when it has stepped back and sees others, as ``Leases.contend``.
    """

    def __init__(
        self,
        contenders: int,
        tries: int = 1,
        renewals: int = 1,
        rules: frozenset[str] = RULES,
        patient: bool = True,
    ) -> None:
        assert rules <= RULES
        self._start: State = (frozenset(), (Contender(),) * contenders)
        self._tries = tries
        self._renewals = renewals
        self._rules = rules
        self._patient = patient
        self._wait = DURATION if "waits for a whole duration" in rules else DURATION - 1
        # Most contenders do the same in many states.
        self._outcomes = functools.cache(self._find_outcomes)

    def _next(self, state: State) -> Iterator[State]:
        """All that can come next."""
        files, contenders = state
        yield files, _ordered(map(_tick, contenders))
        crashed = tuple(one.crashed for one in contenders)
        first = sum(one.tries > 0 for one in contenders)
        for number, one in enumerate(contenders):
            before, behind = contenders[:number], contenders[number + 1 :]
            for after, changed in self._outcomes(min(number, first), one, files, crashed):
                yield after, _ordered((*before, changed, *behind))
            if not one.crashed and one.step != "done":
                yield files, _ordered((*before, _crash(one), *behind))

    def _find_outcomes(
        self, number: int, one: Contender, files: Files, crashed: tuple[bool, ...]
    ) -> list[Outcome]:
        """What this contender can do next, and the files afterwards."""
        mine = one.mine
        after = [one]
        if one.step == "done":
            return []
        if one.step in ("look", "verify"):
            after = list(self._looked(number, one, files, crashed))
        elif one.step == "make" and mine:
            if any(file.name == mine.name for file in files):
                after = [self._again(one)]
            else:
                files |= {mine}
                lists = "lists again after its own file is made" in self._rules
                one = one._replace(left=DURATION)
                after = [one._replace(step="verify") if lists else self._got(one)]
        elif one.step == "sweep":
            files = _without(files, one.seen[0][0])
            after = [self._got(one._replace(seen=one.seen[1:]))]
        elif one.step == "hold":
            after = [one._replace(step="release", left=0)]
            if one.left and one.renewals < self._renewals:
                after += [one._replace(step="renew", renewals=one.renewals + 1)]
        elif one.step == "renew" and mine:
            one = one._replace(step="renewed")
            after = [one]
            if mine in files:
                renewed = mine._replace(renewals=one.renewals)
                files = files - {mine} | {renewed}
                after = [one._replace(mine=renewed, asked=DURATION)]
        elif one.step == "renewed":
            early = "counts its duration from when it asked" in self._rules
            asked = one.asked if early or not one.asked else DURATION
            lost = "stays lost" in self._rules and not one.left
            after = [one._replace(step="hold", left=0 if lost else asked, asked=0)]
        elif mine:  # back, release
            if one.step == "back" or "removes its file when it is done" in self._rules:
                files = _without(files, mine)
            after = [self._again(one) if one.step == "back" else _end(one)]
        return [(files, _end(one) if one.crashed else changed) for changed in after]

    def _looked(
        self, number: int, one: Contender, files: Files, crashed: tuple[bool, ...]
    ) -> Iterator[Contender]:
        """What a contender makes of a listing."""
        ages = dict(one.seen)
        seen = tuple((file, ages.get(file, 0)) for file in sorted(files) if file != one.mine)
        one = one._replace(seen=seen)
        # The last one has the highest generation.
        others = seen if "looks at all files" in self._rules else seen[-1:]
        alive = any(age < self._wait and not crashed[file.owner] for file, age in others)
        dead = [file for file, age in seen if age >= self._wait or crashed[file.owner]]
        if one.step == "look" and not self._patient:
            alone = not alive or not one.tries
            yield self._make(number, one, dead) if alone else _end(one)._replace(gave_up=True)
        elif one.step == "look":
            yield one if alive else self._make(number, one, dead)
        elif one.mine in files and not alive and one.left:
            yield self._got(one)
        else:
            yield one  # the others may step back
            yield one._replace(step="back") if "steps back" in self._rules else self._again(one)

    def _make(self, number: int, one: Contender, dead: list[File]) -> Contender:
        generation = 1 + max((file.generation for file in dead), default=0)
        unique = "uses no name twice" in self._rules
        name = (number, one.tries) if unique else (generation,)
        mine = File(generation, name, number, 0)
        return one._replace(step="make", mine=mine, tries=one.tries + 1)

    def _got(self, one: Contender) -> Contender:
        if one.seen and "removes the files of the dead" in self._rules:
            return one._replace(step="sweep")
        return one._replace(step="hold", seen=())

    def _again(self, one: Contender) -> Contender:
        if not self._patient and "looks again when it has stepped back" not in self._rules:
            return _end(one)._replace(gave_up=True)
        if one.tries == self._tries:
            return _end(one)
        return Contender("look", seen=one.seen, tries=one.tries)

    # --- the explorer --------------------------------------------------------------------------

    def explore(self) -> int:
        """Go through all states. How many there are; AssertionError if one is wrong."""
        reached = {self._start}
        coming = [self._start]
        alone = set()
        lasting = Model(0, tries=99, renewals=0, rules=self._rules)
        while coming:
            state = coming.pop()
            files, contenders = state
            assert sum(one.holds for one in contenders) < 2, "two hold it"
            crashed = tuple(one.crashed for one in contenders)
            if not any(crashed) and all(one.step == "done" for one in contenders):
                assert not files, "something is left"
                assert not all(one.gave_up for one in contenders), "all give up"
            for number, one in enumerate(contenders):
                if one.step in ("look", "make", "verify", "back") and not one.crashed:
                    place = number, one, files, crashed
                    if place not in alone:
                        alone.add(place)
                        lasting._goes_on_alone(*place)
            for after in self._next(state):
                if after not in reached:
                    reached.add(after)
                    coming.append(after)
        return len(reached)

    def _goes_on_alone(
        self, number: int, one: Contender, files: Files, crashed: tuple[bool, ...]
    ) -> None:
        """Whatever the others did until they stopped for good: this one gets the lease, and then
        the next one, which leaves nothing."""
        for _ in range(2):
            held = False
            while one.step != "done":
                held = held or one.holds
                assert one.tries < 20, "nobody gets it"
                if one.step == "look":
                    one = _tick(one)
                files, one = self._outcomes(number, one, files, crashed)[-1]
                if one.step == "renew":  # not to be had here
                    one = one._replace(step="release")
            assert held, "nobody gets it"
            one = Contender(tries=10)
        assert not files, "something is left"


def _ordered(contenders: Iterable[Contender]) -> tuple[Contender, ...]:
    """Those first that have tried, in the order of their first tries; by that number their files
    are named. The others can be told apart by what they have seen alone."""
    everybody = list(contenders)
    tried = [one for one in everybody if one.tries]
    return (*tried, *sorted(one for one in everybody if not one.tries))


def _end(one: Contender) -> Contender:
    return Contender("done", tries=min(one.tries, 1), crashed=one.crashed)


def _without(files: Files, removed: File) -> Files:
    return frozenset(file for file in files if file.name != removed.name)


@functools.cache
def _tick(one: Contender) -> Contender:
    seen = tuple((file, min(age + 1, DURATION)) for file, age in one.seen)
    return one._replace(seen=seen, left=max(one.left - 1, 0), asked=max(one.asked - 1, 0))


@functools.cache
def _crash(one: Contender) -> Contender:
    if one.step not in ("make", "sweep", "renew", "back", "release"):
        return _end(one._replace(crashed=True))
    seen = one.seen[:1] if one.step == "sweep" else ()
    return Contender(
        one.step, seen=seen, mine=one.mine, tries=one.tries, renewals=one.renewals, crashed=True
    )
