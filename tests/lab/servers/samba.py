"""Samba, and Linux's client for SMB (cifs)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from ..export import EXPORT
from ..system import modprobe, run
from .base import Daemons, Server, joined, settings

if TYPE_CHECKING:
    from ..configuration import Configuration

STATE = Path("/run/samba")
PORT = 445
CONFIGURATION = """
[global]
server role = standalone server
smb ports = {port}
disable netbios = yes
load printers = no
server min protocol = SMB3
state directory = {state}
private dir = {state}
lock directory = {state}
cache directory = {state}
pid directory = {state}
ncalrpc dir = {state}/ncalrpc
log file = {state}/log
[export]
path = {export}
read only = no
force user = root
create mask = 0777
directory mask = 0777
{settings}
"""


class Samba(Server):
    NEEDED: ClassVar = {"smbd": "samba", "smbpasswd": "samba", "mount.cifs": "cifs-utils"}
    # By default the client keeps attributes for a second, and a closed file for another one, and it
    # asks for leases: Samba may leave an opening unanswered for which it asks one back.
    OPTIONS = "actimeo=0,closetimeo=0,nolease"

    def __init__(self) -> None:
        self._daemons = Daemons()

    def open(self, configuration: Configuration) -> None:
        modprobe("cifs")
        STATE.mkdir(mode=0o755, exist_ok=True)
        pairs = settings(configuration.server_options)
        lines = "\n".join(f"{key} = {value}" for key, value in pairs)
        file = STATE / "smb.conf"
        file.write_text(CONFIGURATION.format(port=PORT, state=STATE, export=EXPORT, settings=lines))
        run("smbpasswd", "-c", str(file), "-s", "-a", "root", input="secret\nsecret\n")
        command = ["smbd", "--foreground", "--no-process-group", f"--configfile={file}"]
        self._daemons.start(*command, port=PORT, log=STATE / "log")

    def close(self) -> None:
        self._daemons.stop()

    def mount(self, address: str, where: Path, version: str, options: str) -> list[str]:
        usual = "vers=3.1.1,username=root,password=secret,uid=0,gid=0,nosharesock"
        words = ["-o", joined(usual, options), f"//{address}/export", str(where)]
        return ["mount", "-t", "cifs", *words]
