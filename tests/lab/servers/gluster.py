"""GlusterFS: a volume of one brick, and its FUSE client."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from ..export import EXPORT
from ..system import hide, modprobe, run
from .base import START_SECONDS, Daemons, Server, settings

if TYPE_CHECKING:
    from ..configuration import Configuration

ADDRESS = "10.99.0.1"  # a brick can't have an address of the loopback device
PORT = 24007
VOLUME = "files"
OWN = Path("/mnt/gluster")
# Replication to other places: Python, started so often that it takes a minute. glusterd wants to
# hear its name.
REPLICATION = "/usr/lib/x86_64-linux-gnu/glusterfs/gsyncd"
NO_REPLICATION = "#!/bin/sh\necho gsyncd\n"


class Gluster(Server):
    NEEDED: ClassVar = {
        "glusterd": "glusterfs-server",
        "glusterfs": "glusterfs-client",
        "ip": "iproute2",
    }
    OPTIONS = "entry-timeout=0,attribute-timeout=0"
    # With each of these the client answers from what it remembers, or writes later.
    SERVER_OPTIONS = ",".join(
        f"performance.{name}=off"
        for name in ("stat-prefetch", "quick-read", "open-behind", "io-cache", "write-behind")
    )
    files = OWN  # what is changed in a brick behind its server's back is lost

    def __init__(self) -> None:
        self._daemons = Daemons()

    def open(self, configuration: Configuration) -> None:
        modprobe("fuse", "dummy")
        for directory in ("/var/lib/glusterd", "/var/log/glusterfs"):
            hide(directory)
        script = Path("/run/gsyncd")
        script.write_text(NO_REPLICATION)
        script.chmod(0o755)
        run("mount", "--bind", str(script), REPLICATION)
        if not Path("/sys/class/net/dummy0").exists():
            run("ip", "link", "add", "dummy0", "type", "dummy")
            run("ip", "addr", "add", f"{ADDRESS}/32", "dev", "dummy0")
            run("ip", "link", "set", "dummy0", "up")
        self._daemons.start("glusterd", "--no-daemon", port=PORT)
        # It listens before it takes commands.
        _once_served(lambda: run("gluster", "--mode=script", "pool", "list"), RuntimeError)
        _gluster("create", VOLUME, f"{ADDRESS}:{EXPORT}/brick", "force")
        pairs = settings(configuration.server_options)
        if pairs:
            _gluster("set", VOLUME, *itertools.chain.from_iterable(pairs))
        _gluster("start", VOLUME)
        OWN.mkdir(exist_ok=True)
        run(*self.mount(ADDRESS, OWN, "", self.OPTIONS))
        # A client can mount a volume before its brick answers; files aren't there until then.
        _once_served(lambda: os.listdir(OWN), OSError)

    def close(self) -> None:
        if os.path.ismount(OWN):
            run("umount", str(OWN))
            _gluster("stop", VOLUME, "force")
        self._daemons.stop()
        for directory in ("/var/lib/glusterd", "/var/log/glusterfs"):
            run("umount", "-l", directory)
        run("umount", REPLICATION)

    def mount(self, address: str, where: Path, version: str, options: str) -> list[str]:
        # What mount.glusterfs does, which takes 10 s for it.
        words = [f"--volfile-server={ADDRESS}", f"--volfile-id={VOLUME}", "--log-level=ERROR"]
        words += [f"--{option}" for option in filter(None, options.split(","))]
        return ["glusterfs", *words, str(where)]


def _gluster(*words: str) -> None:
    run("gluster", "--mode=script", "volume", *words)


def _once_served(call: Callable[[], object], not_yet: type[Exception]) -> None:
    """Make the call again and again until it raises no such error."""
    end = time.monotonic() + START_SECONDS
    while True:
        try:
            call()
            return
        except not_yet:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)
