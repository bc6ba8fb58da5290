"""The doctor on a real NFS: its verdict beside what is seen there of another client's changes."""

from __future__ import annotations

import importlib
import json
import os

import pytest

from lab.laboratory import Lab
from support.promises import broken_promises

pytestmark = pytest.mark.nfs(version=("3", "4.2"), export="ext4", timeout=300)

OPTIONS = ["", "nordirplus", "nocto", "nocto,nordirplus"]


@pytest.fixture(autouse=True)
def few(package, monkeypatch):
    """Calls are timed a few times only."""
    monkeypatch.setattr(importlib.import_module("nfsdict.doctor.speed"), "_ROUNDS", 4)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_verdict_is_never_ok_where_a_promise_fails(lab: Lab, package, a, b, options) -> None:
    lab.remount("a", options)
    diagnosis = package.diagnose(lab.a)
    assert os.listdir(lab.server) == []
    broken = broken_promises(a, b)
    print(diagnosis.verdict, sorted(broken))
    assert diagnosis.verdict == "FAIL" or not broken
    found = {(one.section, one.probe): one for one in diagnosis.findings}
    wrong = {name for name, one in found.items() if one.verdict == "FAIL"}
    unseen = options == "nocto,nordirplus" or (
        options == "nordirplus" and lab.configuration.version == "3"
    )
    assert wrong == ({("mount", options)} if unseen else set())
    costs = {options} & {"nocto", "nordirplus"} - {name for _, name in wrong}
    warned = {name for name, one in found.items() if one.verdict == "WARN"}
    # How much room there is, and how fast this machine is, isn't the test's to say.
    assert {name for name in warned if name[0] not in ("room", "speed")} == {
        ("mount", option) for option in costs
    }


def test_calls_to_the_server_are_counted(lab: Lab, package) -> None:
    figures = {
        one.probe: one.figures for one in package.diagnose(lab.a).findings if one.section == "speed"
    }
    assert figures["cached get"]["calls"] == 0
    assert 4 <= figures["put"]["calls"] < 9  # and what new shard directories cost
    assert figures["refresh"]["calls"] > 0


def test_what_a_server_and_its_options_do_is_seen(lab: Lab, package) -> None:
    found = {(one.section, one.probe): one for one in package.diagnose(lab.a).findings}
    assert found["mount", "file system"].figures["type"] in ("nfs", "nfs4")
    assert "server's time" in found["clock", "utime(NULL)"].seen or (
        "told apart" in found["clock", "utime(NULL)"].seen
    )
    assert abs(found["clock", "difference"].figures["difference_s"]) < 1


@pytest.mark.nfs(root_squash=True)
def test_squashed_root_is_seen(lab: Lab, package) -> None:
    found = {one.probe: one for one in package.diagnose(lab.a).findings}
    assert found["mkdir"].verdict == "FAIL"  # root of the client may not write here
    os.chmod(lab.server, 0o777)
    found = {one.probe: one for one in package.diagnose(lab.a).findings}
    assert "squashed" in found["root squash"].seen


COMMAND = """
    import sys
    from nfsdict.cli import main
    from nfsdict.doctor import speed

    speed._ROUNDS = 3
    sys.exit(main(["doctor", *sys.argv[1:]]))
"""
# A client whose looks believe what it remembers of missing names: nothing is revalidated.
FORGETFUL = """
    import sys
    from unittest import mock
    from nfsdict.cli import main
    from nfsdict.doctor import player
    from nfsdict.storage.coherence import Coherence
    from nfsdict.storage.seen import Contains

    player.LATEST = 0.1
    observe = player.Player.observe

    def forgetful(*arguments):
        with mock.patch.object(Coherence, "parent_may_contain", lambda *_: Contains.NO):
            return observe(*arguments)

    player.Player.observe = forgetful
    sys.exit(main(["doctor", *sys.argv[1:]]))
"""


@pytest.mark.nfs(version="4.2")
@pytest.mark.parametrize(
    ("code", "wrong"),
    [(COMMAND, set()), (FORGETFUL, {"`in` after a miss", "`get(fresh=True)`"})],
    ids=["right", "forgetful"],
)
def test_two_hosts_meet(lab: Lab, code, wrong) -> None:
    """And one that doesn't see what the other does is found."""
    first = lab.spawn(COMMAND, lab.a, "--peer", "--seconds", "1", "--json")
    line = first.stderr.readline()
    second = lab.spawn(code, lab.b, *line.split()[-2:], "--json")
    told, errors = first.communicate(timeout=100)
    _, others = second.communicate(timeout=100)
    assert (errors, others) == ("", "")
    findings = json.loads(told)["findings"]
    found = {one["probe"]: one for one in findings if one["section"] == "peer"}
    print(*(f"{one['verdict']} {name}: {one['seen']}" for name, one in found.items()), sep="\n")
    assert {name for name, one in found.items() if one["verdict"] == "FAIL"} == wrong
    assert "by two mounts" in found["hosts"]["seen"]
    for what in ("add", "pop", "lease"):
        assert found[f"races of `{what}`"]["figures"]["races"] > 0
    assert first.returncode == second.returncode == (2 if wrong else 1)
    assert os.listdir(lab.server) == []
