"""The servers that the laboratory can start, each in a module of its own."""

from __future__ import annotations

from .base import Server
from .ceph import Ceph, CephFuse
from .ganesha import Ganesha
from .gluster import Gluster
from .knfsd import Knfsd
from .ninep import NineP
from .samba import Samba
from .sshfs import Sshfs

SERVERS: dict[str, type[Server]] = {
    "knfsd": Knfsd,
    "ganesha": Ganesha,
    "smb": Samba,
    "gluster": Gluster,
    "ceph": Ceph,
    "ceph-fuse": CephFuse,
    "sshfs": Sshfs,
    "9p": NineP,
}

__all__ = ["SERVERS", "Knfsd", "Server"]
