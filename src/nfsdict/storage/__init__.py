"""Storage: the files of a store. Only it and the core call the operating system about them."""

from __future__ import annotations

import errno

from ..errors import failure
from .claims import Claims
from .coherence import Coherence
from .exclusive import Exclusive
from .files import Files
from .index_files import IndexFiles
from .lease_files import LeaseFiles
from .neighbours import may_be_store
from .removal import Removal
from .shards import Shards
from .values import ValueFiles


class Storage:
    """One store on disk: puts the parts of this package together. Safe for threads.

    Args:
        directory: the store's directory, absolute.
        extension: the end of the value files' names, given by the serializer.
        mode: permission bits for files; None leaves them to the umask.
        durable: whether a change survives a power cut (fsync of file and directory).
        aligned: whether large files are read by the core's ``read_aligned``.
        trust_stamps: whether the clocks of all clients are kept, see ``file_systems.Stamps``.
    """

    def __init__(
        self,
        directory: str,
        extension: str,
        mode: int | None,
        durable: bool,
        aligned: bool = False,
        trust_stamps: bool = False,
    ) -> None:
        self.directory = directory
        self.extension = extension
        self.rules = Coherence(directory, trust_stamps)
        self.counters = self.rules.counters
        self.files = Files(self.rules, directory, mode, durable, aligned)
        self.values = ValueFiles(self.rules, self.files, extension)
        self.shards = Shards(self.rules, self.files, extension)
        claims = Claims(self.rules, self.files)
        self.exclusive = Exclusive(self.rules, self.files, self.values, claims)
        self.removal = Removal(self.rules, self.files, self.values, self.exclusive)
        self.leases = LeaseFiles(self.rules, self.files)
        self.index = IndexFiles(self.rules, self.files, claims, extension)

    def calls_sent(self) -> int | None:
        """The calls to the server so far; None if it is no NFS mount. See ``mountstats``."""
        return self.rules.mounted.calls_sent()

    def check(self, any_directory: bool = True) -> None:
        """FileNotFoundError or NotADirectoryError unless the store's directory is there.

        Without ``any_directory``, FileNotFoundError too if it has files, and none of a store.
        """
        self.shards.find_root(whole_path=True)
        self.files.check_directory()
        if not any_directory and not may_be_store(self.directory):
            raise failure(errno.ENOENT, self.directory)

    def missing(self) -> list[str]:
        """The store's directory and its parents, as far as they aren't there, for ``create``."""
        self.shards.find_root(whole_path=True)
        return self.files.missing()

    def create(self, missing: list[str]) -> None:
        """Make these directories. NotADirectoryError if a file is in the way."""
        self.files.create(missing)
        if self.shards.root is None:
            self.shards.find_root()
