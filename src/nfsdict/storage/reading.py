"""Value files that are looked for and read, by digest, by the server's word."""

from __future__ import annotations

import errno
import stat
from collections.abc import Iterable

from ..errors import failure
from ..layout import private_path, same_but_for_ctime, signature_of
from .coherence import Coherence
from .directories import forget_content
from .files import Files, Found
from .passing import TRIES
from .seen import Contains, Known

# What opening one of these says, as the core does it: without following links.
_IN_ITS_PLACE = {stat.S_IFLNK: errno.ELOOP, stat.S_IFDIR: errno.EISDIR}


class ValueReader:
    """Looks for value files. Safe for threads."""

    def __init__(self, rules: Coherence, files: Files, extension: str) -> None:
        self._rules = rules
        self._files = files
        self.directory = files.directory
        """the store's directory"""
        self.extension = extension

    def path_of(self, hexdigest: str) -> str:
        """The path of the value file of the key with this digest, whether it exists or not."""
        return f"{self.directory}/{hexdigest[:2]}/{hexdigest}{self.extension}"

    def private_path_of(self, hexdigest: str) -> str:
        """A new private path, in the shard of this digest, for its whole value file.

        ``repair`` gives back files under such paths, if its dictionary has the same extension.
        """
        return private_path(self.path_of(hexdigest))

    def read_many(self, hexdigests: Iterable[str]) -> list[Found | OSError | None]:
        """Each file's content; see ``Files.read_paths``."""
        return self._files.read_paths([self.path_of(hexdigest) for hexdigest in hexdigests])

    def find(self, hexdigest: str, fresh: bool = False) -> Found | None:
        """The content of this digest's file; None if there is none, by the server's word.

        The directory is revalidated after a miss. With ``fresh`` it is revalidated first: otherwise
        the client of NFSv4.1 and later may open a file that another host has unlinked.
        """
        path = self.path_of(hexdigest)
        there = Contains.UNREAD
        if fresh:
            there = self._rules.parent_may_contain(path, Known.NOTHING)
        if there is Contains.NO:
            return None
        [content] = self._files.read_paths([path])
        if content is None and there is Contains.UNREAD and self._rules.revalidate_parent(path):
            [content] = self._files.read_paths([path])
        if fresh and self._rules.kind.lingers and not self._rules.kind.asks_by_handles:
            # A client of which nothing is known may read by another process's handle: ``handles``.
            for _ in range(TRIES):
                now = self.look(hexdigest)
                if now is None:
                    return None
                if not isinstance(content, tuple) or same_but_for_ctime(content[1], now):
                    break
                [content] = self._files.read_paths([path])
        if isinstance(content, OSError):
            raise content
        return content

    def look(self, hexdigest: str) -> bytes | None:
        """The signature of this digest's file; None if there is none. OSError, as of reading it, if
        something else has its place: nobody knows what became of the file.

        The directory is revalidated first: otherwise lstat can answer from the attribute cache for
        a file that is gone. Over NFS it is read as well, once for each change in it.
        """
        path = self.path_of(hexdigest)
        if not self._rules.revalidate_parent(path, Known.NAMES):
            return None
        try:
            status = self._files.lstat(path)
        except FileNotFoundError:
            return None
        if not stat.S_ISREG(status.st_mode):
            raise failure(_IN_ITS_PLACE.get(stat.S_IFMT(status.st_mode), errno.ENXIO), path)
        return self._rules.mounted.signed(signature_of(status))

    def read_past_cache(self, hexdigest: str) -> Found | OSError | None:
        """The content of this digest's file, read again past what the system remembers of it.

        None if the file is gone, or if reading it again would give nothing else. On SMB a second
        opening alone gives what is there (``test_shared_defaults.py``); pages are dropped for those
        of which that isn't known.
        """
        if not self._rules.kind.caches_content:
            return None
        path = self.path_of(hexdigest)
        try:
            if not self._rules.revalidate_parent(path):
                return None
            if not self._rules.kind.asks_by_handles:
                forget_content(path)
            return self._files.read_paths([path])[0]
        except OSError as error:
            return None if error.errno == errno.ENOENT else error

    @property
    def sure_of_content(self) -> bool:
        """Whether a file that looks damaged is: see ``read_past_cache``."""
        return self._rules.kind.rereads or not self._rules.kind.caches_content

    def lies_there(self, path: str) -> Found | OSError | None:
        """The file's content; None if it doesn't exist, by the server's word; or the error."""
        try:
            found = self._rules.revalidate_parent(path)
            return self._files.read_paths([path])[0] if found else None
        except OSError as error:  # of a directory
            return error
