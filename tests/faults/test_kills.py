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
from support.writers import WRITER, told


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
            done, begun_last = told(output)
            known.update(done)
            open_.update(begun_last)
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
