"""The files of a store and its index, written and read without the package."""

from __future__ import annotations

import os
import pickle
import struct
import zlib
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from .layout import digest, value_file

if TYPE_CHECKING:
    from nfsdict import NfsDict

SECOND = 1_000_000_000
SHARDS = [f"{number:02x}" for number in range(256)]
UNKNOWN = bytes(32)
NO_STAMP = 0, 0
NO_SHARD = -(2**63), -(2**63)
LOOSE, GONE = 0xFFFFFFFF, 0xFFFFFFFE


WANTED = {"a": 1, "b": 2, "c": 3}  # each in a shard of its own
# Keys of one shard.
TWINS = [key for key in map(str, range(20_000)) if digest(key).startswith("00")][:64]


def open_(nfsdict: ModuleType, base: Path, **options: Any) -> NfsDict[Any]:
    Opened: type[NfsDict[Any]] = nfsdict.NfsDict
    return Opened("store", base, durable=False, **{"workers": 1, **options})


def pickled(key: str, value: object) -> bytes:
    return pickle.dumps((key, value))


# --- value files -----------------------------------------------------------------------------


def plain_write(base: Path, key: str, value: object) -> None:
    """As any program may write an entry."""
    path = value_file(base, key)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_name("tmpabcdefgh").write_bytes(pickle.dumps((key, value)))
    os.replace(path.with_name("tmpabcdefgh"), path)


def plain_delete(base: Path, key: str) -> None:
    """As release 0.2.1 deletes one; it leaves the directory."""
    value_file(base, key).unlink()


def scan(base: Path) -> dict[str, Any]:
    """What the value files hold."""
    pairs = (pickle.loads(path.read_bytes()) for path in base.glob("store/??/*.pkl"))
    return dict(pairs)


def stamp(base: Path, shard: str) -> tuple[int, int]:
    status = (base / "store" / shard).stat()
    return status.st_mtime_ns, status.st_ctime_ns


def signature(base: Path, key: str) -> bytes:
    status = value_file(base, key).stat()
    return struct.pack(
        "<QQqq", status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    )


# --- head and packs --------------------------------------------------------------------------


class Said(NamedTuple):
    """What a pack says of one key."""

    key: str
    signature: bytes | None
    """None: it is gone"""
    value: bytes | None


class Record(NamedTuple):
    """What a head says of one pack."""

    name: str
    offset: int
    size: int
    checksum: int


Pack = dict[str, tuple[tuple[int, int], list[Said]]]
"""For each shard that it says something of: the stamp, and of which keys what."""


def utf8(key: str) -> bytes:
    return key.encode("utf-8", "surrogatepass")


def encoded_pack(pack: Pack, name: str = "00" * 12) -> tuple[bytes, Record]:
    data = b"nfsdpak\x02"
    table = b""
    for shard in SHARDS:
        stamp, said = pack.get(shard, (NO_SHARD, []))
        section = b"".join(one.value or b"" for one in said)
        keys = [utf8(one.key) for one in said]
        table += struct.pack("<qq", *stamp) + struct.pack("<I", len(keys))
        table += struct.pack("<Q", sum(map(len, keys)))
        table += struct.pack("<Q", len(section)) + struct.pack("<I", zlib.crc32(section))
        table += b"".join(one.signature or UNKNOWN for one in said)
        for one in said:
            absent = GONE if one.signature is None else LOOSE
            table += struct.pack("<I", absent if one.value is None else len(one.value))
        table += b"".join(struct.pack("<I", len(key)) for key in keys)
        table += b"".join(keys)
        data += section
    return data + table, Record(name, len(data), len(table), zlib.crc32(table))


def decoded_pack(data: bytes, record: Record) -> Pack:
    assert data[:8] == b"nfsdpak\x02"
    assert record.offset + record.size == len(data)
    assert zlib.crc32(data[record.offset :]) == record.checksum
    pack: Pack = {}
    at, section = record.offset, 8
    for shard in SHARDS:
        mtime, ctime, n, t, size, checksum = struct.unpack_from("<qqIQQI", data, at)
        at += 40
        signatures = [data[at + 32 * i : at + 32 * (i + 1)] for i in range(n)]
        at += 32 * n
        lengths = struct.unpack_from(f"<{n}I", data, at)
        at += 4 * n
        key_lengths = struct.unpack_from(f"<{n}I", data, at)
        at += 4 * n
        assert sum(key_lengths) == t
        assert zlib.crc32(data[section : section + size]) == checksum
        end = section + size
        said = []
        for i in range(n):
            key = data[at : at + key_lengths[i]].decode("utf-8", "surrogatepass")
            at += key_lengths[i]
            value = None
            if lengths[i] < GONE:
                value = data[section : section + lengths[i]]
                section += lengths[i]
            said.append(Said(key, None if lengths[i] == GONE else signatures[i], value))
            assert lengths[i] != GONE or signatures[i] == UNKNOWN
        assert section == end
        if (mtime, ctime) == NO_SHARD:
            assert not said and not size
        else:
            pack[shard] = (mtime, ctime), said
    assert section == record.offset and at == len(data)
    return pack


def encoded_head(records: list[Record]) -> bytes:
    body = b""
    for name, offset, size, checksum in records:
        body += bytes.fromhex(name) + struct.pack("<QQI", offset, size, checksum)
    return b"nfsdidx\x03" + struct.pack("<I", zlib.crc32(body)) + body


def decoded_head(head: bytes) -> list[Record]:
    assert head[:8] == b"nfsdidx\x03"
    assert struct.unpack_from("<I", head, 8) == (zlib.crc32(head[12:]),)
    assert (len(head) - 12) % 32 == 0
    return [
        Record(head[at : at + 12].hex(), *struct.unpack_from("<QQI", head, at + 12))
        for at in range(12, len(head), 32)
    ]


def head_file(base: Path) -> Path:
    return base / "store" / "_index.nfsdict-pkl"


def pack_file(base: Path, name: str) -> Path:
    return base / "store" / f"_pack.nfsdict-pkl-{name}"


def stack(base: Path) -> list[Pack]:
    """The packs that the head names, the lowest first; there is no other file of the index."""
    records = decoded_head(head_file(base).read_bytes())
    found = {path.name for path in base.glob("store/_*")}
    assert found == {head_file(base).name, *(pack_file(base, one.name).name for one in records)}
    return [decoded_pack(pack_file(base, one.name).read_bytes(), one) for one in records]


def write_stack(base: Path, packs: list[Pack]) -> None:
    """Put these packs, the lowest first, in the place of what is there."""
    for path in base.glob("store/_*"):
        path.unlink()
    records = []
    for number, pack in enumerate(packs):
        data, record = encoded_pack(pack, f"{number:024x}")
        pack_file(base, record.name).write_bytes(data)
        records.append(record)
    head_file(base).write_bytes(encoded_head(records))


def described(base: Path, keys: dict[str, bytes | None]) -> Pack:
    """A pack that is right about the store, with these bytes of value files."""
    pack: Pack = {}
    for key in sorted(keys, key=digest):
        shard = digest(key)[:2]
        said = pack.setdefault(shard, (stamp(base, shard), []))[1]
        said.append(Said(key, signature(base, key), keys[key]))
    return pack


def left_behind(base: Path) -> list[str]:
    """Files that nobody should leave: temporary ones, claims, packs that no head names."""
    head = head_file(base)
    records = decoded_head(head.read_bytes()) if head.exists() else []
    named = {pack_file(base, one.name).name for one in records}
    return sorted(
        path.name
        for path in base.glob("store/**/*")
        if path.name.startswith(".nfsdict-")
        or (path.name.startswith("_pack.") and path.name not in named)
    )
