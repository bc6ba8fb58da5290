"""Room: how many bytes and inodes are free, and whether a quota shows."""

from __future__ import annotations

import errno
from collections.abc import Iterator

from ..errors import described
from ..layout import free_inodes
from ..storage.probes import Directory, space
from ..wording import binary
from .report import FULL, Figures, Finding, Verdict, named
from .semantics import advice_for

_BYTES, _INODES = 1 << 30, 10_000  # fewer are worth a warning
_FIRST_KEY = 3  # inodes: a store's directory, a shard's, and a file
_PROBES = 200  # files that the other probes have at a time, at most
_TRIED = 1 << 20  # bytes that are written to find out whether a quota is used up
_MAKE_ROOM = advice_for(errno.ENOSPC)
_REFUSED = {
    errno.EACCES: "let this user write there.",
    errno.EPERM: "let this user write there; `chattr -i`, if `lsattr -d` shows an `i`.",
    errno.EROFS: "mount it without `ro`.",
}
# A directory with less of its file system's size than this has a quota. Some file systems count
# into their size what is free in a pool, which changes between two calls.
_LIMITED = 0.9


def refused(path: str, error: OSError) -> Iterator[Finding]:
    """No private directory could be made there: why, and the room."""
    number = error.errno or errno.EIO
    seen = f"no directory can be made there, {described(error)}."
    breaks = "a store can only be read, with `read_only=True`, if there is one."
    advice = _REFUSED.get(number) or advice_for(number)
    yield Finding("semantics", "mkdir", "FAIL", seen, breaks, advice)
    yield from room(path, None)
    if number in FULL:
        yield _used_up(number)


def room(path: str, directory: Directory | None, point: str = "") -> Iterator[Finding]:
    """What ``statvfs`` tells; and if there is a directory, whether a megabyte can be written, and
    whether less is for it than for the point where it is mounted."""
    found = space(path)
    number = None if directory is None else directory.fill("quota", _TRIED)
    size = found.f_blocks * found.f_frsize
    if size == 0:
        yield _unknown("bytes")
    else:
        yield _bytes(found.f_bavail * found.f_frsize, size, written=number == 0)
    free = free_inodes(found)
    if free is None:
        yield _unknown("inodes")
    else:
        seen = f"{free:,} of {found.f_files:,} are free; each key is one."
        figures: Figures = {"free_inodes": free, "total_inodes": found.f_files}
        breaks = "when none is left: puts of new keys fail, however many bytes are free."
        verdict = _verdict(free, _INODES, _FIRST_KEY)
        yield _judged("inodes", seen, verdict, breaks, figures)

    if number is not None:
        yield _used_up(number) if number else _quota(size, point)


def too_little(found: list[Finding]) -> bool:
    """Whether there is too little room for the other probes, by what ``room`` has found."""
    inodes = [one.figures.get("free_inodes") for one in found]
    few = any(isinstance(free, int) and free < _PROBES for free in inodes)
    return few or any(one.figures.get("full") for one in found)


def _unknown(probe: str) -> Finding:
    seen = "unknown: the file system gives no number."
    figures = {f"free_{probe}": None, f"total_{probe}": None}
    return Finding("room", probe, "OK", seen, figures=figures)


def _bytes(free: int, size: int, written: bool) -> Finding:
    seen = f"{binary(free)} of {binary(size)} are free"
    figures: Figures = {"free_bytes": free, "total_bytes": size}
    if written and not free:
        seen += " for users other than root."
        breaks = "their puts fail, and the old value stays."
        return Finding("room", "bytes", "WARN", seen, breaks, _MAKE_ROOM, figures)
    breaks = "when none is left: puts fail, and the old value stays."
    return _judged("bytes", f"{seen}.", _verdict(free, _BYTES, 1), breaks, figures)


def _verdict(free: int, enough: int, least: int) -> Verdict:
    if free >= enough:
        return "OK"
    return "WARN" if free >= least else "FAIL"


def _judged(probe: str, seen: str, verdict: Verdict, breaks: str, figures: Figures) -> Finding:
    if verdict == "OK":
        return Finding("room", probe, verdict, seen, figures=figures)
    return Finding("room", probe, verdict, seen, breaks, _MAKE_ROOM, figures)


def _quota(size: int, point: str) -> Finding:
    """A directory's shows in its size, as project quotas of xfs do; a user's doesn't. What a server
    has mounted below what it serves may have another size, too."""
    seen = f"{binary(_TRIED)} could be written; "
    found = space(point) if point else None
    whole = found.f_blocks * found.f_frsize if found else 0
    if 0 < size < _LIMITED * whole:
        seen += f"this directory has {binary(size)} of {binary(whole)}: a quota, or it is "
        seen += "another file system on the server."
    else:
        seen += "one that isn't used up shows only where the free bytes are counted by it."
    return Finding("room", "quota", "OK", seen)


def _used_up(number: int) -> Finding:
    if number == errno.EDQUOT:
        seen = f"a quota is used up ({named(number)})."
    else:
        seen = f"{binary(_TRIED)} couldn't be written ({named(number)})."
    breaks = "puts of larger values." if number == errno.EFBIG else "every put."
    figures: Figures = {"full": number in FULL}
    return Finding("room", "quota", "FAIL", seen, breaks, advice_for(number), figures)
