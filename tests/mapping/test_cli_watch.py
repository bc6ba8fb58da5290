"""The command watch: who is told of what, and what ends it."""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import sys
import threading
import time

import pytest

PATIENCE = 60.0  # seconds, on a machine that has much else to do


class Reader:
    """What reads the command's output, in a thread, while the command runs in the main one."""

    def __init__(self, descriptor):
        self.descriptor = descriptor
        self._read = b""

    def lines(self, seconds=PATIENCE):
        """The lines that come within so many seconds, as soon as there is one."""
        if not select.select([self.descriptor], [], [], seconds)[0]:
            return []
        self._read += os.read(self.descriptor, 1 << 16)
        *lines, self._read = self._read.split(b"\n")
        return [line.decode() for line in lines]

    def until(self, act):
        """The first line that comes after one of several calls of ``act``."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            act()
            lines = self.lines(0.1)
            if lines:
                return lines[0]
        raise TimeoutError


@pytest.fixture
def watching(nfsdict, tmp_path, monkeypatch):
    """Run the command, and meanwhile this function of a ``Reader``; the command's exit status."""
    main = importlib.import_module("nfsdict.cli").main

    def watching(function, *options):
        reader, writer = os.pipe()
        monkeypatch.setattr(sys, "stdout", open(writer, "w"))  # noqa: SIM115
        failed = []

        def run():
            try:
                function(Reader(reader))
            except BaseException as error:
                failed.append(error)
                os.kill(os.getpid(), signal.SIGINT)

        # Where the tests run in the background of a shell, SIGINT is ignored.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        thread = threading.Thread(target=run)
        late = threading.Timer(PATIENCE, interrupt)  # or else a command that doesn't end hangs
        for one in (thread, late):
            one.start()
        options = "--interval", "0.01", *options
        status = main(["watch", "s", "--base-dir", str(tmp_path), *options])
        late.cancel()
        thread.join()
        signal.signal(signal.SIGINT, before)
        sys.stdout.close()
        monkeypatch.undo()
        if failed:
            raise failed[0]
        return status

    return watching


def interrupt():
    """As Ctrl-C does."""
    os.kill(os.getpid(), signal.SIGINT)


def test_each_change_of_others_is_a_line(opened, watching):
    d = opened()
    told = []

    def change(reader):
        told.append(reader.until(lambda: d.update(first=time.time())))
        while reader.lines(0.3):
            pass
        d["tab\tkey"] = 1
        told.extend(reader.lines())
        del d["first"]
        told.extend(reader.lines())
        interrupt()

    assert watching(change) == 130
    assert told == ["set\tfirst", "set\ttab\tkey", "del\tfirst"]


def test_as_json_each_line_is_an_object(opened, watching):
    d = opened()
    told = []

    def change(reader):
        told.append(reader.until(lambda: d.update({"a\nb": time.time()})))
        while reader.lines(0.3):
            pass
        del d["a\nb"]
        told.extend(reader.lines())
        interrupt()

    assert watching(change, "--json") == 130
    assert list(map(json.loads, told)) == [
        {"key": "a\nb", "present": True},
        {"key": "a\nb", "present": False},
    ]


def test_it_ends_when_its_reader_goes_away_though_nothing_changes(opened, watching):
    opened()["k"] = 1
    assert watching(lambda reader: os.close(reader.descriptor)) == 141


@pytest.mark.parametrize("interval", ["0", "-1", "nan", "inf"])
def test_an_interval_that_is_none_is_an_error(cli, opened, interval):
    opened()["k"] = 1
    done = cli("watch", "s", "--interval", interval)
    assert (done.status, done.out, done.err.count("\n")) == (2, b"", 1)
