"""Index files: manifest and packs. They hold nothing that the value files don't hold.

A manifest whose packs are gone, and a pack that is cut short, are ordinary: readers expect them.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Callable

from ..errors import failure
from ..layout import IndexPaths, mtime_of, random_name, temporary_name
from ..opening import Opened
from .claims import Claims
from .coherence import Coherence
from .descriptors import read_at, set_mode
from .directories import READ_FLAGS
from .files import WRITE_FLAGS, Files

log = logging.getLogger("nfsdict")

# Short, as breaking the claim of a process that still works costs only time.
INDEX_CLAIM_NS = 60_000_000_000
# Up to this many bytes of a new pack are held in memory. A smaller pack that is abandoned causes no
# call to the disk; for a larger one a process needs the claim to write such packs.
_BUFFER = 1 << 20


class PackFileReader:
    """A pack, open for reading. On local disks it stays readable after it was unlinked."""

    def __init__(self, path: str) -> None:
        self._path = path
        opened = Opened()
        try:
            status = os.fstat(opened.open(path, READ_FLAGS))
            if not stat.S_ISREG(status.st_mode):
                raise failure(errno.ENXIO, path)
            # From here on it is closed with this object, should nobody come to close it: with a
            # ResourceWarning for those who ask for them.
            self._file = opened.give(io.FileIO)
        except BaseException:
            opened.close()
            raise
        self._size = status.st_size

    def read_at(self, offset: int, size: int) -> bytes:
        """These bytes. ValueError if the file ends before them, OSError if it can't be read."""
        if offset + size > self._size:
            raise ValueError(f"{self._path} is cut short")
        parts = []
        while size:
            part = read_at(self._file.fileno(), min(size, 1 << 30), offset)
            if not part:
                raise ValueError(f"{self._path} was cut short")
            parts.append(part)
            offset += len(part)
            size -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        """Close the file. An error is ignored, as nothing was written."""
        with suppress(OSError):
            self._file.close()


class PackClaim:
    """The claim to write a large pack: of many processes that have read the same files, and begin
    to write the same pack, one goes on. ``wanted``: whether such a pack is still of use."""

    def __init__(self, claims: Claims, files: Files, path: str, wanted: Callable[[], bool]) -> None:
        self._claims = claims
        self._files = files
        self._path = path
        self._wanted = wanted
        self._mine = False
        self.lost = False
        """whether another process was faster"""

    def take(self) -> bool:
        """Whether the caller may go on. OSError if the claim can't be made."""
        if not self._mine:
            self._mine = self._claims.try_claim(self._path)
            if not self._mine:
                self._claims.break_old(self._path, INDEX_CLAIM_NS)
            self.lost = not (self._mine and self._wanted())
        return not self.lost

    def give_up(self) -> None:
        """Remove the claim, if it was made. An error is ignored, as the claim expires."""
        if self._mine:
            self._mine = False
            with suppress(OSError):
                self._files.sweep(self._path)


class PackFileWriter:
    """A new pack file under a temporary name. The caller must call ``publish`` or ``abandon``.
    After ``publish`` it gives up the claim, once the manifest names the pack."""

    def __init__(
        self, directory: str, mode: int | None, durable: bool, claim: PackClaim | None
    ) -> None:
        self._temporary = os.path.join(directory, temporary_name())
        self._mode = mode
        self._durable = durable
        self._claim = claim
        self._opened = Opened()
        self._parts: list[bytes] = []
        self._buffered = 0
        self.size = 0

    def write(self, data: bytes) -> None:
        """Append these bytes. After an OSError the caller abandons the writer; it is EBUSY if
        another process writes such a pack."""
        self._parts.append(data)
        self._buffered += len(data)
        self.size += len(data)
        if self._buffered >= _BUFFER:
            if self._claim is not None and not self._claim.take():
                raise failure(errno.EBUSY, self._temporary)
            self._spill()

    def _spill(self) -> None:
        if not self._opened:
            mode = 0o666 if self._mode is None else self._mode
            descriptor = self._opened.open(self._temporary, WRITE_FLAGS, mode)
            if self._mode is not None:
                set_mode(descriptor, self._mode)
        view = memoryview(b"".join(self._parts))
        self._parts, self._buffered = [], 0
        while view:
            view = view[os.write(self._opened.descriptor, view[: 1 << 30]) :]

    def publish(self, path: str) -> None:
        """Finish the file and rename it to ``path``. On an error the file is removed."""
        try:
            self._spill()
            if self._durable:
                os.fsync(self._opened.descriptor)
            self._opened.close()
            os.replace(self._temporary, path)
        except BaseException:
            self._remove()
            raise

    def abandon(self) -> None:
        """Remove the file, and give up the claim."""
        if self._opened:
            self._remove()
        if self._claim is not None:
            self._claim.give_up()

    def _remove(self) -> None:
        try:
            self._opened.close()
        except OSError:
            pass  # what came before is what to report
        try:
            os.unlink(self._temporary)
        except OSError:
            pass


class IndexFiles:
    """Manifest and packs of one store, the claim to write them, and release 0.2.1's index."""

    def __init__(self, rules: Coherence, files: Files, claims: Claims, extension: str) -> None:
        self._rules = rules
        self._files = files
        self._claims = claims
        self._paths = IndexPaths(files.directory, extension)
        self.directory = files.directory

    def read_manifest(self) -> bytes | None:
        """The manifest's content, None if there is none. OSError if it can't be read."""
        [content] = self._files.read_paths([self._paths.manifest])
        if isinstance(content, OSError):
            raise content
        return content and bytes(content[0])

    def write_manifest(self, data: bytes) -> None:
        """Replace the manifest atomically. OSError if that fails."""
        [outcome] = self._files.write_once([(self._paths.manifest, data)])
        if not isinstance(outcome, bytes):
            raise failure(outcome[1], self._paths.manifest)

    def remove_manifest(self) -> None:
        """Remove the manifest, and so the index: packs count only if a manifest names them."""
        self._sweep_file(self._paths.manifest)

    def _sweep_file(self, path: str) -> None:
        """Unlink an index file. A directory of that name isn't ours: it stays and is logged."""
        try:
            self._files.sweep(path)
        except OSError:
            if not os.path.isdir(path):
                raise
            log.warning("%s stands where the index belongs: move it away", path)

    @contextmanager
    def claimed_manifest(self) -> Iterator[bool]:
        """Hold the claim to write the manifest. False if another process holds it.

        That one does the same work, so the caller need not wait. A claim that a crash has left is
        removed, so that the next caller gets it. OSError if the claim can't be made.
        """
        mine = self._claims.try_claim(self._paths.claim)
        if not mine:
            self._claims.break_old(self._paths.claim, INDEX_CLAIM_NS)
        try:
            yield mine
        finally:
            if mine:
                self._files.sweep(self._paths.claim)

    # --- packs, by their ids: the random part of their names -------------------------------

    def name_of(self, pack_id: str) -> str:
        """The name of a pack's file in the store's directory."""
        return os.path.basename(self._paths.pack(pack_id))

    def open_pack(self, pack_id: str) -> PackFileReader:
        """Open a pack for reading. OSError if that fails."""
        return self._rules.retry_stale(PackFileReader, self._paths.pack(pack_id))

    def new_pack(self, claim: PackClaim | None = None) -> PackFileWriter:
        """A new pack, for ``publish_pack``. With a claim it is given up if it becomes large and
        another process writes such a one."""
        return PackFileWriter(self.directory, self._files.mode, self._files.durable, claim)

    def pack_claim(self, manifest: bytes | None) -> PackClaim:
        """The claim for a large pack on top of those that this manifest names."""
        return PackClaim(
            self._claims,
            self._files,
            self._paths.pack_claim,
            wanted=lambda: self.read_manifest() == manifest,
        )

    def publish_pack(self, writer: PackFileWriter) -> str:
        """Give the pack a name, and return its id. OSError if that fails."""
        pack_id = random_name()
        writer.publish(self._paths.pack(pack_id))
        self._rules.counters.packs_written += 1
        return pack_id

    def remove_pack(self, pack_id: str) -> None:
        """Unlink a pack. The caller guarantees that no manifest names it.

        Readers that have it open lose it, on NFS at once. On Windows they keep it, and who writes
        the index later removes it.
        """
        try:
            self._sweep_file(self._paths.pack(pack_id))
        except PermissionError:
            if os.name != "nt":
                raise

    def packs(self) -> dict[str, int]:
        """The ids of all packs in the store, with their mtimes in ns."""
        listed = self._rules.list(self.directory)[2]
        found: dict[str, int] = {}
        for name, mode, signature, _ in listed:
            pack_id = self._paths.pack_id(name)
            if pack_id and mode:  # a mode of 0: lstat failed, so the age is unknown
                found[pack_id] = mtime_of(signature)
        return found

    def server_time_ns(self) -> int:
        """The server's time, to compare with the mtimes that ``packs`` gives."""
        return self._files.probe_clock()

    def remove_legacy_index(self) -> None:
        """Unlink release 0.2.1's index. That release trusts it; without it, it scans the store."""
        self._files.sweep(self._paths.legacy_index)
