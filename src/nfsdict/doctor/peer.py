"""Peer: two hosts meet in a private directory, and each looks for what the other one does.

The first host makes the directory, leads and asks; the second one finds it by its name and answers.
Each waits for the other a bounded time, and whoever is left alone removes the directory.
"""

from __future__ import annotations

import errno
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
from .meeting import Meeting, Message, NoRoom, Silence
from .player import Player
from .report import FULL, Finding, duration
from .rounds import HOSTS, ONE_USER, Rounds

_MAIL, _SECOND = "mail", "second-host"
# ns by which times may go backwards from one host to the other: ``storage.clock`` allows for
# 100 ms.
_TICK, _TOLERATED = 10_000_000, 100_000_000

_UNKNOWN = "nothing that is known: what one host sees of another wasn't tried to the end."
_INVITE = (
    "run the command that was printed on a second host, with the path that the directory has "
    "there; --wait gives it more time."
)

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
    """Take the second host's place, which one host can have. NfsDictError if another one has it, if
    this one may not write there, or if nobody is invited."""
    try:
        if directory.status(_MAIL) is None:
            raise NfsDictError(
                f"no second host is waited for in {directory.path}: "
                "run the first command with --peer"
            )
        directory.subdirectory(_SECOND)
    except FileExistsError as error:
        raise NfsDictError(
            "another host has joined with this ID: run the first command again for each second host"
        ) from error
    except PermissionError as error:
        raise NfsDictError(
            f"this user may not write in {directory.path}, which the first host has made: "
            + ONE_USER.rstrip(".")
        ) from error


def lead(
    directory: Directory, kind: Kind, mine: Facts, seconds: float, wait: float
) -> Iterator[Finding]:
    """The first host's part: try everything with the second one, for ``seconds``. ``kind``: the
    rules that a store goes by there. ``wait``: seconds without a word after which the other counts
    as gone."""
    meeting = Meeting(f"{directory.path}/{_MAIL}", "first", wait)
    try:
        theirs = _welcomed(meeting, mine)
        player = Player(directory.path, "first")
    except Silence:
        seen = f"no second host came within {duration(wait)}, or nothing of it was seen here."
        yield _alone(seen, _INVITE)
        return
    except (NoRoom, OSError) as error:
        yield _ended("second", error)
        return
    found = [*_hosts(mine, theirs)]
    ended: list[Finding] = []
    heard = True
    with closing(player):
        remote = _remote(meeting)
        rounds = Rounds(
            {"first": _own(player, remote), "second": remote}, _at_once(meeting, player)
        )
        try:
            meeting.say({"facts": mine})
            meeting.hear()
            rounds.play(seconds)
        except (Silence, NoRoom, OSError) as error:
            ended.append(_ended("second", error))
            heard = isinstance(error, NoRoom)
    untried = "the two went no further." if ended else "the calls for it failed."
    found += [_times(meeting.backwards, kind), *rounds.findings(untried), *ended]
    if heard:
        with suppress(Silence, NoRoom, OSError):  # it has gone, and this one has what it came for
            meeting.say({"findings": [asdict(finding) for finding in found]})
            meeting.hear()
    yield from found


def follow(directory: PrivateDirectory, mine: Facts, wait: float) -> Iterator[Finding]:
    """The second host's part. The findings are those of the first."""
    meeting = Meeting(f"{directory.path}/{_MAIL}", "second", wait)
    try:
        meeting.say({"facts": mine})
        _facts_in(meeting.hear(), mine)
        with closing(Player(directory.path, "second")) as player:
            meeting.say({})
            message = _answered(meeting, player)
        meeting.say({})
    except NfsDictError:
        directory.remove()
        raise
    except (Silence, NoRoom, OSError) as error:
        if isinstance(error, NoRoom):
            with suppress(Silence, NoRoom, OSError):  # until the first one has read of it
                meeting.hear()
        directory.remove()
        yield _ended("first", error)
        return
    yield from (Finding(**finding) for finding in message["findings"])


def _welcomed(meeting: Meeting, mine: Facts) -> Facts:
    """What the second host says of itself, once it has come. It is told the same of this one; here
    only if the two can't go on, as then it finds that out, too."""
    message = meeting.hear()
    try:
        return _facts_in(message, mine)
    except NfsDictError:
        with suppress(Silence, NoRoom, OSError):
            meeting.say({"facts": mine})
            meeting.hear()
        raise


def _facts_in(message: Message, mine: Facts) -> Facts:
    """What the other host says of itself. NfsDictError if it doesn't say what this one does."""
    theirs = message.get("facts")
    if not isinstance(theirs, dict) or theirs.keys() != mine.keys():
        raise NfsDictError("the other host has another release of nfsdict: both need the same one")
    return theirs


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


def _own(player: Player, remote: Any) -> Any:
    """The first host's ``Player.ask``. What goes wrong counts only if the second host still answers
    after it, for one that has waited in vain removes the directory."""

    def ask(what: str, *arguments: Any) -> Any:
        result = player.ask(what, *arguments)
        failed = isinstance(result, dict)
        if failed or (what == "observe" and (result[0] > 1 or result[1] is None)):
            remote("answer")
        return result

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


def _ended(other: str, error: Exception) -> Finding:
    """Why the two went no further."""
    number = error.errno if isinstance(error, OSError) else 0
    why = f" ({described(error)})" if number else ""
    if isinstance(error, NoRoom) or number in FULL:
        seen = f"there was no room: {error}."
        advice = "make room, and run both commands again."
        return Finding("peer", "room", "FAIL", seen, _UNKNOWN, advice)
    if number == errno.EACCES:
        seen = f"this user may not read or write what the {other} host has made{why}."
        return _alone(seen, ONE_USER)
    seen = f"the {other} host isn't heard of any more{why}: "
    if number == errno.ENOENT:
        seen += "it has ended or waited in vain, and has removed the directory."
    else:
        seen += "it has ended, stands still, or what it writes isn't seen here."
    return _alone(seen, f"look at what the {other} host says, and run both commands again.")


def _alone(seen: str, advice: str) -> Finding:
    return Finding("peer", "second host", "WARN", seen, _UNKNOWN, advice)
