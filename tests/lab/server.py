"""The NFS server of the guest and the file system that it exports."""

from __future__ import annotations

import errno
import subprocess
from pathlib import Path

EXPORT = Path("/mnt/export")
DISK = "/dev/ubda"
NFSD = Path("/proc/fs/nfsd")
LEASES = Path("/proc/sys/fs/leases-enable")
LOCKD_END_GRACE = Path("/proc/fs/lockd/nlm_end_grace")
THREADS = 8


def run(*command: str) -> None:
    """Run *command*; RuntimeError with what it printed if it fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: status {done.returncode}\n{done.stdout}")


class Server:
    """The kernel's NFS server, stopped at first, exporting nothing."""

    def __init__(self) -> None:
        self._kind: tuple[str, int, bool] | None = None

    def prepare(self, export: str, size_mb: int, root_squash: bool) -> None:
        """Serve an empty file system of that kind; nothing if that is what it serves.

        Clients must have unmounted it.
        """
        if self._kind == (export, size_mb, root_squash):
            return
        self.stop()
        self.unexport()
        if self._kind is not None:
            run("umount", str(EXPORT))
        self._kind = None
        if export == "ext4":
            run("mkfs.ext4", "-q", "-F", DISK, f"{size_mb}m")
            run("mount", "-t", "ext4", DISK, str(EXPORT))
        else:
            run("mount", "-t", "tmpfs", "-o", f"size={size_mb}m,mode=755", "export", str(EXPORT))
        self._kind = (export, size_mb, root_squash)
        self.export()
        self.start()
        self.end_grace()

    def delegate(self, allowed: bool) -> None:
        """Whether v4 clients may be granted delegations, which the server holds as leases."""
        LEASES.write_text(f"{int(allowed)}\n")

    @property
    def running(self) -> bool:
        return int((NFSD / "threads").read_text()) > 0

    def start(self) -> None:
        """Start it; on v4 new opens wait for the grace period, 10 s."""
        if not self.running:
            run("rpc.nfsd", str(THREADS))
            # The lock manager for v3 has a grace period of its own, 50 s, in which the server
            # hands out no v4 delegation; no client here uses that lock manager.
            LOCKD_END_GRACE.write_text("Y\n")

    def end_grace(self) -> None:
        """End the grace period, where no client has anything to reclaim."""
        try:
            (NFSD / "v4_end_grace").write_text("Y\n")
        except OSError as error:
            if error.errno != errno.EBUSY:  # it has ended
                raise

    def stop(self) -> None:
        """Stop it: connections end and all state but the files' is forgotten."""
        if self.running:
            run("rpc.nfsd", "0")

    def export(self) -> None:
        assert self._kind is not None
        squash = "root_squash" if self._kind[2] else "no_root_squash"
        options = f"rw,sync,{squash},fsid=0,no_subtree_check,insecure"
        run("exportfs", "-o", options, f"*:{EXPORT}")

    def unexport(self) -> None:
        """Refuse clients everything, those that have it mounted too."""
        run("exportfs", "-ua")
        run("exportfs", "-f")
