"""Each operation again and again: no memory, no descriptor and no thread is kept."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import os
import sys
import threading

import pytest

from proof import FACTOR

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or sys.implementation.name != "cpython",
    reason="asks glibc how much memory is in use",
)

ROUNDS = 400 * FACTOR
# What may be left over by chance: caches of the interpreter, arenas.
BYTES = 24 * ROUNDS


class Mallinfo(ctypes.Structure):
    """See mallinfo(3)."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def in_use() -> int:
    """Bytes that malloc has given out, Python's own small objects among them."""
    libc = ctypes.CDLL(None)
    libc.mallinfo2.restype = Mallinfo
    gc.collect()
    info = libc.mallinfo2()
    return int(info.uordblks + info.hblkhd) + blocks()


def blocks() -> int:
    return 32 * sys.getallocatedblocks()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def leaked(act) -> int:
    """How many bytes more are in use after the second half of the rounds than before."""
    for _ in range(ROUNDS):
        act()
    before = in_use(), descriptors(), threading.active_count()
    for _ in range(ROUNDS):
        act()
    assert descriptors() == before[1]
    assert threading.active_count() == before[2]
    return in_use() - before[0]


def failing(call, *arguments):
    def act():
        with contextlib.suppress(Exception):
            call(*arguments)

    return act


def core_calls(core, base):
    path = core.value_path(f"{base}/store", "key", ".pkl")
    other = core.value_path(f"{base}/store", "other", ".pkl")
    missing = core.value_path(f"{base}/store", "missing", ".pkl")
    os.makedirs(os.path.dirname(path))
    os.makedirs(os.path.dirname(other))
    os.makedirs(f"{base}/directory")
    silent = [(-(2**63), [], b"", b"", 0, 0)] * 255
    table = core.encode_table([(5, ["a", "b" * 9], bytes(48), bytes(8), 0, 0), *silent])
    return {
        "digest": lambda: core.digest("key" * 30),
        "digest of no text": failing(core.digest, 5),
        "value_path": lambda: core.value_path(base, "key", ".pkl"),
        "encode_table": lambda: core.encode_table(core.parse_table(table)),
        "parse_table of noise": failing(core.parse_table, table[:-3]),
        "split_values": lambda: core.split_values(
            bytes(9), (5).to_bytes(4, "little") + b"\4\0\0\0"
        ),
        "split_values, cut short": failing(core.split_values, bytes(3), b"\5\0\0\0"),
        "write_file": lambda: core.write_file(path, b"x" * 5000, None, False, False),
        "write_file in vain": failing(core.write_file, f"{base}/no/file", b"x", None, False, False),
        "write_files": lambda: core.write_files(
            [(path, b"x"), (other, b"y")], 0o600, False, True, False
        ),
        "write_files in vain": failing(core.write_files, [(path, 5)], None, False, False, False),
        "read_files": lambda: core.read_files([path, missing, f"{base}/directory"]),
        "read_files of no text": failing(core.read_files, [path, 5]),
        "read_stamps": lambda: core.read_stamps([str(base), missing]),
        "list_directory": lambda: core.list_directory(str(base), True),
        "list_directory of none": lambda: core.list_directory(missing, False),
    }


def test_the_core(core, tmp_path):
    kept = {}
    for name, act in core_calls(core, str(tmp_path)).items():
        size = leaked(act)
        if size > BYTES:
            kept[name] = size
    assert kept == {}


def dictionary_calls(nfsdict, base, d):
    d["a"] = d["b"] = "value"

    def reopened():
        with nfsdict.NfsDict("store", base, workers=1) as again:
            return dict(again)

    def put_and(act):
        d["key"] = "x" * 100
        return act("key")

    [file] = d.path.glob(f"??/{importlib.import_module('nfsdict.core').digest('b')}.pkl")

    def damaged():
        content = file.read_bytes()
        file.write_bytes(b"")
        with contextlib.suppress(nfsdict.CorruptValueError):
            d.get("b", fresh=True)
        file.write_bytes(content)

    return {
        "put": lambda: d.__setitem__("a", "value" * 20),
        "put what is refused": failing(d.__setitem__, "a", lambda: None),
        "get": lambda: d["a"],
        "fresh": lambda: d.get("a", fresh=True),
        "miss": lambda: d.get("missing"),
        "damaged": damaged,
        "delete": lambda: put_and(d.__delitem__),
        "pop": lambda: put_and(d.pop),
        "add": lambda: d.add("a", "value"),
        "update": lambda: d.update(a="value", b="value"),
        "refresh": d.refresh,
        "sync": d.sync,
        "open": reopened,
        "verify": d.verify,
    }


def test_a_dictionary(nfsdict, tmp_path, monkeypatch, caplog):
    caplog.set_level(100, "nfsdict")  # what is logged is kept, for the test's report
    monkeypatch.setattr(sys.modules[__name__], "ROUNDS", 60 * FACTOR)
    d = nfsdict.NfsDict("store", tmp_path, workers=1, durable=False)
    kept = {}
    for name, act in dictionary_calls(nfsdict, tmp_path, d).items():
        size = leaked(act)
        if size > 60 * FACTOR * 120:
            kept[name] = size
    assert kept == {}


def test_it_would_be_seen(core):
    """Of 100 bytes each."""
    libc = ctypes.CDLL(None)
    assert leaked(lambda: libc.malloc(100)) > BYTES
    held = []
    assert leaked(lambda: held.append(bytes(100))) > BYTES
