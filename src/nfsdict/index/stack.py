"""Packs: the index on disk, a stack of packs that a head names. A hint, rebuilt when it is damaged.

The head is small and is replaced as a whole; a pack is never changed. What has changed goes into a
new pack on top, so that it costs what has changed. Packs of like size are merged, as those of a
log-structured merge tree (O'Neil et al., 1996) and of ``git repack --geometric``: each byte is
written again a few times while the store grows by orders of magnitude.

The head ``_index.nfsdict-pkl`` (or ``-json``, ``-bin``, …), all numbers little-endian::

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
import zlib
from collections.abc import Iterable
from itertools import repeat

from ..storage.store import Store
from .pack import NO_SHARD, ManifestEntry, Pack, PackShard, Writer, merged

log = logging.getLogger("nfsdict")

_MAGIC = b"nfsdidx\x03"
_CHECKSUM = struct.Struct("<I")
_RECORD = struct.Struct("<12sQQI")
_BODY = len(_MAGIC) + _CHECKSUM.size
# A pack is merged into the one below when that isn't so many times its size.
_RATIO = 4
# A head can be replaced between reading it and opening its packs, but not for ever.
_TRIES = 3
# What reading gives for something that isn't a regular file.
_NO_FILE = (errno.EISDIR, errno.ELOOP, errno.ENXIO)
# A pack that no head names was left by a crash, unless somebody is about to name it.
_GRACE_NS = 3600 * 1_000_000_000


class PackStack:
    """One process's view of the stack. One thread uses it at a time."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._head: bytes | None = None
        self._records: list[ManifestEntry] = []
        self._open: list[Pack] = []
        self._behind = False

    @property
    def empty(self) -> bool:
        """True if no usable pack was loaded."""
        return not self._records

    def load(self) -> None:
        """Open what is on disk, until ``close``. What can't be used is logged and ignored."""
        self.close()
        self._behind = False
        for _ in range(_TRIES):
            self._records = []
            try:
                self._head = self._store.read_head()
                records = _parsed(self._head)
                for record in records:
                    self._open.append(Pack(self._store, record))
                self._records = records
                return
            except (OSError, ValueError) as error:
                log.info("index ignored: %s", error)
                self.close()
                if not isinstance(error, FileNotFoundError):
                    # What is damaged can be replaced; what can't be read may be good.
                    self._behind = isinstance(error, OSError) and error.errno not in _NO_FILE
                    return

    def shards(self, name: str) -> list[PackShard]:
        """What the open packs say of this shard, the lowest first."""
        said = [pack.shards[name] for pack in self._open]
        return [shard for shard in said if shard.stamp != NO_SHARD]

    def size(self, name: str) -> int:
        """Bytes that ``values`` reads for this shard."""
        return sum(pack.shards[name].size for pack in self._open)

    def values(self, name: str) -> dict[str, bytes]:
        """The bytes of this shard's value files that the open packs hold, by key."""
        found: dict[str, bytes] = {}
        for pack in self._open:
            shard = pack.shards[name]
            if shard.stamp == NO_SHARD:
                continue
            values: Iterable[bytes | None]
            try:
                values = pack.values(name)
            except OSError as error:
                log.info("pack %s can't be read: %s", pack.record.name, error)
                values = repeat(None)
            if found:
                for key in shard.keys:
                    found.pop(key, None)
            pairs = zip(shard.keys, values)
            found.update({key: value for key, value in pairs if value is not None})
        return found

    def close(self) -> None:
        """Done with reading."""
        for pack in self._open:
            pack.close()
        self._open = []

    def writer(self) -> Writer | None:
        """A writer for a new top pack; None if the stack loaded may not be the one on disk."""
        return None if self._behind else Writer(self._store)

    def push(self, writer: Writer) -> bool:
        """Put the new pack on top, and merge. Whether that was done; or else it is to be dropped.

        Not if somebody else has written the head since it was loaded, or is about to: of many
        who have read the same one does the work. OSError if it can't be written.
        """
        with self._store.claimed_head() as mine:
            if not mine or self._store.read_head() != self._head:
                self._behind = True
                return False
            self._replace([*self._records, writer.publish()])
            return True

    def merge(self) -> bool:
        """Make all packs one. Whether that was done; see ``push``."""
        with self._store.claimed_head() as mine:
            if not mine or self._store.read_head() != self._head:
                self._behind = True
                return False
            if len(self._records) > 1:
                self._write_head([self._merged(self._records, last=True)])
            return True

    def sweep(self) -> None:
        """Remove packs that a crash has left."""
        try:
            named = {record.name for record in _parsed(self._store.read_head())}
        except ValueError:
            return  # a damaged head that had nothing to be written over it: there are no keys
        limit = self._store.clock() - _GRACE_NS
        for name, moment in self._store.packs().items():
            if name not in named and moment < limit:
                self._store.remove_pack(name)

    def remove(self) -> bool:
        """Leave no index on disk. Whether that was done: not while somebody else writes it."""
        self.close()
        try:
            with self._store.claimed_head() as mine:
                if mine:
                    self._remove_files()
        except IsADirectoryError as error:
            log.warning("move it away, or the index is never written again: %s", error)
            self._remove_files()  # nobody can claim it
        else:
            if not mine:
                return False
        self._head, self._records, self._behind = None, [], False
        return True

    def _remove_files(self) -> None:
        self._store.remove_head()
        for name in self._store.packs():
            self._store.remove_pack(name)

    def _replace(self, records: list[ManifestEntry]) -> None:
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
                log.info("packs not merged: %s", error)
            else:
                self._store.remove_pack(top.name)  # which no head has named yet
        self._write_head(records)

    def _merged(self, records: list[ManifestEntry], last: bool) -> ManifestEntry:
        packs: list[Pack] = []
        try:
            for record in records:
                packs.append(Pack(self._store, record))
            return merged(self._store, packs, last)
        finally:
            for pack in packs:
                pack.close()

    def _write_head(self, records: list[ManifestEntry]) -> None:
        """Name these packs, and remove those that were named before and no longer are."""
        body = b"".join(
            _RECORD.pack(bytes.fromhex(name), offset, size, checksum)
            for name, offset, size, checksum in records
        )
        head = _MAGIC + _CHECKSUM.pack(zlib.crc32(body)) + body
        try:
            before = _parsed(self._head)
        except ValueError:
            before = []
        try:
            self._store.write_head(head)
        except BaseException:
            self._remove(records, but=before)
            raise
        self._head, self._records = head, records
        self._remove(before, but=records)

    def _remove(self, records: list[ManifestEntry], but: list[ManifestEntry]) -> None:
        kept = {record.name for record in but}
        for record in records:
            if record.name not in kept:
                self._store.remove_pack(record.name)


def _parsed(head: bytes | None) -> list[ManifestEntry]:
    """The packs that this head names. ValueError if it is damaged or of another version."""
    if head is None:
        return []
    if not head.startswith(_MAGIC):
        raise ValueError("the head is none of this version")
    body = head[_BODY:]
    if len(head) < _BODY or _CHECKSUM.unpack_from(head, len(_MAGIC))[0] != zlib.crc32(body):
        raise ValueError("the head's checksum doesn't match")
    if len(body) % _RECORD.size:
        raise ValueError("the head is cut short")
    return [
        ManifestEntry(name.hex(), offset, size, checksum)
        for name, offset, size, checksum in _RECORD.iter_unpack(body)
    ]
