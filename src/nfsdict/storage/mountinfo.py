"""Mountinfo: which mount holds a path, as the system tells."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from typing import NamedTuple

from ..opening import with_open

# Errors that mean: there is no /proc, or it may not be read.
_NO_PROC = (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM)


class Mount(NamedTuple):
    """A mounted file system."""

    type: str
    """such as "nfs4" or "ext4"; "" if the system doesn't tell"""
    options: tuple[str, ...] = ()
    """each a word, or "name=value": those of the mount and then those of its file system"""
    source: str = ""
    """such as "server:/export" """
    point: str = ""
    """the directory where it is mounted"""
    root: str = "/"
    """the directory of the file system that is mounted there: "/", or a part, as of a bind mount"""

    def option(self, name: str) -> str | None:
        """The value of this option, "" if it is a word alone; None if it isn't there."""
        for option in self.options:
            key, _, value = option.partition("=")
            if key == name:
                return value
        return None


def mount_of(path: str) -> Mount:
    """The mount that holds the path.

    OSError if it can't be found out now, for example for lack of a free descriptor.

    Linux lists mounts in /proc/self/mountinfo, see proc_pid_mountinfo(5). The mount is found there
    by its number, as btrfs gives each subvolume a device that isn't listed; if /proc has no such
    numbers, by its device. No server is asked.
    """
    if hasattr(os, "O_PATH"):

        def mount(descriptor: int) -> Mount:
            return _mount_of(os.fstat(descriptor).st_dev, f"/proc/self/fdinfo/{descriptor}")

        return with_open(path, os.O_PATH | os.O_CLOEXEC, mount)  # asks no server
    return _mount_of(os.stat(path).st_dev, os.devnull)


def _mount_of(device: int, information: str) -> Mount:
    """The mount whose number this file tells, or else one of this device."""
    try:
        with open(information, encoding="ascii") as lines:
            number = next((line.split()[1] for line in lines if line.startswith("mnt_id:")), "")
        return find_mount(read_lines("/proc/self/mountinfo"), number, device)
    except OSError as error:
        if error.errno not in _NO_PROC:
            raise
    return Mount("")


def read_lines(path: str) -> str:
    """The text of a file of /proc, in which a newline alone ends a line: a path may have any other
    character."""
    with open(path, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        return file.read()


def find_mount(mountinfo: str, number: str, device: int) -> Mount:
    """The mount with this number in the text of a mountinfo file; if there is none, the first one
    of this device; ``Mount("")`` if there is none either."""
    of_device = None
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for own, devices, mount in mounts_in(mountinfo):
        if own == number:
            return mount
        if devices == wanted and of_device is None:
            of_device = mount
    return of_device or Mount("")


def mounts_in(mountinfo: str) -> Iterator[tuple[str, str, Mount]]:
    """Number, device ("major:minor") and mount of each line of a mountinfo file's text."""
    for line in mountinfo.split("\n"):
        fields, separator, rest = line.partition(" - ")
        if not separator:
            continue
        number, _, device, root, point, options = fields.split(" ")[:6]
        kind, source, more = [*rest.split(" "), "", ""][:3]
        words = filter(None, (*options.split(","), *more.split(",")))
        yield number, device, Mount(kind, tuple(words), *map(_plain, (source, point, root)))


def _plain(text: str) -> str:
    """Text of which space, tab, newline and backslash stand there as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
