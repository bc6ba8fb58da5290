"""Index: what the store held when last looked at. A hint: damaged, foreign or lost, it is rebuilt.

It is to a store what git's index is to a work tree. For each shard it has the *stamp* (the times of
the directory, as the server gave them after revalidation and before the listing) and the entries. A
shard whose stamp is still the same is clean: the index lists its keys completely. A file's
*signature*, its inode, size and times, shows in the same way whether it is still the file that was
read. Nobody can set a ctime, so a file that was edited in place or put there as a copy has another
signature than the file before, whatever its mtime. chmod and link change the ctime as well, which
only costs reading the file again. An edit in place changes no stamp, so it is noticed only when its
shard is listed. Stamps and signatures with a time less than ``RACY_WINDOW_NS`` ago, by the server's
clock, prove nothing (git's "racy" entries, see Documentation/technical/racy-git.txt there), and are
kept as unknown.

This module has what one process knows, and which part of it the packs on disk (``stack``) don't
say yet.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

from ..core import digest
from ..layout import (
    NO_STAMP,
    SHARDS,
    UNKNOWN,
    Stamp,
    file_size,
    latest_of,
    same_but_for_ctime,
    signature_at,
)
from . import pack
from .pack import PackRecord

# Times of file systems advance in steps of 1 ns to 2 s (FAT and SMB). One second more allows for
# clocks that differ between the servers of one cluster file system.
RACY_WINDOW_NS = 3_000_000_000


def racy_since(server_time_ns: int | None) -> int:
    """Only times before this one are outside the racy window; all in ns.

    ``server_time_ns`` is the server's time now. None: it isn't known, and every time is racy.
    """
    return -1 if server_time_ns is None else server_time_ns - RACY_WINDOW_NS


# The fingerprint of a content that this process hasn't read; no hash in Python is -1.
UNREAD = -1


@dataclass
class IndexEntry:
    """What is known of one key's file."""

    __slots__ = ("fingerprint", "key", "signature")

    key: str
    signature: bytes
    fingerprint: int | None
    """while the signature may be racy: the content's hash, or UNREAD; else None: not needed"""

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return file_size(self.signature)

    @property
    def proven(self) -> bool:
        """Whether an equal signature implies equal content: it lies outside the racy window."""
        return self.fingerprint is None and self.signature != UNKNOWN

    def differs(self, signature: bytes) -> bool:
        """Whether this signature shows that the file was written or replaced since.

        A racy signature may have been taken before the file was renamed to its name, which set the
        ctime. So the ctime isn't compared then.
        """
        if self.signature == UNKNOWN:
            return False
        if self.fingerprint is None:
            return self.signature != signature
        return not same_but_for_ctime(self.signature, signature)

    def replaced_by(self, new: IndexEntry) -> bool:
        """Whether ``new``, just read, shows that the file was written or replaced since."""
        if self.fingerprint not in (None, UNREAD):
            return self.fingerprint != new.fingerprint
        return self.differs(new.signature)


class ShardIndex:
    """One shard: what was listed, in compact form, and in ``overlay`` what changed since."""

    __slots__ = ("dirty_keys", "keys", "overlay", "persisted_stamp", "signatures", "stamp")

    def __init__(self, stamp: Stamp, keys: list[str], signatures: bytes) -> None:
        self.stamp = stamp
        self.keys = keys
        """in the order of their digests"""
        self.signatures = signatures
        self.overlay: dict[str, IndexEntry | None] = {}
        """None: the key was removed"""
        self.persisted_stamp = NO_STAMP
        """the stamp that the packs on disk give"""
        self.dirty_keys: set[str] = set()
        """keys about which the packs on disk say something else, or nothing"""

    def holds_any(self) -> bool:
        return any(self.overlay.values()) or any(key not in self.overlay for key in self.keys)

    def names(self) -> Sequence[str]:
        """The keys that have a file, as far as is known."""
        if not self.overlay:
            return self.keys
        names = dict.fromkeys(chain(self.keys, self.overlay))
        return [key for key in names if self.overlay.get(key, key) is not None]

    def signature(self, position: int) -> bytes:
        return signature_at(self.signatures, position)

    def find(self, hexdigest: str, key: str) -> IndexEntry | None:
        """What is known of the key with this digest; None if no file is known."""
        if key in self.overlay:
            return self.overlay[key]
        low, high = 0, len(self.keys)
        while low < high:
            middle = (low + high) // 2
            if digest(self.keys[middle]) < hexdigest:
                low = middle + 1
            else:
                high = middle
        if low == len(self.keys) or self.keys[low] != key:
            return None
        return IndexEntry(key, self.signature(low), None)

    def fill(
        self,
        entries: dict[str, IndexEntry],
        before: ShardIndex,
        racy: int,
        overtaken: Collection[str],
    ) -> None:
        """Fill this new shard index with what a scan found, by digest; ``before`` is the old one.

        Entries with times before ``racy`` are kept in compact form. All others go to the overlay:
        their files may be replaced without a trace. Keys that were ``overtaken`` and that the old
        one doesn't know at all were removed since, and are left out.
        """
        listed = before.entries()
        signatures = []
        for hexdigest, known in sorted(entries.items()):
            old = listed.pop(hexdigest, None)
            if old is None and known.key in overtaken and known.key not in before.overlay:
                self.stamp = NO_STAMP  # removed since it was listed, and never known here
                continue
            if latest_of(known.signature) < racy:
                self.keys.append(known.key)
                signatures.append(known.signature)
                if old is None or not old.proven or old.signature != known.signature:
                    self.dirty_keys.add(known.key)
                continue
            if known.fingerprint is None:
                known = IndexEntry(known.key, known.signature, UNREAD)
            self.overlay[known.key] = known
            self.dirty_keys.add(known.key)
        self.signatures = b"".join(signatures)
        self.dirty_keys.update(known.key for known in listed.values())

    def entries(self) -> dict[str, IndexEntry]:
        """All entries known, by digest."""
        known = {
            digest(key): IndexEntry(key, self.signature(position), None)
            for position, key in enumerate(self.keys)
        }
        for key, change in self.overlay.items():
            if change is None:
                known.pop(digest(key), None)
            else:
                known[digest(key)] = change
        return known


class ShardUpdate(NamedTuple):
    """What a new pack is to record of one shard, and what ``rollback`` needs."""

    shard: str
    stamp: Stamp
    records: list[PackRecord]
    """in the order of the keys' digests"""
    keys: set[str]
    persisted_stamp: Stamp
    """the stamp that the packs gave before"""


class Index:
    """The index of 256 shards. Not safe for threads: callers hold the lock ``state``."""

    def __init__(self) -> None:
        self._shards = {shard: ShardIndex(NO_STAMP, [], b"") for shard in SHARDS}
        self.listed = False
        """whether a scan has listed the whole store; else it knows only keys that were looked up"""

    def __len__(self) -> int:
        """Roughly the number of known keys: some count twice, and some that are gone count."""
        return sum(
            len(shard_index.keys) + len(shard_index.overlay)
            for shard_index in self._shards.values()
        )

    def load_shard(self, shard: str, layers: Sequence[pack.PackShard]) -> None:
        """Take over what the packs say of this shard; what is known already overrules it.

        ``layers``: the shard as each pack has it, the lowest first.
        """
        before = self._shards[shard]
        known_here = before.overlay
        if before.keys:  # from a scan that failed
            known_here = {**{one.key: one for one in before.entries().values()}, **known_here}
        shard_index = self._shards[shard] = ShardIndex(NO_STAMP, [], b"")
        for number, one in enumerate(layers):
            shard_index.persisted_stamp = shard_index.stamp = one.stamp
            if number == 0 and not one.any_tombstone():
                shard_index.keys, shard_index.signatures = one.keys, one.signatures
                continue
            for at, (key, gone) in enumerate(zip(one.keys, one.tombstones())):
                shard_index.overlay[key] = (
                    None if gone else IndexEntry(key, one.signature(at), None)
                )
        for key, known in known_here.items():
            if known is None:
                self.note_gone(digest(key), key)
            else:
                self.note_read(digest(key), known)

    def shard(self, hexdigest: str) -> ShardIndex:
        """The shard of a digest, or of its first two digits."""
        return self._shards[hexdigest[:2]]

    def note_written(self, hexdigest: str, known: IndexEntry) -> None:
        """Note that the file of this digest was written here, or isn't as it was listed."""
        shard_index = self._shards[hexdigest[:2]]
        shard_index.overlay[known.key] = known
        shard_index.dirty_keys.add(known.key)
        shard_index.stamp = NO_STAMP

    def note_read(self, hexdigest: str, known: IndexEntry) -> None:
        """Note that the file of this digest was read outside a scan."""
        shard_index = self.shard(hexdigest)
        before = shard_index.find(hexdigest, known.key)
        if before is None or not before.proven or before.signature != known.signature:
            self.note_written(hexdigest, known)

    def note_gone(self, hexdigest: str, key: str) -> None:
        """Note that the key's file is gone."""
        shard_index = self.shard(hexdigest)
        if shard_index.find(hexdigest, key) is not None:
            shard_index.overlay[key] = None
            shard_index.dirty_keys.add(key)
            shard_index.stamp = NO_STAMP

    def replace(
        self,
        shard: str,
        stamp: Stamp,
        entries: dict[str, IndexEntry],
        server_time_ns: int | None,
        overtaken: Collection[str] = (),
    ) -> None:
        """Note stamp and entries (by digest) as a listing of the shard found them.

        ``server_time_ns`` is the server's time in ns before the listing, None if it isn't known.
        For keys that were ``overtaken``, what was noted since the listing stays.
        """
        before = self._shards[shard]
        racy = racy_since(server_time_ns)
        shard_index = ShardIndex(stamp if max(stamp) < racy else NO_STAMP, [], b"")
        shard_index.persisted_stamp = before.persisted_stamp
        shard_index.dirty_keys = before.dirty_keys
        shard_index.fill(entries, before, racy, overtaken)
        for key in list(overtaken):  # in one step, as an interrupting call may add to them
            if key in before.overlay:
                shard_index.overlay[key] = before.overlay[key]
                shard_index.dirty_keys.add(key)
                shard_index.stamp = NO_STAMP
        self._shards[shard] = shard_index

    def distrust(self, shards: Iterable[str] = SHARDS) -> None:
        """Have the next scan list these shards, whatever their stamps."""
        for shard in shards:
            self._shards[shard].stamp = NO_STAMP

    # --- what the packs on disk don't say yet --------------------------------------------------

    def changes(self) -> int:
        """How many keys and stamps a new pack would record."""
        return sum(
            len(shard_index.dirty_keys)
            + (shard_index.stamp not in (NO_STAMP, shard_index.persisted_stamp))
            for shard_index in self._shards.values()
        )

    def mark_dirty(self, shard: str, keys: Iterable[str]) -> None:
        """Have the next pack record these keys: their values were read and no pack has them."""
        self._shards[shard].dirty_keys.update(keys)

    def begin_update(self, shard: str, values: dict[str, bytes]) -> ShardUpdate | None:
        """What a new pack has to record of this shard; None if nothing.

        ``values``: by key, the bytes of files that were just read. From here on the pack counts as
        written: the caller calls ``rollback`` if it wasn't.
        """
        shard_index = self._shards[shard]
        if not shard_index.dirty_keys and shard_index.stamp == shard_index.persisted_stamp:
            return None
        # For many keys one pass over all entries is faster than looking each up.
        known = (
            shard_index.entries()
            if len(shard_index.dirty_keys) > len(shard_index.keys) // 16
            else None
        )
        records = []
        for digits, key in sorted((digest(key), key) for key in shard_index.dirty_keys):
            one = shard_index.find(digits, key) if known is None else known.get(digits)
            if one is None:
                records.append(PackRecord(key, None, None))
            elif one.proven:
                records.append(PackRecord(key, one.signature, values.get(key)))
            else:
                records.append(PackRecord(key, UNKNOWN, None))
        update = ShardUpdate(
            shard, shard_index.stamp, records, shard_index.dirty_keys, shard_index.persisted_stamp
        )
        shard_index.dirty_keys, shard_index.persisted_stamp = set(), shard_index.stamp
        return update

    def recompute_dirty(self, shard: str, layers: Sequence[pack.PackShard]) -> None:
        """Compute anew which keys of this shard these packs don't have as they are known.

        ``layers``: the shard as each pack has it, the lowest first.
        """
        shard_index = self._shards[shard]
        said: dict[str, bytes] = {}
        for one in layers:
            for at, (key, gone) in enumerate(zip(one.keys, one.tombstones())):
                said.pop(key, None)
                if not gone:
                    said[key] = one.signature(at)
        shard_index.persisted_stamp = layers[-1].stamp if layers else NO_STAMP
        shard_index.dirty_keys = {
            known.key
            for known in shard_index.entries().values()
            if said.pop(known.key, UNKNOWN) != known.signature or not known.proven
        }
        shard_index.dirty_keys.update(said)

    def rollback(self, update: ShardUpdate) -> None:
        """Undo ``begin_update``: the update didn't get to disk."""
        shard_index = self._shards[update.shard]
        shard_index.dirty_keys |= update.keys
        shard_index.persisted_stamp = update.persisted_stamp
