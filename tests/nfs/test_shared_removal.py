"""A file that is removed while another client has it open: SMB's server keeps it until the last has
closed it, or for good."""

from __future__ import annotations

import importlib
import os
import signal
from pathlib import Path

import pytest

from lab.laboratory import Lab
from lab.servers.samba import PORT

READER = """
    import os, sys

    for line in sys.stdin:
        file = os.open(line[:-1], os.O_RDONLY)
        print("open", flush=True)
        sys.stdin.readline()
        os.close(file)
        print("closed", flush=True)
"""


def serving(address: str) -> int:
    """The process of the server that serves the client which has connected to this address."""
    local = "".join(f"{int(part):02X}" for part in reversed(address.split("."))) + f":{PORT:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    sockets = {f"socket:[{row[9]}]" for row in rows if row[1] == local and row[3] == "01"}
    found = set()
    for name in Path("/proc").glob("[0-9]*/comm"):
        if name.read_text().startswith("smbd"):
            files = {os.readlink(file) for file in (name.parent / "fd").iterdir()}
            found |= {int(name.parent.name)} if files & sockets else set()
    [process] = found
    return process


@pytest.mark.shared(server="smb", timeout=400)
def test_what_was_popped_is_not_given_back_though_the_server_forgot_to_remove_it(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process of the server forgets it if it closes a file before it hears of its new name. So it
    stands still from before the ``pop`` renames the file until that is removed."""
    d = importlib.import_module("nfsdict").NfsDict("store", lab.a)
    reader = lab.spawn(READER, lab.b)
    assert reader.stdin and reader.stdout
    rename, unlink, servant = os.rename, os.unlink, serving("127.0.0.2")

    def renamed(source: str, target: str) -> None:
        assert reader.stdin
        if source.endswith(".pkl"):
            os.kill(servant, signal.SIGSTOP)
            reader.stdin.write("\n")  # it closes the file, which waits for the server
            reader.stdin.flush()
        rename(source, target)

    def removed(path: str) -> None:
        unlink(path)
        os.kill(servant, signal.SIGCONT)

    for number in range(10):
        d["key"] = number
        [file] = lab.server.glob("store/??/*.pkl")
        reader.stdin.write(f"{lab.b / file.relative_to(lab.server)}\n")
        reader.stdin.flush()
        assert reader.stdout.readline() == "open\n"
        with monkeypatch.context() as patch:
            patch.setattr(os, "rename", renamed)
            patch.setattr(os, "unlink", removed)
            try:
                assert d.pop("key") == number
            finally:
                os.kill(servant, signal.SIGCONT)
        assert reader.stdout.readline() == "closed\n"
        d.repair(grace=-1)
        assert "key" not in d and list(lab.server.glob("store/??/*")) == []
