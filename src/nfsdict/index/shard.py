"""One shard of the index in memory: what was listed, in compact form, and what changed since."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import chain
from typing import NamedTuple

from ..core import digest
from ..layout import (
    NO_STAMP,
    SIGNATURE_BYTES,
    UNKNOWN,
    Stamp,
    ctime_of,
    file_size,
    inode_of,
    latest_of,
    same_but_for_ctime,
    signature_at,
    split_signatures,
)

# The fingerprint of a content that this process hasn't read; no hash in Python is -1.
UNREAD = -1


class IndexEntry:
    """What is known of one key's file."""

    __slots__ = ("fingerprint", "key", "signature")

    def __init__(self, key: str, signature: bytes, fingerprint: int | None) -> None:
        self.key = key
        self.signature = signature
        self.fingerprint = fingerprint
        """while the signature may be racy: the content's hash, or UNREAD; else None: not needed"""

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return file_size(self.signature)

    @property
    def proven(self) -> bool:
        """Whether an equal signature implies equal content: it lies outside the racy window."""
        return self.fingerprint is None and self.signature != UNKNOWN

    def proves(self, signature: bytes) -> bool:
        """Whether a file with this signature has the content that was read or written."""
        return self.proven and self.signature == signature

    def seen(self, signature: bytes) -> IndexEntry:
        """What is known of the file once a listing has shown this signature."""
        return IndexEntry(self.key, signature, None)

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
        """Whether ``new``, just read, shows that the file was replaced since, by an equal one too,
        or that another content was written to it.

        By contents, where that is known, and not by times: where clients stamp files, one's own
        write can get another mtime when the server has it.
        """
        if self.fingerprint in (None, UNREAD):
            return self.differs(new.signature)
        if self.fingerprint != new.fingerprint:
            return True
        return inode_of(self.signature) != inode_of(new.signature)


class Load:
    """Files that were written together, for ``LoadedEntry``."""

    __slots__ = ("named_by",)

    def __init__(self) -> None:
        self.named_by = -1
        """the server's time in ns after all had got their names; -1: not known"""


class LoadedEntry(IndexEntry):
    """What is known of a file that was written here and got its name in a later tick of the
    server's clock than its mtime: ``update`` writes many files in that way.

    Such a file needs no reading to be known again. Whoever puts another content there does so after
    the file has got its name: in place, or as another file, maybe of the same inode number and
    size. Either sets a later mtime. Whoever sets the mtime back then, as ``touch`` and ``cp -a``
    can, sets the ctime to that time. So while inode, size and mtime are as they were written, and
    the ctime is no later than the load's end, the content is.
    """

    __slots__ = ("load",)

    def __init__(self, key: str, signature: bytes, fingerprint: int | None, load: Load) -> None:
        super().__init__(key, signature, fingerprint)
        self.load = load

    def proves(self, signature: bytes) -> bool:
        if not same_but_for_ctime(self.signature, signature):
            return False
        return ctime_of(signature) <= self.load.named_by

    def seen(self, signature: bytes) -> IndexEntry:
        if not self.proves(signature):
            return super().seen(signature)
        return LoadedEntry(self.key, signature, self.fingerprint, self.load)


class Kept(NamedTuple):
    """What a listing showed to be as it was known before."""

    known: ShardIndex
    """the shard as it was known before"""
    without: list[int]
    """positions of listed keys there that aren't as they were, or weren't proven, in order"""


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
        position = self.position(hexdigest)
        if position == len(self.keys) or self.keys[position] != key:
            return None
        return IndexEntry(key, self.signature(position), None)

    def position(self, hexdigest: str) -> int:
        """Where the listed keys have this digest, or would have it."""
        low, high = 0, len(self.keys)
        while low < high:
            middle = (low + high) // 2
            if digest(self.keys[middle]) < hexdigest:
                low = middle + 1
            else:
                high = middle
        return low

    def proven(self) -> dict[str, bytes]:
        """The signatures that imply the contents that were read under them, by key."""
        signatures = dict(zip(self.keys, split_signatures(self.proven_signatures())))
        signatures.update(
            (key, known.signature) for key, known in self.overlay.items() if known and known.proven
        )
        return signatures

    def copy(self) -> ShardIndex:
        """What is known now, whatever is noted later. Keys and signatures aren't copied, as they
        are never changed in place."""
        known = ShardIndex(self.stamp, self.keys, self.signatures)
        known.overlay = self.overlay.copy()
        return known

    def proven_signatures(self) -> bytes:
        """The signatures of the listed keys; zeros for those that the overlay has, too."""
        if not self.overlay:
            return self.signatures
        signatures = bytearray(self.signatures)
        for key in self.overlay:
            position = self.position(digest(key))
            if position < len(self.keys) and self.keys[position] == key:
                start = SIGNATURE_BYTES * position
                signatures[start : start + SIGNATURE_BYTES] = UNKNOWN
        return bytes(signatures)

    def fill(
        self,
        kept: Kept,
        entries: dict[str, IndexEntry],
        before: ShardIndex,
        racy: int,
        overtaken: Collection[str],
    ) -> None:
        """Fill this new shard index with what a scan found; ``before`` is the old one.

        ``kept`` stays in compact form. Of ``entries`` (by digest) those with times before ``racy``
        join it. All others go to the overlay: their files may be replaced without a trace. Keys
        that were ``overtaken`` and that the old one doesn't know at all were removed since, and are
        left out.
        """
        known, without = kept
        if known.keys is not before.keys:  # another scan has ended meanwhile
            rest = set(range(len(known.keys))).difference(without)
            entries = {**known.listed(rest), **entries}
            known, without = ShardIndex(NO_STAMP, [], b""), []
            listed = before.entries()
        else:
            listed = before.entries(without)
        added = []
        for hexdigest, found in sorted(entries.items()):
            old = listed.pop(hexdigest, None)
            if old is None and found.key in overtaken and found.key not in before.overlay:
                self.stamp = NO_STAMP  # removed since it was listed, and never known here
                continue
            if latest_of(found.signature) < racy:
                added.append((known.position(hexdigest), found))
                if old is None or not old.proven or old.signature != found.signature:
                    self.dirty_keys.add(found.key)
                continue
            if found.fingerprint is None:
                found = IndexEntry(found.key, found.signature, UNREAD)
            self.overlay[found.key] = found
            self.dirty_keys.add(found.key)
        self._splice(known, without, added)
        self.dirty_keys.update(old.key for old in listed.values())

    def _splice(
        self, known: ShardIndex, without: list[int], added: list[tuple[int, IndexEntry]]
    ) -> None:
        """Take over the listed keys of ``known`` without those at some positions, and with these
        entries before others; all in order."""
        cuts: list[tuple[int, int, IndexEntry | None]] = [(at, 0, entry) for at, entry in added]
        cuts += [(at, 1, None) for at in without]
        if not cuts:
            self.keys, self.signatures = known.keys, known.signatures
            return
        signatures = []
        start = 0
        for at, length, entry in sorted(cuts, key=lambda cut: cut[:2]):
            self.keys += known.keys[start:at]
            signatures.append(known.signatures[SIGNATURE_BYTES * start : SIGNATURE_BYTES * at])
            if entry is not None:
                self.keys.append(entry.key)
                signatures.append(entry.signature)
            start = at + length
        self.keys += known.keys[start:]
        signatures.append(known.signatures[SIGNATURE_BYTES * start :])
        self.signatures = b"".join(signatures)

    def entries(self, positions: Iterable[int] | None = None) -> dict[str, IndexEntry]:
        """The entries known, by digest: of the listed keys all, or those at these positions, and
        what changed since."""
        known = self.listed(range(len(self.keys)) if positions is None else positions)
        for key, change in self.overlay.items():
            if change is None:
                known.pop(digest(key), None)
            else:
                known[digest(key)] = change
        return known

    def listed(self, positions: Iterable[int]) -> dict[str, IndexEntry]:
        """The entries of the listed keys at these positions, by digest."""
        return {
            digest(self.keys[at]): IndexEntry(self.keys[at], self.signature(at), None)
            for at in positions
        }
