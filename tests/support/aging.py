"""Time passes for a test: what was changed so far is old, as if seconds had gone by.

The index believes no time of the last seconds, and a ctime can't be set back. So the package under
test is told where those seconds begin: at the last call of ``age``. What is changed later bears a
later time, for which ``age`` waits: a tick of the file system's clock. It stays as new as it is.
"""

from __future__ import annotations

import importlib
import os
import struct
import sys
import tempfile
import time
from bisect import bisect_right
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Union

if TYPE_CHECKING:
    import pytest

Stamp = tuple[int, ...]
"""Of a shard: mtime and ctime."""
Listing = Union[tuple[int, int, list[tuple[str, int, bytes, int]]], int]
"""What the core tells of a directory, or the errno."""
Changes = Union[tuple[int, int, list[tuple[str, int, bytes, int]], list[int]], int]
"""The same without what is known, and which of that is not there."""

# When ``age`` was called, by the file system's clock.
_aged = [0]
# Whether that clock ticks then alone.
_coarse = False


def age(base: Path) -> None:
    """What is below this directory was changed long ago."""
    index = importlib.import_module("nfsdict.index.memory")
    real: Callable[[int | None], int] = getattr(index.racy_since, "real", index.racy_since)

    def racy_since(moment: int | None) -> int:
        by_clock = real(moment)
        if moment is None:
            return by_clock
        return _aged[-1] if _coarse else max(by_clock, _aged[-1])

    racy_since.real = real  # type: ignore[attr-defined]
    _aged.append(_next_tick(base))
    index.racy_since = racy_since  # type: ignore[attr-defined]


def forget() -> None:
    """Nothing is old but by the clock."""
    del _aged[1:]


def _next_tick(base: Path) -> int:
    """The clock's time as soon as it is later than any that something here can have."""
    with tempfile.NamedTemporaryFile(dir=base) as file:
        begin = now = os.stat(file.name).st_ctime_ns
        while now <= begin:
            time.sleep(0.0005)
            os.utime(file.name)
            now = os.stat(file.name).st_ctime_ns
    return now


def within_one_tick(patch: pytest.MonkeyPatch, base: Path) -> None:
    """Let a shard's and a file's times tick now, and then at ``age`` alone, as on a file system
    with a coarse clock: all that is done between two calls is done within one tick."""
    age(base)
    patch.setattr(sys.modules[__name__], "_coarse", True)
    modules = {
        name: importlib.import_module(f"nfsdict.storage.{name}")
        for name in ("coherence", "exclusive", "files", "shards", "values")
    }

    def floor(moment: int) -> int:
        return _aged[bisect_right(_aged, moment) - 1]

    def sign(signature: bytes) -> bytes:
        inode, size, mtime, ctime = struct.unpack("<QQqq", signature)
        return struct.pack("<QQqq", inode, size, floor(mtime), floor(ctime))

    def of_shard(path: str) -> bool:
        return len(os.path.basename(path)) == 2

    def listed(path: str, found: Listing) -> Listing:
        if isinstance(found, int) or not of_shard(path):
            return found
        mtime, ctime, entries = found
        entries = [(name, mode, sign(one), floor(when)) for name, mode, one, when in entries]
        return floor(mtime), floor(ctime), entries

    def changed(
        path: str, forget: int, keys: list[str], signatures: bytes, extension: str
    ) -> Changes:
        """As the core compares, but with the times that tick."""
        found = modules["coherence"].list_directory(path, forget)
        if isinstance(found, int):
            return found
        digest = importlib.import_module("nfsdict.core").digest
        known = {
            (digest(key) + extension, signatures[32 * at : 32 * (at + 1)]): at
            for at, key in enumerate(keys)
        }
        others = [one for one in found[2] if (one[0], one[2]) not in known]
        for name, _, signature, _ in found[2]:
            known.pop((name, signature), None)
        return (*found[:2], others, sorted(known.values()))

    def stamped(path: str, times: Stamp | int) -> Stamp | int:
        return tuple(map(floor, times)) if isinstance(times, tuple) and of_shard(path) else times

    def wrap(module: str, name: str, change: Callable[..., object]) -> None:
        original = getattr(modules[module], name)
        patch.setattr(
            modules[module],
            name,
            lambda *arguments: change(original(*arguments), *arguments),
        )

    def signed(outcome: bytes | tuple[int, int]) -> bytes | tuple[int, int]:
        return sign(outcome) if isinstance(outcome, bytes) else outcome

    wrap("shards", "read_stamps", lambda found, paths: list(map(stamped, paths, found)))
    wrap("coherence", "list_directory", lambda found, path, _: listed(path, found))
    patch.setattr(modules["coherence"], "list_changes", changed)
    wrap("exclusive", "signature_of", lambda found, _: sign(found))
    wrap("files", "signature_of", lambda found, _: sign(found))
    wrap("values", "signature_of", lambda found, _: sign(found))
    wrap("values", "write_file", lambda found, *_: signed(found))
    wrap("files", "write_files", lambda found, *_: list(map(signed, found)))
    wrap(
        "files",
        "prepare_files",
        lambda _, files, made, *options: made.__setitem__(
            slice(None), [one if isinstance(one, int) else (one[0], sign(one[1])) for one in made]
        ),
    )
    # Who waits for a tick finds that time has passed.
    patch.setattr(
        modules["files"], "time", SimpleNamespace(sleep=lambda pause: age(base) if pause else None)
    )
    probe_clock = modules["files"].Files.probe_clock
    patch.setattr(modules["files"].Files, "probe_clock", lambda self: floor(probe_clock(self)))
    for name in ("read_files", "read_aligned"):
        wrap(
            "files",
            name,
            lambda found, _: [
                one if isinstance(one, int) else (one[0], sign(one[1])) for one in found
            ],
        )
