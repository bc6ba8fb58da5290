"""Mountstats: how many calls an NFS client has sent to its server, as the kernel counts them."""

from __future__ import annotations

from contextlib import suppress

PATH = "/proc/self/mountstats"


def calls_sent(mount_point: str) -> int | None:
    """The calls that the NFS mount at this point has sent so far; None if it is no NFS mount.

    All processes of the host count, also those in other containers. Reading it sends none. Version
    4.0's renewals of its lease, which come by the clock, aren't counted.
    """
    with suppress(OSError), open(PATH, encoding="utf-8", errors="surrogateescape") as lines:
        return calls_in(lines.read(), mount_point)
    return None


def calls_in(text: str, mount_point: str) -> int | None:
    """The same from the file's text."""
    # The file writes a blank, a tab, a newline and a backslash of a path in octal.
    escaped = mount_point
    for character in "\\ \t\n":
        escaped = escaped.replace(character, f"\\{ord(character):03o}")
    total = None
    here = operations = False
    for line in text.splitlines():
        if line.startswith("device "):
            here = f" mounted on {escaped} with fstype nfs" in line
            operations = False
        elif here and line.strip() == "per-op statistics":
            operations, total = True, 0  # the last mount at a point hides earlier ones
        elif operations and total is not None and ":" in line:
            name, _, numbers = line.partition(":")
            if name.strip() != "RENEW":
                total += int(numbers.split()[0])
    return total
