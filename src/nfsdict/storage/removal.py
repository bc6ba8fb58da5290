"""Removal: value files removed, each only if it is still the file that was looked at.

No call of a file system removes a name on condition that it still has a certain file. Between a
look and an unlink another host can put a new value there, and the unlink would remove that. So each
file first gets a private name, which nobody else uses; then it is looked at again, and is removed,
or given back. That costs an NFS server two calls for each file, RENAME and REMOVE, and a listing
for all of them, where one unlink each would lose values.
"""

from __future__ import annotations

import enum
import errno
import os
from collections.abc import Iterable, Mapping
from typing import Union

from ..errors import failure
from ..layout import UNKNOWN, same_but_for_ctime, signature_of
from ..opening import with_open
from .coherence import Coherence
from .directories import READ_FLAGS
from .exclusive import Exclusive
from .file_systems import Lookup
from .files import Files
from .values import ValueFiles


class Fate(enum.Enum):
    """What became of a file that was to be removed."""

    REMOVED = enum.auto()
    REPLACED = enum.auto()
    """it was another one by then, and is back under its name"""
    GONE = enum.auto()
    """somebody else has removed it"""


Fates = dict[str, Union[Fate, OSError]]
"""By digest. After an OSError the file is under its name as before, or has a private name, from
where ``repair`` gives it back."""


class Removal:
    """Removes value files that are as they were looked at. Safe for threads."""

    def __init__(
        self, rules: Coherence, files: Files, values: ValueFiles, exclusive: Exclusive
    ) -> None:
        self._rules = rules
        self._files = files
        self._values = values
        self._exclusive = exclusive

    def remove_unchanged(self, shard: str, signatures: Mapping[str, bytes], fates: Fates) -> None:
        """Remove, durably, the files of this shard that still have these signatures, by digest.

        The caller knows that a file written later has another signature: see ``RACY_WINDOW_NS``.
        The ctime doesn't count, as a rename sets it.

        What was replaced since the look is without its name from its rename until it is given back,
        for as long as this call takes. Meanwhile others find no such key, and an ``add`` wins, or a
        put counts, and then what was replaced isn't given back.

        ``fates`` gets what became of each file, also if an exception, as of a signal's handler,
        ends this: then the files that have got private names are removed or given back before it
        goes on. If a second one comes meanwhile, or the process is killed, ``repair`` gives back
        what has such a name.
        """
        private = {name: self._values.private_path_of(name) for name in signatures}
        try:
            for name, path in private.items():
                try:
                    if not self._exclusive.take(name, path):
                        fates[name] = Fate.GONE
                except OSError as error:
                    fates[name] = error
        finally:
            try:
                self._finish(shard, signatures, private, fates)
            except BaseException:
                self._finish(shard, signatures, private, fates)  # those that are left
                raise

    def _finish(
        self, shard: str, signatures: Mapping[str, bytes], private: dict[str, str], fates: Fates
    ) -> None:
        """Remove the files with private names that are the ones that were looked at, and give back
        the others."""
        try:
            now = self._signatures(shard, private.values())
        except OSError as error:  # then all are given back
            now = dict.fromkeys(private.values(), error)
        for name, path in private.items():
            if path not in now:
                continue
            try:
                found = now[path]
                if isinstance(found, bytes) and same_but_for_ctime(found, signatures[name]):
                    self._rules.retry_stale(self._files.remove, path)
                    fates[name] = Fate.REMOVED
                elif self._exclusive.give_back(path):
                    fates[name] = found if isinstance(found, OSError) else Fate.REPLACED
            except FileNotFoundError:
                fates[name] = Fate.GONE  # another process's ``repair`` gave it back
            except OSError as error:
                fates[name] = error
        directory = os.path.dirname(self._values.path_of(shard))
        removed = [(name, directory) for name, fate in fates.items() if fate is Fate.REMOVED]
        fates.update(self._files.sync_parents(removed))

    def _signatures(self, shard: str, paths: Iterable[str]) -> dict[str, bytes | OSError]:
        """The signatures of those of these files that are there, by the server's word, or errors.

        The client goes on with what it remembered of the name before the rename: see ``coherence``.
        Where a listing doesn't bring the server's attributes, each file is opened.
        """
        directory = os.path.dirname(self._values.path_of(shard))
        listed = {f"{directory}/{name}": one for name, _, one, _ in self._rules.list(directory)[2]}
        there = [path for path in paths if path in listed]
        if not self._rules.mounted.lists_signatures():
            inodes = self._rules.inodes(directory)
            return {path: self._opened(path, inodes.get(os.path.basename(path))) for path in there}
        return {
            path: failure(errno.EIO, path) if listed[path] == UNKNOWN else listed[path]
            for path in there
        }

    def _opened(self, path: str, inode: int | None) -> bytes | OSError:
        """The signature of the file under this name, or why it can't be opened. UNKNOWN, which no
        file has, if the client opens another one than the server has there: see ``coherence``."""
        if self._rules.kind.lookup is Lookup.NAME:
            self._rules.look_up_anew(path)
        try:
            if self._rules.kind.asks_by_handles:
                status = self._files.lstat(path)
            else:
                status = self._rules.retry_stale(
                    lambda path: with_open(path, READ_FLAGS, os.fstat), path
                )
        except OSError as error:
            return error
        if inode not in (None, status.st_ino):
            return UNKNOWN
        return self._rules.mounted.signed(signature_of(status))
