"""Peer: two hosts meet in a private directory, and each looks for what the other one does.

The first host makes the directory, leads and asks; the second one finds it by its name and answers.
Each waits for the other a bounded time, and whoever is left alone removes the directory.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import asdict
from typing import Any

from ..errors import NfsDictError, described
from ..storage.file_systems import Kind
from ..storage.probes import Directory, PrivateDirectory, device
from ..storage.processes import host_name, this_process
from .clock import misleading
from .meeting import Meeting, Message, Silence
from .player import Player
from .report import Finding, duration
from .rounds import HOSTS, Rounds
from .semantics import ELSEWHERE

_MAIL, _SECOND = "mail", "second-host"
# ns by which times may go backwards from one host to the other: ``storage.clock`` allows for
# 100 ms.
_TICK, _TOLERATED = 10_000_000, 100_000_000

Facts = dict[str, Any]
"""What one host says of itself, see ``facts``."""


def facts(path: str, findings: list[Finding]) -> Facts:
    """What this host tells the other; of its findings those about its mount and its clock."""
    return {
        "host": host_name(),
        "kernel": platform.platform(),
        "identity": this_process()[0],
        "device": device(path),
        "findings": [asdict(finding) for finding in findings if _of_host(finding)],
    }


def _of_host(finding: Finding) -> bool:
    """Whether this is of a host, so that two may differ in it."""
    return finding.section == "mount" or finding.probe == "difference"


def invite(directory: PrivateDirectory) -> None:
    """Make the place where the second host leaves its messages, before it can come."""
    directory.subdirectory(_MAIL)


def accept(directory: PrivateDirectory) -> None:
    """Take the second host's place, which one host can have. NfsDictError if another one has it, or
    if this one may not write there."""
    try:
        directory.subdirectory(_SECOND)
    except FileExistsError as error:
        raise NfsDictError(
            "another host has joined with this ID: run the first command again for each second host"
        ) from error
    except PermissionError as error:
        raise NfsDictError(
            f"this user may not write in {directory.path}, which the first host has made: run both "
            "commands as one user, or as users of one group with umask 002"
        ) from error


def lead(
    directory: Directory, kind: Kind, mine: Facts, seconds: float, wait: float
) -> Iterator[Finding]:
    """The first host's part: try everything with the second one, for ``seconds``. ``kind``: the
    rules that a store goes by there. ``wait``: seconds without a word after which the other counts
    as gone."""
    meeting = Meeting(f"{directory.path}/{_MAIL}", "first", wait)
    try:
        theirs = meeting.hear()["facts"]
    except Silence:
        yield _alone(f"no second host came within {duration(wait)}.")
        return
    found = [*_hosts(mine, theirs)]
    gone: list[Finding] = []
    with closing(Player(directory.path, "first")) as player:
        rounds = Rounds(
            {"first": player.ask, "second": _remote(meeting)}, _at_once(meeting, player)
        )
        try:
            meeting.say({})
            meeting.hear()
            rounds.play(seconds)
        except (Silence, OSError) as error:
            gone.append(_alone(f"the second host isn't heard of any more{_why(error)}."))
    found += [_times(meeting.backwards, kind), *rounds.findings(), *gone]
    if not gone:
        with suppress(Silence, OSError):  # it has gone, and this one has what it came for
            meeting.say({"findings": [asdict(finding) for finding in found]})
            meeting.hear()
    yield from found


def follow(directory: PrivateDirectory, mine: Facts, wait: float) -> Iterator[Finding]:
    """The second host's part. The findings are those of the first."""
    meeting = Meeting(f"{directory.path}/{_MAIL}", "second", wait)
    try:
        meeting.say({"facts": mine})
        meeting.hear()
        with closing(Player(directory.path, "second")) as player:
            meeting.say({})
            message = _answered(meeting, player)
        meeting.say({})
    except (Silence, OSError) as error:
        directory.remove()
        yield _alone(f"the first host isn't heard of any more{_why(error)}.")
        return
    yield from (Finding(**finding) for finding in message["findings"])


def _answered(meeting: Meeting, player: Player) -> Message:
    """Do what the first host asks for, until it says what was found."""
    while True:
        message = meeting.hear()
        if "findings" in message:
            return message
        if message["both"]:
            meeting.say({})
        meeting.say({"result": player.ask(message["what"], *message["arguments"])})


def _remote(meeting: Meeting) -> Any:
    """The second host's ``Player.ask``."""

    def ask(what: str, *arguments: Any) -> Any:
        meeting.say({"what": what, "arguments": arguments, "both": False})
        return meeting.hear()["result"]

    return ask


def _at_once(meeting: Meeting, player: Player) -> Any:
    """Has both do the same; each begins when it knows that the other one is ready."""

    def both(what: str, argument: Any) -> tuple[Any, Any]:
        meeting.say({"what": what, "arguments": [argument], "both": True})
        meeting.hear()
        return player.ask(what, argument), meeting.hear()["result"]

    return both


# --- what both are ---------------------------------------------------------------------------


def _hosts(mine: Facts, theirs: Facts) -> Iterator[Finding]:
    both = dict(zip(HOSTS, (mine, theirs)))
    told = [f"the {which} is {one['host']}, {one['kernel']}" for which, one in both.items()]
    seen = "; ".join(told)
    # Where the system tells no identity it is the same for all, and names tell hosts apart.
    one_host = all(mine[name] == theirs[name] for name in ("identity", "host"))
    if one_host and mine["device"] == theirs["device"]:
        seen += ": one host, and one mount."
        breaks = "nothing; but a host sees its own changes, so this proves less than two would."
        yield Finding("peer", "hosts", "WARN", seen, breaks, "run the command on another host.")
    elif one_host:
        seen += ": one host, by two mounts, whose caches may be apart or not."
        breaks = "nothing; but two hosts prove more."
        yield Finding("peer", "hosts", "WARN", seen, breaks, "run the command on another host.")
    else:
        yield Finding("peer", "hosts", "OK", f"{seen}.")
    for which, one in both.items():
        for finding in one["findings"]:
            yield Finding(
                **{**finding, "section": "peer", "probe": f"{which} host's {finding['probe']}"}
            )


def _times(backwards: int, kind: Kind) -> Finding:
    """Whether times on files grow from one host's to the other's."""
    figures = {"backwards_s": backwards / 1e9}
    if backwards <= _TICK:
        seen = "what one host wrote after the other bears a later time, or the same."
        return Finding("peer", "times on files", "OK", seen, figures=figures)
    seen = f"what one host wrote after the other bears a time {duration(backwards / 1e9)} earlier."
    if backwards > _TOLERATED:
        return misleading("peer", "times on files", seen, kind, figures)
    breaks = "nothing: up to 100 ms are allowed for."
    advice = "keep the hosts' clocks together (NTP, chrony)."
    return Finding("peer", "times on files", "WARN", seen, breaks, advice, figures)


def _alone(seen: str) -> Finding:
    breaks = "nothing that is known: what one host sees of another wasn't tried to the end."
    advice = (
        "run the command on a second host, with the path that the directory has there. If it ran, "
        "this mount doesn't show what other hosts make: " + ELSEWHERE
    )
    return Finding("peer", "second host", "WARN", seen, breaks, advice)


def _why(error: Exception) -> str:
    return "" if isinstance(error, Silence) else f" ({described(error)})"
