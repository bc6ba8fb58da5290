"""Bad input: each command with each fault. One line that says what to do, a status, nothing lost.

The table has a row for each command of the parser, so a new command without one fails a test.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shlex
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest

# What each command is called with, and its exit status
#
# - well: without a fault,
# - missing: where there is no such store,
# - serializer: with --serializer json, in a store of pickles,
# - read-only: on a read-only mount,
# - full: on a full disk,
# - unreadable: in a store that this user may not read,
# - unwritable: in one that this user may not write,
# - damaged: where the value of the key k is damaged,
# - closed: where the reader of the output has gone away.
#
# A command that goes on until it is interrupted is, after a moment: status 130. A hyphen says that
# the fault can't be, or that it has its tests elsewhere, which the comment beside it names. STORE is
# the store that has the fault, NEW a file or directory beside it.
TABLE = """
arguments                well missing serializer read-only full unreadable unwritable damaged closed
ls STORE                 0    2       2          0         0    2          0          0       141
get STORE k              0    2       2          0         0    2          0          2       141
set STORE k new          0    0       2          2         2    2          2          0       0
del STORE k              0    2       2          2         0    2          2          0       0
edit STORE k             0    2       2          2         2    2          2          2       0
path STORE k             0    2       2          0         0    2          0          0       141
watch STORE              130  2       2          130       130  2          130        130     141
stats STORE              0    2       2          0         0    2          0          0       141
verify STORE             0    2       2          0         0    2          0          1       141
repair STORE             0    2       2          2         2    2          2          0       141
pack STORE               0    2       2          2         2    2          2          0       141
leases STORE --json      0    2       2          2         0    2          2          0       141
run STORE k -- echo new  0    0       2          0         0    2          0          0       141
work STORE -- true       0    2       2          2         2    2          2          0       0
demo NEW                 -    -       -          2         2    2          2          -       -
doctor NEW               -    -       -          -         -    -          -          -       -
"""
# Not here: the demo's other columns are in test_demo.py, the doctor in test_doctor.py.

TOLD = {
    "missing": "'other'",  # a store that is there
    "serializer": "--serializer pickle",
    "read-only": "mount it for writing",
    "full": "make room",
    "unreadable": "permission",
    "unwritable": "permission",
    "damaged": "nfsdict repair",
}
NOBODY = 65534
BEFORE = {"k": [1], "other": "value", "another": 2}


class Row(NamedTuple):
    arguments: list[str]
    status: dict[str, int]


def rows() -> dict[str, Row]:
    heading, *lines = TABLE.strip().splitlines()
    _, *faults = heading.split()
    found = {}
    for line in lines:
        parts = line.rsplit(maxsplit=len(faults))
        told = {fault: int(one) for fault, one in zip(faults, parts[1:]) if one != "-"}
        found[parts[0].split()[0]] = Row(shlex.split(parts[0]), told)
    return found


ROWS = rows()


def cells(*faults: str) -> list[object]:
    return [
        pytest.param(name, fault, id=f"{name}-{fault}")
        for name, row in ROWS.items()
        for fault in row.status
        if fault in faults
    ]


# --- where it is tried ---------------------------------------------------------------------------


def mount(target: Path, flags: int, options: str = "") -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", bytes(target), b"tmpfs", flags, options.encode()):
        number = ctypes.get_errno()
        if number == errno.EPERM:
            pytest.skip("mounting needs root")
        raise OSError(number, os.strerror(number), str(target))


@pytest.fixture(scope="module")
def small_disk():
    """A small tmpfs, to which any user can get."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o755)
    mount(path, 0, "size=1m,mode=755")
    yield path
    ctypes.CDLL(None).umount2(bytes(path), 2)  # MNT_DETACH
    path.rmdir()


@pytest.fixture
def disk(small_disk):
    yield small_disk
    for entry in small_disk.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()


@pytest.fixture
def read_only(disk):
    @contextlib.contextmanager
    def read_only():
        mount(disk, 0x20 | 1)  # MS_REMOUNT, MS_RDONLY
        try:
            yield
        finally:
            mount(disk, 0x20)

    return read_only
