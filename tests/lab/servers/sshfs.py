"""sshfs: OpenSSH's server of SFTP, without ssh around it, and the FUSE client."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from ..export import EXPORT
from ..system import modprobe
from .base import Daemons, Server, joined

if TYPE_CHECKING:
    from ..configuration import Configuration

SFTP = "/usr/lib/openssh/sftp-server"
PORT = 2222


class Sshfs(Server):
    NEEDED: ClassVar = {"sshfs": "sshfs", SFTP: "openssh-sftp-server", "socat": "socat"}
    OPTIONS = "dir_cache=no,attr_timeout=0,entry_timeout=0"
    LINKS = False

    def __init__(self) -> None:
        self._daemons = Daemons()

    def open(self, configuration: Configuration) -> None:
        modprobe("fuse")
        listening = f"TCP-LISTEN:{PORT},fork,reuseaddr,nodelay"
        self._daemons.start("socat", listening, f"EXEC:{SFTP}", port=PORT)

    def close(self) -> None:
        self._daemons.stop()

    def mount(self, address: str, where: Path, version: str, options: str) -> list[str]:
        words = joined(f"directport={PORT}", "allow_other", options)
        return ["sshfs", "-o", words, f"{address}:{EXPORT}", str(where)]
