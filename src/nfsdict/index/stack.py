"""The index on disk: a stack of packs that a manifest names. A hint, rebuilt when it is damaged.

The manifest is small and replaced as a whole; a pack is never changed. Changes go into a new pack
on top, so that writing costs in proportion to them, and not to the store. Packs of like size are
merged, as those of a log-structured merge tree (O'Neil et al., 1996) and of ``git repack
--geometric``: so each byte is written again only a few times while the store grows by orders of
magnitude.

The manifest ``_index.nfsdict-pkl`` (or ``-json``, ``-bin``, …), all numbers little-endian::

    offset  size
    0       8     magic: "nfsdidx" and the format's version, one byte, 3
    8       4     CRC-32 of all that follows
    12            each pack, the lowest first:
      0     12      the random part of its name: _pack.nfsdict-pkl-<24 hex digits>
      12    8       where its table begins
      20    8       size of its table
      28    4       CRC-32 of its table
"""

from __future__ import annotations

import errno
import logging
import struct
import time
import zlib
from collections.abc import Iterable
from itertools import repeat
from typing import Callable, TypeVar

from ..errors import failure
from ..layout import split_signatures
from ..storage.index_files import IndexFiles, PackClaim
from .pack import NO_SHARD, ManifestEntry, Pack, Packed, PackShard, PackWriter, merged

log = logging.getLogger("nfsdict")

_MAGIC = b"nfsdidx\x03"
_CHECKSUM = struct.Struct("<I")
_RECORD = struct.Struct("<12sQQI")
_BODY = len(_MAGIC) + _CHECKSUM.size
# A pack is merged into the one below if that has less than this many times its size.
_RATIO = 4
# A manifest can be replaced between reading it and opening its packs. Then both are read again, but
# no more often than this.
_TRIES = 3
# Errors from reading something that isn't a regular file.
_NO_FILE = (errno.EISDIR, errno.ELOOP, errno.ENXIO)
# A pack that no manifest names for this long was left by a crash. A younger one may be about to be
# named.
_GRACE_NS = 3600 * 1_000_000_000
# How often, and after how many seconds each, ``pack`` and ``repair`` try again while others write
# the index. Together that is longer than a crashed process's claim holds (``INDEX_CLAIM_NS``).
_PATIENCE = 160, 0.5

T = TypeVar("T")


def until_unclaimed(directory: str, attempt: Callable[[], T | None]) -> T:
    """The attempt's result. It is repeated while it gives nothing, as others write the index.

    OSError with EBUSY if they still do after 80 s.
    """
    tries, pause = _PATIENCE
    for number in range(tries):
        result = attempt()
        if result:
            if number:
                waited = number * pause
                log.info("%s: waited %.1f s for others to write the index", directory, waited)
            return result
        time.sleep(pause)
    raise failure(errno.EBUSY, directory)


class PackStack:
    """The stack of packs, as one process has read it. Used by one thread at a time."""

    def __init__(self, files: IndexFiles) -> None:
        self._files = files
        self._manifest: bytes | None = None
        self._entries: list[ManifestEntry] = []
        self._open: list[Pack] = []
        self._stale = False
        self.unreadable: OSError | None = None
        """why the index couldn't be read, though it may be good"""
        self._claim: PackClaim | None = None  # of the last writer

    @property
    def empty(self) -> bool:
        """True if no usable pack was loaded."""
        return not self._entries

    @property
    def packs(self) -> list[Pack]:
        """The open packs, the lowest first. Their tables stay when they are closed."""
        return self._open

    def load_manifest(self) -> None:
        """Open the packs, until ``close_packs``. An unusable index is logged and ignored."""
        self.close_packs()
        self._stale, self.unreadable, self._claim = False, None, None
        for _ in range(_TRIES):
            self._entries = []
            try:
                self._manifest = self._files.read_manifest()
                records = _parsed(self._manifest)
                for record in records:
                    self._open.append(Pack(self._files, record))
                self._entries = records
                return
            except (OSError, ValueError) as error:
                log.info("%s: the index is ignored: %s", self._files.directory, error)
                self.close_packs()
                if not isinstance(error, FileNotFoundError):
                    # A damaged index can be replaced. One that can't be read may be good.
                    if isinstance(error, OSError) and error.errno not in _NO_FILE:
                        self._stale, self.unreadable = True, error
                    return

    def shards(self, shard: str) -> list[PackShard]:
        """This shard as each open pack has it, the lowest first; without packs silent about it."""
        said = [pack.shards[shard] for pack in self._open]
        return [packed for packed in said if packed.stamp != NO_SHARD]

    def size(self, shard: str) -> int:
        """Bytes that ``packed_values`` reads for this shard."""
        return sum(pack.shards[shard].size for pack in self._open)

    def packed_values(self, shard: str) -> dict[str, bytes]:
        """The bytes of this shard's value files that the open packs hold, by key."""
        found: dict[str, bytes] = {}
        for pack in self._open:
            packed = pack.shards[shard]
            if packed.stamp == NO_SHARD:
                continue
            values: Iterable[bytes | None]
            try:
                values = pack.section_values(shard)
            except OSError as error:
                log.info("pack %s can't be read: %s", pack.record.pack_id, error)
                values = repeat(None)
            if found:
                for key in packed.keys:
                    found.pop(key, None)
            pairs = zip(packed.keys, values)
            found.update({key: value for key, value in pairs if value is not None})
        return found

    def packed(self, shard: str) -> dict[str, Packed]:
        """``packed_values`` with the signatures that they were read under, by key."""
        signatures: dict[str, bytes] = {}
        for said in self.shards(shard):
            signatures.update(zip(said.keys, split_signatures(said.signatures)))
        values = self.packed_values(shard)
        return {key: Packed(data, signatures[key]) for key, data in values.items()}

    def proven_values(self, shard: str, known: dict[str, bytes]) -> dict[str, bytes]:
        """Those of ``packed_values`` that were read under the ``known`` signatures, by key."""
        packed = self.packed(shard).items()
        return {key: one.data for key, one in packed if known.get(key) == one.signature}

    def close_packs(self) -> None:
        """Close the packs. Their tables and values can't be read any more."""
        for pack in self._open:
            pack.close()
        self._open = []

    def writer(self) -> PackWriter | None:
        """A writer for a new top pack; None if the stack loaded may not be the one on disk.

        If the pack becomes large, the writer meets EBUSY where another process writes such a one,
        or has written one since the stack was loaded.
        """
        if self._stale or (self._claim is not None and self._claim.lost):
            return None
        self._claim = self._files.pack_claim(self._manifest)
        return PackWriter(self._files, self._claim)

    def append(self, writer: PackWriter) -> bool:
        """Put the new pack on top, and merge. If False, the caller abandons the pack.

        False if another process has written the manifest since it was loaded, or holds the claim to
        write it: of many processes that have read the same files, one does the work. OSError if the
        pack or the manifest can't be written.
        """
        # Looked at before the claim, too: a claim is a change of the root, after which every client
        # asks anew what it knows of it. With many that lose, that costs more than one look more.
        if self._files.read_manifest() != self._manifest:
            return self._left_to_others()
        with self._files.claimed_manifest() as mine:
            if not mine or self._files.read_manifest() != self._manifest:
                return self._left_to_others()
            try:
                self._push([*self._entries, writer.publish()])
            finally:
                if self._claim is not None:
                    self._claim.give_up()  # from here on the manifest tells
            return True

    def compact(self) -> bool:
        """Merge all packs into one. Whether that was done; see ``append``."""
        with self._files.claimed_manifest() as mine:
            if not mine or self._files.read_manifest() != self._manifest:
                return self._left_to_others()
            if len(self._entries) > 1:
                self._write_manifest([self._merged(self._entries, last=True)])
            return True

    def _left_to_others(self) -> bool:
        self._stale = True
        log.info("%s: the index is left to another process that writes it", self._files.directory)
        return False

    def sweep(self) -> None:
        """Remove packs that a crash has left: older than an hour, and no manifest names them."""
        try:
            named = {record.pack_id for record in _parsed(self._files.read_manifest())}
        except ValueError:
            return  # damaged, and not replaced as there was nothing to write: no keys are known
        limit = self._files.server_time_ns() - _GRACE_NS
        for pack_id, mtime in self._files.packs().items():
            if pack_id not in named and mtime < limit:
                self._files.remove_pack(pack_id)

    def remove_index(self) -> bool:
        """Remove the index from disk. False, with nothing done, while another process writes it."""
        self.close_packs()
        try:
            with self._files.claimed_manifest() as mine:
                if mine:
                    self._remove_files()
        except IsADirectoryError as error:
            log.warning("move it away, or the index is never written again: %s", error)
            self._remove_files()  # safe without a claim, as no process can get it
        else:
            if not mine:
                return False
        self._manifest, self._entries, self._stale = None, [], False
        return True

    def _remove_files(self) -> None:
        self._files.remove_manifest()
        for pack_id in self._files.packs():
            self._files.remove_pack(pack_id)

    def _push(self, records: list[ManifestEntry]) -> None:
        start = len(records) - 1
        size = records[start].bytes
        while start > 0 and records[start - 1].bytes < _RATIO * size:
            start -= 1
            size += records[start].bytes
        if start < len(records) - 1:
            top = records[-1]
            try:
                records = [*records[:start], self._merged(records[start:], last=start == 0)]
            except (OSError, ValueError) as error:
                log.info("%s: packs not merged: %s", self._files.directory, error)
            else:
                self._files.remove_pack(top.pack_id)  # no manifest has named it yet
        self._write_manifest(records)

    def _merged(self, records: list[ManifestEntry], last: bool) -> ManifestEntry:
        packs: list[Pack] = []
        try:
            for record in records:
                packs.append(Pack(self._files, record))
            result = merged(self._files, packs, last)
            log.info("%s: %d packs merged", self._files.directory, len(packs))
            return result
        finally:
            for pack in packs:
                pack.close()

    def _write_manifest(self, records: list[ManifestEntry]) -> None:
        """Name these packs in the manifest, and remove those that only the old one named."""
        body = b"".join(
            _RECORD.pack(bytes.fromhex(name), offset, size, checksum)
            for name, offset, size, checksum in records
        )
        manifest = _MAGIC + _CHECKSUM.pack(zlib.crc32(body)) + body
        try:
            before = _parsed(self._manifest)
        except ValueError:
            before = []
        try:
            self._files.write_manifest(manifest)
        except BaseException:
            self._remove(records, but=before)
            raise
        self._manifest, self._entries = manifest, records
        size = sum(record.bytes for record in records)
        told = self._files.directory, len(records), size / 1e6
        log.info("%s: packed: the index has %d packs now, %.1f MB", *told)
        self._remove(before, but=records)

    def _remove(self, records: list[ManifestEntry], but: list[ManifestEntry]) -> None:
        kept = {record.pack_id for record in but}
        for record in records:
            if record.pack_id not in kept:
                self._files.remove_pack(record.pack_id)


def _parsed(manifest: bytes | None) -> list[ManifestEntry]:
    """The packs that this manifest names. ValueError if it is damaged or of another version."""
    if manifest is None:
        return []
    if not manifest.startswith(_MAGIC):
        raise ValueError("the manifest is none of this version")
    body = manifest[_BODY:]
    if len(manifest) < _BODY or _CHECKSUM.unpack_from(manifest, len(_MAGIC))[0] != zlib.crc32(body):
        raise ValueError("the manifest's checksum doesn't match")
    if len(body) % _RECORD.size:
        raise ValueError("the manifest is cut short")
    return [
        ManifestEntry(name.hex(), offset, size, checksum)
        for name, offset, size, checksum in _RECORD.iter_unpack(body)
    ]
