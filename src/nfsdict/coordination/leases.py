"""Leases: of all who want the lease of a key, on all hosts, one holds it, while it renews.

A lease is a file. Its name says for which key, which generation, for how long, and by which
process; ``storage.lease_files`` has the names. The protocol has four rules:

1. A contender makes a file of its own, under a name that nobody uses again, and then lists the
   directory. It holds the lease if that listing shows no other file of the key but dead ones. Of
   two contenders, the one that lists later sees the file of the other, so that both never hold.
2. A file is dead if a contender saw it unchanged for its whole duration, by the contender's own
   clock, counted from the end of the first look to the beginning of the last; or if its process
   ran on this host and has ended. Then the contender's own file gets the next generation; that
   look by which it holds the lease decides which.
3. A contender that sees others alive removes its own file and waits; only the one with the highest
   generation (the lowest random number, of several) stays to see whether the others step back.
4. Who holds the lease renews it by renaming a second file, and counts it as lost earlier than
   anybody may call it dead (``holding``). Who takes over removes the files that it found dead.

So no clock is compared with another host's, and a file is only removed by its maker or as dead.
``tests/support/lease_model.py`` has a model of these rules, and goes through all ways in which
three contenders can crash or stand still.

That a takeover makes the next generation, and never breaks what may live, is tox-dev/filelock's
(pull request 738). There the generation alone is the name. But then a remove that is carried out
late hits the file of a later holder, so here each name has a random part.
"""

from __future__ import annotations

import json
import logging
import random
import time
import weakref
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Callable

from ..arguments import checked_seconds, deadline
from ..core import digest
from ..errors import LeaseLostError
from ..layout import LeaseName, random_name
from ..storage import Storage
from ..storage.processes import host_name, this_process
from ..undoing import insist
from .holding import Hold, Renewer
from .lease_watch import Look, Watch, is_dead
from .turns import Turn

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

log = logging.getLogger("nfsdict")

_SHORTEST, _LONGEST = 0.01, 1.0  # seconds between two looks
_LONGER = 1.5
# After so many seconds without the turn a process looks nevertheless: who has it may be suspended.
_SELDOM = 30.0
# Looks of the first of several contenders until the others have stepped back.
_STEPS = 5


class Lease:
    """The lease of a key, held from the beginning. A context manager that releases it at the end.

    It is renewed until it is released, or nobody refers to it any more, or the process ends. A
    child that is forked doesn't hold it.
    """

    def __init__(self, key: str, hold: Hold, renewer: Renewer) -> None:
        self.key = key
        self.generation = hold.name.generation
        """1, or 1 more than that of a holder which was taken over; not a number that only grows"""
        self._hold = hold
        self._renewer = renewer
        hold.owner = weakref.ref(self)
        weakref.finalize(self, renewer.end, hold).atexit = False

    @property
    def held(self) -> bool:
        """Whether no other process can hold the lease now, as far as clocks tell.

        False once it was released, or not renewed in time: the process was suspended, the server
        didn't answer, or the lease file is gone. It doesn't become True again. What the holder does
        after this answer is not guarded: it may be suspended in between. Asks no server.
        """
        return self._hold.held

    def check(self) -> None:
        """LeaseLostError unless the lease is held; see ``held``."""
        if not self.held:
            raise LeaseLostError(self.key)

    def release(self) -> None:
        """Give the lease up, so that others get it at once. Nothing if that is done already.

        OSError if the server can't be asked to: others then get it after its duration.
        """
        try:
            self._hold.release()
        finally:
            self._renewer.end(self._hold)

    def leave(self, generation: int, content: bytes | None = None) -> None:
        """As ``release``, but leave a dead file of this generation, which the next holder follows.

        So the next one's generation is 1 more. Plainly released if the generation is 0, or if the
        lease isn't held: then a next holder may count already.
        """
        if not generation or not self.held:
            self.release()
            return
        try:
            self._hold.leave(generation, content)
        finally:
            self._renewer.end(self._hold)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.release()
        except OSError:
            if kind is None:
                raise

    def __repr__(self) -> str:
        state = "held" if self.held else "not held"
        return f"<Lease of {self.key!r:.200}, generation {self.generation}, {state}>"


@dataclass(frozen=True)
class LeaseInfo:
    """A lease that some process holds."""

    key: str
    host: str
    """the name of the holder's host"""
    process: int
    """the holder's process number there"""
    age: float
    """for how many seconds it is held, by the server's clock"""
    generation: int


class Leases:
    """The leases of one store."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._files = storage.leases
        self._place = storage.directory
        self._renewer = Renewer()

    def acquire(
        self,
        key: str,
        duration: float,
        timeout: float | None = None,
        unless: Callable[[], bool] | None = None,
    ) -> Lease | None:
        """Hold the lease of a key, an exact ``str``; see ``NfsDict.lease``.

        ``unless`` is called after each pause: None, without a lease, if it returns True.
        """
        with self.turn(key) as turn:
            attempts = self.attempts(key, duration, timeout, unless)
            while True:
                try:
                    pause, patience = next(attempts)
                except StopIteration as ended:
                    return ended.value  # type: ignore[no-any-return]
                time.sleep(pause)
                turn.await_(patience)

    def turn(self, key: str) -> Turn:
        """Of all who wait for this lease on this host, the one that has the turn looks for all."""
        return Turn(this_process()[0], self._place, key)

    def attempts(
        self,
        key: str,
        duration: float,
        timeout: float | None = None,
        unless: Callable[[], bool] | None = None,
    ) -> Generator[tuple[float, float], None, Lease | None]:
        """``acquire`` for one who waits in another way: it asks the server when it is resumed, and
        returns what ``acquire`` does. Nothing is held while it isn't running.

        Yields for how many seconds to pause, and for how many more to wait for the turn.
        """
        duration = checked_seconds("duration", duration)
        end = deadline(timeout)
        watch = Watch(self._files, digest(key))
        waits = pauses()
        rivals = watch.look(strict=False).alive  # whoever is missed here is seen after ours is made
        if rivals:
            log.info("%s: waiting for the lease of %r", self._place, key)
        while True:
            if not rivals:
                lease = self._contend(key, duration, watch)
                if lease is not None:
                    return lease
            left = _SELDOM if end is None else end - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"the lease of {key!r:.200} was not to be had in time")
            pause = min(next(waits), left)
            if rivals:
                pause = min(pause, max(watch.next_death(rivals), _SHORTEST))
            yield pause, min(_SELDOM, left - pause)
            before, rivals = rivals, watch.look().alive
            if before != rivals:
                waits = pauses()
            if unless is not None and unless():
                return None

    def watch(self) -> Watch:
        """A new watch over the leases of all keys, for ``contend``."""
        return Watch(self._files)

    def contend(self, key: str, duration: float, watch: Watch) -> Lease | None:
        """Hold the lease of a key, an exact ``str``; None if another process holds it, or is about
        to.

        Looks once after the file is made: that look alone decides who holds it. What the watch has
        seen before tells which leases are dead. Of several who try at once all may step back, each
        for the others. So each looks again then, and the last one, which sees nobody, goes on.
        """
        duration = checked_seconds("duration", duration)
        waits = pauses()
        while (lease := self._contend(key, duration, watch)) is None:
            if watch.look().alive_of(digest(key)):
                return None
            time.sleep(next(waits))
        return lease

    def _contend(
        self, key: str, duration: float, watch: Watch, generation: int | None = None
    ) -> Lease | None:
        """Make a file, and see whether others did. None if another one goes first.

        ``generation``: that of the file, by a look of this call; else by the last one of the watch.
        """
        name = LeaseName(
            digest(key),
            generation or watch.last.generation(digest(key)),
            max(1, round(duration * 1000)),
            *this_process(),
            random_name(),
        )
        content = {"key": key, "host": host_name(), "process": name.process}
        hold = Hold(self._files, name)
        give_up = partial(self._renewer.give_up, hold)
        try:
            self._files.create(name, json.dumps(content).encode())
            look = _alone(name, watch)
            if look is None or not hold.held:
                hold.release()
                return None
            generation = look.generation(name.hexdigest)
            if name.generation == generation:
                dead = look.dead_of(name.hexdigest)
                if any(one.duration_ms for one in dead):
                    self._storage.counters.lease_takeovers += 1
                    log.info("%s: took over the lease of %r, whose holder died", self._place, key)
                with suppress(OSError):  # others see that they are dead, too
                    for one in dead:
                        self._files.remove(look.states[one])
                lease = Lease(key, hold, self._renewer)
                self._renewer.watch(hold)
                return lease
            hold.release()
        except BaseException:
            try:
                insist(give_up)
            finally:
                insist(give_up)
            raise
        # Since the watch looked before, another one held it and died, or failed in its attempt; or
        # has removed the files of the dead, and is done.
        return self._contend(key, duration, watch, generation)

    def held(self) -> list[LeaseInfo]:
        """See ``NfsDict.leases``."""
        times = self._files.times()
        now = self._storage.files.server_time_ns()
        names = [name for name, one in times.items() if not is_dead(name, one.renewed, now)]
        found = []
        for name, content in zip(names, self._files.contents(names)):
            try:
                about = json.loads(content)
                key, host = str(about["key"]), str(about["host"])
            except (ValueError, KeyError, TypeError, RecursionError):
                continue  # just released, or just made; or somebody else has written it
            age = max(0, now - times[name].made) / 1e9
            found.append(LeaseInfo(key, host, name.process, age, name.generation))
        return sorted(found, key=lambda lease: lease.key)


def _alone(mine: LeaseName, watch: Watch) -> Look | None:
    """The look by which all others are dead, once those that made a file at the same time have
    stepped back; None if they don't."""
    for _ in range(_STEPS):
        look = watch.look()
        alive = look.alive_of(mine.hexdigest)
        if alive == [mine]:
            return look
        if mine not in alive or min(alive, key=_order) != mine:
            return None
        time.sleep(_SHORTEST)
    return None


def _order(lease: LeaseName) -> tuple[int, str]:
    return -lease.generation, lease.nonce


def pauses() -> Iterator[float]:
    """Seconds to wait, longer and longer, and not the same for all."""
    pause = _SHORTEST
    while True:
        yield random.uniform(0.7, 1.0) * pause
        pause = min(_LONGER * pause, _LONGEST)
