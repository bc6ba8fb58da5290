"""9p: diod, and Linux's client."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from ..export import EXPORT
from ..system import modprobe
from .base import Daemons, Server, joined

if TYPE_CHECKING:
    from ..configuration import Configuration

PORT = 564


class NineP(Server):
    NEEDED: ClassVar = {"diod": "diod"}
    OPTIONS = "cache=none"

    def __init__(self) -> None:
        self._daemons = Daemons()

    def open(self, configuration: Configuration) -> None:
        modprobe("9p", "9pnet_fd")
        log = Path("/run/diod.log")
        words = ["--no-auth", "--statfs-passthru", "--allsquash", "--squashuser", "root"]
        words += ["--listen", f"0.0.0.0:{PORT}", "--export", str(EXPORT), "--logdest", str(log)]
        self._daemons.start("diod", "--foreground", *words, port=PORT, log=log)

    def close(self) -> None:
        self._daemons.stop()

    def mount(self, address: str, where: Path, version: str, options: str) -> list[str]:
        usual = f"trans=tcp,port={PORT},version=9p2000.L,uname=root,access=user,aname={EXPORT}"
        return ["mount", "-t", "9p", "-o", joined(usual, options), address, str(where)]
