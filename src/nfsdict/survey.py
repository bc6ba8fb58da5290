"""A survey: look at the shards, and read what isn't known of them. Knows no cache and no policy.

A shard is looked at in two steps: ``plan`` lists it and says what is to be read; that is read in
batches of few bytes, so that a large shard takes no more memory than a small one.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any, Callable, NamedTuple

from .batches import batches
from .entries import Entries, Entry
from .errors import CorruptValueError, described
from .index.memory import UNREAD, IndexEntry
from .index.pack import SECTION, UNKNOWN
from .index.writer import PACKED
from .storage.store import NO_STAMP, Stamp, Store
from .storage.values import file_size

log = logging.getLogger("nfsdict")

_NOT_KEPT = object()


class ShardScan(NamedTuple):
    """One shard, as a survey found it."""

    shard: str
    number: int
    """of the look: they are numbered in the order in which they begin"""
    stamp: Stamp
    """NO_STAMP: not all that is there could be read, so that the next survey shall list it again"""
    entries: dict[str, IndexEntry]
    """what is there, by digest"""
    values: dict[str, Any]
    """what was read and is kept, by key"""
    data: dict[str, bytes]
    """the bytes of small files that were read, by key, as many as a pack takes of one shard"""
    changed: set[str]
    """keys that were added or replaced, as far as signatures or contents show it"""
    gone: set[str]
    """keys that were known and are no longer there"""
    unread: set[str]
    """known keys whose files are there and could not be read"""


class Batch(NamedTuple):
    """Files to be read at once."""

    plan: Plan
    digests: list[str]
    size: int
    """bytes of all of them"""
    last: bool
    """whether it is the last of its plan"""


class Reading(NamedTuple):
    """What is kept of an entry that was read."""

    known: IndexEntry
    value: Any
    data: bytes | None


class Plan:
    """What was listed of one shard, and what is to be read of it."""

    def __init__(self, store: Store, view: ShardScan, known: dict[str, IndexEntry]) -> None:
        self._store = store
        self._view = view
        self._known = known
        self._complete = True
        self._packed = 0
        self.unread: list[tuple[str, int]] = []
        """digests and sizes"""

    def batches(self) -> Iterator[Batch]:
        """What is to be read, in order; at least one."""
        parts = list(batches(self.unread))
        for number, (digests, size) in enumerate(parts, 1):
            yield Batch(self, digests, size, number == len(parts))

    def take(self, name: str, found: Reading | Exception | None) -> None:
        """What was read of the file of this digest: None if it is gone."""
        view, old = self._view, self._known.get(name)
        if isinstance(found, Reading):
            key = found.known.key
            view.entries[name] = found.known
            if found.value is not _NOT_KEPT:
                view.values[key] = found.value
            if found.data is not None and self._packed + len(found.data) <= SECTION:
                self._packed += len(found.data)
                view.data[key] = found.data
            if old is None or _replaced(old, found.known):
                view.changed.add(key)
            return
        self._complete = self._complete and found is None
        if found is None or isinstance(found, CorruptValueError):
            return  # removed meanwhile, or one key lost and reported
        log.warning("can't read %s: %s", self._store.path_of(name), described(found))
        if old is not None:
            view.entries[name] = old  # so that the next look tells of a change
            view.unread.add(old.key)

    def view(self) -> ShardScan:
        """The shard, when all was taken."""
        view = self._view
        known = self._known.items()
        view.gone.update(old.key for name, old in known if name not in view.entries)
        return view if self._complete else view._replace(stamp=NO_STAMP)


def plan(
    store: Store,
    shard: str,
    number: int,
    stamp: Stamp | None,
    known: dict[str, IndexEntry],
    unpacked: dict[str, Any],
    wanted: Callable[[IndexEntry, bool, int], bool],
) -> Plan:
    """List the shard: each file is to be read that has an unknown name or is wanted.

    With a ``stamp``, which the shard directory was just seen to have, it is clean: what is known
    is taken for the listing. ``wanted(known, proven, bytes)`` says whether to read a known entry,
    where ``proven`` is whether its signature shows that the file is the one that was read before:
    then its value may be among those ``unpacked``.
    """
    if stamp is None:
        stamp, signatures, _, _ = store.list(shard)
    else:
        signatures = {name: old.signature for name, old in known.items()}
    view = ShardScan(shard, number, stamp, {}, {}, {}, set(), set(), set())
    made = Plan(store, view, known)
    for name, signature in signatures.items():
        old = known.get(name)
        if old is not None:
            proven = old.proven and old.signature == signature
            if proven and old.key in unpacked:
                view.values[old.key] = unpacked[old.key]
            elif wanted(old, proven, file_size(signature)):
                made.unread.append((name, file_size(signature)))
                continue
            view.entries[name] = IndexEntry(old.key, signature, None)
            if signature != UNKNOWN and old.differs(signature):
                view.changed.add(old.key)
        else:
            made.unread.append((name, file_size(signature)))
    return made


def read(
    entries: Entries, batch: Batch, kept: Callable[[str, int], bool]
) -> list[Reading | Exception | None]:
    """The files of this batch. Values are dropped here unless ``kept(key, bytes)``."""
    found: list[Reading | Exception | None] = []
    for entry in entries.read(batch.digests):
        if not isinstance(entry, Entry):
            found.append(entry)
            continue
        size = len(entry.data)
        value = entry.value if kept(entry.key, size) else _NOT_KEPT
        known = IndexEntry(entry.key, entry.signature, entry.fingerprint)
        found.append(Reading(known, value, entry.data if size <= PACKED else None))
    return found


def _replaced(old: IndexEntry, new: IndexEntry) -> bool:
    if old.fingerprint not in (None, UNREAD):
        return old.fingerprint != new.fingerprint
    return old.differs(new.signature)
