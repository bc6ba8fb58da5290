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
say yet. ``shard`` has one shard of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from ..core import digest
from ..layout import NO_STAMP, SHARDS, UNKNOWN, Stamp
from . import pack
from .pack import Packed, PackRecord
from .shard import IndexEntry, Kept, ShardIndex

# Times of file systems advance in steps of 1 ns to 2 s (FAT and SMB). One second more allows for
# clocks that differ between the servers of one cluster file system.
RACY_WINDOW_NS = 3_000_000_000


def racy_since(server_time_ns: int | None) -> int:
    """Only times before this one are outside the racy window; all in ns.

    ``server_time_ns`` is the server's time now. None: it isn't known, and every time is racy.
    """
    return -1 if server_time_ns is None else server_time_ns - RACY_WINDOW_NS


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
        # Shards of which the packs' stamps prove nothing, until they are listed.
        self._distrusted: set[str] = set()

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
        if shard in self._distrusted:
            shard_index.stamp = NO_STAMP
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
        kept: Kept | None = None,
    ) -> None:
        """Note stamp and entries (by digest) as a listing of the shard found them.

        ``kept``: what the listing showed to be as it was known; ``entries`` has the others.
        ``server_time_ns`` is the server's time in ns before the listing, None if it isn't known.
        For keys that were ``overtaken``, what was noted since the listing stays.
        """
        before = self._shards[shard]
        racy = racy_since(server_time_ns)
        shard_index = ShardIndex(stamp if max(stamp) < racy else NO_STAMP, [], b"")
        shard_index.persisted_stamp = before.persisted_stamp
        shard_index.dirty_keys = before.dirty_keys
        shard_index.fill(
            kept or Kept(ShardIndex(NO_STAMP, [], b""), []), entries, before, racy, overtaken
        )
        for key in list(overtaken):  # in one step, as an interrupting call may add to them
            if key in before.overlay:
                shard_index.overlay[key] = before.overlay[key]
                shard_index.dirty_keys.add(key)
                shard_index.stamp = NO_STAMP
        self._shards[shard] = shard_index
        self._distrusted.discard(shard)

    def forget_stamps(self) -> None:
        """Have the next scan list every shard whose stamp the packs don't give."""
        for shard_index in self._shards.values():
            shard_index.stamp = NO_STAMP

    def distrust(self, shards: Iterable[str]) -> None:
        """Have the next scan list these shards, whatever stamps it or the packs give them."""
        for shard in shards:
            self._shards[shard].stamp = NO_STAMP
            self._distrusted.add(shard)

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

    def begin_update(
        self, shard: str, values: dict[str, Packed], begun: list[ShardUpdate]
    ) -> ShardUpdate | None:
        """What a new pack has to record of this shard; None if nothing.

        ``values``: by key, what was read of files. One is left out if the file is another one by
        now, as a later scan has found. From here on the pack counts as written: the caller calls
        ``rollback`` if it wasn't. ``begun`` gets the update before: an exception may come at once.
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
                read = values.get(key)
                data = read.data if read and read.signature == one.signature else None
                records.append(PackRecord(key, one.signature, data))
            else:
                records.append(PackRecord(key, UNKNOWN, None))
        update = ShardUpdate(
            shard, shard_index.stamp, records, shard_index.dirty_keys, shard_index.persisted_stamp
        )
        begun.append(update)
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
        """Undo ``begin_update``: the update didn't get to disk. Doing it again changes nothing."""
        shard_index = self._shards[update.shard]
        shard_index.dirty_keys |= update.keys
        shard_index.persisted_stamp = update.persisted_stamp
