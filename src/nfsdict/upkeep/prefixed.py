"""Prefixed: which of a shard's files have keys that begin with a prefix."""

from __future__ import annotations

from collections.abc import Mapping

from ..batches import batches
from ..entries import Entries
from ..index.tables import PackTables
from ..layout import file_size
from ..state import StoreState
from ..storage import Storage


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
        keys = self._tables.names(shard)
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
        for names, _ in batches((name, file_size(one)) for name, one in signatures.items()):
            for name, (key, _) in self._entries.read_keys(names).items():
                self._read[name] = key.startswith(self._prefix)
