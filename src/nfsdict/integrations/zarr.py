"""zarr 3: arrays and groups in a dictionary of bytes."""

from __future__ import annotations

import asyncio
import builtins
import errno
from collections.abc import AsyncIterator, Iterable

try:
    from zarr.abc.store import (
        ByteRequest,
        OffsetByteRequest,
        RangeByteRequest,
        Store,
        SuffixByteRequest,
    )
    from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype
except ImportError:
    raise ImportError(
        "nfsdict.integrations.zarr needs zarr 3.1 or newer: pip install 'nfsdict[zarr]'"
    ) from None

from ..content import size_of
from ..core import digest
from ..errors import CorruptValueError
from ..layout import file_size
from ..mapping import NfsDict
from ..parallel import in_parallel


class NfsDictStore(Store):
    """A ``zarr.abc.store.Store`` whose keys are those of an ``NfsDict``: a file for each chunk.

    Any number of processes on any number of hosts may write different chunks of an array at once,
    as with zarr's ``LocalStore``; here a chunk is also whole or not at all, durable unless the
    dictionary says otherwise, and what looks damaged is an error and never a missing chunk, which
    zarr would fill.

    Every read asks the disk, whatever the dictionary has in memory: ``get`` and ``exists`` see what
    any host had finished writing or deleting before, and so do listings, by ``refresh`` (a later
    ``refresh`` of the same dictionary doesn't report those keys again). So values in memory are of
    no use to zarr; open the dictionary with ``lazy=True, cache_bytes=0``, or every chunk that is
    read or written stays in memory.

    The dictionary is the caller's: closing the store leaves it open. The store can be pickled, as
    the dictionary can, and given to the processes of dask or ``multiprocessing``.

    Args:
        mapping: a dictionary with ``serializer="bytes"``, or ``nfsdict.signed("bytes", key=…)``.
        read_only: refuse to write. A store of a dictionary that is read-only always is.

    A byte range is cut from the whole value, at each call: a file has one checksum, of all of it,
    and a part read alone couldn't be told from a damaged one. So a chunk of a sharded array costs
    reading its shard. A listing reads the files, once, of chunks whose keys neither this dictionary
    nor the index on disk knows; after writing a large array call ``mapping.pack()``, or ``close``
    it.

    Raises:
        TypeError: ``mapping`` isn't an ``NfsDict``.
        ValueError: its serializer isn't for bytes; from zarr, on writing to a read-only store.
        OSError: the system's own error. EIO where a value is damaged, or the store's directory is
            gone: zarr takes a KeyError, as ``CorruptValueError`` is one, and FileNotFoundError for
            absence, and would make a new group in place of one that can't be read.
    """

    supports_writes = True
    supports_deletes = True
    supports_listing = True

    def __init__(self, mapping: NfsDict[bytes], *, read_only: bool = False) -> None:
        if not isinstance(mapping, NfsDict):
            raise TypeError(f"an NfsDictStore is made from an NfsDict, not {mapping!r:.200}")
        extension = mapping._storage.extension
        if extension not in (".bin", ".bin.signed"):
            raise ValueError(
                "zarr needs a dictionary with serializer='bytes', or nfsdict.signed('bytes', "
                f"key=...): this one's files end in {extension}"
            )
        super().__init__(read_only=read_only or mapping._read_only)
        self.mapping = mapping
        """the dictionary"""

    def with_read_only(self, read_only: bool = False) -> NfsDictStore:
        """A store of the same dictionary. It stays read-only if the dictionary is."""
        return type(self)(self.mapping, read_only=read_only)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and self.mapping.path == other.mapping.path

    def __str__(self) -> str:
        return f"nfsdict://{self.mapping.path}"

    def __repr__(self) -> str:
        return f"NfsDictStore('{self}')"

    # --- one key: calls that wait, then each of them in a thread of the event loop's -------------

    def get_sync(
        self,
        key: str,
        *,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """The value, or the range of it; None if there is none."""
        try:
            value = self.mapping.get(key, fresh=True)
        except (CorruptValueError, FileNotFoundError) as error:
            # Of a damaged value, or if the whole store is gone. Either type means absence to zarr.
            raise OSError(errno.EIO, str(error), str(self.mapping.path)) from error
        if value is None:
            return None
        if byte_range is not None:
            value = value[_as_slice(byte_range, len(value))]
        if prototype is None:
            prototype = default_buffer_prototype()
        buffer: Buffer = prototype.buffer.from_bytes(value)
        return buffer

    def set_sync(self, key: str, value: Buffer) -> None:
        """Write the value."""
        self.mapping[key] = self._to_write(value)

    def delete_sync(self, key: str) -> None:
        """Delete the key, if it is there."""
        self._check_writable()
        try:
            del self.mapping[key]
        except KeyError:
            pass

    def _add(self, key: str, value: Buffer) -> None:
        self.mapping.add(key, self._to_write(value))

    def _to_write(self, value: Buffer) -> bytes:
        self._check_writable()
        if not isinstance(value, Buffer):
            raise TypeError(f"a value is a zarr Buffer, not {type(value).__name__}")
        return value.to_bytes()

    def _size(self, key: str) -> int | None:
        """The bytes of the value, or None if there is none. The value isn't read."""
        signature = self.mapping._storage.values.look(digest(key))
        if signature is None:
            return None
        return file_size(signature) - size_of(self.mapping._entries.dumps((key, b"")))

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        return await asyncio.to_thread(
            self.get_sync, key, prototype=prototype, byte_range=byte_range
        )

    async def get_partial_values(
        self,
        prototype: BufferPrototype,
        key_ranges: Iterable[tuple[str, ByteRequest | None]],
    ) -> builtins.list[Buffer | None]:
        return await asyncio.gather(
            *(self.get(key, prototype, byte_range) for key, byte_range in key_ranges)
        )

    async def exists(self, key: str) -> bool:
        return await asyncio.to_thread(self._size, key) is not None

    async def getsize(self, key: str) -> int:
        size = await asyncio.to_thread(self._size, key)
        if size is None:
            raise FileNotFoundError(key)
        return size

    async def set(self, key: str, value: Buffer) -> None:
        await asyncio.to_thread(self.set_sync, key, value)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Create the key by ``add``: of all writers on all hosts the first one's value stays."""
        await asyncio.to_thread(self._add, key, value)

    async def delete(self, key: str) -> None:
        await asyncio.to_thread(self.delete_sync, key)

    # --- many keys -----------------------------------------------------------------------------

    def _keys(self, prefix: str) -> builtins.list[str]:
        self.mapping.refresh()
        return [key for key in self.mapping if key.startswith(prefix)]

    def _delete_all(self, prefix: str) -> None:
        for _ in in_parallel(self.delete_sync, self._keys(prefix), self.mapping._workers):
            pass

    async def list(self) -> AsyncIterator[str]:
        for key in await asyncio.to_thread(self._keys, ""):
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        for key in await asyncio.to_thread(self._keys, prefix):
            yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        prefix = _as_directory(prefix)
        keys = await asyncio.to_thread(self._keys, prefix)
        for name in {key[len(prefix) :].partition("/")[0] for key in keys}:
            yield name

    async def delete_dir(self, prefix: str) -> None:
        self._check_writable()
        await asyncio.to_thread(self._delete_all, _as_directory(prefix))

    async def clear(self) -> None:
        self._check_writable()
        await asyncio.to_thread(self.mapping.clear)


def _as_directory(prefix: str) -> str:
    prefix = prefix.rstrip("/")
    return f"{prefix}/" if prefix else ""


def _as_slice(byte_range: ByteRequest, size: int) -> slice:
    """What zarr asks for of a value with ``size`` bytes."""
    if isinstance(byte_range, RangeByteRequest):
        return slice(byte_range.start, byte_range.end)
    if isinstance(byte_range, OffsetByteRequest):
        return slice(byte_range.offset, None)
    if isinstance(byte_range, SuffixByteRequest):
        return slice(max(0, size - byte_range.suffix), None)
    raise ValueError(f"Unexpected byte_range, got {byte_range}.")
