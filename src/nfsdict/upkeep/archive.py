"""Archive: the value files of a store as a tar, with a last member that shows whether it is whole.

The members of an archive of format 1, each a regular file in tar's GNU format with a single header
block:

- ``.nfsdict-archive``: the JSON object ``{"format": 1, "extension": ".pkl"}``, where ``extension``
  is the end of the value files' names, which the store's serializer gives;
- ``ab/<digest>.pkl``, as it is called in the store: a value file, in the order of the digests;
- ``.nfsdict-archive-end``: the JSON object ``{"entries": number, "sha256": digest}``. The number is
  that of the value files. The digest is the SHA-256 of, one after another for each, its member's
  name, a NUL, its size in decimal digits, a NUL, and its bytes.

So ``tar -x`` in an empty directory makes a store of it. Whoever imports an archive takes nothing
from it but such members, and no path: of a name the digest counts, and that must be the digest of
the key inside.
"""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

from ..content import Data
from ..errors import ArchiveError
from ..layout import ARCHIVE, ARCHIVE_END, value_names
from ..serializers import EXTENSION

_FORMAT = 1
_BLOCK = tarfile.BLOCKSIZE
# A name in a single header block has so many characters at most.
_LONGEST_NAME = 100
# Of these a digest and its shard have so many.
_OWN = 67
# The first and the last member have a few dozen bytes.
_CONTROL = 4096
# Bytes that are read at a time: a header that lies about a size costs no memory.
_PIECE = 1 << 20


class Member(NamedTuple):
    """A value file in an archive."""

    hexdigest: str
    data: bytes


class Summary(NamedTuple):
    """What the last member says."""

    entries: int
    sha256: str


class _Digest:
    """The summary of the members so far."""

    def __init__(self) -> None:
        self._entries = 0
        self._hash = hashlib.sha256()

    def add(self, name: str, data: Data) -> None:
        self._entries += 1
        self._hash.update(f"{name}\0{len(data)}\0".encode())
        self._hash.update(data)

    def summary(self) -> Summary:
        return Summary(self._entries, self._hash.hexdigest())


def _member_name(hexdigest: str, extension: str) -> str:
    return f"{hexdigest[:2]}/{hexdigest}{extension}"


class ArchiveWriter:
    """Writes one archive to a binary file that needn't be seekable.

    ValueError if the extension is too long for a member's name.
    """

    def __init__(self, file: IO[bytes], extension: str) -> None:
        if len(extension) > _LONGEST_NAME - _OWN:
            raise ValueError(
                f"an archive takes extensions of {_LONGEST_NAME - _OWN} characters "
                f"at most, not {extension!r}: copy the store to one with another serializer"
            )
        self._file = file
        self._extension = extension
        self._digest = _Digest()
        self._write_json(ARCHIVE, {"format": _FORMAT, "extension": extension})

    def add(self, hexdigest: str, data: Data, seconds: int) -> None:
        """Append a value file, with its mtime in seconds."""
        name = _member_name(hexdigest, self._extension)
        self._digest.add(name, data)
        self._write(name, data, seconds)

    def end(self) -> Summary:
        """Write the last member, and what ends a tar."""
        summary = self._digest.summary()
        self._write_json(ARCHIVE_END, summary._asdict())
        self._file.write(bytes(2 * _BLOCK))
        return summary

    def _write_json(self, name: str, content: dict[str, Any]) -> None:
        self._write(name, json.dumps(content).encode() + b"\n", 0)

    def _write(self, name: str, data: Data, seconds: int) -> None:
        header = tarfile.TarInfo(name)
        header.size, header.mtime = len(data), seconds
        # ``addfile`` would copy the data, in pieces of 16 KiB.
        self._file.write(header.tobuf(tarfile.GNU_FORMAT))
        self._file.write(data)
        self._file.write(bytes(-len(data) % _BLOCK))


class Archive:
    """An archive that is read from a binary file, which needn't be seekable.

    Iterating gives its ``Member``s. ArchiveError if it isn't an archive, or of a later format; when
    iterating, if it is cut short, damaged, or has members that no export writes. The headers are
    read one by one, by ``tarfile``'s parser of a single block: what an extended header of tar can
    ask for, links, devices, sparse files, a name of a gigabyte, is refused with its block.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        try:
            name, size = self._header()
        except ArchiveError:
            name = ""
        if name != ARCHIVE:
            raise ArchiveError("this is no archive that nfsdict's export has written")
        content = self._json(size)
        if content.get("format") != _FORMAT:
            raise ArchiveError(
                f"the archive has format {content.get('format')!r}, this release reads {_FORMAT}"
            )
        extension = content.get("extension")
        if not isinstance(extension, str) or not EXTENSION.fullmatch(extension):
            raise ArchiveError(f"the archive has files of {extension!r}, which is no extension")
        self.extension = extension
        """the end of its value files' names"""

    def check(self) -> int | None:
        """Read the archive through, if its file is seekable, and go back. How many entries it has;
        None if the file isn't seekable. ArchiveError as when iterating."""
        if not self._file.seekable():
            return None
        begin = self._file.tell()
        count = sum(1 for _ in self)
        self._file.seek(begin)
        return count

    def __iter__(self) -> Iterator[Member]:
        digest = _Digest()
        names = value_names(re.escape(self.extension))
        while True:
            name, size = self._header()
            if name == ARCHIVE_END:
                break
            found = names.fullmatch(name[3:])
            if not found or name != _member_name(found[1], self.extension):
                raise ArchiveError(f"the archive has a member that no export writes: {name!r:.200}")
            data = self._data(size)
            digest.add(name, data)
            yield Member(found[1], data)
        if self._json(size) != digest.summary()._asdict():
            raise ArchiveError("the archive was damaged: its end has another number or digest")
        self._file.read(2 * _BLOCK)  # so that who writes it into a pipe can end

    def _header(self) -> tuple[str, int]:
        """Name and size of the next member."""
        block = self._read(_BLOCK)
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise ArchiveError(f"the archive was damaged: {error}") from error
        if header.type != tarfile.REGTYPE or header.size < 0:
            raise ArchiveError(
                f"the archive has a member that no export writes: {header.name!r:.200}, "
                f"of type {header.type.decode('ascii', 'replace')!r}"
            )
        return header.name, header.size

    def _data(self, size: int) -> bytes:
        data = self._read(size)
        self._read(-size % _BLOCK)
        return data

    def _json(self, size: int) -> dict[str, Any]:
        data = self._data(size) if size <= _CONTROL else b""
        try:
            content = json.loads(data)
        except (ValueError, RecursionError):
            content = None
        if not isinstance(content, dict):
            raise ArchiveError("the archive was damaged: its first or last member is no JSON")
        return content

    def _read(self, size: int) -> bytes:
        pieces: list[bytes] = []
        left = size
        while left:
            piece = self._file.read(min(left, _PIECE))
            if not piece:
                raise ArchiveError("the archive was cut short")
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)
