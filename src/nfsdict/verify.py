"""Examine every file of a store, and mend what can be. No file that may be a value is deleted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from .batches import batches
from .content import fingerprint
from .core import digest
from .entries import Entries, Entry
from .errors import CorruptValueError, described
from .index.stack import PackStack
from .parallel import in_parallel
from .storage.store import Listing, Store
from .storage.values import file_size


@dataclass(frozen=True)
class Report:
    """What ``verify`` found."""

    entries: int = 0
    """value files that are whole"""
    damaged: dict[str, str] = field(default_factory=dict)
    """paths of damaged value files, and what is wrong with each"""
    unreadable: dict[str, str] = field(default_factory=dict)
    """paths of value files that could not be read or unpickled here, or are signed with another
    key, and why; they may be whole"""
    contradicted: dict[str, str] = field(default_factory=dict)
    """paths of value files that are whole and that something has written in place, and what of:
    openings go on serving the old value, which the index has, until ``repair``, ``sync`` or
    ``pack`` puts it right"""
    temporary: dict[str, int] = field(default_factory=dict)
    """paths of temporary files, and since when, in ns by the server's clock: writes under way, or
    left by a crash"""
    strangers: list[str] = field(default_factory=list)
    """paths in the shard directories that nfsdict neither wrote nor touches"""

    @property
    def ok(self) -> bool:
        """Whether every value file is whole, could be read, and is what openings serve."""
        return not (self.damaged or self.unreadable or self.contradicted)


@dataclass(frozen=True)
class Repair:
    """What ``repair`` did."""

    report: Report
    """what was there before"""
    swept: list[str]
    """temporary files that were removed, or given back if a crash left them half taken"""
    set_aside: dict[str, str]
    """damaged value files, and where each was moved"""
    failed: dict[str, str] = field(default_factory=dict)
    """paths of what should have been done, and could not be, and why"""


class _Listed(NamedTuple):
    """A shard that is to be examined."""

    signatures: dict[str, bytes]
    believed: dict[str, int]
    temporary: dict[str, int]
    strangers: list[str]


def verify(store: Store, entries: Entries, workers: int) -> Report:
    """Read and decode every value file. OSError if a directory can't be listed."""
    packs = PackStack(store)

    def listed(shard: str) -> _Listed:
        listing = store.list(shard)
        believed = {
            key: fingerprint(data) for key, data in _believed(packs, shard, listing).items()
        }
        return _Listed(listing.signatures, believed, listing.temporary, listing.strangers)

    def pieces() -> Iterator[tuple[_Listed, list[str], int]]:
        for shard in in_parallel(listed, store.shards(), workers, size=packs.size):
            total.temporary.update(shard.temporary)
            total.strangers.extend(shard.strangers)
            files = ((name, file_size(one)) for name, one in shard.signatures.items())
            for names, size in batches(files):
                yield shard, names, size

    def examine(piece: tuple[_Listed, list[str], int]) -> Report:
        shard, names, _ = piece
        whole = 0
        damaged: dict[str, str] = {}
        unreadable: dict[str, str] = {}
        contradicted: dict[str, str] = {}
        for name, entry in zip(names, entries.read(names)):
            if isinstance(entry, Entry):
                whole += 1
                # What was replaced since the listing, nobody believes the index of.
                if (
                    shard.believed.get(entry.key, entry.fingerprint) != entry.fingerprint
                    and entry.signature == shard.signatures[name]
                    and _served(packs, entries, name, entry.key)
                ):
                    reason = f"the index has another value of {entry.key!r:.200}"
                    contradicted[store.path_of(name)] = reason
            elif isinstance(entry, CorruptValueError):
                (unreadable if entry.foreign else damaged)[entry.path] = entry.reason
            elif entry is not None:
                unreadable[store.path_of(name)] = described(entry)
        return Report(whole, damaged, unreadable, contradicted)

    store.find_root(whole_path=True)
    whole = 0
    total = Report(temporary=store.temporary_files())
    packs.load()
    try:
        for part in in_parallel(examine, pieces(), workers, size=lambda piece: piece[2]):
            whole += part.entries
            total.damaged.update(part.damaged)
            total.unreadable.update(part.unreadable)
            total.contradicted.update(part.contradicted)
    finally:
        packs.close()
    return replace(total, entries=whole)


def _served(packs: PackStack, entries: Entries, name: str, key: str) -> bool:
    """Whether the packs' bytes can be decoded: others are read from the file."""
    packed = packs.values(name[:2]).get(key)
    return packed is not None and bool(entries.unpack({key: packed}))


def _believed(packs: PackStack, shard: str, listing: Listing) -> dict[str, bytes]:
    """The bytes by key that an opening takes from the packs in the place of this shard's files."""
    told = packs.shards(shard)
    if not told:
        return {}
    values = packs.values(shard)
    if told[-1].stamp == listing.stamp:
        return values  # it doesn't list the shard
    signatures: dict[str, bytes] = {}
    for one in told:
        signatures.update((key, one.signature(at)) for at, key in enumerate(one.keys))
    return {
        key: value
        for key, value in values.items()
        if listing.signatures.get(digest(key)) == signatures[key]
    }


def repair(store: Store, entries: Entries, workers: int, grace: float) -> Repair:
    """Remove temporary files older than ``grace`` seconds, and move damaged files aside.

    What can't be done doesn't keep the rest from being done.
    """
    report = verify(store, entries, workers)
    # The server's clock on both sides: the local one says nothing about a file's age.
    limit = store.clock() - int(grace * 1e9)
    done = Repair(report, [], {})
    for path in [path for path, moment in report.temporary.items() if moment < limit]:
        try:
            if store.taken(path):
                if not store.taken_here(path):
                    continue
                store.give_back(path)  # by a pop that never returned
            else:
                store.sweep(path)
            done.swept.append(path)
        except OSError as error:
            done.failed[path] = str(error)
    for path in report.damaged:
        try:
            # Since it was looked at, somebody may have computed and written this value anew.
            [entry] = entries.read([store.digest_of(path)])
            if isinstance(entry, CorruptValueError) and not entry.foreign:
                aside = store.set_aside(path, entry.signature)
                if aside:
                    done.set_aside[path] = aside
        except OSError as error:
            done.failed[path] = str(error)
    return done
