"""A configuration of the laboratory: server, network and mounts."""

from __future__ import annotations

import dataclasses

VERSIONS = ("3", "4.0", "4.1", "4.2")
EXPORTS = ("tmpfs", "ext4")


@dataclasses.dataclass(frozen=True, order=True)
class Configuration:
    """Server, network and mounts as one test finds them.

    The order is that in which changing them costs most, so that sorted tests change little.
    """

    export: str = "tmpfs"  # the file system on the server
    size_mb: int = 256  # of that file system
    root_squash: bool = False
    version: str = "4.2"  # of NFS
    options: str = ""  # mount options for both clients, besides vers= and nosharecache
    delegations: bool = True  # whether the server may grant them (on v4)
    rtt_ms: float = 0  # added to each round trip between client and server

    def __post_init__(self) -> None:
        if self.version not in VERSIONS:
            raise ValueError(f"NFS version {self.version!r} is none of {', '.join(VERSIONS)}")
        if self.export not in EXPORTS:
            raise ValueError(f"export {self.export!r} is none of {', '.join(EXPORTS)}")

    def __str__(self) -> str:
        """A test id: the version, and whatever else is not the default."""
        words = [f"v{self.version}"]
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name == "version" or value == field.default:
                continue
            if field.name in ("export", "options"):
                words.append(value.replace(",", "+"))
            else:
                words.append(f"{field.name}={value}")
        return "-".join(words)
