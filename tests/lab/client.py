"""One client: a mount that shares nothing with the other's, as on a host of its own."""

from __future__ import annotations

import subprocess
from pathlib import Path

from .servers import Server
from .system import run


class Client:
    """A client with a host name, a server address and a mount point of its own.

    For NFS, `nosharecache` alone keeps only caches apart: two mounts of one server by one host are
    one NFSv4 client, whose own conflicting opens recall no delegation of its. Another address of
    the server and another host name, taken into the client's identity when it mounts, make them
    two.
    """

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.mount_point = Path("/mnt") / name
        self._address = address
        self._mounted: tuple[str, str] | None = None

    def mount(self, server: Server, version: str, options: str) -> None:
        """Mount so; nothing if it is mounted so. Before the server changes it must be unmounted."""
        if self._mounted == (version, options):
            return
        self.unmount()
        command = server.mount(self._address, self.mount_point, version, options)
        run("unshare", "--uts", "sh", "-c", f'hostname {self.name} && exec "$@"', "sh", *command)
        self._mounted = (version, options)

    def unmount(self) -> None:
        """Unmount; by force, and if need be only from sight, where an operation hangs."""
        if self._mounted is None:
            return
        self._mounted = None
        plain = ["umount", str(self.mount_point)]
        if subprocess.run(plain, stderr=subprocess.DEVNULL).returncode:
            run("umount", "-f", "-l", str(self.mount_point))
