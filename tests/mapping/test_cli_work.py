"""`nfsdict work`: shell commands as workers."""

from __future__ import annotations

import os
import signal
import sys
import types

import pytest

from support.processes import processes

SHELL = "/bin/sh"


@pytest.fixture
def work(nfsdict, tmp_path):
    """Start `nfsdict work s OPTIONS -- ARGV`."""
    command = [sys.executable, "-m", "nfsdict", "work", "--base-dir", tmp_path]
    environment = {**os.environ, "NFSDICT_BACKEND": nfsdict.BACKEND}
    with processes() as start:
        yield lambda *argv, options=(): start(
            [*command, *options, "s", "--", *argv], env=environment, text=True
        )


@pytest.fixture
def d(opened):
    return opened(serializer="json")


def ended(process):
    output, errors = process.communicate(timeout=120)
    return process.returncode, output, errors


def test_the_command_gets_key_and_value(opened, d, work):
    d.update({"a": "text\n", "b": "", "-c d": "ä"})
    script = 'printf "%s|%s|" "$1" "$2"; cat; printf ";"'
    status, output, errors = ended(work(SHELL, "-c", script, "sh", "--flag"))
    assert (status, errors) == (0, "")
    assert sorted(output.split(";")) == ["", "--flag|-c d|ä", "--flag|a|text\n", "--flag|b|"]
    assert dict(opened(serializer="json")) == {}


def test_values_as_json(d, work):
    d["k"] = {"rate": 0.5}
    assert ended(work("sh", "-c", "cat")) == (0, "{'rate': 0.5}", "")
    d["k"] = {"rate": 0.5}
    assert ended(work("sh", "-c", "cat", options=["--json"])) == (0, '{"rate": 0.5}', "")


def test_a_value_that_is_not_read(d, work):
    d["k"] = "x" * 1_000_000
    assert ended(work("true")) == (0, "", "")
    assert d.claim() is None


def test_what_fails_is_set_aside(opened, d, work):
    d.update({"bad": 1, "good": 2})
    status, _, errors = ended(
        work(SHELL, "-c", '[ "$1" = good ] || exit 7', "sh", options=["--max-attempts", "2"])
    )
    assert status == 1
    assert "nfsdict: 'bad': exit status 7 (attempt 1 of 2)\n" in errors
    assert "nfsdict: 'bad': exit status 7 (attempt 2 of 2)\n" in errors
    assert dict(opened(serializer="json")) == {"failed/bad": 1}
    assert opened(serializer="json").failed() == ["bad"]


def test_what_cannot_run_at_all_is_an_error_and_no_attempt(opened, d, work):
    d["k"] = 1
    status, _, errors = ended(work("no-such-command"))
    assert status == 2 and "no such command: 'no-such-command'" in errors
    with d.claim() as task:
        assert task.attempt == 1


def test_a_store_that_is_not_there_is_an_error(work, tmp_path):
    status, _, errors = ended(work("true"))
    assert status == 2 and str(tmp_path / "s") in errors


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_command_and_gives_its_entry_back(d, work, number):
    d["k"] = 1
    process = work(SHELL, "-c", "echo $$; exec sleep 600", "sh")
    running = int(process.stdout.readline())
    process.send_signal(number)
    assert ended(process)[0] == 128 + number
    with pytest.raises(ProcessLookupError):
        os.kill(running, 0)
    with d.claim() as task:
        assert (task.key, task.attempt) == ("k", 1)


def test_waiting_takes_over_from_a_worker_that_is_killed(opened, d, work):
    d["k"] = 1
    process = work(SHELL, "-c", "echo $$; exec sleep 600", "sh")
    running = int(process.stdout.readline())
    other = work(SHELL, "-c", 'echo "did $1"', "sh", options=["--wait"])
    without = work(SHELL, "-c", 'echo "did $1"', "sh")
    assert ended(without) == (0, "", "")
    process.kill()
    os.kill(running, signal.SIGKILL)
    assert ended(other) == (0, "did k\n", "")
    assert dict(opened(serializer="json")) == {}


def test_a_command_whose_lease_is_lost_is_ended(opened, d, work, tmp_path):
    d["k"] = 1
    first = f"[ -e {tmp_path}/begun ] || {{ touch {tmp_path}/begun; echo $$; exec sleep 600; }}"
    process = work(SHELL, "-c", f"{first}; echo again", "sh", options=["--lease", "1"])
    running = int(process.stdout.readline())
    for path in d.path.glob(".nfsdict-leases/*"):
        path.unlink()
    status, output, errors = ended(process)
    assert (status, output) == (1, "again\n") and "the lease of 'k'" in errors
    with pytest.raises(ProcessLookupError):
        os.kill(running, 0)
    assert dict(opened(serializer="json")) == {}


def test_a_task_that_no_command_can_get_is_set_aside(opened, d, work):
    d.update({"nul\0": 1, "good": 2})
    status, output, errors = ended(work(SHELL, "-c", "echo did $1", "sh"))
    assert (status, output) == (1, "did good\n")
    assert "nul" in errors and "Traceback" not in errors
    assert opened(serializer="json").failed() == ["nul\0"]


def test_a_command_that_cannot_be_started_is_no_attempt(d, work, tmp_path):
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    d["k"] = 1
    for _ in range(4):
        status, _, errors = ended(work(str(script)))
        assert status == 2 and str(script) in errors
    with d.claim() as task:
        assert task.attempt == 1


def test_a_value_that_cannot_be_unpickled_here_is_passed_over(opened, work, monkeypatch):
    module = types.ModuleType("only_here")
    exec("class Here: pass", module.__dict__)
    monkeypatch.setitem(sys.modules, "only_here", module)
    d = opened()
    d.update({"k": module.Here(), "good": "v"})
    d.close()  # the index has the keys
    status, output, errors = ended(work(SHELL, "-c", "cat"))
    assert (status, output) == (0, "v")
    assert "only_here" in errors and "Traceback" not in errors
    assert list(opened(lazy=True)) == ["k"]
