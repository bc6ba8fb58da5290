"""Clock: whose clock times on files come from, how it ticks, how far it is from the local one."""

from __future__ import annotations

import time
from collections.abc import Iterator

from ..storage.file_systems import Kind
from ..storage.probes import Directory
from .report import Figures, Finding, duration
from .semantics import ELSEWHERE, believes_stamps

_TRIES = 5
# Seconds in which distinct times are collected, and so many of them are enough; if none differ,
# the clock may tick every 2 s (FAT).
_SHORT, _LONG, _ENOUGH = 0.3, 2.3, 30
# ``storage.clock``: a time in whole microseconds may come from a clock that ticks every 3 s, any
# other from one that ticks every 0.1 s.
_FINE, _COARSE = 100_000_000, 3_000_000_000
# ns by which the time of a new file may be behind the clock that it comes from: Linux's ticks every
# 10 ms at the slowest. A directory's times don't show that from Linux 6.13 on: who looks at them
# gets finer ones.
_BEHIND = 10_000_000


def clock(directory: Directory, kind: Kind) -> Iterator[Finding]:
    """What times on files show, in a directory that is empty. ``kind``: the rules that a store goes
    by there."""
    step, looks = _step(directory.subdirectory("ticks"))
    yield _granularity(step, looks, kind)
    yield difference(directory, step)
    yield _of_writes(directory, kind)
    yield _of_touch(directory, step)


def misleading(section: str, probe: str, seen: str, kind: Kind, figures: Figures) -> Finding:
    """Times that prove nothing: it depends on the kind whether anything rests on them."""
    if not believes_stamps(kind):
        breaks = "no promise: no stamp is believed here, and openings and `refresh` list all."
        return Finding(section, probe, "WARN", seen, breaks, ELSEWHERE, figures)
    breaks = "openings and `refresh` take stamps for proof, and miss what others changed."
    return Finding(section, probe, "FAIL", seen, breaks, ELSEWHERE, figures)


def _step(directory: Directory) -> tuple[int | None, list[int]]:
    """The smallest step between times of a directory, in ns, if two looks had the same time; and
    the times of all looks."""
    looks: list[int] = []
    begun = time.monotonic()
    while True:
        passed = time.monotonic() - begun
        steps = len(set(looks)) - 1
        if steps >= _ENOUGH or passed > (_LONG if steps < 1 else _SHORT):
            break
        directory.create("file")
        directory.unlink("file")
        looks.append(directory.stamp().mtime)
    moments = sorted(set(looks))
    steps_seen = [later - one for one, later in zip(moments, moments[1:])]
    repeated = len(looks) > len(moments)
    return (min(steps_seen, default=None) if repeated else None), looks


def _granularity(step: int | None, looks: list[int], kind: Kind) -> Finding:
    fine = any(moment % 1000 for moment in looks)
    whole = "" if any(moment % 1_000_000_000 for moment in looks) else " in whole seconds,"
    moments = len(set(looks))
    figures = {"looks": len(looks), "distinct": moments, "step_ns": step}
    if moments == 1:
        seen = f"a directory's time stood still through {len(looks)} changes in {_LONG:g} s."
        return misleading("clock", "granularity", seen, kind, figures)
    if step is None:
        seen = f"times tick{whole} faster than changes come here: {moments} of {moments} differ."
    else:
        seen = f"times tick{whole} every {duration(step / 1e9)}: {moments} in {len(looks)} changes."
        if step > (_FINE if fine else _COARSE):
            return misleading("clock", "granularity", seen, kind, figures)
    return Finding("clock", "granularity", "OK", seen, figures=figures)


def difference(directory: Directory, step: int | None = None) -> Finding:
    """The file system's clock minus the local one, by the quickest of several looks."""
    looks = []
    for _ in range(_TRIES):
        before = time.time_ns()
        moment = _new(directory)
        after = time.time_ns()
        looks.append((after - before, moment - (before + after) // 2))
    width, difference = min(looks)
    blur = (width / 2 + _behind(step)) / 1e9
    seconds = difference / 1e9
    agree = abs(seconds) <= blur
    seen = f"server minus local: {seconds:+.4f} s, give or take {duration(blur)}"
    seen += ": no difference to be seen" if agree else ""
    figures = {"difference_s": seconds, "uncertainty_s": blur}
    return Finding("clock", "difference", "OK", seen + "; no promise rests on it.", figures=figures)


def _behind(step: int | None) -> int:
    """By how many ns a new file's time may be behind its clock."""
    return max(_BEHIND, step or 0)


def _new(directory: Directory) -> int:
    """The time of a new file, in ns."""
    directory.create("new")
    status = directory.status("new")
    directory.unlink("new")
    if status is None:
        raise FileNotFoundError("a file that was just created")
    return status.st_mtime_ns


def _of_writes(directory: Directory, kind: Kind) -> Finding:
    """Whether a write gets its time from the clock that creates have, too."""
    before = _new(directory)
    written = directory.write("written", b"written").st_mtime_ns
    after = _new(directory)
    # An mtime may be shown in whole seconds, as SMB's client does.
    if before // 1_000_000_000 <= written // 1_000_000_000 <= after // 1_000_000_000:
        return Finding("clock", "writes", "OK", "a write has a time between those of two creates.")
    seen = f"a write has a time {duration(abs(written - before) / 1e9)} from that of a create."
    return misleading("clock", "writes", seen, kind, {})


def _of_touch(directory: Directory, step: int | None) -> Finding:
    """Whether utime(NULL) takes the server's time. Nothing in a store calls it."""
    directory.create("touched")
    before = _new(directory)
    touched = directory.touch("touched")
    local = time.time_ns()
    after = _new(directory)
    behind = _behind(step)
    if before - behind <= local <= after + behind:
        seen = "its time is the server's, or the local one: the two can't be told apart."
    elif not before <= touched <= after and abs(touched - local) < abs(touched - after):
        seen = "it takes the local clock's time; nothing of nfsdict's rests on it."
    else:
        seen = "it takes the server's time."
    return Finding("clock", "utime(NULL)", "OK", seen)
