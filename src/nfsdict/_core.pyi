"""The core: what is called once for each key or each file.

Two twins meet this contract: ``nfsdict._core``, compiled, and ``nfsdict._pure``.
Import from ``nfsdict.core``, which gives the one that runs.
"""

from types import GenericAlias
from typing import Any, Final, Generic, TypeVar, overload

from typing_extensions import Self

_V = TypeVar("_V")
_T = TypeVar("_T")

class Missing: ...

MISSING: Final[Missing]
"""In the cache: the key is known, its value not loaded. From ``_lookup``: no such entry."""

SHA256_IMPLEMENTATION: Final[str]
"""Which SHA-256 runs: ``"hashlib"``, or the name of the compiled one."""

def digest(key: str, /) -> str:
    """SHA-256 of the key's UTF-8 (lone surrogates passed), as 64 hex digits."""

def value_path(directory: str, key: str, extension: str, /) -> str:
    """``directory/ab/ab12…`` and the extension, where ``ab12…`` is the key's digest."""

class ReadCache(Generic[_V]):
    """A dict of cached values whose misses go to two methods that a subclass gives.

    Those get any object that is asked for: that no key but a ``str`` has an entry is theirs to say.
    ``_cache`` maps each known key to its value, or to ``MISSING`` when it isn't loaded.
    A hit is one dict lookup and no call into Python.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Self: ...
    @property
    def _cache(self) -> dict[str, Any]: ...
    def __class_getitem__(cls, item: Any, /) -> GenericAlias: ...
    def __getitem__(self, key: str, /) -> _V: ...
    @overload
    def get(self, key: str, default: None = None, *, fresh: bool = False) -> _V | None: ...
    @overload
    def get(self, key: str, default: _V, *, fresh: bool = False) -> _V: ...
    @overload
    def get(self, key: str, default: _T, *, fresh: bool = False) -> _V | _T: ...
    def __contains__(self, key: object, /) -> bool: ...
    def _lookup(self, key: str, fresh: bool, /) -> Any:
        """The value of a key that the cache can't answer, or ``MISSING``."""

    def _exists(self, key: str, /) -> bool:
        """Whether a key that the cache doesn't know has an entry."""

def encode_table(
    shards: list[tuple[tuple[int, int], list[str], bytes, bytes, int, int]], /
) -> bytes:
    """A pack's table of 256 shards, each (stamp, keys, signatures, lengths, size, checksum).

    A stamp is (mtime, ctime). For each key 32 bytes of signature and 4 of length, little-endian.
    Size and checksum are those of the shard's section. Raises ValueError if there are not 256
    shards, or not one of each for a key.
    """

def parse_table(table: bytes, /) -> list[tuple[tuple[int, int], list[str], bytes, bytes, int, int]]:
    """What ``encode_table`` was given. Raises ValueError for bytes that it can't have made."""

def split_values(section: bytes, lengths: bytes, /) -> list[bytes | None]:
    """The values in a section, by ``lengths`` of 4 bytes each; None for 0xFFFFFFFE and above.

    Raises ValueError if the lengths don't make up the section.
    """

def read_stamps(directories: list[str], /) -> list[tuple[int, int] | int]:
    """For each directory its (mtime, ctime) in ns, by the server's word, or the errno."""

def list_directory(
    directory: str, forget: bool, /
) -> tuple[int, int, list[tuple[str, int, bytes, int]]] | int:
    """What is in it, by the server's word, or the errno: (mtime, ctime, entries), in ns.

    Each entry is (name, mode, signature, ctime in ns), by lstat; the times are from before. One
    whose lstat fails, as with a damaged inode, has a mode of 0, a ctime of 0 and a signature of 24
    zeros; one that lstat doesn't find is none. ESTALE, EBADF, EACCES and ENOMEM from lstat are
    errors of the whole listing. With ``forget`` an NFS client reads the directory anew, even if its
    times don't show a change.
    """

def read_files(paths: list[str], /) -> list[tuple[bytes, bytes] | int]:
    """For each path its (content, signature), or the errno that stopped it.

    A symlink is ELOOP, a directory EISDIR, any other that isn't a regular file ENXIO. A file under
    a lease is EAGAIN, and its holder has been asked to give it back.
    The signature is the file's inode, size, mtime and ctime in ns, 8 bytes each, little-endian.
    A large content is in memory once, and one that memory can't hold is ENOMEM.
    """

def write_file(
    target: str, data: bytes | list[bytes], mode: int | None, durable: bool, synced: bool, /
) -> bytes | tuple[int, int]:
    """``write_files`` for one, not exclusive."""

def write_files(
    files: list[tuple[str, bytes | list[bytes]]],
    mode: int | None,
    durable: bool,
    synced: bool,
    exclusive: bool,
    /,
) -> list[bytes | tuple[int, int]]:
    """Write each (target, content) under a temporary name beside it, and rename it.

    A content is ``bytes``, or a list of them that are written one after another, uncopied.
    ``durable`` fsyncs each file; ``synced`` fsyncs each directory, once after a run of targets in
    it. ``mode`` is given against the umask, None leaves it to the umask. ``exclusive`` links
    instead of renaming, which is EEXIST where there is a file already. The outcome is the
    signature, whose ctime is that from before the file got its name, or (step, errno): step 0
    before the rename, 1 at the rename or link, after either the temporary file was removed; 2 at
    the directory's fsync.
    """
