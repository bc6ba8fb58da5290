"""A survey: look at the shards, and read what isn't known of them. Knows no cache and no policy."""

from __future__ import annotations

import logging
from typing import Any, Callable, NamedTuple

from .entries import Entries, Entry
from .errors import CorruptValueError, described
from .index import UNREAD, Known
from .notes import PACKED
from .pack import UNKNOWN
from .store import NO_STAMP, Stamp, Store

log = logging.getLogger("nfsdict")


class View(NamedTuple):
    """One shard, as a survey found it."""

    shard: str
    number: int
    """of the look: they are numbered in the order in which they begin"""
    stamp: Stamp
    """NO_STAMP: not all that is there could be read, so that the next survey shall list it again"""
    entries: dict[str, Known]
    """what is there, by digest"""
    values: dict[str, Any]
    """what was read, by key"""
    data: dict[str, bytes]
    """the bytes of small files that were read, by key"""
    changed: set[str]
    """keys that were added or replaced, as far as signatures or contents show it"""
    gone: set[str]
    """keys that were known and are no longer there"""
    unread: set[str]
    """known keys whose files are there and could not be read"""


def look(
    store: Store,
    entries: Entries,
    shard: str,
    number: int,
    stamp: Stamp | None,
    known: dict[str, Known],
    unpacked: dict[str, Any],
    wanted: Callable[[Known, bool], bool],
) -> View:
    """List the shard, and read each file that has an unknown name or is wanted.

    With a ``stamp``, which the shard directory was just seen to have, it is clean: what is known
    is taken for the listing. ``wanted(known, proven)`` says whether to read a known entry, where
    ``proven`` is whether its signature shows that the file is the one that was read before: then
    its value may be among those ``unpacked``.
    """
    if stamp is None:
        stamp, signatures, _, _ = store.list(shard)
    else:
        signatures = {name: old.signature for name, old in known.items()}
    view = View(shard, number, stamp, {}, {}, {}, set(), set(), set())
    unread = []
    for name, signature in signatures.items():
        old = known.get(name)
        if old is not None:
            proven = old.proven and old.signature == signature
            if proven and old.key in unpacked:
                view.values[old.key] = unpacked[old.key]
            elif wanted(old, proven):
                unread.append(name)
                continue
            view.entries[name] = Known(old.key, signature, None)
            if signature != UNKNOWN and old.differs(signature):
                view.changed.add(old.key)
        else:
            unread.append(name)
    complete = True
    for name, entry in zip(unread, entries.read(unread)):
        old = known.get(name)
        if isinstance(entry, Entry):
            view.entries[name] = Known(entry.key, entry.signature, entry.fingerprint)
            view.values[entry.key] = entry.value
            if len(entry.data) <= PACKED:
                view.data[entry.key] = entry.data
            if old is None or _replaced(old, entry):
                view.changed.add(entry.key)
            continue
        complete = complete and entry is None
        if entry is None or isinstance(entry, CorruptValueError):
            continue  # removed meanwhile, or one key lost and reported
        log.warning("can't read %s: %s", store.path_of(name), described(entry))
        if old is not None:
            view.entries[name] = Known(old.key, UNKNOWN, None)
            view.unread.add(old.key)
    view.gone.update(old.key for name, old in known.items() if name not in view.entries)
    return view if complete else view._replace(stamp=NO_STAMP)


def _replaced(old: Known, entry: Entry) -> bool:
    if old.fingerprint not in (None, UNREAD):
        return old.fingerprint != entry.fingerprint
    return old.differs(entry.signature)
