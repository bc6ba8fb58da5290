"""A User-mode Linux guest: boots it, runs one command in it, ends it."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from . import registers
from .servers import SERVERS

INIT = Path(__file__).with_name("init")
MODULES = Path("/usr/lib/uml/modules")
SBIN = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MEMORY_MB = 1500
DISK_MB = 512  # of the empty disk /dev/ubda; sparse
BOOT_SECONDS = 120  # 2 s on an idle machine

# Executable, and the Debian package that has it. What each server needs besides, its class says.
NEEDED = {
    "linux.uml": "user-mode-linux",
    "modprobe": "kmod",
    "tc": "iproute2",
    "dmsetup": "dmsetup",
    "mkfs.ext4": "e2fsprogs",
}


def obstacle(servers: Iterable[str]) -> str | None:
    """Why no guest with these servers can run here, with the one command that would change it; or
    None."""
    needed = dict(NEEDED)
    if registers.are_too_many():
        needed["gcc"] = "gcc libc6-dev"
    for server in servers:
        needed.update(SERVERS[server].NEEDED)
    packages = sorted({package for name, package in needed.items() if not _is_there(name)})
    if packages:
        return f"the laboratory needs: apt-get install -y {' '.join(packages)}"
    if os.geteuid() != 0:
        return "the laboratory needs root: its guest mounts and exports as the user who starts it"
    return None


def _is_there(name: str) -> bool:
    if os.path.isabs(name):
        return os.path.exists(name)
    path = os.pathsep.join((os.environ.get("PATH", ""), SBIN))
    return shutil.which(name, path=path) is not None


class Guest:
    """One guest with a temporary directory, shared with the host, which `with` removes.

    The guest's root file system is the host's, writable, so a command finds the same interpreter
    and the same files there. `/mnt`, `/run` and `/dev` are the guest's own, and what servers hide;
    what it writes elsewhere it writes to the host.
    """

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="nfsdict-lab-"))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Guest:
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()
        shutil.rmtree(self.directory)

    def boot(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        terminal: bool = False,
    ) -> None:
        """Start the guest and have it run *command*; returns at once.

        The command's output goes to the file `console`, or with *terminal* the command has the
        caller's terminal.
        """
        self._write_command(command, environment)
        disk = self.directory / "disk"
        with disk.open("wb") as file:
            file.truncate(DISK_MB << 20)
        arguments = [
            "linux.uml", "quiet", "loglevel=1", "rootfstype=hostfs", "rootflags=/", "rw",
            f"init={INIT}", f"mem={MEMORY_MB}M", "con=null", "con0=fd:0,fd:1",
            f"uml_dir={self.directory}", f"ubd0={disk}",
            f"LAB_RUN={self.directory}",
        ]  # fmt: skip
        outside = {"PATH": SBIN, "TMPDIR": self._memory_directory(), "HOME": "/"}
        outside.update(registers.preload(self.directory))
        with (self.directory / "console").open("wb") as console:
            self._process = subprocess.Popen(
                arguments,
                env=outside,
                stdin=None if terminal else subprocess.DEVNULL,
                stdout=None if terminal else console,
                stderr=subprocess.DEVNULL,  # the kernel's own start-up messages
                # A group of its own lets kill() reach the guest's processes, each a host process;
                # outside the terminal's foreground group it could not read the terminal.
                start_new_session=not terminal,
            )
        self._own_group = not terminal

    def _write_command(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        names = [name for name in environment if name.isidentifier()]
        lines = [f"export {name}={shlex.quote(environment[name])}" for name in names]
        lines += [f"cd {shlex.quote(os.getcwd())}", f"exec {shlex.join(command)}"]
        (self.directory / "command").write_text("\n".join(lines) + "\n")

    def _memory_directory(self) -> str:
        """Where the guest's memory lies: in memory, unless (as in a container) that is small."""
        shm = "/dev/shm"
        if os.path.isdir(shm):
            space = os.statvfs(shm)
            if space.f_bavail * space.f_frsize > MEMORY_MB << 20:
                return shm
        return str(self.directory)

    @property
    def status(self) -> int | None:
        """The command's exit status, or None before it ended (or if the guest died)."""
        try:
            return int((self.directory / "status").read_text())
        except FileNotFoundError:
            return None

    @property
    def ended(self) -> bool:
        """Whether nothing more will come from this guest."""
        assert self._process is not None
        return self._process.poll() is not None or self.status is not None

    def wait(self, seconds: float) -> bool:
        """Wait for the end, at most so long; whether it came."""
        limit = time.monotonic() + seconds
        while not self.ended and time.monotonic() < limit:
            time.sleep(0.02)
        return self.ended

    def join(self) -> None:
        """Wait until the guest's power is off."""
        assert self._process is not None
        self._process.wait()

    def kill(self) -> None:
        """End the guest as a pulled plug would; no harm if it has ended."""
        if self._process is None:
            return
        if self._own_group:
            # Also after the guest's kernel ended: no process of its may be left over.
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        elif self._process.poll() is None:
            self._process.terminate()
        self._process.wait()

    def console_tail(self, lines: int = 60) -> str:
        """The end of what the command and the guest's kernel printed."""
        text = (self.directory / "console").read_text(errors="replace")
        return "\n".join(text.splitlines()[-lines:])
