"""The file system that the guest's server exports."""

from __future__ import annotations

import os
from pathlib import Path

from .devices import unmount
from .system import run

EXPORT = Path("/mnt/export")
DISK = "/dev/ubda"
KINDS = ("tmpfs", "ext4", "xfs")
_LEAST_XFS_MB = 300  # mkfs.xfs makes none smaller


def make(kind: str, size_mb: int) -> None:
    """An empty file system of that kind at `EXPORT`, in place of what is there."""
    if os.path.ismount(EXPORT):
        # Something held it in one of some ten whole runs, for longer than 40 s; what isn't known.
        unmount(EXPORT, detached=True)
    if kind == "tmpfs":
        run("mount", "-t", "tmpfs", "-o", f"size={size_mb}m,mode=755", "export", str(EXPORT))
        return
    if kind == "ext4":
        run("mkfs.ext4", "-q", "-F", DISK, f"{size_mb}m")
    else:
        run("mkfs.xfs", "-q", "-f", "-d", f"size={max(size_mb, _LEAST_XFS_MB)}m", DISK)
    run("mount", "-t", kind, DISK, str(EXPORT))
