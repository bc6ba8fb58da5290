"""Pack tables: which keys the packs on disk have, and which values. No value is read."""

from __future__ import annotations

from contextlib import suppress

from ..core import digest
from ..layout import SHARDS, split_signatures
from ..storage.index_files import IndexFiles
from .pack import Pack, PackShard
from .stack import PackStack


class PackTables:
    """The tables of the packs, kept in memory until another manifest names the packs. A hint, as
    the index is: there are none where that can't be read. Safe for threads."""

    def __init__(self, files: IndexFiles) -> None:
        self._files = files
        self._manifest: bytes | None = None
        self._shards: dict[str, list[PackShard]] = {}
        self.packs: list[Pack] = []
        """the packs, the lowest first; closed"""

    def load(self) -> None:
        """Read the manifest, and the tables unless it is that of the last time."""
        manifest = None
        with suppress(OSError):
            manifest = self._files.read_manifest()
        if manifest is not None and manifest == self._manifest:
            return
        shards: dict[str, list[PackShard]] = {}
        opened: list[Pack] = []
        if manifest is not None:
            packs = PackStack(self._files)
            packs.load_manifest()
            shards = {shard: packs.shards(shard) for shard in SHARDS}
            opened = packs.packs
            if packs.empty:
                manifest = None  # it couldn't be used; perhaps it can the next time
            packs.close_packs()
        self._manifest, self._shards, self.packs = manifest, shards, opened

    def names(self, shard: str) -> dict[str, str]:
        """All keys of this shard that the packs name, those with tombstones too, by digest."""
        keys = {key for said in self._shards.get(shard, ()) for key in said.keys}
        return {digest(key): key for key in keys}

    def has_value(self, shard: str, key: str, signature: bytes) -> bool:
        """Whether the packs have the value of this key's file, if that has this signature."""
        for said in reversed(self._shards.get(shard, ())):
            if key in said.keys:
                at = said.keys.index(key)
                return said.signature(at) == signature and list(said.held())[at]
        return False

    def packed(self, shard: str) -> dict[str, bytes]:
        """The signatures, by key, of the files of this shard whose values the packs have."""
        found: dict[str, bytes | None] = {}
        for said in self._shards.get(shard, ()):
            signatures = split_signatures(said.signatures)
            for key, signature, held in zip(said.keys, signatures, said.held()):
                found[key] = signature if held else None
        return {key: signature for key, signature in found.items() if signature is not None}
