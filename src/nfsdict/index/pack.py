"""Pack: one file for what was read of many: keys, signatures, and the bytes of small value files.

It is to value files what git's pack is to loose objects, with its idx in the same file. A pack is
written once and never changed. It records some shards and is silent about the others. All numbers
are little-endian::

    offset  size
    0       8     magic: "nfsdpak" and the format's version, one byte, 2
    8             sections: for each shard, in order, the bytes of value files, one after another,
                  16 MiB at most
    …             the table: 256 shards, 00 to ff, each:
      0     16      stamp: mtime and ctime in ns, signed, 8 bytes each; both 0: unknown;
                    both -2**63: the pack is silent about this shard
      16    4       n, the number of keys
      20    8       t, the number of bytes of all keys together
      28    8       size of the shard's section
      36    4       CRC-32 of the shard's section
      40    32*n    signatures: inode, size, mtime and ctime in ns (signed), 8 bytes each; all 0:
                    unknown
            4*n     length of each value; 0xffffffff: the value isn't in this pack; 0xfffffffe: a
                    tombstone, the key is gone
            4*n     length of each key in bytes
            t       the keys' UTF-8 (lone surrogates passed), in the order of their digests

The manifest that names the pack says where the table begins, its size and its CRC-32 (``stack``).
"""

from __future__ import annotations

import logging
import struct
import zlib
from collections.abc import Iterable
from typing import NamedTuple

from ..core import digest, encode_table, parse_table, split_values
from ..layout import SHARDS, UNKNOWN, Stamp, signature_at
from ..storage.index_files import IndexFiles, PackClaim, PackFileReader, PackFileWriter

log = logging.getLogger("nfsdict")

_MAGIC = b"nfsdpak\x02"
NO_SHARD = Stamp(-(1 << 63), -(1 << 63))
"""the stamp of a shard that a pack is silent about"""
# The most bytes of values in one section, as it is read and checked as a whole. If a shard has
# more, the rest of its small values are read from their files.
SECTION = 16 << 20
# Larger values aren't packed. From about this size on, reading a file takes longer than finding it,
# so that a pack would save little (benchmarks/pack_limit.py).
PACKED = 32 << 10
_NOT_PACKED, _TOMBSTONE = 0xFFFFFFFF, 0xFFFFFFFE


class Packed(NamedTuple):
    """The content of one small file, for a pack or out of one."""

    data: bytes
    signature: bytes
    """of the file that it was read from"""


class PackRecord(NamedTuple):
    """What a pack says of one key."""

    key: str
    signature: bytes | None
    """None: the key is gone"""
    value: bytes | None
    """the content of the file with this signature; None if the pack doesn't have it"""


class ManifestEntry(NamedTuple):
    """What the manifest says of one pack."""

    pack_id: str
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
        return signature_at(self.signatures, position)

    def any_tombstone(self) -> bool:
        """Whether some key may have a tombstone. Cheap: it may say yes wrongly, but never no."""
        return _TOMBSTONE.to_bytes(4, "little") in self.lengths

    def tombstones(self) -> Iterable[bool]:
        """For each key whether it has a tombstone: no file, though a pack below lists one."""
        return (length == _TOMBSTONE for length in self._lengths())

    def held(self) -> Iterable[bool]:
        """For each key whether the pack has its value."""
        return (length < _TOMBSTONE for length in self._lengths())

    def _lengths(self) -> tuple[int, ...]:
        return struct.unpack(f"<{len(self.keys)}I", self.lengths)


_NOTHING_SAID = PackShard(NO_SHARD, [], b"", b"", 0, 0)


class Pack:
    """A pack, open for reading. Its table is in memory; a section is read when asked for."""

    def __init__(self, files: IndexFiles, record: ManifestEntry) -> None:
        """OSError if the pack can't be read, ValueError if it is damaged."""
        self.record = record
        self._reader: PackFileReader = files.open_pack(record.pack_id)
        try:
            if self._reader.read_at(0, len(_MAGIC)) != _MAGIC:
                raise ValueError(f"pack {record.pack_id} is none of this version")
            table = self._reader.read_at(record.offset, record.size)
            if zlib.crc32(table) != record.checksum:
                raise ValueError(f"the checksum of pack {record.pack_id} doesn't match")
            shards = [PackShard(Stamp(*one[0]), *one[1:]) for one in parse_table(table)]
        except BaseException:
            self.close()
            raise
        self.shards = dict(zip(SHARDS, shards))
        self._offsets = {}
        offset = len(_MAGIC)
        for shard, packed in self.shards.items():
            self._offsets[shard] = offset
            offset += packed.size

    def section_values(self, shard: str) -> list[bytes | None]:
        """The bytes of this shard's value files, in the order of its keys.

        None for a value that isn't in the pack, and for all if the section is damaged. OSError if
        it can't be read.
        """
        packed = self.shards[shard]
        try:
            if packed.size > SECTION:
                raise ValueError("its section is too large")
            section = self._reader.read_at(self._offsets[shard], packed.size)
            if zlib.crc32(section) != packed.checksum:
                raise ValueError("the checksum doesn't match")
            return split_values(section, packed.lengths)
        except ValueError as error:
            log.info("shard %s of pack %s ignored: %s", shard, self.record.pack_id, error)
            return [None] * len(packed.keys)

    def close(self) -> None:
        self._reader.close()


class PackWriter:
    """A pack in the making: shards are added in ascending order."""

    def __init__(self, files: IndexFiles, claim: PackClaim | None = None) -> None:
        self._files = files
        self._file: PackFileWriter = files.new_pack(claim)
        self._file.write(_MAGIC)
        self._shards: dict[str, PackShard] = {}

    def write_shard(self, shard: str, stamp: Stamp, records: Iterable[PackRecord]) -> None:
        """Add a shard, its records in the order of the keys' digests.

        On OSError the caller abandons the pack.
        """
        keys, signatures, lengths = [], [], []
        size = checksum = 0
        for key, signature, value in records:
            keys.append(key)
            signatures.append(UNKNOWN if signature is None else signature)
            if value is not None and size + len(value) <= SECTION:
                lengths.append(len(value))
                size += len(value)
                checksum = zlib.crc32(value, checksum)
                self._file.write(value)
            else:
                lengths.append(_TOMBSTONE if signature is None else _NOT_PACKED)
        self._shards[shard] = PackShard(
            stamp,
            keys,
            b"".join(signatures),
            struct.pack(f"<{len(lengths)}I", *lengths),
            size,
            checksum,
        )

    def publish(self) -> ManifestEntry:
        """Finish the file and give it its name. On OSError the file is removed."""
        table = encode_table([self._shards.get(name, _NOTHING_SAID) for name in SHARDS])
        offset = self._file.size
        try:
            self._file.write(table)
        except BaseException:
            self.abandon()
            raise
        return ManifestEntry(
            self._files.publish_pack(self._file), offset, len(table), zlib.crc32(table)
        )

    def abandon(self) -> None:
        """Remove the file."""
        self._file.abandon()


def merged(files: IndexFiles, packs: list[Pack], last: bool) -> ManifestEntry:
    """Merge these packs into a new one; each overrules those before it.

    ``last``: no pack lies below them, so tombstones can be dropped. Raises what ``Pack`` raises.
    """
    writer = PackWriter(files)
    try:
        for shard in SHARDS:
            stamp = NO_SHARD
            known: dict[str, PackRecord] = {}
            for pack in packs:
                packed = pack.shards[shard]
                if packed.stamp == NO_SHARD:
                    continue
                stamp = packed.stamp
                for at, (key, value, gone) in enumerate(
                    zip(packed.keys, pack.section_values(shard), packed.tombstones())
                ):
                    signature = None if gone else packed.signature(at)
                    known[key] = PackRecord(key, signature, value)
            if stamp != NO_SHARD:
                kept = [one for one in known.values() if one.signature is not None or not last]
                writer.write_shard(shard, stamp, sorted(kept, key=lambda one: digest(one.key)))
        return writer.publish()
    except BaseException:
        writer.abandon()
        raise
