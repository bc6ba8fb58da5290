"""Writers killed at random moments: what they had acknowledged is there, and nothing is torn."""

from __future__ import annotations

import os
import pickle
import random
import signal
import subprocess
import sys
import time

import pytest

from support.proof import FACTOR

WRITER = """
import sys, nfsdict
base, who = sys.argv[1:]
d = nfsdict.NfsDict("store", base)
number = 0
while True:
    number += 1
    key = f"{who} {number % 20}"
    kind = number % 7
    print("begin", key, number, flush=True)
    if kind == 1:
        d.pop(key, None)
        number_then = ""
    elif kind == 2:
        d.update({key: number, f"{who} more {number}": number})
        number_then = number
    elif kind == 3:
        d.setdefault(key, number)
        number_then = d.get(key, fresh=True)
    else:
        d[key] = number
        number_then = number
        if kind == 4:
            d.close()
        elif kind == 5:
            d.refresh()
    print("done", key, number_then, flush=True)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kills by a signal")
def test_writers_that_are_killed(nfsdict, tmp_path):
    """Each works on keys of its own; a pop that was under way may have left its entry half taken,
    from where repair gives it back."""
    choose = random.Random(1)
    for round_ in range(6 * FACTOR):
        base = tmp_path / str(round_)
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", WRITER, base, f"w{who}"],
                stdout=subprocess.PIPE,
                text=True,
            )
            for who in range(3)
        ]
        # However long that takes: at least four calls of each, each of two lines.
        begun = ["".join(writer.stdout.readline() for _ in range(8)) for writer in writers]
        time.sleep(0.3 + choose.random() / 2)
        for writer in writers:
            time.sleep(choose.random() / 50)
            os.kill(writer.pid, signal.SIGKILL)
        known, open_ = {}, {}
        for first, writer in zip(begun, writers):
            with writer:
                output = first + writer.stdout.read()
            for line in output.split("\n")[:-1]:  # the kill may have torn the last one
                parts = line.rsplit(" ", 1) if line.count(" ") else [line]
                word, _, key = parts[0].partition(" ")
                if word == "begin":
                    open_[key] = int(parts[1])
                elif word == "done":
                    del open_[key]
                    known[key] = int(parts[1]) if parts[1] else None
        assert len(known) > 3
        held = dict(pickle.loads(path.read_bytes()) for path in base.glob("store/??/*.pkl"))
        d = nfsdict.NfsDict("store", base)
        assert dict(d) == held
        d.repair(grace=-1)
        for key, value in known.items():
            allowed = {value} if key not in open_ else {value, open_[key], None}
            assert d.get(key) in allowed, key
        assert not list(base.glob("store/**/.nfsdict-*"))
        assert d.verify().damaged == {}
