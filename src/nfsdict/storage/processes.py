"""Processes: how one is named for all hosts, and whether one of this host has certainly ended."""

from __future__ import annotations

import functools
import os

from ..core import digest


@functools.lru_cache(1)
def _this_host() -> str:
    """16 hexadecimal digits that are the same where a number means the same process.

    Made of the host's name, its boot, and the namespaces in which containers of one host count
    their own processes and time. "" where the system doesn't tell: no process is then known to have
    ended.
    """
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as boot:
            parts = [os.uname().nodename, boot.read()]
        parts += [os.readlink(f"/proc/self/ns/{kind}") for kind in ("pid", "time")]
    except (OSError, AttributeError):
        return ""
    return digest("\0".join(parts))[:16]


def this_process() -> tuple[str, int, int]:
    """Host, number and start of this process, for ``has_ended``."""
    process = os.getpid()
    return _this_host(), process, _status(process)[1]


def host_name() -> str:
    """The host's name, for people."""
    return os.uname().nodename if hasattr(os, "uname") else ""


def has_ended(host: str, process: int, start: int) -> bool:
    """Whether there is certainly no such process any more. False for those of other hosts."""
    if not host or host != _this_host():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # it is another user's; or no process can have this number
        pass
    running, started = _status(process)
    return not running or (started != start and 0 not in (started, start))


def _status(process: int) -> tuple[bool, int]:
    """Whether any of its threads may run, and its start as the kernel counts it; (True, 0) if that
    can't be told."""
    try:
        with open(f"/proc/{process}/stat", "rb") as file:
            # proc_pid_stat(5): after the name in parentheses, state is the first field.
            fields = file.read().rpartition(b")")[2].split()
        return fields[0] not in b"ZX" or int(fields[17]) > 1, int(fields[19])
    except (OSError, ValueError, IndexError):
        return True, 0
