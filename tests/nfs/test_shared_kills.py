"""Writers on two clients, killed at any moment: each key has its old value or the new one, or
``repair`` gives one of them back; and what was popped never comes again."""

from __future__ import annotations

import importlib
import pickle
import random
import time

import pytest

from lab.laboratory import Lab
from support.proof import FACTOR
from support.writers import WRITER, told

POP = 1  # of seven numbers of ``WRITER``


@pytest.mark.shared(server="smb", timeout=240 + 120 * FACTOR)
@pytest.mark.filterwarnings("ignore:.*is not safe with the options")
def test_writers_that_are_killed(lab: Lab) -> None:
    check(lab)


@pytest.mark.shared(server="smb", options="", timeout=240 + 120 * FACTOR)
@pytest.mark.filterwarnings("ignore:.*is not safe with the options")
def test_writers_that_are_killed_where_openings_warn(lab: Lab) -> None:
    check(lab)


def check(lab: Lab) -> None:
    choose = random.Random(1)
    for round_ in range(3 * FACTOR):
        name = f"killed {round_}"
        writers = [
            lab.spawn(WRITER, base / name, f"w{who}")
            for who, base in enumerate((lab.a, lab.b, lab.a))
        ]
        # However long that takes: at least four calls of each, each of two lines.
        begun = ["".join(writer.stdout.readline() for _ in range(8)) for writer in writers]
        time.sleep(choose.random())
        for writer in writers:
            time.sleep(choose.random() / 20)
            writer.kill()
        outcomes = [told(first + writer.stdout.read()) for first, writer in zip(begun, writers)]
        importlib.import_module("nfsdict").NfsDict("store", lab.b / name).repair(grace=-1)
        files = [*(lab.server / name).glob("store/??/*")]
        assert [file.name for file in files if file.suffix != ".pkl"] == []
        held = dict(pickle.loads(file.read_bytes()) for file in files)
        for known, under_way in outcomes:
            assert len(known) > 1
            for key, value in known.items():
                allowed = {value}
                if key in under_way:
                    new = under_way[key]
                    allowed.add(None if new % 7 == POP else new)
                assert held.get(key) in allowed, (key, value, under_way)
