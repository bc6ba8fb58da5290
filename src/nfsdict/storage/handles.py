"""Handles: names looked up past what a client takes from the handles that its host has open.

Linux's SMB client asks for a name by the handle of any process of its host that has opened a file
by this name (fs/smb/client/smb2inode.c, smb2_query_path_info), also when another host has put
another file there, or none, since then. ``lstat`` then gives the old file, until the handle is
closed. So does opening the name with the flags of that handle, as processes of ours do, since the
client takes the handle itself (file.c, cifs_open). With other flags it asks the server for its new
file, finds another inode than ``lstat``, and gives ESTALE. Neither revalidating nor listing changes
that. But the client compares names letter by letter, and SMB's servers don't tell capitals from
small letters: by the same name in capitals the client asks the server. All names in a store differ
by more than that.

A server that is told to tell them apart finds nothing so. Then the plain name is asked for, and
what that has can't be read until the handle is closed.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Callable, TypeVar

from ..errors import failure
from ..layout import inode_of, signature_of
from ..opening import with_open
from .directories import READ_FLAGS, Entries

T = TypeVar("T")
# Flags that change nothing for who reads, and that nobody else opens a file with.
_UNCOMMON = READ_FLAGS | os.O_APPEND | getattr(os, "O_SYNC", 0)


def stale(number: int, path: str) -> OSError:
    """The error where the file that another host has put there can't be read."""
    told = f"{os.strerror(number)}: a process of this host keeps the file open that was here before"
    return OSError(number, f"{told}, end it or try again later", path)


def in_other_case(path: str) -> str:
    """The path with some letters of the name as capitals, others each time: a name that has been
    used before may have a handle itself."""
    directory, name = os.path.split(path)
    letters = [at for at, letter in enumerate(name) if "a" <= letter <= "z"]
    if not letters:
        return path
    drawn = os.urandom(len(name) + 1)  # not of ``random``, whose state is the program's
    chosen = {letters[drawn[-1] % len(letters)], *(at for at in letters if drawn[at] & 1)}
    other = "".join(letter.upper() if at in chosen else letter for at, letter in enumerate(name))
    return os.path.join(directory, other)


def status_of(path: str) -> os.stat_result:
    """As ``lstat``, by the server's word. FileNotFoundError if the server has no such name, or has
    it only until the last one has closed the removed file."""
    try:
        return os.lstat(in_other_case(path))
    except FileNotFoundError:
        pass
    except OSError as error:  # whose name nobody knows
        raise failure(error.errno or errno.EIO, path) from error
    try:
        return with_open(path, _UNCOMMON, os.fstat)
    except OSError as error:
        if error.errno == errno.ENOENT:
            raise
        if error.errno == errno.ESTALE:
            raise stale(errno.ESTALE, path) from error
    return os.lstat(path)


def read_past_handles(
    read: Callable[[list[str]], Sequence[T | int]], paths: list[str]
) -> list[T | int]:
    """As ``read(paths)``, a call of the core, by the server's word: what is under each path, or an
    errno; ESTALE if it can't be read until a handle is closed."""
    found = list(read([in_other_case(path) for path in paths]))
    for number, path in enumerate(paths):
        if found[number] == errno.ENOENT:
            try:
                with_open(path, _UNCOMMON, os.fstat)
            except OSError as error:
                found[number] = error.errno or errno.EIO
            else:
                [found[number]] = read([path])
    return found


def corrected(directory: str, entries: Entries, inodes: dict[str, int]) -> Entries:
    """These entries of a listing, with the server's signatures: a listing brings these numbers of
    inodes by the server's word, and those with another one are looked up anew."""
    right = []
    for name, mode, signature, ctime in entries:
        if inodes.get(name) not in (None, inode_of(signature)):
            # If the rest can't be told, it is another file at least.
            signature = inodes[name].to_bytes(8, "little") + signature[8:]
            with suppress(OSError):
                found = status_of(f"{directory}/{name}")
                mode, signature, ctime = found.st_mode, signature_of(found), found.st_ctime_ns
        right.append((name, mode, signature, ctime))
    return right
