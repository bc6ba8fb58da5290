"""Index files: head and packs, which say nothing that the value files don't.

Readers meet a head whose packs are gone, and packs that are cut short. Both are ordinary.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from .exclusive import INDEX_CLAIM_NS, Exclusive
from .nfs import READ_FLAGS, TEMPORARY, failure
from .values import mtime_of

log = logging.getLogger("nfsdict")

_WRITE = os.O_WRONLY | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
_WRITE |= getattr(os, "O_BINARY", 0)
_PACK_ID = re.compile("[0-9a-f]{24}")
# So much of a new file is kept in memory: what is dropped before never was on disk.
_BUFFER = 1 << 20


class PackFileReader:
    """A pack, open for reading. On local disks it is readable until closed, also when unlinked."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = os.open(path, READ_FLAGS)
        try:
            status = os.fstat(self._descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise failure(errno.ENXIO, path)
        except OSError:
            self.close()
            raise
        self._size = status.st_size

    def read(self, offset: int, size: int) -> bytes:
        """ValueError if the file ends before, OSError if it can't be read."""
        if offset + size > self._size:
            raise ValueError(f"{self._path} is cut short")
        parts = []
        while size:
            part = os.pread(self._descriptor, min(size, 1 << 30), offset)
            if not part:
                raise ValueError(f"{self._path} was cut short")
            parts.append(part)
            offset += len(part)
            size -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        """Done with reading; what close says of that matters to nobody."""
        with suppress(OSError):
            os.close(self._descriptor)


class PackFileWriter:
    """A new file, under a temporary name until it is published. To be published or dropped."""

    def __init__(self, directory: str, mode: int | None, durable: bool) -> None:
        self._temporary = os.path.join(directory, TEMPORARY + os.urandom(12).hex())
        self._mode = mode
        self._durable = durable
        self._descriptor: int | None = None
        self._parts: list[bytes] = []
        self._buffered = 0
        self.size = 0

    def write(self, data: bytes) -> None:
        """OSError as of a file; the draft is to be dropped then."""
        self._parts.append(data)
        self._buffered += len(data)
        self.size += len(data)
        if self._buffered >= _BUFFER:
            self._spill()

    def _spill(self) -> None:
        if self._descriptor is None:
            mode = 0o666 if self._mode is None else self._mode
            self._descriptor = os.open(self._temporary, _WRITE, mode)
            if self._mode is not None:
                os.fchmod(self._descriptor, self._mode)
        view = memoryview(b"".join(self._parts))
        self._parts, self._buffered = [], 0
        while view:
            view = view[os.write(self._descriptor, view[: 1 << 30]) :]

    def publish(self, path: str) -> None:
        """Give it its name. On OSError it is dropped."""
        try:
            self._spill()
            if self._descriptor is not None:
                if self._durable:
                    os.fsync(self._descriptor)
                descriptor, self._descriptor = self._descriptor, None
                os.close(descriptor)
            os.replace(self._temporary, path)
        except BaseException:
            self._remove()
            raise

    def drop(self) -> None:
        """Nothing is left of it."""
        if self._descriptor is not None:
            self._remove()

    def _remove(self) -> None:
        try:
            if self._descriptor is not None:
                descriptor, self._descriptor = self._descriptor, None
                os.close(descriptor)
        except OSError:
            pass  # what came before is what to report
        try:
            os.unlink(self._temporary)
        except OSError:
            pass


class IndexFiles(Exclusive):
    """Head and packs of one store, the claim to write them, and release 0.2.1's index."""

    def __init__(self, directory: str, extension: str, mode: int | None, durable: bool) -> None:
        super().__init__(directory, extension, mode, durable)
        kind = extension[1:]
        self._head = os.path.join(directory, f"_index.nfsdict-{kind}")
        self._pack = f"_pack.nfsdict-{kind}-"
        self._claim_on_head = os.path.join(directory, f"{TEMPORARY}claim-index-{kind}")
        self._old_index = os.path.join(directory, f"_index{extension}")

    def read_head(self) -> bytes | None:
        """The head's content, None if there is none. OSError if it can't be read."""
        [content] = self.read([self._head])
        if isinstance(content, OSError):
            raise content
        return content and content[0]

    def write_head(self, data: bytes) -> None:
        """Replace the head, atomically."""
        [outcome] = self.write_once([(self._head, data)])
        if not isinstance(outcome, bytes):
            raise failure(outcome[1], self._head)

    def remove_head(self) -> None:
        """Without it there is no index."""
        self._sweep_file(self._head)

    def _sweep_file(self, path: str) -> None:
        """Unlink what has this name of ours. A directory isn't ours, stays, and is logged."""
        try:
            self.sweep(path)
        except OSError:
            if not os.path.isdir(path):
                raise
            log.warning("%s stands where the index belongs: move it away", path)

    @contextmanager
    def claimed_head(self) -> Iterator[bool]:
        """Whether nobody else is about to write the head, who would do the same work.

        A claim that a crash has left is removed, for the next one who comes. OSError if there can
        be no claim.
        """
        mine = self._create(self._claim_on_head)
        if not mine:
            self._break_claim(self._claim_on_head, INDEX_CLAIM_NS)
        try:
            yield mine
        finally:
            if mine:
                self.sweep(self._claim_on_head)

    # --- packs, by the random part of their names ----------------------------------------------

    def _pack_path(self, name: str) -> str:
        return os.path.join(self.directory, self._pack + name)

    def open_pack(self, name: str) -> PackFileReader:
        """OSError if it can't be opened."""
        return self.retry_stale(PackFileReader, self._pack_path(name))

    def draft_pack(self) -> PackFileWriter:
        """A new pack, for ``publish_pack``."""
        return PackFileWriter(self.directory, self._mode, self._durable)

    def publish_pack(self, draft: PackFileWriter) -> str:
        """The name that it got."""
        name = os.urandom(12).hex()
        draft.publish(self._pack_path(name))
        return name

    def remove_pack(self, name: str) -> None:
        """Unlink a pack. The caller guarantees that no head names it.

        Readers that have it open lose it, on NFS at once.
        """
        self._sweep_file(self._pack_path(name))

    def packs(self) -> dict[str, int]:
        """All that are there, by name, with their mtimes in ns."""
        return {
            name[len(self._pack) :]: mtime_of(signature)
            for name, mode, signature, _ in self.retry_stale(self._listed, self.directory)[2]
            # Those alone whose age can be told, and not those of a serializer whose extension
            # begins like this one's.
            if name.startswith(self._pack) and _PACK_ID.fullmatch(name[len(self._pack) :]) and mode
        }

    def remove_old_index(self) -> None:
        """Unlink release 0.2.1's index, which it believes when it opens: it scans then."""
        self.sweep(self._old_index)
