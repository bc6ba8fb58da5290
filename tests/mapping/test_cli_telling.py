"""What a command tells on standard error while it works; its output is the same all the while."""

from __future__ import annotations

import fcntl
import importlib
import logging
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import pytest

LOG = logging.getLogger("nfsdict")


def terminal_ends():
    ends = pty.openpty()
    fcntl.ioctl(ends[1], termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))  # it has none
    return ends


@pytest.fixture
def store(nfsdict, tmp_path):
    with nfsdict.NfsDict("s", tmp_path) as d:
        d.update({str(number): number for number in range(30)})
    return d.path


@pytest.fixture
def command(nfsdict, store):
    """Run the command, with a terminal for its errors if asked. Its status, output, errors."""

    def run(*arguments, terminal=False, start=("-m", "nfsdict")):
        name, *rest = arguments
        ends = terminal_ends() if terminal else os.pipe()
        process = subprocess.Popen(
            [sys.executable, *start, name, "s", *rest, "--base-dir", store.parent],
            env={**os.environ, "NFSDICT_BACKEND": nfsdict.BACKEND, "NO_COLOR": "1"},
            stdout=subprocess.PIPE,
            stderr=ends[1],
        )
        os.close(ends[1])
        told = b""
        try:
            while part := os.read(ends[0], 1 << 16):
                told += part
        except OSError:  # as a terminal ends
            pass
        os.close(ends[0])
        output = process.communicate(timeout=60)[0]
        return process.returncode, output.decode(), told.decode()

    return run


def test_progress_is_shown_on_a_terminal(command):
    quiet = command("verify")
    assert quiet[0] == 0 and quiet[2] == ""
    status, output, told = command("verify", terminal=True)
    assert (status, output) == quiet[:2]
    assert "s: verify: " in told and "shard/s" in told
    assert command("verify", "--no-progress", terminal=True) == quiet


def test_a_terminal_without_tqdm(command):
    hidden = (
        "import sys; sys.modules['tqdm'] = None; import nfsdict.cli; sys.exit(nfsdict.cli.main())"
    )
    assert command("verify", terminal=True, start=("-c", hidden)) == command("verify")


def test_short_commands_show_none(command):
    assert command("get", "7", terminal=True) == (0, "7\n", "")


@pytest.mark.parametrize("terminal", [False, True])
def test_verbose(command, store, terminal):
    [index] = store.glob("_index.nfsdict*")
    index.write_bytes(b"damage")
    status, output, told = command("ls", "-v", terminal=terminal)
    assert (status, len(output.split())) == (0, 30)
    assert f"nfsdict: {store}: the index is ignored: " in told
    assert " ms" not in told and "\r" not in told.replace("\r\n", "\n")


def test_very_verbose(command, store):
    status, output, told = command("get", "7", "-vv")
    assert (status, output) == (0, "7\n")
    assert re.search(rf"^nfsdict: {store}: get '7': \d+\.\d\d ms$", told, re.M)


def test_warnings_are_told_without_being_asked_for(command, nfsdict, store):
    nfsdict.NfsDict("s", store.parent, lazy=True).path_of("7").write_bytes(b"damage")
    status, output, told = command("repair")
    assert status == 0 and "quarantined" in output
    assert told.count("nfsdict: warning: damaged value file") == told.count("\n") == 1


def test_the_logger_is_left_as_it_was(nfsdict, store, capsys):
    main = importlib.import_module("nfsdict.cli").main
    before = LOG.level, list(LOG.handlers)
    assert main(["ls", "s", "--base-dir", str(store.parent), "-vv"]) == 0
    assert (LOG.level, list(LOG.handlers)) == before
    assert "open: " in capsys.readouterr().err
