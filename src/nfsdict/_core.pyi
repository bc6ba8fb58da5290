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
"""As a value in the cache: the key is known, but its value isn't loaded. As the result of
``_lookup``: there is no such entry."""

SHA256_IMPLEMENTATION: Final[str]
"""Which SHA-256 runs: ``"hashlib"``, or the name of the compiled one."""

def digest(key: str, /) -> str:
    """SHA-256 of the key's UTF-8, as 64 hex digits. Lone surrogates pass (``surrogatepass``)."""

def value_path(directory: str, key: str, extension: str, /) -> str:
    """``directory/ab/ab12…`` and the extension, where ``ab12…`` is the key's digest."""

class ReadCache(Generic[_V]):
    """A dict of cached values. On a miss it calls ``_lookup`` or ``_exists`` of a subclass.

    ``_lookup`` gets any object as a key, and must itself answer that only a ``str`` has an entry.
    ``_cache`` maps each known key to its value, or to ``MISSING`` if the value isn't loaded.
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

    A stamp is (mtime, ctime). Each key has 32 bytes of signature and 4 of length, little-endian.
    Size and checksum are those of the shard's section. Raises ValueError if there are not 256
    shards, or if the keys of one don't have one signature and one length each.
    """

def parse_table(table: bytes, /) -> list[tuple[tuple[int, int], list[str], bytes, bytes, int, int]]:
    """The shards from which ``encode_table`` made this table.

    Raises ValueError for bytes that it can't have made.
    """

def split_values(section: bytes, lengths: bytes, /) -> list[bytes | None]:
    """The values in a section, by ``lengths`` of 4 bytes each; None for 0xFFFFFFFE and above.

    Raises ValueError if the lengths don't make up the section.
    """

def read_aligned(paths: list[str], /) -> list[tuple[bytes | memoryview, bytes] | int]:
    """As ``read_files``; a large content is a read-only view at an address as ``aligned`` gives."""

def read_stamps(directories: list[str], /) -> list[tuple[int, int] | int]:
    """For each directory its (mtime, ctime) in ns, by the server's word, or the errno."""

def identify(path: str, /) -> tuple[int, int] | int:
    """Device and inode of what has the path, or the errno. An NFS client isn't made to ask."""

def list_directory(
    directory: str, forget: int, /
) -> tuple[int, int, list[tuple[str, int, bytes, int]]] | int:
    """The directory's (mtime, ctime, entries) by the server's word, times in ns; or the errno.

    The times are from before the listing. Each entry is (name, mode, signature, ctime in ns), by
    lstat. If lstat fails, as for a damaged inode, mode and ctime are 0 and the signature is 32
    zeros. An entry that lstat doesn't find is left out. ESTALE, EBADF, EACCES and ENOMEM from lstat
    are errors of the whole listing. ``forget`` is how often, one time after another, an NFS client
    reads the directory anew, even if its times don't show a change; the last reading counts. With 0
    it may answer from memory.
    """

def list_changes(
    directory: str, forget: int, keys: list[str], signatures: bytes, extension: str, /
) -> tuple[int, int, list[tuple[str, int, bytes, int]], list[int]] | int:
    """As ``list_directory``, without the files that are known and the same.

    ``keys`` are known, in the order of their digests, and each has 32 bytes of ``signatures``. A
    regular file is the same if its name is a known key's digest and the extension, and its
    signature the key's. 32 zeros are no file's. Returned last are the positions of keys of which no
    file is the same, in order. Raises ValueError unless each key has one signature.
    """

def crc32(data: bytes | memoryview, checksum: int = 0, /) -> int:
    """As ``zlib.crc32``, of a contiguous buffer; other threads run meanwhile if it is large."""

def aligned(data: bytes | memoryview, /) -> memoryview:
    """These bytes as a read-only view at an address that is a multiple of 64.

    Copies them, unless they lie at such an address; those from ``read_aligned`` do if they are a
    view, or a part that begins a multiple of 64 bytes after its start.
    """

def read_files(paths: list[str], /) -> list[tuple[bytes, bytes] | int]:
    """For each path its (content, signature), or the errno that stopped it.

    ELOOP for a symlink, EISDIR for a directory, ENXIO for anything else that isn't a regular file.
    EAGAIN for a file under a lease; the call has made the system ask the holder to give it back.
    ENOMEM for a content that memory can't hold; a large one is in memory only once.
    The signature is the file's inode, size, mtime and ctime in ns, 8 bytes each, little-endian.
    """

def write_file(
    target: str,
    data: bytes | list[bytes | memoryview],
    mode: int | None,
    durable: bool,
    synced: bool,
    /,
) -> bytes | tuple[int, int]:
    """As ``write_files``, for one file, not exclusively. Returns its outcome."""

def write_files(
    files: list[tuple[str, bytes | list[bytes | memoryview]]],
    mode: int | None,
    durable: bool,
    synced: bool,
    exclusive: bool,
    /,
) -> list[bytes | tuple[int, int]]:
    """Write each (target, content) under a temporary name beside the target, and rename it.

    A content is ``bytes``, or a list of ``bytes`` and contiguous views, which are written one after
    another, uncopied.
    ``durable`` fsyncs each file; ``synced`` fsyncs each directory, once after a run of targets in
    it. The files get ``mode``, whatever the umask; None leaves it to the umask. ``exclusive`` links
    instead of renaming: EEXIST if there is a file already.

    The outcome of each is its signature, whose ctime is from before the rename or link; or (step,
    errno). Step 0: it failed before the rename or link. 1: at the rename or link. After either the
    temporary file was removed. 2: at the directory's fsync.
    """

def outlast(started: list[int], ended: list[bool], /) -> None:
    """If a thread was started, wait until it has ended, whatever signals come meanwhile.

    ``started`` has an item if there is such a thread; at its end it appends one to ``ended``. The
    compiled function looks for no signals. The one in Python drops the exceptions of their
    handlers; where each comes before the one before has been dropped, one may get through.
    """

def prepare_files(
    files: list[tuple[str, bytes | list[bytes | memoryview]]],
    made: list[tuple[str, bytes] | int],
    mode: int | None,
    durable: bool,
    /,
) -> None:
    """The first part of ``write_files``: write each (target, content) under a temporary name.

    Appends to ``made`` for each its temporary path beside the target and its signature, or the
    errno; then there is no file. The caller publishes the files or removes them, also after an
    exception, which a signal handler may raise when some were made.
    """

def publish_files(files: list[tuple[str, str]], synced: bool, /) -> list[tuple[int, int] | None]:
    """The second part of ``write_files``: rename each (temporary path, target) in one directory.

    For each None, or (step, errno) as of ``write_files``.
    """
