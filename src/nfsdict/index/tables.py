"""Pack tables: which keys the packs on disk have, and which values. No value is read."""

from __future__ import annotations

from contextlib import suppress

from ..layout import SHARDS, split_signatures
from ..storage.index_files import IndexFiles
from .pack import PackShard
from .stack import PackStack


class PackTables:
    """The tables of the packs, kept in memory until another manifest names the packs. A hint, as
    the index is: there are none where that can't be read. Safe for threads."""

    def __init__(self, files: IndexFiles) -> None:
        self._files = files
        self._manifest: bytes | None = None
        self._shards: dict[str, list[PackShard]] = {}

    def load(self) -> None:
        """Read the manifest, and the tables unless it is that of the last time."""
        manifest = None
        with suppress(OSError):  # which ``load_manifest`` logs
            manifest = self._files.read_manifest()
        if manifest is not None and manifest == self._manifest:
            return
        packs = PackStack(self._files)
        packs.load_manifest()
        self._shards = {shard: packs.shards(shard) for shard in SHARDS}
        self._manifest = None if packs.empty else manifest
        packs.close_packs()

    def keys(self, shard: str) -> set[str]:
        """All keys of this shard that the packs name, those with tombstones too."""
        return {key for said in self._shards[shard] for key in said.keys}

    def packed(self, shard: str) -> dict[str, bytes]:
        """The signatures, by key, of the files of this shard whose values the packs have."""
        found: dict[str, bytes | None] = {}
        for said in self._shards[shard]:
            signatures = split_signatures(said.signatures)
            for key, signature, held in zip(said.keys, signatures, said.held()):
                found[key] = signature if held else None
        return {key: signature for key, signature in found.items() if signature is not None}
