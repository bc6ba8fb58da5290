"""Clients that stamp files by their own clocks, one of which is a minute off: GlusterFS."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from lab.laboratory import Lab
from lab.system import run
from support.settling import settle

SOURCE = Path(__file__).parents[1] / "lab" / "skew.c"
OLD = {f"key {number}": "old" for number in range(20)}


@pytest.fixture(scope="session")
def shim(tmp_path_factory) -> str:
    made = tmp_path_factory.mktemp("skew") / "skew.so"
    run("cc", "-shared", "-fPIC", "-O1", "-o", str(made), str(SOURCE))
    return str(made)


@pytest.fixture(params=[-60, 60], ids=["behind", "ahead"])
def skewed(lab: Lab, request, monkeypatch, shim) -> int:
    """Client B's clock is off by so many seconds."""
    with monkeypatch.context() as patch:
        patch.setenv("LD_PRELOAD", shim)
        patch.setenv("SKEW_SECONDS", str(request.param))
        # An option more, so that the next test mounts it again.
        lab.remount("b", f"{lab.configuration.options},log-level=CRITICAL")
    (lab.b / "probe").touch()
    off = (lab.server / "probe").stat().st_mtime - time.time()
    assert abs(off - request.param) < 20, "the client stamps by another clock"
    return request.param


@pytest.mark.shared(server="gluster", timeout=400)
@pytest.mark.parametrize("writer", ["a", "b"])
def test_nothing_is_missed_in_a_settled_store(lab: Lab, a, b, skewed, writer) -> None:
    here, there = (b, a) if writer == "a" else (a, b)
    settle(here, there, OLD)
    other, known = there(), here()
    for turn in range(3):
        other["key 0"] = ("replaced", turn)
        other[f"new {turn}"] = turn
        del other[f"key {turn + 1}"]
        changed = {"key 0", f"new {turn}", f"key {turn + 1}"}
        assert known.refresh() == changed
        assert dict(here()) == dict(known) == dict(other)
        assert here(lazy=True).keys() == other.keys()
    assert known.add("new 0", "lost") is False and other.add("won", 1) is True
    assert known.pop("won") == 1
