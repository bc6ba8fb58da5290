"""Verify: read and decode every value file, and compare it with the value that the index has."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from ..batches import batches
from ..core import digest
from ..entries import Entries, Entry
from ..errors import CorruptValueError, described
from ..index.stack import PackStack
from ..layout import file_size, is_damaged
from ..parallel import in_parallel
from ..progress import Progress
from ..storage import Storage
from ..storage.shards import Listing


@dataclass(frozen=True)
class VerifyReport:
    """What ``verify`` found."""

    entries: int = 0
    """value files that are whole"""
    damaged: dict[str, str] = field(default_factory=dict)
    """paths of damaged value files, and what is wrong with each"""
    unreadable: dict[str, str] = field(default_factory=dict)
    """paths of value files that could not be read or unpickled here, or are signed with another
    key, or look damaged on a file system that may show what isn't there (see ``Kind.rereads``), and
    why; they may be whole"""
    contradicted: dict[str, str] = field(default_factory=dict)
    """paths of whole value files for which the index has another value, and of which key: some
    program has written them in place. Openings go on serving the index's old value until
    ``repair``, ``sync`` or ``pack`` puts it right"""
    temporary: dict[str, int] = field(default_factory=dict)
    """paths of temporary files, and since when they exist, in ns by the server's clock: writes
    under way, or left by a crash"""
    put_aside: list[str] = field(default_factory=list)
    """paths of damaged value files that ``repair`` has put aside. Nothing reads them: remove them
    when you need them no more"""
    unrecognized: list[str] = field(default_factory=list)
    """paths in the shard directories that nfsdict neither wrote nor touches"""

    @property
    def ok(self) -> bool:
        """Whether every value file is whole, could be read, and is what openings serve."""
        return not (self.damaged or self.unreadable or self.contradicted)


class _Listed(NamedTuple):
    """A shard that was listed; ``believed``: by key, fingerprints of what the index serves."""

    signatures: dict[str, bytes]
    believed: dict[str, int]
    temporary: dict[str, int]
    unrecognized: list[str]


class _Piece(NamedTuple):
    """Files of a shard that are read in one call."""

    shard: _Listed
    names: list[str]
    size: int
    """of the files together, in bytes"""
    last: bool
    """whether it is the shard's last one"""


def verify(
    storage: Storage,
    entries: Entries,
    workers: int,
    progress: Progress,
    operation: str = "verify",
) -> VerifyReport:
    """Read and decode every value file. OSError if a directory can't be listed."""
    packs = PackStack(storage.index)

    def listed(shard: str) -> _Listed:
        listing = storage.shards.list(shard)
        believed = {
            key: entries.fingerprint(data) for key, data in _believed(packs, shard, listing).items()
        }
        return _Listed(listing.signatures, believed, listing.temporary, listing.unrecognized)

    def pieces() -> Iterator[_Piece]:
        for shard in in_parallel(listed, present, workers, size=packs.size):
            total.temporary.update(shard.temporary)
            for path in shard.unrecognized:
                aside = is_damaged(os.path.basename(path))
                (total.put_aside if aside else total.unrecognized).append(path)
            files = ((name, file_size(one)) for name, one in shard.signatures.items())
            parts = list(batches(files))
            for number, (names, size) in enumerate(parts, 1):
                yield _Piece(shard, names, size, number == len(parts))

    def examine(piece: _Piece) -> tuple[_Piece, VerifyReport]:
        shard, names = piece.shard, piece.names
        whole = 0
        damaged: dict[str, str] = {}
        unreadable: dict[str, str] = {}
        contradicted: dict[str, str] = {}

        def note(name: str, entry: Entry | Exception | None) -> None:
            nonlocal whole
            if isinstance(entry, Entry):
                whole += 1
                # A file replaced since the listing has another signature: the index isn't believed.
                if (
                    shard.believed.get(entry.key, entry.fingerprint) != entry.fingerprint
                    and entry.signature == shard.signatures[name]
                    and _served(packs, entries, name, entry.key)
                ):
                    reason = f"the index has another value of {entry.key!r:.200}"
                    contradicted[storage.values.path_of(name)] = reason
            elif isinstance(entry, CorruptValueError):
                unsure = entry.foreign or not storage.values.sure_of_content
                (unreadable if unsure else damaged)[entry.path] = entry.reason
            elif entry is not None:
                unreadable[storage.values.path_of(name)] = described(entry)

        entries.read_entries(names, note)
        return piece, VerifyReport(whole, damaged, unreadable, contradicted)

    storage.shards.find_root(whole_path=True)
    whole = 0
    total = VerifyReport(temporary=storage.shards.temporary_files())
    present = storage.shards.present()
    packs.load_manifest()
    try:
        examined = in_parallel(examine, pieces(), workers, size=lambda piece: piece.size)
        for _, part in progress.over(
            examined,
            len(present),
            operation,
            count=lambda done: done[0].last,
            size=lambda done: done[0].size,
        ):
            whole += part.entries
            total.damaged.update(part.damaged)
            total.unreadable.update(part.unreadable)
            total.contradicted.update(part.contradicted)
    finally:
        packs.close_packs()
    return replace(total, entries=whole)


def _served(packs: PackStack, entries: Entries, name: str, key: str) -> bool:
    """Whether openings serve the packs' bytes: if they can't be decoded, the file is read."""
    packed = packs.packed_values(name[:2]).get(key)
    return packed is not None and bool(entries.unpack({key: packed}))


def _believed(packs: PackStack, shard: str, listing: Listing) -> dict[str, bytes]:
    """The bytes, by key, that an opening takes from the packs instead of this shard's files."""
    told = packs.shards(shard)
    if not told:
        return {}
    values = packs.packed_values(shard)
    if listing.stamp and told[-1].stamp == listing.stamp:
        return values  # an opening finds the shard clean, and doesn't list it
    signatures: dict[str, bytes] = {}
    for one in told:
        signatures.update((key, one.signature(at)) for at, key in enumerate(one.keys))
    return {
        key: value
        for key, value in values.items()
        if listing.signatures.get(digest(key)) == signatures[key]
    }
