"""Room: how many bytes and inodes are free, and whether a quota shows."""

from __future__ import annotations

import errno
from collections.abc import Iterator

from ..storage.probes import Directory, space
from ..wording import binary
from .report import Figures, Finding, named

_BYTES, _INODES = 1 << 30, 10_000  # fewer are worth a warning
_TRIED = 1 << 20  # bytes that are written to find out whether a quota is used up


def room(path: str, directory: Directory | None) -> Iterator[Finding]:
    """What ``statvfs`` tells, and whether a megabyte can be written, if there is a directory."""
    found = space(path)
    free, size = found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
    seen = f"{binary(free)} of {binary(size)} are free."
    figures: Figures = {"free_bytes": free, "total_bytes": size}
    yield _judged(
        "bytes",
        seen,
        free,
        _BYTES,
        "when none is left: puts fail, and the old value stays.",
        figures,
    )

    if found.f_files == 0:
        figures = {"free_inodes": None, "total_inodes": None}
        seen = "unknown: the file system gives no number."
        yield Finding("room", "inodes", "OK", seen, figures=figures)
    else:
        seen = f"{found.f_favail:,} of {found.f_files:,} are free; each key is one."
        figures = {"free_inodes": found.f_favail, "total_inodes": found.f_files}
        breaks = "when none is left: puts of new keys fail, however many bytes are free."
        yield _judged("inodes", seen, found.f_favail, _INODES, breaks, figures)

    if directory is not None:
        yield _quota(directory.fill("quota", _TRIED))


def _judged(
    probe: str, seen: str, free: int, enough: int, breaks: str, figures: Figures
) -> Finding:
    if free >= enough:
        return Finding("room", probe, "OK", seen, figures=figures)
    advice = "make room, or have the quota raised."
    return Finding("room", probe, "WARN" if free else "FAIL", seen, breaks, advice, figures)


def _quota(number: int) -> Finding:
    """One that is used up shows in a write; one that isn't only where statvfs counts by it."""
    unknown = "one that isn't used up shows only where the free bytes are counted by it."
    if not number:
        return Finding("room", "quota", "OK", f"{binary(_TRIED)} could be written; {unknown}")
    if number == errno.EDQUOT:
        seen = f"a quota is used up ({named(number)})."
    else:
        seen = f"{binary(_TRIED)} couldn't be written ({named(number)})."
    return Finding("room", "quota", "FAIL", seen, "every put.", "make room, or have it raised.")
