"""NFS-Ganesha, an NFS server that is a program, over a local file system (its FSAL VFS)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from ..export import EXPORT
from ..system import modprobe
from .base import Daemons, Server
from .knfsd import RPCBIND_PORT, nfs_options

if TYPE_CHECKING:
    from ..configuration import Configuration

STATE = Path("/run/ganesha")
PORT = 2049
# Without its lock manager it needs no rpc.statd; nfsdict takes no lock.
CONFIGURATION = """
NFS_CORE_PARAM { Protocols = 3, 4; NFS_Port = %(port)d; mount_path_pseudo = true;
                 Enable_NLM = false; Enable_RQUOTA = false; }
NFSv4 { Graceless = true; RecoveryRoot = %(state)s; }
EXPORT { Export_Id = 1; Path = %(export)s; Pseudo = %(export)s; Access_Type = RW;
         Squash = %(squash)s; SecType = sys; Protocols = 3, 4; FSAL { Name = VFS; } }
"""


class Ganesha(Server):
    NEEDED: ClassVar = {
        "ganesha.nfsd": "nfs-ganesha",
        "/usr/lib/x86_64-linux-gnu/ganesha/libfsalvfs.so": "nfs-ganesha-vfs",
        "mount.nfs": "nfs-common",
        "rpcbind": "rpcbind",
    }
    VERSIONS = ("3", "4.2")

    def __init__(self) -> None:
        self._daemons = Daemons()

    def open(self, configuration: Configuration) -> None:
        modprobe("nfsv4", "nfsv3")
        STATE.mkdir(exist_ok=True)
        squash = "Root_Squash" if configuration.root_squash else "No_Root_Squash"
        words = {"port": PORT, "state": STATE, "export": EXPORT, "squash": squash}
        file, log = STATE / "conf", STATE / "log"
        file.write_text(CONFIGURATION % words)
        self._daemons.start("rpcbind", "-f", port=RPCBIND_PORT)
        command = ["ganesha.nfsd", "-F", "-f", str(file), "-L", str(log), "-p", str(STATE / "pid")]
        self._daemons.start(*command, port=PORT, log=log)

    def close(self) -> None:
        self._daemons.stop()

    def mount(self, address: str, where: Path, version: str, options: str) -> list[str]:
        source = f"{address}:{EXPORT}"
        return ["mount", "-t", "nfs", "-o", nfs_options(version, options), source, str(where)]
