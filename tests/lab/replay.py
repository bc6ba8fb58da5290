"""Runs marked tests in guests and reports outside, as they come, the reports made inside."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from .configuration import Configuration
from .guest import BOOT_SECONDS, Guest
from .marker import configuration, time_limit

PACKAGES = Path(__file__).parents[len(__package__.split(".")) - 1].parent
PLUGIN = f"{__package__}.plugin"
RUN = "NFSDICT_LAB"  # environment variable: the run directory, set inside a guest only
PREPARE_SECONDS = 120  # for the laboratory to become what a test asks for
GUESTS = 4  # at most at once, each with the memory that it takes
SHARES = 4  # for each of them: what is left in the end is run by all
WORTH_SECONDS = 600  # of time limits, that are worth one more set-up
END_SECONDS = 60  # for what follows the last test: fixtures of the session, the summary

_END = object()


class Guests:
    """*items*, run in guests that come one after another, in one or more lanes at a time.

    A test that ends its guest, or takes longer than its limit, fails with the end of the guest's
    console; the others go on in a new guest.
    """

    def __init__(self, session: pytest.Session, items: list[pytest.Item]) -> None:
        self._session = session
        self._number = min(os.cpu_count() or 1, GUESTS)
        self._shares = _shares(items, SHARES * self._number)
        self._lanes: list[Generator[None, None, None]] = []
        # As it is now: the tests beside which guests are started change it.
        self._environment = dict(os.environ)

    def beside(self) -> None:
        """Go on in one lane while other tests use another processor: called between those."""
        if self._number > 1:
            self._go_on(1)

    def rest(self) -> None:
        """Run what is left, in one lane for each of this machine's processors."""
        while self._go_on(self._number):
            time.sleep(0.02)

    def close(self) -> None:
        """End the guests that are there."""
        for lane in self._lanes:
            lane.close()

    def _go_on(self, most: int) -> bool:
        self._lanes = [lane for lane in self._lanes if next(lane, _END) is not _END]
        while self._shares and len(self._lanes) < most:
            lane = _run(self._session, self._shares.pop(0), self._environment)
            self._lanes.append(lane)
            next(lane, None)
        return bool(self._lanes)


def _shares(items: list[pytest.Item], number: int) -> list[list[pytest.Item]]:
    """*items* in at most so many shares, in their order, what needs one set-up in few shares.

    The time limits say how long the tests may take, and so the shares are about as long.
    """
    groups: dict[Configuration, list[pytest.Item]] = {}
    for item in items:
        groups.setdefault(configuration(item), []).append(item)

    def seconds(tests: list[pytest.Item]) -> float:
        return sum(map(time_limit, tests))

    most = max(seconds(items) / number, WORTH_SECONDS)
    pieces = []
    for group in groups.values():
        count = math.ceil(seconds(group) / most)
        pieces += [group[start::count] for start in range(count)]
    shares: list[list[pytest.Item]] = [[] for _ in range(number)]
    for piece in sorted(pieces, key=seconds, reverse=True):
        min(shares, key=seconds).extend(piece)
    return sorted(
        (sorted(share, key=items.index) for share in shares if share), key=seconds, reverse=True
    )


def _run(
    session: pytest.Session, items: list[pytest.Item], environment: dict[str, str]
) -> Generator[None, None, None]:
    """Run *items*, in one guest after another; gives way to others while there is nothing to do."""
    waiting = {item.nodeid: item for item in items}
    while waiting:
        number = len(waiting)
        with Guest() as guest:
            _boot(session.config, guest, list(waiting.values()), dict(environment))
            cause = yield from _follow(session, guest, waiting)
            if len(waiting) == number:
                # It ran no test, and so no other guest would.
                for item in waiting.values():
                    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
                    _fail(item, cause, guest)
                return
            if guest.status not in (None, pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
                raise RuntimeError(f"{cause}, after its tests\n{guest.console_tail()}")


def _boot(
    config: pytest.Config, guest: Guest, items: list[pytest.Item], environment: dict[str, str]
) -> None:
    (guest.directory / "tests").write_text(json.dumps([item.nodeid for item in items]))
    (guest.directory / "events").touch()
    files = list(dict.fromkeys(str(item.path) for item in items))
    command = [sys.executable, "-m", "pytest", "-p", PLUGIN, f"--rootdir={config.rootpath}"]
    if config.inipath:
        command += ["-c", str(config.inipath)]
    # These tests were selected outside. What is kept from run to run is kept outside, too.
    command += ["-m", "", "-k", "", "-p", "no:cacheprovider", "--basetemp=/run/pytest"]
    colour = "yes" if config.get_terminal_writer().hasmarkup else "no"
    command += ["-vv", f"--tb={config.option.tbstyle}", f"--color={colour}"]
    if config.option.showlocals:
        command += ["--showlocals"]
    for name in ("PYTEST_ADDOPTS", "PYTEST_CURRENT_TEST", "PYTEST_VERSION"):
        environment.pop(name, None)
    path = [str(PACKAGES), *filter(None, [environment.get("PYTHONPATH")])]
    environment.update(
        {
            RUN: str(guest.directory),
            "PATH": f"{environment.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin",
            "PYTHONPATH": os.pathsep.join(path),
            "PYTHONDONTWRITEBYTECODE": "1",
            "TMPDIR": "/run/tmp",
        }
    )
    guest.boot([*command, *files], environment=environment)


def _follow(
    session: pytest.Session, guest: Guest, waiting: dict[str, pytest.Item]
) -> Generator[None, None, str]:
    """Report what the guest does, until it ends or must be ended; the cause of the end.

    What was reported is taken out of *waiting*, a test that was running at the end included.
    """
    running: pytest.Item | None = None
    seconds: float = BOOT_SECONDS
    heard = time.monotonic()
    unread = ""
    with (guest.directory / "events").open() as events:
        while True:
            ended = guest.ended  # asked first: after the end nothing more is written
            *lines, unread = (unread + events.read()).split("\n")
            for event in map(json.loads, lines):
                running = _replay(session, waiting, event)
                seconds = time_limit(running) if running else END_SECONDS
                if event["event"] == "start":
                    seconds += PREPARE_SECONDS
                heard = time.monotonic()
            if ended:
                cause = f"the guest ended with status {guest.status}"
                break
            if time.monotonic() > heard + seconds:
                cause = f"nothing heard from the guest for {seconds:g} s"
                break
            yield
    if running:
        del waiting[running.nodeid]
        _fail(running, cause, guest)
    return cause


def _replay(
    session: pytest.Session, waiting: dict[str, pytest.Item], event: dict[str, Any]
) -> pytest.Item | None:
    """Report one event; the test that is running after it, if any."""
    item = waiting[event["test"]]
    if event["event"] == "start":
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    elif event["event"] == "report":
        report = session.config.hook.pytest_report_from_serializable(
            config=session.config, data=event["report"]
        )
        if isinstance(report.longrepr, list):  # where a test was skipped: JSON has no tuples
            report.longrepr = tuple(report.longrepr)
        item.ihook.pytest_runtest_logreport(report=report)
    else:
        del waiting[item.nodeid]
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        # As pytest's own loop does, for -x, --maxfail and plugins.
        if session.shouldfail:
            raise session.Failed(session.shouldfail)
        if session.shouldstop:
            raise session.Interrupted(session.shouldstop)
        return None
    return item


def _fail(item: pytest.Item, cause: str, guest: Guest) -> None:
    """Report *item* as failed, for a reason that it could not report itself."""
    report = pytest.TestReport(
        nodeid=item.nodeid,
        location=item.location,
        keywords={},
        outcome="failed",
        longrepr=cause,
        when="call",
        sections=[("Guest console", guest.console_tail())],
    )
    item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
