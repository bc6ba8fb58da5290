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
def test_nothing_is_missed_in_a_settled_store(lab: Lab, a, b, skewed) -> None:
    """Who is behind changes what the other one has settled. GlusterFS keeps the later of two times,
    so a directory's stamp stays as it was."""
    here, there = (a, b) if skewed < 0 else (b, a)
    settle(here, here, OLD)
    other, known = there(), here()
    before = times(known)
    for turn in range(2):
        other["key 0"] = ("replaced", turn)
        other[f"new {turn}"] = turn
        del other[f"key {turn + 1}"]
        changed = {"key 0", f"new {turn}", f"key {turn + 1}"}
        assert known.refresh() == changed
        assert dict(here()) == dict(there()) == dict(known) == dict(other)
        assert here(lazy=True).keys() == other.keys()
    after = times(known)
    assert all(after[shard] == before[shard] for shard in before), "stamps prove something here"
    assert known.add("new 0", "lost") is False and other.add("won", 1) is True
    assert known.pop("won") == 1


def times(d) -> dict[str, int]:
    return {shard.name: shard.stat().st_mtime_ns for shard in d.path.glob("[0-9a-f][0-9a-f]")}
