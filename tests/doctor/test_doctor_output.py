"""What the doctor's command prints, and its status where it can't go on."""

from __future__ import annotations

import importlib
import os
import shlex
import subprocess
import sys
import types

import pytest


@pytest.fixture
def report(package):
    return importlib.import_module("nfsdict.doctor.report")


@pytest.fixture
def command(package):
    return importlib.import_module("nfsdict.cli.doctor")


def test_a_finding_is_one_line_without_control_characters(report):
    text = "at /mnt/a\nb\x1b[31m\x9b\u2028 and \xfc\udcff"
    finding = report.Finding("mount", "x\ny", "WARN", text, text, text)
    shown = "at /mnt/a\\nb\\x1b[31m\\x9b\\u2028 and \xfc\udcff"
    assert str(finding) == f"WARN  mount, x\\ny: {shown} Breaks: {shown} Do: {shown}"
    assert report.Diagnosis("/", [finding]).as_dict()["findings"][0]["seen"] == text


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1", None])
@pytest.mark.parametrize("path", ["/\xfcmlaut", "/\u65e5", "/a b", "/a\nb", "/\udcff"])
def test_the_second_hosts_command_names_the_path_in_each_encoding(
    command, monkeypatch, encoding, path
):
    monkeypatch.setattr(command.sys, "stderr", types.SimpleNamespace(encoding=encoding))
    quoted = command._quoted(path)
    monkeypatch.undo()
    line = b"printf %s " + quoted.encode(encoding or "ascii")
    done = subprocess.run(["bash", "-c", line], capture_output=True, check=True)
    assert done.stdout == os.fsencode(path)


def test_what_can_be_printed_is_not_escaped(command, monkeypatch):
    monkeypatch.setattr(command.sys, "stderr", types.SimpleNamespace(encoding="utf-8"))
    assert command._quoted("/\xfcmlaut b") == shlex.quote("/\xfcmlaut b")


def test_an_exception_that_nobody_expects_is_no_warning(command, monkeypatch, tmp_path, capsys):
    """Python ends by the status 1, which means WARN here."""

    def fail(path):
        raise AssertionError("unexpected")

    monkeypatch.setattr(command, "examine", fail)
    status = importlib.import_module("nfsdict.cli").main(["doctor", str(tmp_path)])
    assert status == 2
    assert "Traceback" in (told := capsys.readouterr().err) and "unexpected" in told


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no such device")
@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_output_that_cannot_be_written_is_not_the_stores(package, tmp_path, arguments):
    command = [sys.executable, "-m", "nfsdict", "doctor", tmp_path, *arguments]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr == (
        "nfsdict: the output can't be written: [Errno 28] No space left on device\n"
    )
    assert os.listdir(tmp_path) == []
