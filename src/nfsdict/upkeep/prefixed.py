"""Prefixed: which of a shard's files have keys that begin with a prefix."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from ..batches import batches
from ..core import digest
from ..entries import Entries, Entry
from ..errors import CorruptValueError, described
from ..index.tables import PackTables
from ..layout import file_size
from ..state import StoreState
from ..storage import Storage

log = logging.getLogger("nfsdict")


class Prefixed:
    """Safe for threads, as long as each asks for other shards.

    Keys are those that the index knows. A file of any other key is read for it, once; what it told
    is kept, about 150 bytes a file. One that is damaged or can't be read tells no key.
    """

    def __init__(self, prefix: str, state: StoreState, storage: Storage, entries: Entries) -> None:
        self._prefix = prefix
        self._state = state
        self._tables = PackTables(storage.index)
        self._entries = entries
        self._read: dict[str, bool] = {}
        if prefix:
            self._tables.load()

    def among(self, shard: str, signatures: dict[str, bytes]) -> dict[str, bytes]:
        """Those of these files of the shard, by digest, with their signatures."""
        if not self._prefix:
            return signatures
        # A digest has one key, however old it is what the packs or this dictionary know.
        keys = {digest(key): key for key in self._tables.keys(shard)}
        with self._state.locks.guard:
            keys.update(self._state.names(shard))
        self._read_unknown(
            {
                name: one
                for name, one in signatures.items()
                if name not in keys and name not in self._read
            }
        )
        return {
            name: one
            for name, one in signatures.items()
            if (keys[name].startswith(self._prefix) if name in keys else self._read.get(name))
        }

    def _read_unknown(self, signatures: Mapping[str, bytes]) -> None:
        def note(hexdigest: str, entry: Entry | Exception | None) -> None:
            if isinstance(entry, Entry):
                self._read[hexdigest] = entry.key.startswith(self._prefix)
            elif entry is not None and not isinstance(entry, CorruptValueError):  # that was logged
                path = self._entries.path_of(hexdigest)
                log.warning("can't read %s: %s", path, described(entry))

        for names, _ in batches((name, file_size(one)) for name, one in signatures.items()):
            self._entries.read_entries(names, note)
