"""The laboratory as a test sees it: server, clients, network, and processes on the clients."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from . import export
from .client import Client
from .configuration import Configuration
from .rpcs import Rpcs, counted
from .servers import SERVERS, Knfsd, Server
from .system import run

LEASES = Path("/proc/sys/fs/leases-enable")


class Bench:
    """Server, network and clients of one guest, set up anew as little as the next test allows."""

    def __init__(self) -> None:
        self.clients = {"a": Client("a", "127.0.0.1"), "b": Client("b", "127.0.0.2")}
        self._server: Server | None = None
        self._served: tuple[object, ...] | None = None
        self._rtt_ms = 0.0
        self._number = 0

    @property
    def server(self) -> Server:
        """The one that was prepared last."""
        assert self._server is not None
        return self._server

    @property
    def knfsd(self) -> Knfsd:
        """The same, for what Linux's NFS server alone can do."""
        assert isinstance(self._server, Knfsd)
        return self._server

    def prepare(self, configuration: Configuration) -> None:
        """Bring everything into the state that *configuration* describes."""
        served = dataclasses.astuple(configuration)[:5]
        if self._served != served:
            self._serve(configuration)
            self._served = served
        # The kernel's NFS server holds delegations as leases.
        LEASES.write_text(f"{int(configuration.delegations)}\n")
        for client in self.clients.values():
            client.mount(self.server, configuration.version, configuration.options)
        self.delay(configuration.rtt_ms)

    def _serve(self, configuration: Configuration) -> None:
        self.release()
        self._served = None
        if self._server is not None:
            self._server.close()
        export.make(configuration.export, configuration.size_mb)
        self._server = SERVERS[configuration.server]()
        self._server.open(configuration)

    def release(self) -> None:
        """Unmount both clients, whatever state a test left them in."""
        for client in self.clients.values():
            client.unmount()

    def delay(self, rtt_ms: float) -> None:
        """Add *rtt_ms* to each round trip."""
        if rtt_ms == self._rtt_ms:
            return
        # Both directions of a connection leave by the one interface.
        netem = ["netem", "delay", f"{rtt_ms / 2}ms", "limit", "100000"]
        run("tc", "qdisc", "replace", "dev", "lo", "root", *(netem if rtt_ms else ["noqueue"]))
        self._rtt_ms = rtt_ms

    @contextmanager
    def lab(self, configuration: Configuration) -> Iterator[Lab]:
        """A laboratory for one test, with a fresh directory, which is removed afterwards."""
        self.prepare(configuration)
        self._number += 1
        lab = Lab(self, configuration, f"test-{self._number}")
        try:
            yield lab
        finally:
            lab.close()


class Lab:
    """The fixture `lab`.

    `a`, `b`: the test's directory as client A and client B have it, both having looked it up
    and learnt what root may do there.
    `server`: the same directory on the server's own file system; of CephFS and GlusterFS, where
    nobody may change that, as a third client has it.
    `configuration`: what the test's marker asked for.
    """

    def __init__(self, bench: Bench, configuration: Configuration, name: str) -> None:
        self._bench = bench
        self._processes: list[subprocess.Popen[str]] = []
        self._disturbed = False
        self.configuration = configuration
        self.server = bench.server.files / name
        self.a = bench.clients["a"].mount_point / name
        self.b = bench.clients["b"].mount_point / name
        self.server.mkdir()
        self._look_up()

    def _look_up(self) -> None:
        for path in (self.a, self.b):
            os.close(os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY))
            os.access(path, os.R_OK | os.W_OK | os.X_OK)

    def close(self) -> None:
        """End the test's processes, undo what it did to server and clients, remove its files."""
        for process in self._processes:
            process.kill()
            process.communicate()
        if self._disturbed:
            self._bench.knfsd.export()
            self._bench.knfsd.start()
            self._bench.release()
            self._bench.knfsd.end_grace()
        while self.server.exists():
            # A client removes its .nfsXXXX files when it is done with closing them, also now.
            with suppress(FileNotFoundError):
                shutil.rmtree(self.server)

    def rpcs(self, client: str) -> AbstractContextManager[Rpcs]:
        """Count what client "a" or "b" sends inside the `with`; see `Rpcs`."""
        return counted(self._bench.clients[client].mount_point)

    def drop_caches(self) -> None:
        """Empty the clients' caches (and the server's), but for what is open."""
        os.sync()
        Path("/proc/sys/vm/drop_caches").write_text("3\n")

    def delay(self, rtt_ms: float) -> None:
        """From now on, add *rtt_ms* to each round trip."""
        self._bench.delay(rtt_ms)

    def stop_server(self) -> None:
        self._disturbed = True
        self._bench.knfsd.stop()

    def start_server(self) -> None:
        """Start it again. On v4 clients first reclaim their state, for up to 10 s."""
        self._bench.knfsd.start()

    def restart_server(self) -> None:
        """Stop and start: files that were unlinked while open are gone for good, so ESTALE."""
        self.stop_server()
        self.start_server()

    def unexport(self) -> None:
        """Refuse both clients everything, until `export`."""
        self._disturbed = True
        self._bench.knfsd.unexport()

    def export(self) -> None:
        self._bench.knfsd.export()

    def remount(self, client: str, options: str) -> None:
        """Mount client "a" or "b" afresh, its caches empty, with *options* besides the usual."""
        mount = self._bench.clients[client]
        mount.unmount()
        mount.mount(self._bench.server, self.configuration.version, options)
        self._look_up()

    def spawn(
        self,
        code: str,
        *arguments: object,
        user: int = 0,
        group: int = 0,
        groups: Sequence[int] = (),
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[str]:
        """Start Python *code*, with `sys.argv[1:]` as given, as that user; killed after the test.

        Input, output and errors are pipes of text. The process may read every local file, so
        that it finds its interpreter wherever that is; over NFS the server judges it by its user
        and groups alone.
        """
        command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
        if user:
            # setpriv(1): of root's capabilities only the reading of local files is kept.
            read = "+dac_read_search"
            who = [f"--reuid={user}", f"--regid={group}"]
            who += [f"--groups={','.join(map(str, groups))}" if groups else "--clear-groups"]
            command = ["setpriv", *who, f"--inh-caps={read}", f"--ambient-caps={read}", *command]
        process = subprocess.Popen(
            command,
            cwd="/",
            env={**os.environ, **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._processes.append(process)
        return process

    def run(
        self,
        code: str,
        *arguments: object,
        user: int = 0,
        group: int = 0,
        groups: Sequence[int] = (),
        environment: Mapping[str, str] | None = None,
        timeout: float = 60,
    ) -> str:
        """Run *code* as `spawn` does and return what it printed.

        AssertionError with its errors if it fails, subprocess.TimeoutExpired if it takes longer.
        """
        process = self.spawn(
            code, *arguments, user=user, group=group, groups=groups, environment=environment
        )
        output, errors = process.communicate(timeout=timeout)
        assert process.returncode == 0, errors
        return output
