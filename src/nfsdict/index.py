"""Index: what the store held when last looked at. A hint: damaged, foreign or lost, it is rebuilt.

What git's index is to a work tree: for each shard directory its *stamp* (mtime in ns, as the server
gave it after revalidation and before the listing) and its entries. A shard whose stamp is still the
same is clean: the index lists its keys completely. Stamps and signatures taken within
``GRANULARITY`` of the moment, by the server's clock, prove nothing (git's "racy" entries, see
Documentation/technical/racy-git.txt there), and are kept as unknown.

The file ``_index.nfsdict-pkl`` (or ``-json``, ``-bin``, …), all numbers little-endian::

    offset  size
    0       8     magic: "nfsdidx" and the format's version, one byte, 1
    8       4     CRC-32 of all that follows
    12            256 shards, 00 to ff, each:
      0     8       stamp, signed; 0: unknown
      8     4       n, the number of keys
      12    8       t, the number of bytes of all keys together
      20    24*n    signatures: inode, size, mtime in ns (signed), 8 bytes each; all 0: unknown
            4*n     length of each key in bytes
            t       the keys' UTF-8 (lone surrogates passed), in the order of their digests

Nothing follows the last shard.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

from .core import digest, encode_index, parse_index
from .store import SHARDS

_MAGIC = b"nfsdidx\x01"
_CHECKSUM = struct.Struct("<I")
_BODY = len(_MAGIC) + _CHECKSUM.size

# Stamps of file systems tick in steps of 1 ns to 2 s (FAT and SMB); a second more allows for
# the clocks of several servers of one cluster file system.
GRANULARITY = 3_000_000_000

UNKNOWN = bytes(24)
# The fingerprint of a content that nobody has read here; no hash is -1.
UNREAD = -1
_MTIME = struct.Struct("<16xq")


@dataclass
class Known:
    """What is known of one key's file."""

    __slots__ = ("fingerprint", "key", "signature")

    key: str
    signature: bytes
    fingerprint: int | None
    """hash of the content, or UNREAD, for a signature that proves nothing yet; None: it isn't
    needed"""


class Shard:
    """One shard: what was listed, in compact form, and what changed since."""

    __slots__ = ("keys", "recent", "signatures", "stamp")

    def __init__(self, stamp: int, keys: list[str], signatures: bytes) -> None:
        self.stamp = stamp
        self.keys = keys
        """in the order of their digests"""
        self.signatures = signatures
        self.recent: dict[str, Known | None] = {}
        """None: the key was removed"""

    def holds_any(self) -> bool:
        return bool(self.keys) or any(self.recent.values())

    def signature(self, position: int) -> bytes:
        return self.signatures[len(UNKNOWN) * position : len(UNKNOWN) * (position + 1)]

    def find(self, name: str, key: str) -> Known | None:
        """What is known of the key with this digest."""
        if key in self.recent:
            return self.recent[key]
        low, high = 0, len(self.keys)
        while low < high:
            middle = (low + high) // 2
            if digest(self.keys[middle]) < name:
                low = middle + 1
            else:
                high = middle
        if low == len(self.keys) or self.keys[low] != key:
            return None
        return Known(key, self.signature(low), None)

    def entries(self) -> dict[str, Known]:
        """Everything that is known, by digest."""
        known = {
            digest(key): Known(key, self.signature(position), None)
            for position, key in enumerate(self.keys)
        }
        for key, change in self.recent.items():
            if change is None:
                known.pop(digest(key), None)
            else:
                known[digest(key)] = change
        return known

    def merged(self) -> tuple[int, list[str], bytes]:
        """As it goes to the file: what proves nothing is written as unknown."""
        if not self.recent:
            return self.stamp, self.keys, self.signatures
        entries = sorted(self.entries().items())
        return (
            self.stamp,
            [known.key for _, known in entries],
            b"".join(
                UNKNOWN if known.key in self.recent else known.signature for _, known in entries
            ),
        )


class Index:
    """256 shards. Not safe for threads: its dictionary holds a lock around every call."""

    def __init__(self) -> None:
        self._shards = {name: Shard(0, [], b"") for name in SHARDS}
        self.changed = False
        """whether the file would say something else now"""
        self.listed = False
        """whether it is about the whole store, not just keys that were looked up"""

    def load(self, data: bytes) -> None:
        """Take over what a file holds, below what is noted already. ValueError: it is no index."""
        if not data.startswith(_MAGIC):
            raise ValueError("it is none of this version")
        body = data[_BODY:]
        if len(data) < _BODY or _CHECKSUM.unpack_from(data, len(_MAGIC))[0] != zlib.crc32(body):
            raise ValueError("its checksum doesn't match")
        noted = [shard.recent for shard in self._shards.values()]
        self._shards = {name: Shard(*shard) for name, shard in zip(SHARDS, parse_index(body))}
        for recent in noted:
            for key, known in recent.items():
                if known is None:
                    self.drop(digest(key), key)
                else:
                    self.read(digest(key), known)

    def encode(self) -> bytes:
        body = encode_index([shard.merged() for shard in self._shards.values()])
        return _MAGIC + _CHECKSUM.pack(zlib.crc32(body)) + body

    def shard(self, name: str) -> Shard:
        """The shard of a digest, or of its first two digits."""
        return self._shards[name[:2]]

    def wrote(self, name: str, known: Known) -> None:
        """The file of this digest was written here, or isn't as it was listed."""
        shard = self._shards[name[:2]]
        shard.recent[known.key] = known
        shard.stamp = 0
        self.changed = True

    def read(self, name: str, known: Known) -> None:
        """The file of this digest was read outside a survey."""
        shard = self.shard(name)
        listed = None if known.key in shard.recent else shard.find(name, known.key)
        if listed is None or listed.signature != known.signature:
            self.wrote(name, known)

    def drop(self, name: str, key: str) -> None:
        """The key's file is gone."""
        shard = self.shard(name)
        if shard.find(name, key) is not None:
            shard.recent[key] = None
            shard.stamp = 0
            self.changed = True

    def replace(
        self,
        name: str,
        stamp: int,
        entries: dict[str, Known],
        moment: int | None,
        touched: Iterable[str] = (),
    ) -> None:
        """The shard was listed: stamp and entries, by digest, as they were then.

        ``moment`` is the server's time in ns before that, None if it isn't known. What was noted
        since then of the keys ``touched`` stays.
        """
        noted = self._shards[name].recent
        proven = -1 if moment is None else moment - GRANULARITY
        shard = Shard(stamp if stamp < proven else 0, [], b"")
        signatures = []
        for _, known in sorted(entries.items()):
            if _MTIME.unpack(known.signature)[0] < proven:
                shard.keys.append(known.key)
                signatures.append(known.signature)
            elif known.fingerprint is None:
                shard.recent[known.key] = Known(known.key, known.signature, UNREAD)
            else:
                shard.recent[known.key] = known
        shard.signatures = b"".join(signatures)
        for key in touched:
            if key in noted:
                shard.recent[key] = noted[key]
                shard.stamp = 0
        self._shards[name] = shard
        self.changed = True
