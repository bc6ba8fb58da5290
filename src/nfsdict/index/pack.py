"""Pack: one file with what was read of many: keys, signatures, and the bytes of small value files.

What git's pack is to loose objects, with its idx in the same file. It is written once and never
changed. It says something of some shards, and nothing of the others. All numbers little-endian::

    offset  size
    0       8     magic: "nfsdpak" and the format's version, one byte, 2
    8             sections: for each shard, in order, the bytes of value files, one after another,
                  16 MiB at most
    …             the table: 256 shards, 00 to ff, each:
      0     16      stamp: mtime and ctime in ns, signed, 8 bytes each; both 0: unknown;
                    both -2**63: nothing is said of this shard
      16    4       n, the number of keys
      20    8       t, the number of bytes of all keys together
      28    8       size of the shard's section
      36    4       CRC-32 of the shard's section
      40    32*n    signatures: inode, size, mtime and ctime in ns (signed), 8 bytes each; all 0:
                    unknown
            4*n     length of each value; 0xffffffff: it isn't in here; 0xfffffffe: the key is gone
            4*n     length of each key in bytes
            t       the keys' UTF-8 (lone surrogates passed), in the order of their digests

Where the table begins, its size and its CRC-32 stand in the head that names the pack (``stack``).
"""

from __future__ import annotations

import logging
import struct
import zlib
from collections.abc import Iterable
from typing import NamedTuple

from ..core import digest, encode_table, parse_table, split_values
from ..storage.index_files import PackFileReader, PackFileWriter
from ..storage.store import SHARDS, Stamp, Store

log = logging.getLogger("nfsdict")

_MAGIC = b"nfsdpak\x02"
UNKNOWN = bytes(32)
"""the signature that no file has"""
NO_SHARD = Stamp(-(1 << 63), -(1 << 63))
"""the stamp of a shard that a pack says nothing of"""
# Bytes of values in one section at most, which is read and checked as a whole. Other small values
# of so large a shard are left to their files.
SECTION = 16 << 20
_NOT_PACKED, _GONE = 0xFFFFFFFF, 0xFFFFFFFE


class PackRecord(NamedTuple):
    """What a pack says of one key."""

    key: str
    signature: bytes | None
    """None: the key is gone"""
    value: bytes | None
    """what the file of this signature holds, None if that isn't in the pack"""


class ManifestEntry(NamedTuple):
    """What a head says of one pack."""

    name: str
    offset: int
    """where its table begins"""
    size: int
    """of its table"""
    checksum: int
    """CRC-32 of its table"""

    @property
    def bytes(self) -> int:
        return self.offset + self.size


class PackShard(NamedTuple):
    """One shard, as a pack's table has it."""

    stamp: Stamp
    keys: list[str]
    signatures: bytes
    lengths: bytes
    size: int
    checksum: int

    def signature(self, position: int) -> bytes:
        return self.signatures[len(UNKNOWN) * position : len(UNKNOWN) * (position + 1)]

    def any_gone(self) -> bool:
        """Whether some key may be gone: a cheap look that errs on this side."""
        return _GONE.to_bytes(4, "little") in self.lengths

    def gone(self) -> Iterable[bool]:
        """For each key whether it is gone."""
        return (length == _GONE for length in struct.unpack(f"<{len(self.keys)}I", self.lengths))


_SILENCE = PackShard(NO_SHARD, [], b"", b"", 0, 0)


class Pack:
    """A pack, open for reading: its table is in memory, its sections are read when asked for."""

    def __init__(self, store: Store, record: ManifestEntry) -> None:
        """OSError if it can't be read, ValueError if it is damaged."""
        self.record = record
        self._source: PackFileReader = store.open_pack(record.name)
        try:
            if self._source.read(0, len(_MAGIC)) != _MAGIC:
                raise ValueError(f"pack {record.name} is none of this version")
            table = self._source.read(record.offset, record.size)
            if zlib.crc32(table) != record.checksum:
                raise ValueError(f"the checksum of pack {record.name} doesn't match")
            shards = [PackShard(Stamp(*one[0]), *one[1:]) for one in parse_table(table)]
        except BaseException:
            self.close()
            raise
        self.shards = dict(zip(SHARDS, shards))
        self._offsets = {}
        offset = len(_MAGIC)
        for name, shard in self.shards.items():
            self._offsets[name] = offset
            offset += shard.size

    def values(self, name: str) -> list[bytes | None]:
        """The bytes of this shard's value files, in the order of its keys; None for those that it
        hasn't, and for all if they are damaged. OSError if they can't be read."""
        shard = self.shards[name]
        try:
            if shard.size > SECTION:
                raise ValueError("its section is too large")
            section = self._source.read(self._offsets[name], shard.size)
            if zlib.crc32(section) != shard.checksum:
                raise ValueError("the checksum doesn't match")
            return split_values(section, shard.lengths)
        except ValueError as error:
            log.info("shard %s of pack %s ignored: %s", name, self.record.name, error)
            return [None] * len(shard.keys)

    def close(self) -> None:
        self._source.close()


class Writer:
    """A pack in the making: shards are added in ascending order."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._draft: PackFileWriter = store.draft_pack()
        self._draft.write(_MAGIC)
        self._shards: dict[str, PackShard] = {}

    def add(self, shard: str, stamp: Stamp, statements: Iterable[PackRecord]) -> None:
        """In the order of the keys' digests. OSError if it can't be written: drop it."""
        keys, signatures, lengths = [], [], []
        size = checksum = 0
        for key, signature, value in statements:
            keys.append(key)
            signatures.append(UNKNOWN if signature is None else signature)
            if value is not None and size + len(value) <= SECTION:
                lengths.append(len(value))
                size += len(value)
                checksum = zlib.crc32(value, checksum)
                self._draft.write(value)
            else:
                lengths.append(_GONE if signature is None else _NOT_PACKED)
        self._shards[shard] = PackShard(
            stamp,
            keys,
            b"".join(signatures),
            struct.pack(f"<{len(lengths)}I", *lengths),
            size,
            checksum,
        )

    def publish(self) -> ManifestEntry:
        """Finish the file. OSError if that fails; nothing is left of it then."""
        table = encode_table([self._shards.get(name, _SILENCE) for name in SHARDS])
        offset = self._draft.size
        try:
            self._draft.write(table)
        except BaseException:
            self.drop()
            raise
        return ManifestEntry(
            self._store.publish_pack(self._draft), offset, len(table), zlib.crc32(table)
        )

    def drop(self) -> None:
        """Leave nothing of it."""
        self._draft.drop()


def merged(store: Store, packs: list[Pack], last: bool) -> ManifestEntry:
    """Write what these packs say together into one; each overrules those before it.

    ``last``: there is none below them, of which a key could be gone. Errors as of ``Pack``.
    """
    writer = Writer(store)
    try:
        for name in SHARDS:
            stamp = NO_SHARD
            known: dict[str, PackRecord] = {}
            for pack in packs:
                shard = pack.shards[name]
                if shard.stamp == NO_SHARD:
                    continue
                stamp = shard.stamp
                for at, (key, value, gone) in enumerate(
                    zip(shard.keys, pack.values(name), shard.gone())
                ):
                    signature = None if gone else shard.signature(at)
                    known[key] = PackRecord(key, signature, value)
            if stamp != NO_SHARD:
                kept = [one for one in known.values() if one.signature is not None or not last]
                writer.add(name, stamp, sorted(kept, key=lambda one: digest(one.key)))
        return writer.publish()
    except BaseException:
        writer.drop()
        raise
