"""Directories: one call each that makes the system ask for what it would answer from memory."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress

from ..core import digest
from ..layout import signature_at
from ..opening import with_open

Entries = list[tuple[str, int, bytes, int]]
"""Name, mode, signature and ctime of each entry, as the core's ``list_directory`` gives them."""

DIRECTORY_FLAGS = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)
# For files. A FIFO doesn't block, a link isn't followed.
READ_FLAGS = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
READ_FLAGS |= getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
# On a mount of its own, so that nothing of a store can be linked to it.
_ELSEWHERE = "/proc/self/mountinfo"


def is_directory(path: str) -> bool:
    """Whether the path leads to a directory. Errors are raised: ``os.path.isdir`` would take them
    for absence."""
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except FileNotFoundError:
        check_absent(path)
        return False


def check_absent(path: str) -> None:
    """To be called after ENOENT: NotADirectoryError if the path is a symbolic link.

    The link may lead to a disk that isn't mounted, so nobody knows whether its target is absent.
    """
    try:
        linked = stat.S_ISLNK(os.lstat(path).st_mode)
    except FileNotFoundError:
        return
    if linked:
        raise OSError(errno.ENOTDIR, "A symbolic link that leads nowhere", path)


def drop_pages(descriptor: int) -> None:
    """Make the system drop what it has read of this file or directory."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def read_anew(descriptor: int) -> list[str]:
    """Make the client drop its listing and read the directory anew. The names in it."""
    drop_pages(descriptor)
    names = []
    with os.scandir(descriptor) as entries:
        for entry in entries:
            names.append(entry.name)
            # Asking for attributes makes the client use READDIRPLUS, to a long directory's end.
            with suppress(OSError):
                entry.stat(follow_symlinks=False)
    return names


def inodes_in(path: str) -> dict[str, int]:
    """The inode's number of each name in this directory, as the server lists it."""

    def read(descriptor: int) -> dict[str, int]:
        drop_pages(descriptor)
        with os.scandir(descriptor) as entries:
            return {entry.name: entry.inode() for entry in entries}

    return with_open(path, DIRECTORY_FLAGS, read)


def look_up_anew(path: str) -> None:
    """Make the system look up this name past what it remembers of it.

    By a hard link from another mount, which can't be made: EXDEV, or EEXIST where the name is. To
    find out, Linux looks the name up as one that is to be created (``filename_create`` in
    fs/namei.c), and then SMB's client believes no name that it missed (``cifs_d_revalidate``), and
    that of FUSE nothing at all (``fuse_dentry_revalidate``, LOOKUP_EXCL). Without /proc nothing is
    asked.
    """
    with suppress(OSError):
        os.link(_ELSEWHERE, path)


def forget_content(path: str) -> None:
    """Make the system drop what it has read of this file. OSError if the file can't be opened."""
    with_open(path, READ_FLAGS, drop_pages)


def unlike_known(
    entries: Entries, keys: list[str], signatures: bytes, extension: str
) -> tuple[Entries, list[int]]:
    """Those entries that aren't files of these keys with these signatures, and the positions of
    keys that have another file or none: what the core's ``list_changes`` tells."""
    known = {
        (digest(key) + extension, signature_at(signatures, at)): at for at, key in enumerate(keys)
    }
    found = {
        known.get((name, signature)) for name, mode, signature, _ in entries if stat.S_ISREG(mode)
    }
    others = [one for one in entries if not stat.S_ISREG(one[1]) or (one[0], one[2]) not in known]
    return others, [at for at in range(len(keys)) if at not in found]
