"""What every server of the laboratory has, and the programs that most of them run."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from ..export import EXPORT

if TYPE_CHECKING:
    from ..configuration import Configuration

START_SECONDS = 60  # for a program to listen; 1 to 5 s on an idle machine
END_SECONDS = 10  # for one that was told to end, before it is killed


class Server(ABC):
    """A server of the file system at `EXPORT`, not running at first."""

    NEEDED: ClassVar[Mapping[str, str]] = {}
    """Executable, or a path, of server or client, and the Debian package that has it."""
    OPTIONS: ClassVar[str] = ""
    """Mount options with which nothing that another client finished is missed."""
    SERVER_OPTIONS: ClassVar[str] = ""
    """Settings of the server that this takes as well."""
    VERSIONS: ClassVar[tuple[str, ...]] = ("",)
    """The versions of NFS that it is tried with; "" is no NFS."""
    BELOW: ClassVar[str] = "ext4"
    """The file system that it is tried with."""
    LINKS: ClassVar[bool] = True
    """Whether its hard links are links."""

    files: Path = EXPORT
    """Where its files can be seen and changed without the clients: what it exports, or where
    nobody may change that, the mount of a third client."""

    @abstractmethod
    def open(self, configuration: Configuration) -> None:
        """Start it, and return when clients can mount. Clients must have unmounted."""

    @abstractmethod
    def close(self) -> None:
        """Stop it, so that what it exported can be unmounted."""

    @abstractmethod
    def mount(self, address: str, where: Path, version: str, options: str) -> list[str]:
        """The command by which a client mounts it there.

        *address* is 127.0.0.1 or 127.0.0.2; a server that has other ones may ignore it.
        """


class Daemons:
    """Programs that run in the foreground until `stop`, what they print in /run."""

    def __init__(self) -> None:
        self._running: list[tuple[subprocess.Popen[bytes], Path]] = []

    def start(self, *command: str, port: int | None = None, log: Path | None = None) -> None:
        """Start one, and wait until it listens at *port*. RuntimeError with its log if not.

        *log* is where it writes that itself.
        """
        output = Path("/run") / f"{Path(command[0]).name}.log"
        with output.open("ab") as file:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,  # its own children can be killed with it
            )
        self._running.append((process, log or output))
        if port:
            self.wait_for(port)

    def wait_for(self, port: int) -> None:
        """Wait until the program that was started last listens there."""
        process, log = self._running[-1]
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                return
            except OSError:
                if process.poll() is not None or time.monotonic() > end:
                    text = log.read_text(errors="replace") if log.exists() else ""
                    raise RuntimeError(f"{process.args!r} doesn't listen\n{text[-3000:]}") from None
                time.sleep(0.05)

    def stop(self) -> None:
        """End them, the youngest first."""
        while self._running:
            process, _ = self._running.pop()
            process.terminate()
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                pass
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()


def settings(text: str) -> list[tuple[str, str]]:
    """The pairs of ``KEY=VALUE,KEY=VALUE``."""
    pairs = (word.partition("=") for word in text.split(",") if word)
    return [(key, value) for key, _, value in pairs]


def joined(*words: str) -> str:
    """Mount options, without the empty ones."""
    return ",".join(filter(None, words))
