"""Lease files: made, listed, renewed and removed. The names alone say who holds what.

A lease's own file is a symbolic link that leads nowhere, with what people want to know of the
holder as its target: name and content come into being by one call to an NFS server, where a file
takes three or four. Emacs's lock files are such links. Where there are none, it is a file.

No name is used twice, so removing a file can never hit that of another holder, however late the
call is carried out. Nothing is fsynced: an NFS server answers when a name is on its disk, and on a
local disk a crash ends the holders as well.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Callable, NamedTuple, TypeVar

from ..errors import failure
from ..layout import LEASES, LeaseName, lease_of, mtime_of
from ..opening import with_open
from .coherence import NO_NAMES, Coherence, Listed
from .descriptors import set_mode
from .files import WRITE_FLAGS, Files
from .seen import Contains

T = TypeVar("T")
# Errors of file systems without symbolic links, or with shorter ones; EINVAL on Windows.
_NO_LINKS = (
    *(errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL),
    errno.ENAMETOOLONG,
)
States = dict[LeaseName, frozenset[str]]
"""Leases, and the files of each: all change with each renewal."""


class LeaseTimes(NamedTuple):
    """When a lease was made and last renewed, in ns by the server's clock, and its files."""

    made: int
    renewed: int
    paths: list[str]


class LeaseFiles:
    """The lease files of one store. Safe for threads."""

    def __init__(self, rules: Coherence, files: Files) -> None:
        self._rules = rules
        self._files = files
        self.directory = f"{files.directory}/{LEASES}"
        # The last listing; NO_NAMES while a change could leave the stamp the same.
        self._known = NO_NAMES

    def _path(self, name: str) -> str:
        return f"{self.directory}/{name}"

    def look(self, hexdigest: str = "", strict: bool = True) -> States:
        """The leases of the key with this digest, or of all keys, that are there by the server's
        word. If ``strict``, one that is there during the whole call is among them.

        One GETATTR if nothing has changed since the last look, else two listings more, or one.
        """
        return _states(name for name in self._names(strict) if name.startswith(hexdigest))

    def _names(self, strict: bool) -> list[str]:
        begun = self._rules.clock.lower_bound()
        found = self._asked(lambda path: self._rules.names(path, self._known, strict), NO_NAMES)
        if strict:
            self._known = found if self._rules.settles(max(found[0]), begun) else NO_NAMES
        return found[1]

    def _asked(self, call: Callable[[str], T], none: T) -> T:
        """The call's result for the directory; ``none`` if there is none, by the server's word."""
        for _ in range(2):
            try:
                return self._rules.retry_stale(call, self.directory)
            except FileNotFoundError:
                if self._rules.may_contain(self._files.directory, LEASES) is not Contains.MAYBE:
                    break
        return none

    def times(self) -> dict[LeaseName, LeaseTimes]:
        """When each lease was made and last renewed."""
        times: dict[LeaseName, LeaseTimes] = {}
        none: Listed = (0, 0, [])
        for name, mode, signature, renewed in self._asked(self._rules.list_twice, none)[2]:
            lease = lease_of(name)
            if lease and mode:  # 0 if its attributes can't be told
                one = LeaseTimes(mtime_of(signature), renewed, [self._path(name)])
                self._rules.clock.observe(one.renewed)
                other = times.get(lease[0], one)
                times[lease[0]] = LeaseTimes(
                    min(one.made, other.made),
                    max(one.renewed, other.renewed),
                    sorted({*one.paths, *other.paths}),
                )
        return times

    def outlived(self, moment_ns: int, grace: float) -> list[str]:
        """Paths of the files of leases that weren't renewed for ``grace`` seconds until this
        moment, nor for twice their durations."""
        return [
            path
            for lease, (_, renewed, paths) in self.times().items()
            if moment_ns - renewed > max(int(grace * 1e9), 2 * lease.duration_ms * 1_000_000)
            for path in paths
        ]

    def contents(self, leases: Sequence[LeaseName]) -> list[bytes]:
        """What the holders wrote; nothing for one that is gone or can't be read."""
        return [self._content(self._path(str(lease))) for lease in leases]

    def _content(self, path: str) -> bytes:
        try:
            return os.fsencode(self._rules.retry_stale(os.readlink, path))
        except OSError as error:
            if error.errno != errno.EINVAL:
                return b""
        [found] = self._files.read_paths([path])  # it isn't a link
        return bytes(found[0]) if isinstance(found, tuple) else b""

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Have an error name the directory alone: what the files in it are called, and what is in
        them, says nothing to people."""
        try:
            yield
        except OSError as error:
            raise failure(error.errno or errno.EIO, self.directory) from error

    def create(self, lease: LeaseName, content: bytes) -> None:
        """Make the file of this new lease, and the directory if need be. OSError if that fails."""
        with self._told():
            try:
                self._make(str(lease), content)
            except FileNotFoundError:
                self._files.make_directory(self.directory)
                self._make(str(lease), content)

    def _make(self, name: str, content: bytes) -> None:
        if os.name == "nt":  # making links is a privilege there
            self._write(name, content)
            return
        try:
            self._rules.retry_stale(
                lambda path: os.symlink(os.fsdecode(content), path), self._path(name)
            )
        except FileExistsError:
            pass  # our own call was carried out, and its reply lost: nobody else has the name
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            self._write(name, content)

    def _write(self, name: str, content: bytes) -> None:
        mode = self._files.mode
        flags, bits = WRITE_FLAGS, 0o666 if mode is None else mode

        def write(descriptor: int) -> None:
            if mode is not None:
                set_mode(descriptor, mode)
            os.write(descriptor, content)

        self._rules.retry_stale(lambda path: with_open(path, flags, write, bits), self._path(name))

    def renew(self, olds: Sequence[str], new: str) -> None:
        """Rename one of these files, the last one that is there, to a name that is new.

        The first is made if none is there: at the first renewal, or if the reply to an earlier
        rename was lost. A rename, as no client answers that by itself: when it returns, the server
        has done it. OSError if it may not have.
        """
        path = self._path(new)
        with self._told():
            for old in reversed(olds):
                try:
                    self._rules.retry_stale(lambda old: os.rename(old, path), self._path(old))
                    return
                except FileNotFoundError:
                    pass
            self._write(olds[0], b"")
            os.rename(self._path(olds[0]), path)

    def rename(self, old: str, new: str) -> None:
        """Rename a file of one's own to a new name of one's own. OSError if that fails."""
        path = self._path(new)
        with self._told():
            self._rules.retry_stale(lambda old: os.rename(old, path), self._path(old))

    def remove(self, names: Iterable[str]) -> None:
        """Remove these files. OSError, after all were tried, if one may still be there."""
        failed = None
        for name in names:
            try:
                self._rules.retry_stale(self._files.sweep, self._path(name))
            except OSError as error:
                failed = error
        with self._told():
            if failed:
                raise failed


def _states(names: Iterable[str]) -> States:
    files: dict[LeaseName, set[str]] = {}
    for name in names:
        lease = lease_of(name)
        if lease:
            files.setdefault(lease[0], set()).add(name)
    return {lease: frozenset(of_it) for lease, of_it in files.items()}
