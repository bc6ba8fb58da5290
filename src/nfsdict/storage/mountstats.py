"""Mountstats: what /proc/self/mountstats tells of an NFS mount. To read it asks no server."""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple

from .mountinfo import read_lines

# By which a client tells its server that it is alive. They come by the clock.
_OF_THE_CLIENT = {
    *("RENEW", "SEQUENCE", "GET_LEASE_TIME", "SETCLIENTID", "SETCLIENTID_CONFIRM"),
    *("EXCHANGE_ID", "CREATE_SESSION", "DESTROY_SESSION", "RECLAIM_COMPLETE"),
}


def _mountstats() -> str:
    return read_lines("/proc/self/mountstats")


def _told_of(text: str, mount_point: str) -> list[str] | None:
    """The lines about the NFS mount at this point; None if there is none. Of several it is the
    last one, which hides the others."""
    # The file writes a blank, a tab, a newline and a backslash of a path in octal.
    escaped = mount_point
    for character in "\\ \t\n":
        escaped = escaped.replace(character, f"\\{ord(character):03o}")
    told: list[str] | None = None
    here = False
    for line in text.split("\n"):
        if line.startswith("device "):  # device SOURCE mounted on POINT with fstype TYPE …
            here = f" mounted on {escaped} with fstype nfs" in line
            told = [] if here else told
        elif here and told is not None:
            told.append(line.strip())
    return told


def nfs_capabilities(mount_point: str) -> int:
    """Those of the NFS server that is mounted at this point, as the client knows them; 0 if that
    isn't told. OSError and ValueError if it can't be read."""
    return capabilities_in(_mountstats(), mount_point)


def capabilities_in(text: str, mount_point: str) -> int:
    """The same from the file's text."""
    for line in _told_of(text, mount_point) or ():
        if line.startswith("caps:"):
            return int(line.partition("caps=")[2].split(",")[0], 16)
    return 0


def calls_sent(mount_point: str) -> int | None:
    """The calls that the NFS mount at this point has sent so far; None if it is no NFS mount.

    All processes of the host count, also those in other containers. Calls about the client's own
    lease aren't counted.
    """
    with suppress(OSError):
        return calls_in(_mountstats(), mount_point)
    return None


def calls_in(text: str, mount_point: str) -> int | None:
    """The same from the file's text."""
    operations = _operations(text, mount_point)
    if operations is None:
        return None
    return sum(numbers[0] for name, numbers in operations.items() if name not in _OF_THE_CLIENT)


class Listings(NamedTuple):
    """What a mount has done so far to learn the names in directories."""

    asked: int
    """How often the server was asked."""
    received: int
    """The bytes of its replies."""


def listings(mount_point: str) -> Listings | None:
    """Those of the NFS mount at this point; None if it is no NFS mount, or the system doesn't
    tell. All processes of the host count."""
    with suppress(OSError):
        operations = _operations(_mountstats(), mount_point)
        if operations is not None:
            told = [operations[name] for name in ("READDIR", "READDIRPLUS") if name in operations]
            return Listings(sum(one[0] for one in told), sum(one[4] for one in told))
    return None


def _operations(text: str, mount_point: str) -> dict[str, list[int]] | None:
    """Per operation: how often it was called, sent and timed out, bytes sent and received, …"""
    told = _told_of(text, mount_point)
    if told is None or "per-op statistics" not in told:
        return None
    operations = told[told.index("per-op statistics") + 1 :]
    pairs = [line.partition(":")[::2] for line in operations if ":" in line]
    return {name: [int(number) for number in numbers.split()] for name, numbers in pairs}
