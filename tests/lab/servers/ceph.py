"""CephFS: one monitor, one store in memory and one metadata server; Linux's client and FUSE's."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from ..system import modprobe, run
from .base import START_SECONDS, Daemons, Server, joined

if TYPE_CHECKING:
    from ..configuration import Configuration

STATE = Path("/run/ceph")
FILE = STATE / "ceph.conf"
PORT = 6789
MONITOR = f"[v2:127.0.0.1:3300,v1:127.0.0.1:{PORT}]"
OWN = Path("/mnt/ceph")
# Nobody but the guest reaches it, so nobody has to prove who he is. A client of FUSE that reads
# what another one has just written waits for the metadata server's next tick, by default 5 s.
CONFIGURATION = """
[global]
fsid = {fsid}
mon initial members = a
mon host = {monitor}
public network = 127.0.0.0/8
public addr = 127.0.0.1
ms bind ipv6 = false
auth cluster required = none
auth service required = none
auth client required = none
run dir = {state}
admin socket = {state}/$cluster-$name.asok
pid file = {state}/$name.pid
log file = {state}/$name.log
mon cluster log file = {state}/cluster.log
crash dir = {state}
mon data = {state}/mon
osd data = {state}/osd
mds data = {state}/mds
mds tick interval = 0.1
osd objectstore = memstore
memstore device bytes = 1000000000
osd class load list = *
osd crush chooseleaf type = 0
crush location = host=lab root=default
osd pool default size = 1
osd pool default min size = 1
osd pool default pg autoscale mode = off
mon allow pool size one = true
mon data avail crit = 1
mon data avail warn = 1
"""


class Ceph(Server):
    """It keeps its files itself: the configuration's export is not used."""

    NEEDED: ClassVar = {
        "ceph-mon": "ceph-mon",
        "ceph-osd": "ceph-osd",
        "ceph-mds": "ceph-mds",
        "ceph": "ceph-common",
        "mount.ceph": "ceph-common",
    }
    BELOW = "tmpfs"
    files = OWN

    def __init__(self) -> None:
        self._daemons = Daemons()

    def open(self, configuration: Configuration) -> None:
        modprobe("ceph")
        shutil.rmtree(STATE, ignore_errors=True)
        for name in ("mon", "osd", "mds"):
            (STATE / name).mkdir(parents=True)
        fsid = str(uuid.uuid4())
        FILE.write_text(CONFIGURATION.format(fsid=fsid, monitor=MONITOR, state=STATE))
        self._start_monitor(fsid)
        self._start_store()
        self._start("ceph-mds", "m")
        for pool in ("data", "metadata"):
            _ceph("osd", "pool", "create", pool, "8")
        _ceph("fs", "new", "files", "metadata", "data")
        _wait_until_served()
        OWN.mkdir(exist_ok=True)
        run(*self.mount("127.0.0.1", OWN, "", ""))

    def _start_monitor(self, fsid: str) -> None:
        monitors = str(STATE / "monitors")
        run("monmaptool", "--create", "--addv", "a", MONITOR, "--fsid", fsid, monitors)
        run("ceph-mon", "-c", str(FILE), "-i", "a", "--mkfs", "--monmap", monitors)
        self._start("ceph-mon", "a", PORT)

    def _start_store(self) -> None:
        name = str(uuid.uuid4())
        _ceph("osd", "new", name)
        run("ceph-osd", "-c", str(FILE), "-i", "0", "--mkfs", "--osd-uuid", name)
        self._start("ceph-osd", "0")

    def _start(self, program: str, name: str, port: int | None = None) -> None:
        self._daemons.start(program, "-f", "-c", str(FILE), "-i", name, port=port)

    def close(self) -> None:
        if os.path.ismount(OWN):
            run("umount", str(OWN))
        self._daemons.stop()

    def mount(self, address: str, where: Path, version: str, options: str) -> list[str]:
        words = ["-o", joined("name=admin,noshare", options), f"127.0.0.1:{PORT}:/", str(where)]
        return ["mount", "-i", "-t", "ceph", *words]


class CephFuse(Ceph):
    """The same cluster; the client is a process."""

    NEEDED: ClassVar = {**Ceph.NEEDED, "ceph-fuse": "ceph-fuse"}

    def open(self, configuration: Configuration) -> None:
        modprobe("fuse")
        super().open(configuration)

    def mount(self, address: str, where: Path, version: str, options: str) -> list[str]:
        # Its own files, or else a second one finds the first one's locked.
        own = [f"--{name}={STATE}/fuse-{where.name}.{name}" for name in ("pid-file", "log-file")]
        words = ["-c", str(FILE), "-n", "client.admin", *own, "--admin-socket=", str(where)]
        return ["ceph-fuse", *words, *(["-o", options] if options else [])]


def _ceph(*words: str) -> str:
    return run("ceph", "-c", str(FILE), *words)


def _wait_until_served() -> None:
    end = time.monotonic() + START_SECONDS
    while "up:active" not in (state := _ceph("mds", "stat")):
        if time.monotonic() > end:
            raise RuntimeError(f"no metadata server is active: {state}")
        time.sleep(0.2)
