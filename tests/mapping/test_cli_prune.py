"""`nfsdict prune`: its limits, what it prints, its exit statuses, and what ends it."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from support.processes import processes

KEYS = [f"key {number}" for number in range(10)]
DAY = 86400


@pytest.fixture
def store(nfsdict, tmp_path):
    """Ten entries; the first is ten days old, the last one day."""
    d = nfsdict.NfsDict("s", tmp_path)
    d.update(dict.fromkeys(KEYS, "value"))
    for number, key in enumerate(KEYS):
        os.utime(d.path_of(key), (0, time.time() - (10 - number) * DAY))
    return d


@pytest.fixture
def command(nfsdict, tmp_path, capfdbinary):
    """Run the command in this process."""
    main = importlib.import_module("nfsdict.cli").main

    def command(*arguments):
        capfdbinary.readouterr()
        words = ["prune", "--base-dir", str(tmp_path), *arguments]
        try:
            status = main(words)
        except SystemExit as ended:
            status = ended.code
        return subprocess.CompletedProcess(words, status, *capfdbinary.readouterr())

    before = signal.getsignal(signal.SIGTERM)
    yield command
    signal.signal(signal.SIGTERM, before)


def left(store):
    store.refresh()
    return sorted(store)


@pytest.mark.parametrize(
    ("arguments", "removed"),
    [
        (["--max-age", "7.5d"], 3),
        (["--max-age", "180h"], 3),
        (["--max-age", str(180 * 3600)], 3),
        (["--max-items", "4"], 6),
        (["--max-bytes", "0"], 10),
        (["--max-bytes", "1G"], 0),
        (["--max-items", "4", "--prefix", "other"], 0),
        (["--max-items", "0", "--prefix", "key 3", "--time-limit", "1h"], 1),
        (["--min-free-inodes", "1"], 0),
    ],
)
def test_a_dry_run_prints_what_is_done(store, command, arguments, removed):
    would = command("s", *arguments, "--dry-run", "--json")
    assert left(store) == KEYS
    done = command("s", *arguments, "--json")
    assert (would.returncode, would.stderr, done.returncode, done.stderr) == (0, b"", 0, b"")
    report = json.loads(done.stdout)
    assert (report["removed"], report["left"], report["failed"]) == (removed, 0, {})
    assert {**json.loads(would.stdout), "dry_run": False} == report
    assert len(left(store)) == 10 - removed


def test_for_people(store, command):
    done = command("s", "--max-items", "4")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.splitlines()[0].split() == [b"removed", b"6"]


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["s"], "give max_age"),
        (["s", "--max-age", "old"], "--max-age: 'old' is no duration such as 30d"),
        (["s", "--max-age", "-1d"], ""),
        (["s", "--max-age", "9" * 400 + "d"], "max_age"),
        (["s", "--max-bytes", "50GB"], "--max-bytes: '50GB' is no size such as 50G"),
        (["s", "--max-bytes", "9" * 400], "--max-bytes"),
        (["s", "--max-items", "1.5"], "--max-items: '1.5' is no whole number"),
        (["s", "--time-limit", "", "--max-items", "1"], "--time-limit"),
        (["nosuch", "--max-items", "1"], "nosuch"),
    ],
)
def test_what_is_refused(store, command, arguments, names):
    done = command(*arguments)
    assert (done.returncode, done.stdout) == (2, b"")
    assert names in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()
    if names:
        assert done.stderr.startswith(b"nfsdict: ") and done.stderr.count(b"\n") == 1
    assert left(store) == KEYS


def test_what_is_left_is_told(store, command):
    done = command("s", "--max-items", "0", "--time-limit", "0s", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["left"] == 10
    assert left(store) == KEYS


def test_a_second_one_is_told_who_prunes(nfsdict, store, command):
    prune = importlib.import_module("nfsdict.upkeep.prune")
    with store.lease(prune.LEASE):
        done = command("s", "--max-items", "0")
    assert (done.returncode, done.stdout) == (2, b"")
    assert f"process {os.getpid()} on" in done.stderr.decode()
    assert done.stderr.count(b"\n") == 1
    assert left(store) == KEYS


SLOW = """
import sys, time
from nfsdict import cli
from nfsdict.storage.exclusive import Exclusive
take = Exclusive.take
def slow(self, *names):
    taken = take(self, *names)
    print("taken", file=sys.stderr, flush=True)
    time.sleep(0.2)
    return taken
Exclusive.take = slow
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.parametrize(("number", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_signals_end_it_with_a_report(nfsdict, store, command, tmp_path, number, status):
    """Nothing has a private name afterwards, and the next call goes on."""
    words = ["prune", "--base-dir", tmp_path, "s", "--max-items", "0", "--json"]
    environment = {**os.environ, "NFSDICT_BACKEND": nfsdict.BACKEND}
    with processes() as start:
        process = start([sys.executable, "-c", SLOW, *words], env=environment)
        assert process.stderr.readline() == b"taken\n"
        process.send_signal(getattr(signal, number))
        output, errors = process.communicate()
    assert process.returncode == status
    assert set(errors.splitlines()) <= {b"taken"}
    report = json.loads(output)
    assert report["removed"] + report["left"] == 10
    assert len(left(store)) == report["kept"] == report["left"]
    assert list(store.path.glob("??/.nfsdict-*")) == []
    assert command("s", "--max-items", "0").returncode == 0
    assert left(store) == []


@pytest.mark.parametrize(
    ("where", "told"), [("_wanted", None), ("_await_later", 10), ("_removed", 10)]
)
def test_an_end_before_the_first_removal_tells_what_is_left(
    nfsdict, store, command, monkeypatch, where, told
):
    """Nothing, while that isn't known yet."""

    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    prune = importlib.import_module("nfsdict.upkeep.prune")
    monkeypatch.setattr(prune.Prune, where, interrupted)
    done = command("s", "--max-items", "0", "--json")
    assert (done.returncode, done.stderr) == (130, b"")
    if told is None:
        assert done.stdout == b""
    else:
        report = json.loads(done.stdout)
        assert (report["removed"], report["kept"], report["left"]) == (0, 10, told)
    assert left(store) == KEYS
