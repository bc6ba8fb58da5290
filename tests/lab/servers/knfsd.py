"""Linux's own NFS server."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from ..export import EXPORT
from ..system import hide, modprobe, run
from .base import Daemons, Server, joined

if TYPE_CHECKING:
    from ..configuration import Configuration

NFSD = Path("/proc/fs/nfsd")
STATE = Path("/var/lib/nfs")
LOCKD_END_GRACE = Path("/proc/fs/lockd/nlm_end_grace")
THREADS = 8
RPCBIND_PORT = 111


def nfs_options(version: str, options: str) -> str:
    """Mount options of NFS, with which this client's caches are its own."""
    # The lock manager would need daemons of its own; nfsdict takes no lock.
    return joined(f"vers={version}", "nolock" if version == "3" else "", "nosharecache", options)


class Knfsd(Server):
    """It can also be stopped and started again while clients have it mounted."""

    NEEDED: ClassVar = {
        "exportfs": "nfs-kernel-server",
        "mount.nfs": "nfs-common",
        "rpcbind": "rpcbind",
        "mkfs.xfs": "xfsprogs",
    }
    VERSIONS = ("4.2",)
    BELOW = "xfs"

    def __init__(self) -> None:
        self._daemons = Daemons()
        self._root_squash = False

    def open(self, configuration: Configuration) -> None:
        self._root_squash = configuration.root_squash
        if not os.path.ismount(NFSD):
            _boot()
        self._daemons.start("rpcbind", "-f", port=RPCBIND_PORT)
        self._daemons.start("rpc.mountd", "--foreground")
        self.export()
        self.start()
        self.end_grace()

    def close(self) -> None:
        self.stop()
        self._daemons.stop()  # it can't tell the kernel of the export again then
        self.unexport()

    def mount(self, address: str, where: Path, version: str, options: str) -> list[str]:
        source = f"{address}:{EXPORT if version == '3' else '/'}"
        return ["mount", "-t", "nfs", "-o", nfs_options(version, options), source, str(where)]

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
        squash = "root_squash" if self._root_squash else "no_root_squash"
        options = f"rw,sync,{squash},fsid=0,no_subtree_check,insecure"
        run("exportfs", "-o", options, f"*:{EXPORT}")

    def unexport(self) -> None:
        """Refuse clients everything, those that have it mounted too."""
        run("exportfs", "-ua")
        run("exportfs", "-f")


def _boot() -> None:
    """What the server needs once in a guest."""
    hide(STATE)
    for name in ("v4recovery", "rpc_pipefs", "nfsdcltrack", "sm", "sm.bak"):
        (STATE / name).mkdir()
    for name in ("etab", "rmtab", "state"):
        (STATE / name).touch()
    modprobe("nfsd", "nfsv4", "nfsv3")
    run("mount", "-t", "nfsd", "nfsd", str(NFSD))
    # 10 s is the least that nfsd takes; the default of 90 s would hold up each restart that long.
    for name in ("nfsv4leasetime", "nfsv4gracetime"):
        (NFSD / name).write_text("10\n")
