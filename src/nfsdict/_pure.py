"""The core in pure Python, for PyPy and machines without a compiler. Twin of ``nfsdict._core``.

The contract of both is ``_core.pyi``.
"""

from __future__ import annotations

import errno
import hashlib
import io
import mmap
import os
import stat
import struct
import time
import zlib
from collections.abc import Iterable
from contextlib import suppress
from itertools import groupby
from types import GenericAlias
from typing import Any, Callable, Generic, TypeVar

from .opening import Opened, with_open

_C = TypeVar("_C")
_V = TypeVar("_V")

_READ_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_BINARY", 0)
)
# No O_EXCL: it costs NFSv4 a SETATTR, and a name with 96 random bits needs none.
_WRITE_FLAGS = (
    os.O_WRONLY
    | os.O_CREAT
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_BINARY", 0)
)
_DIRECTORY_FLAGS = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)
_SIGNATURE = struct.Struct("<QQqq")
_SHARD_HEADER = struct.Struct("<qqIQQI")
_SHARDS = 256
_ENTRY = _SIGNATURE.size + 8
_ABSENT = 0xFFFFFFFE
_UNKNOWN = bytes(_SIGNATURE.size)
# Errors of lstat that concern the whole directory, so that no entry can be read: it was replaced,
# it may not be searched, or the system has run out of something. Others concern one entry, such as
# one with a damaged inode.
_CONCERNS_ALL = (errno.ESTALE, errno.EBADF, errno.EACCES, errno.ENOMEM)
_WRITING, _PUBLISHING, _SYNCING = range(3)
_LAST = (1 << 63) - 1
_NANOSECONDS = _LAST - _LAST % 1_000_000_000
_CHUNK = 1 << 30  # read() and write() move less than 2 GiB at once
_PAUSE = 0.0005  # seconds
_LARGE = 1 << 20  # from this size on, a content is read into room of its own
_ALIGNMENT = 64
_PARTS = 16  # for one writev: POSIX promises these (_XOPEN_IOV_MAX), Linux and macOS take 1024


class Missing:
    """The type of ``MISSING``, so that a traceback or a debugger shows a name."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "MISSING"


MISSING = Missing()
SHA256_IMPLEMENTATION = "hashlib"


def digest(key: str, /) -> str:
    if not isinstance(key, str):
        raise TypeError(f"keys are str, not {type(key).__name__}")
    return hashlib.sha256(str.encode(key, "utf-8", "surrogatepass")).hexdigest()


def value_path(directory: str, key: str, extension: str, /) -> str:
    for text, name in ((directory, "directory"), (extension, "extension")):
        if not isinstance(text, str):
            raise TypeError(f"{name} is a str, not {type(text).__name__}")
    name = digest(key)
    return f"{directory}/{name[:2]}/{name}{extension}"


class ReadCache(Generic[_V]):
    """The reading methods of ``NfsDict``: reading a cached value is one lookup in a dict."""

    __slots__ = ("_cache",)

    _cache: dict[str, Any]

    __class_getitem__ = classmethod(GenericAlias)  # type: ignore[var-annotated]

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        self = super().__new__(cls)
        self._cache = {}
        return self

    def __getitem__(self, key: str, /) -> _V:
        value = self._cache.get(key, MISSING)
        if value is MISSING:
            value = self._lookup(key, False)
            if value is MISSING:
                raise KeyError(key)
        return value  # type: ignore[no-any-return]

    def get(self, key: str, default: Any = None, *, fresh: bool = False) -> Any:
        """The entry's value, or ``default`` if there is none.

        A cached value is returned without a system call, whatever others wrote since. With
        ``fresh`` the call asks the disk, whatever the cache and an NFS client remember: it sees
        what any host had finished writing before it. CorruptValueError if the file is damaged;
        OSError if it can't be told whether there is an entry.
        """
        value = MISSING if fresh else self._cache.get(key, MISSING)
        if value is MISSING:
            value = self._lookup(key, bool(fresh))
        return default if value is MISSING else value

    def __contains__(self, key: object, /) -> bool:
        if not isinstance(key, str):
            return False
        return key in self._cache or self._exists(key)

    def _lookup(self, key: str, fresh: bool, /) -> Any:
        raise NotImplementedError

    def _exists(self, key: str, /) -> bool:
        raise NotImplementedError


def encode_table(
    shards: list[tuple[tuple[int, int], list[str], bytes, bytes, int, int]], /
) -> bytes:
    if len(shards) != _SHARDS:
        raise ValueError(f"a table has {_SHARDS} shards, not {len(shards)}")
    parts: list[bytes] = []
    for stamp, keys, signatures, lengths, size, checksum in shards:
        if not (0 <= size < 1 << 64 and 0 <= checksum < 1 << 32):
            raise OverflowError("a size has 64 bits, a checksum 32")
        mtime, ctime = stamp
        if not all(-1 << 63 <= time < 1 << 63 for time in stamp):
            raise OverflowError("a time has 64 bits, one of them the sign")
        if len(signatures) != _SIGNATURE.size * len(keys) or len(lengths) != 4 * len(keys):
            raise ValueError("a signature and a length for each key, and no more")
        encoded = []
        for key in keys:
            if not isinstance(key, str):
                raise TypeError(f"keys are str, not {type(key).__name__}")
            encoded.append(str.encode(key, "utf-8", "surrogatepass"))
        text = b"".join(encoded)
        parts += (
            _SHARD_HEADER.pack(mtime, ctime, len(keys), len(text), size, checksum),
            signatures,
            lengths,
            struct.pack(f"<{len(keys)}I", *map(len, encoded)),
            text,
        )
    return b"".join(parts)


def parse_table(table: bytes, /) -> list[tuple[tuple[int, int], list[str], bytes, bytes, int, int]]:
    if not isinstance(table, bytes):
        raise TypeError(f"a table is bytes, not {type(table).__name__}")
    shards = []
    at = 0
    for _ in range(_SHARDS):
        if len(table) - at < _SHARD_HEADER.size:
            raise ValueError("table cut short")
        mtime, ctime, count, text, size, checksum = _SHARD_HEADER.unpack_from(table, at)
        at += _SHARD_HEADER.size
        if len(table) - at < _ENTRY * count + text:
            raise ValueError("table cut short")
        signatures = table[at : at + _SIGNATURE.size * count]
        at += len(signatures)
        lengths = table[at : at + 4 * count]
        at += len(lengths)
        key_lengths = struct.unpack_from(f"<{count}I", table, at)
        at += 4 * count
        end = at + text
        keys = []
        for length in key_lengths:
            if length > end - at:
                raise ValueError("a key runs past its shard")
            keys.append(table[at : at + length].decode("utf-8", "surrogatepass"))
            at += length
        if at != end:
            raise ValueError("bytes left over in a shard")
        shards.append(((mtime, ctime), keys, signatures, lengths, size, checksum))
    if at != len(table):
        raise ValueError("bytes left over in the table")
    return shards


def split_values(section: bytes, lengths: bytes, /) -> list[bytes | None]:
    for data, name in ((section, "section"), (lengths, "lengths")):
        if not isinstance(data, bytes):
            raise TypeError(f"{name} is bytes, not {type(data).__name__}")
    if len(lengths) % 4:
        raise ValueError("lengths cut short")
    values: list[bytes | None] = []
    at = 0
    for length in struct.unpack(f"<{len(lengths) // 4}I", lengths):
        if length >= _ABSENT:
            values.append(None)
            continue
        if length > len(section) - at:
            raise ValueError("a value runs past its section")
        values.append(section[at : at + length])
        at += length
    if at != len(section):
        raise ValueError("bytes left over in a section")
    return values


def _sign(status: os.stat_result) -> bytes:
    return _SIGNATURE.pack(status.st_ino, status.st_size, *_times(status))


def _moment(nanoseconds: int) -> int:
    """A time before 1678 or after 2262 doesn't fit into 64 bits: the latest one that fits stands
    for it. That lies ahead of every clock, so it proves nothing. Anybody may give a file such a
    time."""
    return nanoseconds if -_NANOSECONDS <= nanoseconds < _NANOSECONDS else _LAST


def _times(status: os.stat_result) -> tuple[int, int]:
    return _moment(status.st_mtime_ns), _moment(status.st_ctime_ns)


def crc32(data: bytes | memoryview, checksum: int = 0, /) -> int:
    return zlib.crc32(data, checksum)


def aligned(data: bytes | memoryview, /) -> memoryview:
    view = memoryview(data)
    # What this module has aligned lies in a bytearray or in mapped memory.
    if not isinstance(view.obj, bytes):
        return view.toreadonly()
    import ctypes  # takes long, and few need it

    room = bytearray(view.nbytes + _ALIGNMENT - 1)
    start = -ctypes.addressof(ctypes.c_char.from_buffer(room)) % _ALIGNMENT
    part = memoryview(room)[start : start + view.nbytes]
    part[:] = view
    return part.toreadonly()


def read_files(paths: list[str], /) -> list[tuple[bytes, bytes] | int]:
    return [_read_file(path, _read_all) for path in paths]


def read_aligned(paths: list[str], /) -> list[tuple[bytes | memoryview, bytes] | int]:
    return [_read_file(path, _read_all_aligned) for path in paths]


def _read_file(path: str, read_all: Callable[[int, int], _C]) -> tuple[_C, bytes] | int:
    def read(descriptor: int) -> tuple[_C, bytes] | int:
        status = os.fstat(descriptor)
        # Only regular files are value files; O_NONBLOCK kept a FIFO from blocking the open.
        if not stat.S_ISREG(status.st_mode):
            return errno.EISDIR if stat.S_ISDIR(status.st_mode) else errno.ENXIO
        return read_all(descriptor, status.st_size), _sign(status)

    try:
        return with_open(path, _READ_FLAGS, read)
    except OSError as error:
        return error.errno or errno.EIO
    except MemoryError:
        return errno.ENOMEM


def _read_all(descriptor: int, size: int) -> bytes:
    if size > _CHUNK:
        # A content that memory can't hold is refused here, before any of it is read.
        mmap.mmap(-1, size).close()
        with io.FileIO(descriptor, closefd=False) as file:
            return file.readall()  # one ``bytes`` from as many calls as it takes
    parts: list[bytes] = []
    while size > 0:
        part = os.read(descriptor, size)
        if not part:
            break
        parts.append(part)
        size -= len(part)
    return b"".join(parts)  # nearly always one part, which join returns uncopied


def _read_all_aligned(descriptor: int, size: int) -> bytes | memoryview:
    if size < _LARGE:
        return _read_all(descriptor, size)
    # Whole pages, so aligned; they go back to the system with the last view of them.
    if hasattr(mmap, "MAP_PRIVATE"):
        room = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    else:
        room = mmap.mmap(-1, size)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # only a hint: the faults of small pages cost as much as reading
            room.madvise(mmap.MADV_HUGEPAGE)
    view = memoryview(room)
    done = 0
    with io.FileIO(descriptor, closefd=False) as file:
        while done < size:
            count = file.readinto(view[done : done + _CHUNK])
            if not count:
                break
            done += count
    return view[:done].toreadonly()


def read_stamps(directories: list[str], /) -> list[tuple[int, int] | int]:
    return [_read_stamp(_text(directory)) for directory in directories]


def _text(path: str) -> str:
    if not isinstance(path, str):
        raise TypeError(f"paths are str, not {type(path).__name__}")
    return path


def _read_stamp(directory: str) -> tuple[int, int] | int:
    try:
        if not hasattr(os, "O_DIRECTORY"):
            status = os.stat(directory)
            if not stat.S_ISDIR(status.st_mode):
                return errno.ENOTDIR
            return _times(status)
        # Opening a directory revalidates it (close-to-open consistency, nfs(5)).
        status = with_open(directory, _DIRECTORY_FLAGS, os.fstat)
    except OSError as error:
        return error.errno or errno.EIO
    return _times(status)


def identify(path: str, /) -> tuple[int, int] | int:
    try:
        status = os.stat(_text(path))  # there is no statx, so an NFS client may ask its server
    except OSError as error:
        return error.errno or errno.EIO
    return status.st_dev, status.st_ino


def list_directory(
    directory: str, forget: int, /
) -> tuple[int, int, list[tuple[str, int, bytes, int]]] | int:

    def attributes(descriptor: int) -> tuple[int, int, list[tuple[str, int, bytes, int]]]:
        status = os.fstat(descriptor)
        for _ in range(max(forget, 1)):
            if forget and hasattr(os, "posix_fadvise"):
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            with os.scandir(descriptor) as entries:
                found = _attributes(entries)
        return (*_times(status), found)

    _text(directory)
    try:
        if not hasattr(os, "O_DIRECTORY"):
            with os.scandir(directory) as entries:
                status = os.stat(directory)
                return (*_times(status), _attributes(entries))
        # One descriptor for times and names: each opening costs NFS a GETATTR.
        return with_open(directory, _DIRECTORY_FLAGS, attributes)
    except OSError as error:
        return error.errno or errno.EIO


def list_changes(
    directory: str, forget: int, keys: list[str], signatures: bytes, extension: str, /
) -> tuple[int, int, list[tuple[str, int, bytes, int]], list[int]] | int:
    if len(signatures) != _SIGNATURE.size * len(keys):
        raise ValueError("a signature for each key, and no more")
    positions = {digest(key) + _text(extension): position for position, key in enumerate(keys)}
    found = list_directory(directory, forget)
    if isinstance(found, int):
        return found
    mtime, ctime, listed = found
    others = dict.fromkeys(positions.values())
    entries = []
    for entry in listed:
        name, mode, signature, _ = entry
        position = positions.get(name)
        if position is not None and stat.S_ISREG(mode):
            start = _SIGNATURE.size * position
            if signatures[start : start + _SIGNATURE.size] == signature:
                others.pop(position, None)
                continue
        entries.append(entry)
    return mtime, ctime, entries, list(others)


def _attributes(entries: Iterable[os.DirEntry[str]]) -> list[tuple[str, int, bytes, int]]:
    found = []
    for entry in entries:
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno in _CONCERNS_ALL:
                raise
            found.append((entry.name, 0, _UNKNOWN, 0))
            continue
        found.append((entry.name, status.st_mode, _sign(status), _moment(status.st_ctime_ns)))
    return found


def write_file(
    target: str,
    data: bytes | list[bytes | memoryview],
    mode: int | None,
    durable: bool,
    synced: bool,
    /,
) -> bytes | tuple[int, int]:
    [outcome] = write_files([(target, data)], mode, durable, synced, False)
    return outcome


def write_files(
    files: list[tuple[str, bytes | list[bytes | memoryview]]],
    mode: int | None,
    durable: bool,
    synced: bool,
    exclusive: bool,
    /,
) -> list[bytes | tuple[int, int]]:
    outcomes: list[bytes | tuple[int, int]] = []
    contents = [(target, _parts(data)) for target, data in files]
    for directory, run in groupby(contents, lambda file: os.path.dirname(file[0])):
        written = [_write_file(target, parts, mode, durable, exclusive) for target, parts in run]
        if synced and any(isinstance(outcome, bytes) for outcome in written):
            error = _sync_directory(directory)
            if error:
                written = [
                    (_SYNCING, error) if isinstance(outcome, bytes) else outcome
                    for outcome in written
                ]
        outcomes += written
    return outcomes


def _parts(data: bytes | list[bytes | memoryview]) -> list[memoryview]:
    parts = [data] if isinstance(data, bytes) else data
    if not isinstance(parts, list) or not all(
        isinstance(part, (bytes, memoryview)) for part in parts
    ):
        raise TypeError("a file's content is bytes, or a list of bytes and memoryviews")
    views = [memoryview(part) for part in parts]
    if not all(view.c_contiguous for view in views):
        raise BufferError("a view of a file's content must be contiguous")
    return [view.cast("B") for view in views if view.nbytes]


def prepare_files(
    files: list[tuple[str, bytes | list[bytes | memoryview]]],
    made: list[tuple[str, bytes] | int],
    mode: int | None,
    durable: bool,
    /,
) -> None:
    if not isinstance(made, list):
        raise TypeError(f"made is a list, not {type(made).__name__}")
    for target, parts in [(target, _parts(data)) for target, data in files]:
        prepared: list[str] = []
        try:
            made.append(_prepare_file(target, parts, mode, durable, prepared))
        except BaseException:
            for temporary in prepared:
                _discard(temporary)
            raise


def publish_files(files: list[tuple[str, str]], synced: bool, /) -> list[tuple[int, int] | None]:
    outcomes: list[tuple[int, int] | None] = []
    paths = [(_text(temporary), _text(target)) for temporary, target in files]
    for directory, run in groupby(paths, lambda file: os.path.dirname(file[1])):
        published = [_publish_file(temporary, target, None) for temporary, target in run]
        if synced and None in published:
            error = _sync_directory(directory)
            if error:
                published = [outcome or (_SYNCING, error) for outcome in published]
        outcomes += published
    return outcomes


def _write_file(
    target: str, parts: list[memoryview], mode: int | None, durable: bool, exclusive: bool
) -> bytes | tuple[int, int]:
    prepared: list[str] = []
    try:
        outcome = _prepare_file(target, parts, mode, durable, prepared)
        if isinstance(outcome, int):
            return _WRITING, outcome
        temporary, signature = outcome
        return _publish_file(temporary, target, signature if exclusive else None) or signature
    except BaseException:
        for temporary in prepared:
            _discard(temporary)
        raise


def _prepare_file(
    target: str,
    parts: list[memoryview],
    mode: int | None,
    durable: bool,
    prepared: list[str],
) -> tuple[str, bytes] | int:
    """See ``prepare_files``. The temporary path of what was made is noted in ``prepared`` first."""
    # 96 random bits: unique over hosts, containers, processes, threads and forks.
    temporary = os.path.join(os.path.dirname(target), ".nfsdict-" + os.urandom(12).hex())
    descriptor = None
    opened = Opened()
    try:
        descriptor = opened.open(temporary, _WRITE_FLAGS, 0o666 if mode is None else mode)
        # The umask may have taken bits from open()'s mode that the caller asked for.
        if mode is not None and stat.S_IMODE(os.fstat(descriptor).st_mode) != mode:
            _set_mode(descriptor, mode)
        _write_all(descriptor, parts)
        if durable:
            os.fsync(descriptor)
        signature = _sign(os.fstat(descriptor))
        # NFS may report a failed write as late as here. Close before rename: NFSv3
        # charges a GETATTR for the other order.
        opened.close()
        prepared.append(temporary)
        return temporary, signature
    except BaseException as error:
        with suppress(OSError):  # the first error is the one to report
            opened.close()
        number = error.errno if isinstance(error, OSError) else None
        # Even if open failed, the server may have made the file, and the reply been lost.
        if descriptor is not None or number in (None, errno.EIO, errno.ETIMEDOUT):
            _discard(temporary)
        if not isinstance(error, OSError):
            raise
        return number or errno.EIO


def _set_mode(descriptor: int, mode: int) -> None:
    if hasattr(os, "fchmod"):  # Windows has no such bits
        os.fchmod(descriptor, mode)


def _publish_file(temporary: str, target: str, exclusive: bytes | None) -> tuple[int, int] | None:
    """Rename the file, or link it if its signature is given; then None, or (step, errno)."""
    try:
        if exclusive is not None:
            _link(temporary, target, exclusive)
            _discard(temporary)
        else:
            os.replace(temporary, target)
        return None
    except BaseException as error:
        _discard(temporary)
        if not isinstance(error, OSError):
            raise
        return _PUBLISHING, error.errno or errno.EIO


def _discard(temporary: str) -> None:
    try:
        os.unlink(temporary)
    except OSError:
        pass  # the first error is the one to report


def _link(temporary: str, target: str, signature: bytes) -> None:
    """Link the file to its name. FileExistsError if another file has the name.

    If the reply to the first link was lost, the repeated one gives EEXIST as well: the name then
    has our own inode, and that is a success.
    """
    try:
        os.link(temporary, target)
    except FileExistsError:
        try:
            inode = os.lstat(target).st_ino
        except OSError:
            inode = None
        if inode != _SIGNATURE.unpack(signature)[0]:
            raise


def _write_all(descriptor: int, parts: list[memoryview]) -> None:
    views = list(parts)
    while views:
        done = _writev(descriptor, views[:_PARTS])
        while views and done >= len(views[0]):
            done -= len(views.pop(0))
        if views:
            views[0] = views[0][done:]


def _writev(descriptor: int, views: list[memoryview]) -> int:
    if not hasattr(os, "writev"):  # PyPy
        return os.write(descriptor, views[0][:_CHUNK])
    return os.writev(descriptor, views)


def _sync_directory(path: str) -> int:
    try:
        with_open(path, _DIRECTORY_FLAGS, os.fsync)
    except OSError as error:
        # File systems without an fsync for directories answer with these.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP):
            return error.errno or errno.EIO
    return 0


def outlast(started: list[int], ended: list[bool], /) -> None:
    while started and not ended:
        try:  # for an exception as the inner loop turns
            while not ended:
                try:
                    time.sleep(_PAUSE)
                except BaseException:
                    pass
        except BaseException:
            pass
