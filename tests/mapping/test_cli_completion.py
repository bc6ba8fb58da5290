"""Completion: what bash offers at a press of the tab key, and how long it waits for that."""

from __future__ import annotations

import importlib
import os
import pty
import select
import shlex
import shutil
import subprocess
import sys
import threading
import time

import pytest

argcomplete = pytest.importorskip("argcomplete")
PATIENCE = 60.0  # seconds, on a machine that has much else to do
BASH = shutil.which("bash")

# What bash does at a press of the tab key after these words; COMPREPLY has what it offers then.
ASK = """
ask() {
    COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*" COMP_TYPE=9 COMPREPLY=()
    COMP_POINT=${#COMP_LINE}
    _python_argcomplete nfsdict 2>/dev/null
    printf '%s\\n' "$*" "${COMPREPLY[@]}" ""
}
"""


@pytest.fixture
def shell(package, tmp_path):
    """A file that sets bash up, and the environment with a command ``nfsdict``."""
    commands = tmp_path / "bin"
    commands.mkdir()
    command = commands / "nfsdict"
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m nfsdict "$@"\n')
    command.chmod(0o755)
    rc = tmp_path / "rc"
    rc.write_text(argcomplete.shellcode(["nfsdict"]) + ASK + "PS1='> '\n")
    path = f"{commands}{os.pathsep}{os.environ['PATH']}"
    return rc, {**os.environ, "PATH": path, "NFSDICT_BASE_DIR": str(tmp_path / "stores")}


@pytest.fixture
def stores(package, tmp_path):
    base = tmp_path / "stores"
    keys = ["alpha", "run/1", "run/2", "with space"]
    package.NfsDict("results", base, "json").update(dict.fromkeys(keys, 1))
    package.NfsDict("lab/inner", base)["beta"] = 1
    (base / ".hidden").mkdir()
    (base / "file").touch()
    return base


def test_bash_is_offered_commands_options_stores_and_keys(shell, stores):
    rc, environment = shell
    asked = {
        "nfsdict wat": {"watch "},
        "nfsdict ls --so": {"--sort "},
        "nfsdict ls results --sort ": {"age", "size", "key", "none"},
        "nfsdict get ": {"results", "lab/"},
        "nfsdict get lab/": {"lab/inner "},
        "nfsdict get results ": {"alpha", "run/", "with\\ space"},
        "nfsdict get results run/": {"run/1", "run/2"},
        "nfsdict del results alpha run/2 wi": {"with\\ space "},
        f"nfsdict edit {stores}/re": {f"{stores}/results "},
        f"nfsdict edit {stores}/results al": {"alpha "},
        "nfsdict get lab/inner --serializer ": {"auto", "buffers", "bytes", "json", "pickle"},
        "nfsdict copy re": {"results "},
        "nfsdict get nothing ": set(),
    }
    script = [f". {shlex.quote(str(rc))}"]
    for line in asked:
        *words, last = line.split(" ")
        script.append(shlex.join(["ask", *words, last]))
    done = subprocess.run(
        [BASH, "--norc", "-c", "\n".join(script)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    answers = [answer.split("\n") for answer in done.stdout.split("\n\n")[: len(asked)]]
    told = {line.rstrip("\n"): {one for one in offers if one} for line, *offers in answers}
    assert told == asked


def test_a_tab_key_in_bash_completes_a_key(shell, stores):
    rc, environment = shell
    master, terminal = pty.openpty()
    command = [BASH, "--noprofile", "--rcfile", rc, "-i"]
    options = {"stdin": terminal, "stdout": terminal, "stderr": terminal, "env": environment}
    seen = b""

    def until(text):
        nonlocal seen
        end = time.monotonic() + PATIENCE
        while text not in seen:
            assert select.select([master], [], [], max(0, end - time.monotonic()))[0], seen
            seen += os.read(master, 4096)

    with subprocess.Popen(command, start_new_session=True, **options) as bash:
        os.close(terminal)
        try:
            until(b"> ")
            os.write(master, b"nfsdict get results alp\t")
            until(b"get results alpha ")
            os.write(master, b"\n")
            until(b"\r1\r")
        finally:
            bash.kill()
    os.close(master)


def test_a_server_that_does_not_answer_is_not_waited_for(package):
    completion = importlib.import_module("nfsdict.cli.completion")
    hangs = threading.Event()

    def find():
        yield "found before"
        hangs.wait(PATIENCE)
        yield "too late"

    begun = time.monotonic()
    assert completion.promptly(find, 0.1) == {"found before"}
    assert time.monotonic() - begun < PATIENCE / 2
    hangs.set()


def test_so_many_answers_are_enough(package):
    completion = importlib.import_module("nfsdict.cli.completion")
    counted = iter(range(10**9))
    found = completion.promptly(lambda: map(str, counted), PATIENCE)
    assert len(found) == 1000 == next(counted)


def test_the_tab_key_runs_no_pickle_that_others_could_have_written(package, tmp_path, monkeypatch):
    completion = importlib.import_module("nfsdict.cli.completion")
    d = package.NfsDict("s", tmp_path)
    d["k"] = 1
    main = importlib.import_module("nfsdict.cli")
    arguments = main.parser().parse_args(["get", "s", "--base-dir", str(tmp_path), ""])
    assert completion._keys("", arguments) == {"k"}
    d.path.chmod(0o777)
    importlib.import_module("nfsdict.trust")._warned.clear()
    arguments = main.parser().parse_args(["get", "s", "--base-dir", str(tmp_path), ""])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.filters", [])
        assert completion._keys("", arguments) == set()
