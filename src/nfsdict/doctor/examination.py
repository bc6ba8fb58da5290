"""Examination: all probes of one directory, in order, and what is left of them removed."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from typing import Callable

from ..errors import NfsDictError, described
from ..storage.file_systems import Kind
from ..storage.mounts import kind_of
from ..storage.mountstats import calls_sent
from ..storage.probes import PrivateDirectory, check_directory, takes_from_owner, umask
from .clock import clock
from .mount import mount
from .report import Diagnosis, Finding
from .room import refused, room, too_little
from .semantics import advice_for, semantics
from .speed import speed

_UNTRIED = Finding(
    "semantics",
    "all",
    "WARN",
    "not tried, nor clock and speed, as there is no room.",
    "nothing that is known.",
    "make room, and run the doctor again.",
)

_UNTIMED = Finding(
    "speed",
    "all",
    "WARN",
    "not timed, as the umask keeps this user from what he makes himself.",
    "nothing that is known.",
    "set another umask, and run the doctor again.",
)

More = Callable[[PrivateDirectory, Kind, "list[Finding]"], Iterator[Finding]]
"""What is tried besides, in the private directory, by the rules of this kind of file system, after
these findings."""


def diagnose(path: str | os.PathLike[str]) -> Diagnosis:
    """Try in a private directory below this one what a store needs there, and remove it again.

    Takes some seconds, up to half a minute where the server is far away. Looks at the mount and its
    options, tries calls on files and directories one by one, compares clocks, asks for free space,
    and times a dictionary's calls beside those on a local disk. What needs two hosts is only tried
    by ``nfsdict doctor --peer``. The page ``docs/which-mount.md`` explains each finding.

    The process's umask is read; where Linux's /proc doesn't tell it, it is changed for a moment.

    Args:
        path: an existing directory in which a store is, or might be.

    Raises:
        FileNotFoundError, NotADirectoryError: there is no directory of this path.
        OSError: the private directory, ``.nfsdict-doctor-…``, couldn't be removed.
    """
    path = directory_of(path)
    return Diagnosis(path, list(examine(path)))


def directory_of(path: str | bytes | os.PathLike[str]) -> str:
    """The absolute path. FileNotFoundError for an empty one, which would be where the process is:
    a shell makes such a one of a variable that isn't set."""
    name = os.fsdecode(path)
    if not name:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
    return os.path.abspath(name)


def examine(path: str, more: More | None = None) -> Iterator[Finding]:
    """See ``diagnose``; each finding as soon as it is there. ``close()`` removes what is left."""
    check_directory(path)
    mounted, found = mount(path)
    yield from found
    kind = kind_of(mounted)
    directory = PrivateDirectory(path)
    try:
        try:
            directory.make()
        except OSError as error:
            yield from refused(path, error)
            return
        # First, as without room the other probes fail, and would blame the file system.
        there = list(_guarded("room", room(path, directory, mounted.point)))
        if too_little(there):
            yield from (_UNTRIED, *there)
            return
        timed = speed(directory.path, lambda: calls_sent(mounted.point))
        for findings in (
            _guarded("semantics", semantics(directory, kind)),
            _guarded("clock", clock(directory, kind)),
            there,
            [_UNTIMED] if takes_from_owner(umask()) else _guarded("speed", timed),
        ):
            for finding in findings:
                found.append(finding)
                yield finding
        if more is not None:
            yield from more(directory, kind, found)
    finally:
        directory.remove()


def _guarded(section: str, findings: Iterable[Finding]) -> Iterator[Finding]:
    """The findings of one section, and if it fails itself, that as the last one."""
    try:
        yield from findings
    except (OSError, NfsDictError) as error:
        seen = f"the probes went no further, {described(error)}."
        breaks = "whatever meets the same error."
        advice = advice_for(getattr(error, "errno", None))
        yield Finding(section, "error", "FAIL", seen, breaks, advice)
