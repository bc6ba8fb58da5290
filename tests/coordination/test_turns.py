"""Turns: of the processes of a host that wait for the same, one asks the server for all."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack

import pytest

from support.forks import forking

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="by names that Linux has")


@pytest.fixture
def turn(nfsdict, tmp_path):
    """Makes turns that this test alone has."""
    Turn = importlib.import_module("nfsdict.coordination.turns").Turn
    with ExitStack() as turns:
        yield lambda about="key": turns.enter_context(Turn(str(tmp_path), about))


def wait_until(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_one_has_it_until_it_passes_it_on(turn):
    one, two = turn(), turn()
    assert one.taken() and one.taken() and not two.taken()
    assert turn("another").taken()
    with one:
        two.pass_on()
        assert not two.taken()
    assert two.taken() and not one.taken()


def test_it_is_awaited_for_so_long(turn):
    one, two = turn(), turn()
    assert one.taken()
    two.await_(0.1)
    assert not two.taken()
    threading.Timer(0.1, one.pass_on).start()
    two.await_(60)
    assert not one.taken()


def test_a_process_that_is_killed_has_it_no_longer(turn, tmp_path):
    code = (
        "import sys; from nfsdict.coordination.turns import Turn; turn = Turn(sys.argv[1], 'key');"
        " print(turn.taken(), flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"True\n"
        assert not turn().taken()
        process.kill()
        process.wait()
        wait_until(turn().taken)


@forking
def test_a_forked_child_does_not_keep_it(turn):
    one, two = turn(), turn()
    assert one.taken()
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        signal.pause()
    try:
        assert not two.taken()
        one.pass_on()
        wait_until(two.taken)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_one_of_those_who_wait_for_a_lease_looks_for_all(opened, monkeypatch):
    LeaseFiles = importlib.import_module("nfsdict.storage.lease_files").LeaseFiles
    look, looks, got = LeaseFiles.look, Counter(), []

    def counted(self, *args, **options):
        looks[self] += 1
        return look(self, *args, **options)

    def wait(d):
        with d.lease("key"):
            got.append(d)

    threads = [threading.Thread(target=wait, args=[opened(lazy=True)]) for _ in range(4)]
    with opened().lease("key"):
        monkeypatch.setattr(LeaseFiles, "look", counted)
        for thread in threads:
            thread.start()
        wait_until(lambda: max(looks.values(), default=0) > 6)
        assert sorted(looks.values())[:-1] == [1, 1, 1]
    for thread in threads:
        thread.join()
    assert len(got) == 4


def test_who_never_has_the_turn_looks_now_and_then(opened, monkeypatch):
    leases = importlib.import_module("nfsdict.coordination.leases")
    monkeypatch.setattr(leases, "_SELDOM", 0.2)
    d, other = opened(), opened()
    with leases.Turn(leases.this_process()[0], str(d.path), "key") as suspended:
        held = d.lease("key")
        threading.Timer(0.3, held.release).start()
        with other.lease("key"):
            assert not held.held
        assert suspended.taken()
