"""Layout: how a store lies on disk. The names of its files, their signatures and stamps.

A store is a directory of 256 shards, ``00`` to ``ff``, that hold the value files::

    ab/<64 hex digits>.pkl                          the value file of the key with this digest
    ab/.nfsdict-<24 hex>                            being written (by the core)
    ab/.nfsdict-taken-<digest>.pkl-<24 hex>         a value under a private name
    ab/.nfsdict-claim-<digest>                      held by an ``add`` where hard links are refused
    ab/<digest>.pkl.damaged-<12 hex>                a damaged value file that ``repair`` put aside
    .nfsdict-directory-<24 hex>                     a shard that has no bits yet
    _index.nfsdict-pkl                              the manifest of the index
    _pack.nfsdict-pkl-<24 hex>                      a pack
    .nfsdict-claim-index-pkl                        held by who writes the manifest
    _index.pkl                                      the index of release 0.2.1
"""

from __future__ import annotations

import os
import re
import struct
from typing import NamedTuple

SHARDS = [f"{number:02x}" for number in range(256)]
_DIGEST = 64  # hexadecimal digits of a SHA-256
_RANDOM = 12  # bytes in the names of files that nobody else is to have

TEMPORARY = ".nfsdict-"
NEW_DIRECTORY = TEMPORARY + "directory-"
_PRIVATE = TEMPORARY + "taken-"
_CLAIM = TEMPORARY + "claim-"
DAMAGED = ".damaged-"
_PACK_ID = re.compile(f"[0-9a-f]{{{2 * _RANDOM}}}")


def random_name() -> str:
    """So many hexadecimal digits that nobody else draws them."""
    return os.urandom(_RANDOM).hex()


def temporary_name() -> str:
    """A new name for a file that is being written."""
    return TEMPORARY + random_name()


# --- value files -------------------------------------------------------------------------------


def digest_of(path: str) -> str:
    """The digest in the path of a value file."""
    return os.path.basename(path)[:_DIGEST]


def value_names(extension: str) -> re.Pattern[str]:
    """The names of value files: their digests, and their extensions, which match the pattern."""
    return re.compile(rf"([0-9a-f]{{{_DIGEST}}})({extension})")


def private_path(path: str) -> str:
    """A new private name for this value file, beside it.

    It doesn't end like a value file's, so that who looks for those doesn't find it.
    """
    shard, name = os.path.split(path)
    return f"{shard}/{_PRIVATE}{name}-{random_name()}"


def is_private(path: str) -> bool:
    """Whether a temporary file has a private name, and so holds a value."""
    return os.path.basename(path).startswith(_PRIVATE)


def named_path(private: str) -> str:
    """The path that the value file with this private path belongs at."""
    shard, name = os.path.split(private)
    return f"{shard}/{name[len(_PRIVATE) : -len('-') - 2 * _RANDOM]}"


def damaged_path(path: str) -> str:
    """A new name beside a damaged value file, which no scan takes, 0.2.1's neither."""
    return f"{path}{DAMAGED}{os.urandom(6).hex()}"


def is_damaged(extension: str) -> bool:
    """Whether a file with this behind its digest was put aside as damaged."""
    return DAMAGED in extension


def claim_path(path: str) -> str:
    """The claim on giving this value file its name."""
    shard = os.path.dirname(path)
    return f"{shard}/{_CLAIM}{digest_of(path)}"


# --- index -------------------------------------------------------------------------------------


def is_index_file(name: str) -> bool:
    """Whether a file beside the shards has the name of one of the index, of any serializer."""
    return name.startswith("_")


class IndexPaths:
    """The paths of the index of one store, for value files of one extension."""

    def __init__(self, directory: str, extension: str) -> None:
        kind = extension[1:]
        self._directory = directory
        self._pack = f"_pack.nfsdict-{kind}-"
        self.manifest = f"{directory}/_index.nfsdict-{kind}"
        self.claim = f"{directory}/{_CLAIM}index-{kind}"
        self.legacy_index = f"{directory}/_index{extension}"
        """that of release 0.2.1"""

    def pack(self, pack_id: str) -> str:
        """The path of this pack."""
        return f"{self._directory}/{self._pack}{pack_id}"

    def pack_id(self, name: str) -> str | None:
        """The id of the pack with this name; None if it isn't one's.

        Nor that of a serializer whose extension begins like this one's.
        """
        pack_id = name[len(self._pack) :]
        return pack_id if name.startswith(self._pack) and _PACK_ID.fullmatch(pack_id) else None


# --- signatures and stamps ---------------------------------------------------------------------

_SIGNATURE = struct.Struct("<QQqq")  # inode, size, mtime and ctime in ns
_INODE, _SIZE, _MTIME, _CTIME = slice(0, 8), slice(8, 16), slice(16, 24), slice(24, 32)
SIGNATURE_BYTES = _SIGNATURE.size
UNKNOWN = bytes(SIGNATURE_BYTES)
"""the signature that no file has"""
_LAST = (1 << 63) - 1  # the time of what has one that 64 bits don't hold
_NANOSECONDS = _LAST - _LAST % 1_000_000_000


class Stamp(NamedTuple):
    """A shard directory's times in ns. One that is still the same has had no change since.

    Making, renaming and removing a file in it sets both. ``cp -a``, ``rsync -a``, ``tar`` and
    restores set the mtime back afterwards; the ctime is set by that, and by chmod, and nobody can
    give it another time (inode(7)).
    """

    mtime: int
    ctime: int

    def __bool__(self) -> bool:
        """Whether it is known."""
        return self != NO_STAMP


NO_STAMP = Stamp(0, 0)


def _held(moment: int) -> int:
    return moment if -_NANOSECONDS <= moment < _NANOSECONDS else _LAST


def stamp_of(status: os.stat_result) -> Stamp:
    """Mtime and ctime, as the core gives them."""
    return Stamp(_held(status.st_mtime_ns), _held(status.st_ctime_ns))


def signature_of(status: os.stat_result) -> bytes:
    """Inode, size, mtime and ctime in ns, as the core gives them."""
    return _SIGNATURE.pack(status.st_ino, status.st_size, *stamp_of(status))


def signature_at(signatures: bytes, position: int) -> bytes:
    """One of those that follow one another."""
    return signatures[SIGNATURE_BYTES * position : SIGNATURE_BYTES * (position + 1)]


def inode_of(signature: bytes) -> int:
    """The inode's number."""
    return int.from_bytes(signature[_INODE], "little")


def file_size(signature: bytes) -> int:
    """Bytes in the file."""
    return int.from_bytes(signature[_SIZE], "little")


def mtime_of(signature: bytes) -> int:
    """The mtime in ns."""
    return int.from_bytes(signature[_MTIME], "little", signed=True)


def latest_of(signature: bytes) -> int:
    """The later one of mtime and ctime in ns."""
    return max(mtime_of(signature), int.from_bytes(signature[_CTIME], "little", signed=True))


def same_but_for_ctime(one: bytes, other: bytes) -> bool:
    """Whether one signature may be the other one's file, renamed or linked since: that sets its
    ctime. Any file may have it that was written in place, and given its mtime again."""
    return one[: _CTIME.start] == other[: _CTIME.start]
