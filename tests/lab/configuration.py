"""A configuration of the laboratory: server, network and mounts."""

from __future__ import annotations

import dataclasses

from .export import KINDS
from .servers import SERVERS

VERSIONS = ("3", "4.0", "4.1", "4.2")
NFS = ("knfsd", "ganesha")


@dataclasses.dataclass(frozen=True, order=True)
class Configuration:
    """Server, network and mounts as one test finds them.

    The order is that in which changing them costs most, so that sorted tests change little.
    """

    server: str = "knfsd"
    server_options: str = ""  # KEY=VALUE,KEY=VALUE of SMB's share or GlusterFS's volume
    export: str = "tmpfs"  # the file system on the server
    size_mb: int = 256  # of that file system
    root_squash: bool = False
    version: str = "4.2"  # of NFS; "" where it isn't NFS
    options: str = ""  # mount options for both clients, besides those of `Server.mount`
    delegations: bool = True  # whether the server may grant them (NFS on v4)
    rtt_ms: float = 0  # added to each round trip between client and server

    def __post_init__(self) -> None:
        if self.server not in SERVERS:
            raise ValueError(f"server {self.server!r} is none of {', '.join(SERVERS)}")
        versions = VERSIONS if self.server in NFS else ("",)
        if self.version not in versions:
            raise ValueError(f"NFS version {self.version!r} is none of {', '.join(versions)}")
        if self.export not in KINDS:
            raise ValueError(f"export {self.export!r} is none of {', '.join(KINDS)}")

    def __str__(self) -> str:
        """A test id: the server if it isn't Linux's NFS server, the version, and whatever else is
        not the default; for other servers the default is what their class says."""
        other = self.server != "knfsd"
        words = [self.server] if other else []
        words += [f"v{self.version}"] if self.version else []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in ("server", "version") or value == self._default(field):
                continue
            if field.name == "options":
                words.append(value.replace(",", "+") or "defaults")
            elif field.name == "server_options":
                words.append(f"server:{value.replace(',', '+') or 'defaults'}")
            elif field.name == "export":
                words.append(value)
            else:
                words.append(f"{field.name}={value}")
        return "-".join(words)

    def _default(self, field: dataclasses.Field[object]) -> object:
        kind = SERVERS[self.server]
        special = {
            "export": kind.BELOW,
            "options": kind.OPTIONS,
            "server_options": kind.SERVER_OPTIONS,
        }
        return field.default if self.server == "knfsd" else special.get(field.name, field.default)
