"""One NFS client: a mount that shares nothing with the other's, as on a host of its own."""

from __future__ import annotations

import subprocess
from pathlib import Path

from .server import EXPORT, run


class Client:
    """A client with a host name, a server address and a mount point of its own.

    `nosharecache` alone keeps only caches apart: two mounts of one server by one host are one
    NFSv4 client, whose own conflicting opens recall no delegation of its. Another address of the
    server and another host name, taken into the client's identity when it mounts, make them two.
    """

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.mount_point = Path("/mnt") / name
        self._address = address
        self._mounted: tuple[str, str] | None = None

    def mount(self, version: str, options: str) -> None:
        """Mount so; nothing if it is mounted so."""
        if self._mounted == (version, options):
            return
        self.unmount()
        # The lock manager would need daemons of its own; nfsdict takes no lock.
        words = ["vers=3", "nolock"] if version == "3" else [f"vers={version}"]
        words += ["nosharecache", *options.split(",")] if options else ["nosharecache"]
        source = f"{self._address}:{EXPORT if version == '3' else '/'}"
        mount = f'hostname {self.name} && exec mount -t nfs -o "$1" "$2" "$3"'
        arguments = [",".join(words), source, str(self.mount_point)]
        run("unshare", "--uts", "sh", "-c", mount, "sh", *arguments)
        self._mounted = (version, options)

    def unmount(self) -> None:
        """Unmount; by force, and if need be only from sight, where an operation hangs."""
        if self._mounted is None:
            return
        self._mounted = None
        plain = ["umount", str(self.mount_point)]
        if subprocess.run(plain, stderr=subprocess.DEVNULL).returncode:
            run("umount", "-f", "-l", str(self.mount_point))
