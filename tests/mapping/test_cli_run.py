"""`nfsdict run`: the output of a command, computed once; and `nfsdict leases`."""

from __future__ import annotations

import json
import os
import sys

import pytest

from support.processes import processes

SHELL = "/bin/sh"


@pytest.fixture
def nfsdict_command(nfsdict, tmp_path):
    """Start `nfsdict NAME --base-dir … ARGUMENTS`."""
    command = [sys.executable, "-m", "nfsdict"]
    environment = {**os.environ, "NFSDICT_BACKEND": nfsdict.BACKEND}
    with processes() as start:
        yield lambda name, *arguments: start(
            [*command, name, "--base-dir", tmp_path, *arguments], env=environment
        )


def ended(process):
    output, errors = process.communicate(timeout=120)
    return process.returncode, output, errors


@pytest.mark.parametrize("serializer", ["pickle", "json", "bytes"])
def test_any_number_of_callers_run_the_command_once(nfsdict_command, opened, tmp_path, serializer):
    script = f"echo run >>{tmp_path}/log; sleep 0.3; printf 'output\\n\\n'"
    arguments = ["--serializer", serializer, "s", "key", "--", SHELL, "-c", script]
    processes = [nfsdict_command("run", *arguments) for _ in range(4)]
    assert {ended(process) for process in processes} == {(0, b"output\n\n", b"")}
    assert (tmp_path / "log").read_text() == "run\n"
    value = "output\n\n" if serializer != "bytes" else b"output\n\n"
    assert dict(opened(serializer=serializer)) == {"key": value}


def test_output_that_is_no_text_is_kept(nfsdict_command):
    run = ["run", "s", "key", "--", SHELL, "-c", "printf '\\377\\000a'"]
    assert ended(nfsdict_command(*run)) == (0, b"\xff\x00a", b"")
    assert ended(nfsdict_command("run", "s", "key", "--", "false")) == (0, b"\xff\x00a", b"")


@pytest.mark.parametrize(("script", "status"), [("exit 3", 3), ("kill -9 $$", 137)])
def test_a_command_that_fails_gives_its_status_and_nothing_is_kept(
    nfsdict_command, opened, script, status
):
    run = ["run", "s", "key", "--", SHELL, "-c", f"printf output; {script}"]
    assert ended(nfsdict_command(*run)) == (status, b"output", b"")
    assert dict(opened()) == {}
    assert ended(nfsdict_command("run", "s", "key", "--", "printf", "x")) == (0, b"x", b"")


def test_errors(nfsdict_command, opened):
    status, output, errors = ended(nfsdict_command("run", "s", "key", "--", "no such command"))
    assert (status, output) == (2, b"")
    assert b"no such command" in errors
    d = opened()
    with d.lease("key"):
        waiting = nfsdict_command("run", "--timeout", "0.1", "s", "key", "--", "true")
        status, output, errors = ended(waiting)
        assert (status, output, b"'key'" in errors) == (2, b"", True)


def test_max_age(nfsdict_command, opened):
    d = opened()
    d["key"] = "old"
    [path] = d.path.glob("??/*.pkl")
    os.utime(path, (1, 1))
    run = ["--max-age", "60", "s", "key", "--", "printf", "new"]
    assert ended(nfsdict_command("run", "s", "key", "--", "false"))[1] == b"old"
    assert ended(nfsdict_command("run", *run))[1] == b"new"


def test_leases(nfsdict_command, opened):
    d = opened()
    assert ended(nfsdict_command("leases", "s")) == (0, b"", b"")
    with d.lease("a"), d.lease("b\t"):
        status, output, _ = ended(nfsdict_command("leases", "s"))
        lines = [line.rsplit("\t", 4) for line in output.decode().splitlines()]
        assert status == 0
        assert [
            (key, host, process, generation) for key, host, process, _, generation in lines
        ] == [(key, os.uname().nodename, str(os.getpid()), "1") for key in ("a", "b\t")]
        found = json.loads(ended(nfsdict_command("leases", "--json", "s"))[1])
        assert [lease["key"] for lease in found] == ["a", "b\t"]
        assert set(found[0]) == {"key", "host", "process", "age", "generation"}
    assert ended(nfsdict_command("leases", "none"))[0] == 2
