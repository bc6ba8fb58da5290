"""The laboratory's servers: each is what its name says, and has two clients that share nothing."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

import pytest

from lab.guest import NEEDED
from lab.laboratory import Lab
from lab.servers import SERVERS

CLIENTS = {
    "knfsd": "nfs",
    "ganesha": "nfs",
    "smb": "cifs",
    "gluster": "fuse.glusterfs",
    "ceph": "ceph",
    "ceph-fuse": "fuse.ceph-fuse",
    "sshfs": "fuse.sshfs",
    "9p": "9p",
}


@pytest.mark.shared
def test_each_client_reads_what_the_other_wrote(lab: Lab) -> None:
    for writer, reader in ((lab.a, lab.b), (lab.b, lab.a)):
        (writer / writer.parent.name).write_bytes(b"value")
        for path in (reader, lab.server):
            assert (path / writer.parent.name).read_bytes() == b"value"


@pytest.mark.shared
def test_the_clients_are_two_mounts_of_the_servers_kind(lab: Lab) -> None:
    mount_of = importlib.import_module("nfsdict.storage.mountinfo").mount_of
    kind = CLIENTS[lab.configuration.server] + ("4" if lab.configuration.version == "4.2" else "")
    for path in (lab.a, lab.b):
        assert mount_of(str(path)).type == kind
    assert os.stat(lab.a).st_dev != os.stat(lab.b).st_dev


@pytest.mark.shared(server="smb", options=("", "cache=none"), server_options="oplocks=no")
def test_options_of_mount_and_server_can_be_chosen(lab: Lab) -> None:
    mounts = Path("/proc/mounts").read_text().splitlines()
    [mount] = [line for line in mounts if f" {lab.a.parent} " in line]
    assert ("actimeo=0" in mount) is False
    assert ("cache=none" in mount) is (lab.configuration.options == "cache=none")
    assert "oplocks = no" in Path("/run/samba/smb.conf").read_text()


def test_the_command_in_contributing_installs_what_the_servers_need() -> None:
    text = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text()
    packages = {*NEEDED.values(), *(p for s in SERVERS.values() for p in s.NEEDED.values())}
    assert packages <= set(text.split())
