"""Layout: how a store lies on disk. The names of its files, their signatures and stamps.

A store is a directory of 256 shards, ``00`` to ``ff``, that hold the value files::

    ab/<64 hex digits>.pkl                          the value file of the key with this digest
    ab/.nfsdict-<24 hex>                            a file that the core is writing
    ab/.nfsdict-taken-<digest>.pkl-<24 hex>         a value under a private name
    ab/.nfsdict-claim-<digest>                      held by an ``add`` where hard links are refused
    ab/<digest>.pkl.damaged-<12 hex>                a damaged value file that ``repair`` put aside
    .nfsdict-directory-<24 hex>                     a shard that hasn't got its permission bits yet
    .nfsdict-doctor-<24 hex>                        where the doctor tries the file system, if here
    .nfsdict-leases/<lease>, <lease>.<number>       who holds the lease of a key: see ``LeaseName``
    _index.nfsdict-pkl                              the manifest of the index
    _pack.nfsdict-pkl-<24 hex>                      a pack
    .nfsdict-claim-index-pkl                        held by the process that writes the manifest
    .nfsdict-claim-pack-pkl                         held by the process that writes a large pack
    _index.pkl                                      the index of release 0.2.1
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

SHARDS = [f"{number:02x}" for number in range(256)]
_SHARD_NAMES = frozenset(SHARDS)
_DIGEST = 64  # hexadecimal digits of a SHA-256
_VALUE = re.compile(rf"[0-9a-f]{{{_DIGEST}}}\.")
_RANDOM = 12  # random bytes in names that must be unique

TEMPORARY = ".nfsdict-"
PROBES = TEMPORARY + "doctor-"
"""the beginning of the name of a directory in which the doctor tries a file system"""
NEW_DIRECTORY = TEMPORARY + "directory-"
ARCHIVE, ARCHIVE_END = TEMPORARY + "archive", TEMPORARY + "archive-end"
"""the first and the last member of an archive; ``repair`` sweeps what ``tar`` makes of them"""
_PRIVATE = TEMPORARY + "taken-"
_CLAIM = TEMPORARY + "claim-"
DAMAGED = ".damaged-"
_RANDOM_NAME = re.compile(f"[0-9a-f]{{{2 * _RANDOM}}}")


def random_name() -> str:
    """24 random hexadecimal digits: 96 bits, which no other process draws again."""
    return os.urandom(_RANDOM).hex()


def is_random_name(name: str) -> bool:
    """Whether ``random_name`` can have drawn this."""
    return _RANDOM_NAME.fullmatch(name) is not None


def temporary_name() -> str:
    """A new name for a file that is being written."""
    return TEMPORARY + random_name()


# --- value files -------------------------------------------------------------------------------


def digest_of(path: str) -> str:
    """The digest from the path of a value file."""
    return os.path.basename(path)[:_DIGEST]


def value_names(extension: str) -> re.Pattern[str]:
    """A pattern for value files' names: a digest, and an extension that matches ``extension``."""
    return re.compile(rf"([0-9a-f]{{{_DIGEST}}})({extension})")


def private_path(path: str) -> str:
    """A new private path for this value file, beside it.

    It doesn't end with the extension, so that no scan takes it for a value file.
    """
    shard, name = os.path.split(path)
    return f"{shard}/{_PRIVATE}{name}-{random_name()}"


def is_private(path: str) -> bool:
    """Whether the path has a private name: such a temporary file holds a value."""
    return os.path.basename(path).startswith(_PRIVATE)


def is_named(path: str) -> bool:
    """Whether the path has the name of a key, or a private one: if it is there, so is its value."""
    return is_private(path) or not os.path.basename(path).startswith(TEMPORARY)


def named_path(private: str) -> str:
    """The value file's own path, from its private path."""
    shard, name = os.path.split(private)
    return f"{shard}/{name[len(_PRIVATE) : -len('-') - 2 * _RANDOM]}"


def damaged_path(path: str) -> str:
    """A new path beside a damaged value file. No scan takes it, nor does one of release 0.2.1."""
    return f"{path}{DAMAGED}{os.urandom(6).hex()}"


def is_damaged(extension: str) -> bool:
    """Whether the rest of a file's name after the digest shows that it was put aside as damaged."""
    return DAMAGED in extension


def claim_path(path: str) -> str:
    """The path of the claim that an ``add`` of this value file holds."""
    shard = os.path.dirname(path)
    return f"{shard}/{_CLAIM}{digest_of(path)}"


# --- leases ------------------------------------------------------------------------------------

LEASES = TEMPORARY + "leases"
"""the directory of the lease files"""
_LEASE = re.compile(
    rf"([0-9a-f]{{{_DIGEST}}})-(\d{{1,18}})-(\d{{1,18}})-([0-9a-f]*)-(\d{{1,18}})-(\d{{1,18}})"
    rf"-([0-9a-f]{{{2 * _RANDOM}}})(?:\.(\d{{1,18}}))?"
)


class LeaseName(NamedTuple):
    """The name of a lease file. It says all that others must know, so that nobody has to open it.

    It is a symbolic link that leads nowhere, where there are such links. A second one, a file which
    has the same name, a dot and a number, appears with the first renewal. Each renewal renames it
    to the next number.
    """

    hexdigest: str
    """of the key"""
    generation: int
    duration_ms: int
    """unless it is renewed within so many ms, others may take over"""
    host: str
    """of the holder, and the process's number and start: see ``storage.processes``"""
    process: int
    start: int
    nonce: str
    """random: no name is used a second time"""

    def __str__(self) -> str:
        return "-".join(map(str, self))

    def renewed(self, number: int) -> str:
        """The name of the second file after so many renewals."""
        return f"{self}.{number}"


def lease_of(name: str) -> tuple[LeaseName, int | None] | None:
    """The lease to which this file belongs, and the number after its name; None if to none."""
    found = _LEASE.fullmatch(name)
    if not found:
        return None
    hexdigest, generation, duration, host, process, start, nonce, number = found.groups()
    lease = LeaseName(
        hexdigest, int(generation), int(duration), host, int(process), int(start), nonce
    )
    return lease, None if number is None else int(number)


# --- index -------------------------------------------------------------------------------------

_INDEX = "_index.nfsdict-"


def is_index_file(name: str) -> bool:
    """Whether a file beside the shards has the name of an index file, of any serializer."""
    return name.startswith("_")


def is_shard(name: str) -> bool:
    """Whether this is a shard's name. Programs have such names too: ``dd``, ``df``, ``cc``."""
    return name in _SHARD_NAMES


def is_of_store(name: str) -> bool:
    """Whether a name in a directory is that of a shard, or of a file of the index, of a lease or of
    a write."""
    return is_shard(name) or name.startswith((_INDEX, TEMPORARY))


def is_of_shard(name: str) -> bool:
    """Whether a name in a shard is that of a value file, of any serializer, or of a write."""
    return name.startswith(TEMPORARY) or _VALUE.match(name) is not None


class IndexPaths:
    """The paths of the index of one store, for value files of one extension."""

    def __init__(self, directory: str, extension: str) -> None:
        kind = extension[1:]
        self._directory = directory
        self._pack = f"_pack.nfsdict-{kind}-"
        self.manifest = f"{directory}/{_INDEX}{kind}"
        self.claim = f"{directory}/{_CLAIM}index-{kind}"
        self.pack_claim = f"{directory}/{_CLAIM}pack-{kind}"
        self.legacy_index = f"{directory}/_index{extension}"
        """the index of release 0.2.1"""

    def pack(self, pack_id: str) -> str:
        """The path of the pack with this id."""
        return f"{self._directory}/{self._pack}{pack_id}"

    def pack_id(self, name: str) -> str | None:
        """The id of the pack with this name; None if it isn't a pack's name.

        Nor is it the name of a pack of a serializer whose extension begins like this one's.
        """
        pack_id = name[len(self._pack) :]
        return pack_id if name.startswith(self._pack) and is_random_name(pack_id) else None


# --- signatures and stamps ---------------------------------------------------------------------

_SIGNATURE = struct.Struct("<QQqq")  # inode, size, mtime and ctime in ns
_INODE, _SIZE, _MTIME, _CTIME = slice(0, 8), slice(8, 16), slice(16, 24), slice(24, 32)
SIGNATURE_BYTES = _SIGNATURE.size
UNKNOWN = bytes(SIGNATURE_BYTES)
"""the signature that no file has"""
_LAST = (1 << 63) - 1  # stands for a time that doesn't fit into 64 bits
_NANOSECONDS = _LAST - _LAST % 1_000_000_000


class Stamp(NamedTuple):
    """A shard directory's times in ns. While both are the same, no name in it has changed.

    Making, renaming or removing a file in the directory sets both. ``cp -a``, ``rsync -a``, ``tar``
    and restores set the mtime back afterwards. That itself sets the ctime to the present, as chmod
    does, and nobody can set a ctime to any other time (inode(7)).
    """

    mtime: int
    ctime: int

    def __bool__(self) -> bool:
        """Whether the stamp is known."""
        return self != NO_STAMP


NO_STAMP = Stamp(0, 0)


def _held(moment: int) -> int:
    return moment if -_NANOSECONDS <= moment < _NANOSECONDS else _LAST


def stamp_of(status: os.stat_result) -> Stamp:
    """The stamp from these attributes, as the core gives it."""
    return Stamp(_held(status.st_mtime_ns), _held(status.st_ctime_ns))


def signature_of(status: os.stat_result) -> bytes:
    """The signature (inode, size, mtime and ctime in ns) from these attributes, as the core's."""
    return _SIGNATURE.pack(status.st_ino, status.st_size, *stamp_of(status))


def signature_at(signatures: bytes, position: int) -> bytes:
    """The signature at this position in a row of signatures."""
    return signatures[SIGNATURE_BYTES * position : SIGNATURE_BYTES * (position + 1)]


def split_signatures(signatures: bytes) -> Iterator[bytes]:
    """Each of a row of signatures."""
    return (signature for (signature,) in struct.iter_unpack(f"{SIGNATURE_BYTES}s", signatures))


def inode_of(signature: bytes) -> int:
    """The inode's number."""
    return int.from_bytes(signature[_INODE], "little")


def file_size(signature: bytes) -> int:
    """Bytes in the file."""
    return int.from_bytes(signature[_SIZE], "little")


def mtime_of(signature: bytes) -> int:
    """The mtime in ns."""
    return int.from_bytes(signature[_MTIME], "little", signed=True)


def ctime_of(signature: bytes) -> int:
    """The ctime in ns."""
    return int.from_bytes(signature[_CTIME], "little", signed=True)


def latest_mtime(signatures: Iterable[bytes]) -> int:
    """The latest mtime in ns of all these; 0 if there are none."""
    return max((one[2] for one in _SIGNATURE.iter_unpack(b"".join(signatures))), default=0)


def sizes_and_mtimes(signatures: Iterable[bytes]) -> Iterator[tuple[int, int]]:
    """Size and mtime in ns of each of these."""
    return ((one[1], one[2]) for one in _SIGNATURE.iter_unpack(b"".join(signatures)))


def latest_of(signature: bytes) -> int:
    """The later one of mtime and ctime in ns."""
    return max(mtime_of(signature), ctime_of(signature))


def free_inodes(status: os.statvfs_result) -> int | None:
    """How many files more the file system has room for; None if it doesn't tell: the number of all
    is 0 then, or, on CephFS, that of the free ones can't be."""
    free = status.f_favail
    return free if 0 < status.f_files >= free >= 0 else None


def whole_seconds(signature: bytes) -> bytes:
    """The signature with its times cut to whole seconds."""
    inode, size, mtime, ctime = _SIGNATURE.unpack(signature)
    second = 1_000_000_000
    return _SIGNATURE.pack(inode, size, mtime - mtime % second, ctime - ctime % second)


def same_but_for_ctime(one: bytes, other: bytes) -> bool:
    """Whether both signatures may be those of one file, renamed or linked in between.

    Renaming and linking set only the ctime. But a file that was written in place and then got its
    mtime back can also differ in the ctime alone.
    """
    return one[: _CTIME.start] == other[: _CTIME.start]
