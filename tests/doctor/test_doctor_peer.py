"""Two hosts that the doctor has meet: here two processes, or two threads of which one is wrong."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict

import pytest

from support.processes import processes


@pytest.fixture
def inner(package):
    """A module of the doctor's."""
    return lambda name: importlib.import_module(f"nfsdict.doctor.{name}")


@pytest.fixture
def meet(inner, tmp_path):
    """Have two threads meet; the first one's findings, by their names. The second one has the same,
    or those named in ``also``."""
    peer = inner("peer")
    probes = importlib.import_module("nfsdict.storage.probes")
    kinds = importlib.import_module("nfsdict.storage.mounts").KINDS

    def meet(kind="ext4", seconds=0.1, follow=True, wait=20.0, facts=None, also=None):
        directory = probes.PrivateDirectory(str(tmp_path))
        directory.make()
        peer.invite(directory)
        mine = peer.facts(str(tmp_path), [])
        theirs = {**mine, **(facts or {})}
        second = threading.Thread(target=lambda: told.extend(peer.follow(directory, theirs, wait)))
        told: list = []
        if follow:
            second.start()
        found = list(peer.lead(directory, kinds[kind], mine, seconds, wait))
        if follow:
            second.join()
            if also is None:
                assert told == found
            else:
                assert [finding.probe for finding in told] == also
        directory.remove()
        return {finding.probe: finding for finding in found}

    return meet


def test_two_that_see_each_other(nfsdict, meet):
    found = meet(facts={"identity": "elsewhere"})
    assert {name for name, one in found.items() if one.verdict != "OK"} == set()
    looks = [found[name] for name in ("`in` after a miss", "`get(fresh=True)`", "`refresh()`")]
    for one in looks:
        for host in ("first", "second"):
            figures = one.figures[host]
            assert figures["at_first_look"] == figures["changes"] > 0
    for what in ("add", "pop", "lease"):
        assert found[f"races of `{what}`"].figures["races"] > 0


def test_two_on_one_host_prove_less_and_it_says_so(meet):
    found = meet()["hosts"]
    assert found.verdict == "WARN" and "proves less" in found.breaks


def test_the_other_hosts_mount_counts(inner, meet):
    bad = inner("report").Finding("mount", "nocto", "FAIL", "seen.", "all.", "this.")
    found = meet(facts={"findings": [asdict(bad)]})["second host's nocto"]
    assert found.verdict == "FAIL" and found.section == "peer"


@pytest.fixture
def wrong(inner, monkeypatch):
    """Replace what the second host does when it is asked for this."""
    Player = inner("player").Player

    def wrong(what, does):
        original = getattr(Player, what)

        def replaced(self, *arguments):
            if self._me == "second":
                return does(lambda: original(self, *arguments), *arguments)
            return original(self, *arguments)

        monkeypatch.setattr(Player, what, replaced)

    return wrong


def test_two_winners_of_add(meet, wrong):
    wrong("add", lambda right, keys: (right() and keys) or keys)
    found = meet()
    assert found["races of `add`"].verdict == "FAIL"
    figures = found["races of `add`"].figures
    assert 0 < figures["without_one_winner"] <= figures["races"]


def test_no_winner_of_pop(meet, wrong):
    wrong("pop", lambda right, keys: (right() and []) or [])
    assert meet()["races of `pop`"].verdict == "FAIL"


def test_a_popped_value_that_nobody_added(meet, wrong):
    wrong("pop", lambda right, keys: [(key, "nobody") for key, _ in right()])
    assert meet()["races of `pop`"].verdict == "FAIL"


def test_a_lease_that_two_hold(meet, wrong):
    wrong("lease", lambda right, times: right() + 1)
    assert meet()["races of `lease`"].verdict == "FAIL"


@pytest.mark.parametrize(
    ("result", "words"), [((1, None), "not within"), ((3, 0.5), "at most 500 ms")]
)
@pytest.mark.parametrize("call", ["in", "fresh", "refresh", "opening"])
def test_a_change_that_is_seen_late_or_never(inner, meet, wrong, call, result, words):
    wrong("observe", lambda right, how, *_: result if how == call else right())
    found = meet()
    calls = inner("player").CALLS
    for one, name in calls.items():
        assert found[name].verdict == ("FAIL" if one == call else "OK"), found[name]
    assert words in found[calls[call]].seen


def test_changes_that_do_not_show_are_found_by_looking(inner, meet, monkeypatch):
    """The second host goes on serving what it has once seen."""
    player = inner("player")
    monkeypatch.setattr(player, "LATEST", 0.02)
    main = threading.current_thread()

    stores = inner("stores")

    class Stale(stores.Store):
        def get(self, key, default=None, *, fresh=False):
            return super().get(key, default, fresh=fresh and threading.current_thread() is main)

    monkeypatch.setattr(stores, "Store", Stale)
    found = meet()["`get(fresh=True)`"]
    assert found.verdict == "FAIL"
    assert found.figures["second"]["never"] > 0 == found.figures["first"]["never"]


def test_errors_of_the_other_host(meet, wrong):
    def fail(right, *_):
        raise OSError(22, "Invalid argument")

    wrong("observe", fail)
    found = meet()
    assert found["errors"].verdict == "FAIL" and "Invalid argument" in found["errors"].seen
    assert "second host" in found["errors"].seen


@pytest.mark.parametrize(
    ("kind", "seconds", "verdict"),
    [("ext4", 0.05, "WARN"), ("ext4", 5, "FAIL"), ("ceph", 5, "WARN"), ("ext4", 0, "OK")],
)
def test_times_that_go_backwards(meet, monkeypatch, kind, seconds, verdict):
    """The second host's clock is behind, and its files bear its time."""
    mailbox = importlib.import_module("nfsdict.storage.mailbox").Mailbox
    original = mailbox.receive

    def receive(self, name):
        found = original(self, name)
        if found and name.startswith("second"):
            return found[0], found[1] - int(seconds * 1e9)
        return found

    monkeypatch.setattr(mailbox, "receive", receive)
    assert meet(kind)["times on files"].verdict == verdict


def test_a_host_that_nobody_joins(meet, tmp_path):
    begun = time.monotonic()
    found = meet(follow=False, wait=0.3)
    assert time.monotonic() - begun < 5
    assert found.keys() == {"second host"}
    assert found["second host"].verdict == "WARN"
    assert "no second host came within 300 ms" in found["second host"].seen
    assert "another file system" not in found["second host"].advice


def test_messages_with_another_files_content_are_not_believed(inner, tmp_path):
    meeting = inner("meeting")
    first = meeting.Meeting(str(tmp_path), "first", 5)
    second = meeting.Meeting(str(tmp_path), "second", 0.05)
    (tmp_path / "first-1").write_text('{"name": "first-7"}')
    with pytest.raises(meeting.Silence):
        second.hear()
    first.say({"this": 1})
    assert second.hear()["this"] == 1


@pytest.mark.parametrize(("number", "advice"), [(28, "make room"), (13, "one user")])
@pytest.mark.parametrize("what", ["change", "observe", "add", "lease"])
def test_what_an_error_asks_for(meet, wrong, what, number, advice):
    """Neither other mount options nor another file system."""

    def fail(right, *_):
        raise OSError(number, os.strerror(number))

    wrong(what, fail)
    found = meet()
    failed = found["room" if number == 28 else "errors"]
    assert failed.verdict == "FAIL" and advice in failed.advice
    assert os.strerror(number) in failed.seen and "second host" in failed.seen
    assert not [one for one in found.values() if "file system" in one.advice]
    untried = [one for one in found.values() if "it wasn't tried" in one.seen]
    assert untried and "--seconds" not in "".join(one.advice for one in untried)


@pytest.mark.parametrize("number", [28, 13, 2])
def test_a_first_host_that_cannot_hear_the_second(inner, meet, monkeypatch, number):
    def receive(self, name):
        raise OSError(number, os.strerror(number))

    mailbox = importlib.import_module("nfsdict.storage.mailbox").Mailbox
    monkeypatch.setattr(mailbox, "receive", receive)
    [found] = meet(follow=False).values()
    words = {28: "no room", 13: "one user", 2: "isn't heard of"}[number]
    assert words in f"{found.seen} {found.advice}"
    assert "another file system" not in found.advice


@pytest.mark.parametrize("me", ["first", "second"])
def test_messages_that_find_no_room(meet, monkeypatch, me):
    """Both say so, as the one tells the other."""
    mailbox = importlib.import_module("nfsdict.storage.mailbox").Mailbox
    original = mailbox.send

    def send(self, name, data):
        if name == f"{me}-10" and b"no room" not in data:
            raise OSError(28, os.strerror(28))
        return original(self, name, data)

    monkeypatch.setattr(mailbox, "send", send)
    found = meet(also=["room"])
    assert found["room"].verdict == "FAIL" and "No space left" in found["room"].seen
    assert "second host" not in found


def test_a_first_host_that_stood_still(inner, meet, monkeypatch):
    """The second one has given up and removed the directory: no call that fails then counts."""
    player = inner("player").Player
    change = player.change

    def stand_still(self, key, value):
        if self._me == "first":
            end = time.monotonic() + 20
            while os.path.exists(self._directory) and time.monotonic() < end:
                time.sleep(0.01)
        change(self, key, value)

    monkeypatch.setattr(player, "change", stand_still)
    found = meet(wait=0.5, also=["second host"])
    assert "isn't heard of any more" in found["second host"].seen
    assert {one.verdict for one in found.values()} == {"OK", "WARN"}
    assert "went no further" in found["`refresh()`"].seen


@pytest.mark.parametrize("missing", ["kernel", "findings", None])
def test_another_release(package, inner, meet, tmp_path, missing):
    """Whose messages lack something, or are others."""
    probes = importlib.import_module("nfsdict.storage.probes")
    peer, Meeting = inner("peer"), inner("meeting").Meeting
    kind = importlib.import_module("nfsdict.storage.mounts").KINDS["ext4"]
    directory = probes.PrivateDirectory(str(tmp_path))
    directory.make()
    peer.invite(directory)
    mine = peer.facts(str(tmp_path), [])
    theirs = {name: fact for name, fact in mine.items() if name != missing}
    second = Meeting(f"{directory.path}/mail", "second", 20)
    second.say({"facts": theirs} if missing else {"other": 1})
    with pytest.raises(package.NfsDictError, match="another release"):
        list(peer.lead(directory, kind, mine, 0.1, 0.1))
    assert second.hear()["facts"] == mine
    directory.remove()
    directory.make()
    peer.invite(directory)
    Meeting(f"{directory.path}/mail", "first", 20).say({"facts": theirs} if missing else {})
    with pytest.raises(package.NfsDictError, match="another release"):
        list(peer.follow(directory, mine, 20))
    assert os.listdir(tmp_path) == []


# --- as commands -----------------------------------------------------------------------------


@pytest.fixture
def start():
    with processes() as start:
        yield lambda *arguments: start([sys.executable, "-m", "nfsdict", "doctor", *arguments])


def invitation(first) -> list[str]:
    """The arguments that the first host tells to give to the second one's command."""
    line = first.stderr.readline().decode()
    assert " doctor " in line, line
    return line.split(" doctor ")[1].split()


def test_two_commands(start, tmp_path):
    first = start(tmp_path, "--peer", "--seconds", "0.5", "--json")
    second = start(*invitation(first), "--json")
    told, errors = first.communicate(timeout=60)
    also, others = second.communicate(timeout=60)
    assert (errors, others) == (b"", b"")
    mine, theirs = (
        [one for one in json.loads(output)["findings"] if one["section"] == "peer"]
        for output in (told, also)
    )
    assert mine == theirs
    assert {one["verdict"] for one in mine} == {"OK", "WARN"}  # on one host it proves less
    assert (first.returncode, second.returncode) == (1, 1)
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(shutil.which("bash") is None, reason="the command is bash's")
def test_bash_reads_the_command_whatever_the_path_is(start, tmp_path):
    path = os.path.join(os.fsencode(tmp_path), b"it's $HOME, on two\nlines, and \xff \\n'")
    os.mkdir(path)
    first = start(path, "--peer", "--seconds", "0.1")
    line = first.stderr.readline()
    assert b": nfsdict doctor " in line
    printed = b'printf "%s\\0" ' + line.rpartition(b": nfsdict doctor ")[2]
    words = subprocess.run(["bash", "-c", printed], stdout=subprocess.PIPE, check=True).stdout
    directory, option, identity, _ = words.split(b"\0")
    assert (directory, option) == (path, b"--join")
    second = start(directory, option, identity)
    assert b"races of `pop`: 0 of" in second.communicate(timeout=60)[0]
    assert first.communicate(timeout=60)[1] == b"" and os.listdir(path) == []


@pytest.mark.parametrize(
    ("dies", "number"),
    [("first", signal.SIGINT), ("first", signal.SIGKILL), ("second", signal.SIGKILL)],
)
def test_one_that_dies(start, tmp_path, dies, number):
    """The other one says so after a bounded wait, and nothing is left."""
    first = start(tmp_path, "--peer", "--seconds", "1000", "--wait", "8")
    second = start(*invitation(first), "--wait", "5")
    for line in second.stdout:  # its own mount and clock
        if b"clock, difference" in line:
            break
    [private] = tmp_path.iterdir()
    while len(os.listdir(private / "mail")) < 20:
        time.sleep(0.01)
    {"first": first, "second": second}[dies].send_signal(number)
    other = {"first": second, "second": first}[dies]
    output, _ = other.communicate(timeout=90)
    assert b"host isn't heard of any more" in output
    assert b"--seconds" not in output and b"this mount doesn't show" not in output
    assert other.returncode in (1, 2)
    assert os.listdir(tmp_path) == []


def test_a_third_host(start, tmp_path):
    """It is told, and doesn't disturb the two."""
    first = start(tmp_path, "--peer", "--seconds", "5")
    words = invitation(first)
    second = start(*words)
    for line in second.stdout:
        if b"clock, difference" in line:
            break
    third = start(*words)
    output, errors = third.communicate(timeout=30)
    assert third.returncode == 2
    assert output == b"" and b"another host has joined with this ID" in errors
    for one in (first, second):
        output, _ = one.communicate(timeout=90)
        assert b"races of `pop`: 0 of" in output
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root is others")
def test_a_second_host_that_may_not_write(inner, tmp_path):
    probes = importlib.import_module("nfsdict.storage.probes")
    directory = probes.PrivateDirectory(str(tmp_path))
    directory.make(0o755)
    inner("peer").invite(directory)
    tmp_path.chmod(0o755)
    os.seteuid(65534)
    try:
        with pytest.raises(importlib.import_module("nfsdict").NfsDictError, match="one user"):
            inner("peer").accept(directory)
    finally:
        os.seteuid(0)


def test_an_invitation_that_has_ended(start, tmp_path):
    second = start(tmp_path, "--join", "0" * 24)
    output, errors = second.communicate(timeout=30)
    assert second.returncode == 2
    assert output == b"" and b"No such file or directory" in errors
    assert os.listdir(tmp_path) == []


def test_a_doctor_that_waits_for_nobody(start, tmp_path):
    """Who joins it is told so, and leaves its directory alone."""
    private = tmp_path / (".nfsdict-doctor-" + "0" * 24)
    private.mkdir()
    (private / "probe").write_bytes(b"")
    output, errors = start(tmp_path, "--join", "0" * 24).communicate(timeout=30)
    assert output == b"" and b"--peer" in errors
    assert os.listdir(private) == ["probe"]


def test_nobody_comes(start, tmp_path):
    first = start(tmp_path, "--peer", "--wait", "0.2")
    output, _ = first.communicate(timeout=60)
    assert b"no second host came within 200 ms" in output
    assert first.returncode in (1, 2)
    assert os.listdir(tmp_path) == []
