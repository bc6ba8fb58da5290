"""Fuzzes what parses bytes that others may have written: atheris's targets, on the compiled core.

    fuzz.py CORPUS [libFuzzer's options, such as -max_total_time=30]
    fuzz.py --seed CORPUS

The first byte of an input chooses the target. Beyond crashes, and what the sanitizers see, these
hold: both cores give the same, result or exception; what was parsed encodes to the same bytes; a
value is given out whole or not at all. --seed writes inputs to begin with.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import pickle
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(include=["nfsdict"]):
    from nfsdict import _core, _pure, serializers, signed
    from nfsdict.index import stack

KEY = bytes(16)
PICKLE = serializers.serializer_named("pickle")
JSON = serializers.serializer_named("json")
BYTES = serializers.serializer_named("bytes")
SIGNED = signed(key=KEY)


def outcome(call: Callable[..., Any], *arguments: Any) -> Any:
    """What it gives, or the type of what it raises."""
    try:
        return call(*arguments)
    except (ValueError, OverflowError, TypeError, struct.error) as error:
        return type(error)


def table(data: bytes) -> None:
    compiled, pure = outcome(_core.parse_table, data), outcome(_pure.parse_table, data)
    assert compiled == pure, (compiled, pure)
    if isinstance(compiled, list):
        assert _core.encode_table(compiled) == _pure.encode_table(compiled) == data


def values(data: bytes) -> None:
    count = data[0] if data else 0
    lengths, section = data[1 : 1 + 4 * count], data[1 + 4 * count :]
    compiled = outcome(_core.split_values, section, lengths)
    assert compiled == outcome(_pure.split_values, section, lengths)
    if isinstance(compiled, list):
        assert b"".join(value or b"" for value in compiled) == section


def head(data: bytes) -> None:
    try:
        records = stack._parsed(data)
    except ValueError:
        return
    assert len(data) == 12 + 32 * len(records)


def pickled(data: bytes) -> None:
    """The trailer alone: what it lets through may be any pickle, and run anything."""
    try:
        PICKLE.loads_verified = lambda data: ("key", data)  # type: ignore[attr-defined]
        _, kept = PICKLE.loads(data)
    except serializers.Damaged:
        return
    assert kept == data


def texts(data: bytes) -> None:
    for serializer in (JSON, BYTES):
        try:
            found = serializer.loads(data)
        except serializers.Damaged:
            continue
        if serializer is BYTES:
            assert serializer.dumps(found) == data


def signature(data: bytes) -> None:
    try:
        SIGNED.loads(data)
    except serializers.Damaged:
        return
    code = hmac.new(KEY, b"nfsdict signed value 1\0.pkl\0" + data[:-40], "sha256").digest()
    assert data[-40:] == code + b"nfsdmac\x01"


def digest(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    assert _core.digest(text) == hashlib.sha256(text.encode()).hexdigest()


TARGETS = [table, values, head, pickled, texts, signature, digest]


def one_input(data: bytes) -> None:
    if data:
        TARGETS[data[0] % len(TARGETS)](data[1:])


def seeds() -> list[bytes]:
    silent = [((-(2**63), -(2**63)), [], b"", b"", 0, 0)] * 254
    small = [((5, 6), ["a", "\udcff\u65e5"], bytes(64), struct.pack("<II", 5, 0xFFFFFFFE), 5, 7)]
    one = pickle.dumps(("key", 1))
    found = {
        table: [_core.encode_table([*small, ((7, 8), [], b"", b"", 0, 0), *silent])],
        values: [b"\2" + struct.pack("<II", 4, 0xFFFFFFFF) + b"four", b""],
        head: [stack._MAGIC + bytes(4), stack._MAGIC + b"\x8d\xef\x02\xd2" + bytes(32)],
        pickled: [PICKLE.dumps(("key", 1)), one],
        texts: [JSON.dumps(("key", [1])), BYTES.dumps(("key", b"value")), json.dumps(1).encode()],
        signature: [SIGNED.dumps(("key", 1)), one + bytes(32) + b"nfsdmac\x01"],
        digest: [b"key", b"x" * 64, b"\xff" * 300],
    }
    return [
        bytes([number]) + data for number, target in enumerate(TARGETS) for data in found[target]
    ]


def main() -> None:
    if sys.argv[1] == "--seed":
        for data in seeds():
            name = f"{TARGETS[data[0]].__name__}-{hashlib.sha256(data).hexdigest()[:8]}"
            (Path(sys.argv[2]) / name).write_bytes(data)
        return
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
