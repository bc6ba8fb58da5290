"""Report: what the doctor found, line by line, and its verdict."""

from __future__ import annotations

import errno
import os
import re
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Verdict = Literal["OK", "WARN", "FAIL"]
Figures = dict[str, Any]
VERDICTS: tuple[Verdict, ...] = ("OK", "WARN", "FAIL")  # by exit status

# Errors that mean: there is no room.
FULL = (errno.ENOSPC, errno.EDQUOT)
# What a terminal, or whoever reads lines, would take for something else.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")

UNSEEN = {
    "async export": "a server that exports with `async` answers before its disk has the data: a "
    "power cut there loses acknowledged writes. Look at /etc/exports on the server.",
    "volatile cache": "a drive, controller or server whose write cache has no battery and ignores "
    "flushes loses acknowledged writes at a power cut.",
    "replication lag": "behind one address there may be several servers that copy to one another "
    "late: what one host wrote, another one then reads late or not at all after a failover.",
}
"""What no client can see, by name."""


@dataclass(frozen=True)
class Finding:
    """What one probe found."""

    section: str
    """``mount``, ``semantics``, ``clock``, ``room``, ``speed`` or ``peer``"""
    probe: str
    """the probe's name, unique in its section"""
    verdict: Verdict
    """``OK``; ``WARN``: something works less well, or couldn't be tried; ``FAIL``: a promise of
    nfsdict doesn't hold here"""
    seen: str
    """what was seen"""
    breaks: str = ""
    """what that breaks; "" if nothing"""
    advice: str = ""
    """what to do; "" if nothing"""
    figures: Figures = field(default_factory=dict)
    """what was measured, by name; the name ends with the unit"""

    def __str__(self) -> str:
        """One line, in which control characters are escaped."""
        text = f"{self.verdict:4}  {self.section}, {self.probe}: {self.seen}"
        if self.breaks:
            text += f" Breaks: {self.breaks}"
        if self.advice:
            text += f" Do: {self.advice}"
        return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


@dataclass(frozen=True)
class Diagnosis:
    """What the doctor found in a directory: see ``nfsdict.diagnose``."""

    path: str
    findings: list[Finding]
    unseen: dict[str, str] = field(default_factory=lambda: dict(UNSEEN))
    """what no client can see of its server, by name: to be asked of those who run it"""

    @property
    def verdict(self) -> Verdict:
        """The worst of all findings' verdicts."""
        return VERDICTS[self.status]

    @property
    def status(self) -> int:
        """The command's exit status: 0 for OK, 1 for WARN, 2 for FAIL."""
        return max((VERDICTS.index(one.verdict) for one in self.findings), default=0)

    def as_dict(self) -> dict[str, Any]:
        """Path, verdict, findings and unseen, of types that JSON has."""
        findings = [asdict(finding) for finding in self.findings]
        return {
            "path": self.path,
            "verdict": self.verdict,
            "findings": findings,
            "unseen": self.unseen,
        }


def named(number: int) -> str:
    """An errno's name and text."""
    return f"{errno.errorcode.get(number, number)}, {os.strerror(number)}"


def duration(seconds: float) -> str:
    """A time in seconds, for people."""
    if seconds < 0.001:
        return f"{seconds * 1e6:.3g} µs"
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
