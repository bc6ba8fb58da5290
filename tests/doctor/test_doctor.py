"""The doctor as users call it: its lines, its exit statuses, and that it leaves nothing behind."""

from __future__ import annotations

import errno
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from support.processes import processes

SECTIONS = ["mount", "semantics", "clock", "room", "speed"]


@pytest.fixture
def start():
    """Start the command."""
    with processes() as start:
        yield lambda *arguments: start([sys.executable, "-m", "nfsdict", "doctor", *arguments])


@pytest.fixture
def run(start):
    """Run it; status, output and errors."""

    def run(*arguments):
        process = start(*arguments)
        output, errors = process.communicate(timeout=60)
        return process.returncode, output.decode(), errors.decode()

    return run


@pytest.fixture
def inner(package):
    """A module of the doctor's."""
    return lambda name: importlib.import_module(f"nfsdict.doctor.{name}")


@pytest.fixture
def few(inner, monkeypatch):
    """Calls are timed a few times only."""
    monkeypatch.setattr(inner("speed"), "_ROUNDS", 3)


def test_a_local_directory(nfsdict, few, tmp_path):
    diagnosis = nfsdict.diagnose(tmp_path)
    assert diagnosis.path == str(tmp_path)
    assert os.listdir(tmp_path) == []
    assert list(dict.fromkeys(one.section for one in diagnosis.findings)) == SECTIONS
    # How much room there is, what type of mount, and how fast it is now isn't the test's to say.
    wrong = [one for one in diagnosis.findings if one.verdict != "OK"]
    assert [one for one in wrong if one.section not in ("room", "mount", "speed")] == []
    measured = [one.figures for one in diagnosis.findings if one.section == "speed"]
    assert len(measured) == 7
    for figures in measured:
        assert 0 < figures["median_s"] <= figures["p95_s"]
        assert 0 < figures["local_median_s"] <= figures["local_p95_s"]
    assert len(diagnosis.unseen) == 3


def test_a_store_is_left_as_it_is(nfsdict, few, opened, tmp_path):
    d = opened()
    d["key"] = "value"
    before = sorted(tmp_path.rglob("*"))
    nfsdict.diagnose(d.path)
    assert sorted(tmp_path.rglob("*")) == before
    assert dict(opened()) == {"key": "value"}


def test_the_command_prints_a_line_for_each_finding_and_its_verdict_as_status(run, tmp_path):
    status, output, errors = run(tmp_path)
    assert errors == ""
    lines = output.partition("\n\n")[0].splitlines()
    assert all(line.startswith(("OK    ", "WARN  ", "FAIL  ")) for line in lines), output
    assert len(lines) > 25
    verdict = output.splitlines()[-1]
    assert status == ["OK", "WARN", "FAIL"].index(verdict)
    assert ("\nWARN " in output) == (verdict != "OK")
    for what in ("async export", "volatile cache", "replication lag"):
        assert f"\n  {what}: " in output
    assert os.listdir(tmp_path) == []


def test_json_says_the_same(run, tmp_path):
    status, output, errors = run(tmp_path, "--json")
    assert errors == ""
    told = json.loads(output)
    assert told.keys() == {"path", "verdict", "findings", "unseen"}
    assert told["path"] == str(tmp_path)
    assert status == ["OK", "WARN", "FAIL"].index(told["verdict"])
    fields = {"section", "probe", "verdict", "seen", "breaks", "advice", "figures"}
    assert all(one.keys() == fields for one in told["findings"])
    names = [(one["section"], one["probe"]) for one in told["findings"]]
    assert len(set(names)) == len(names)


def test_the_statuses_are_documented(run):
    status, output, _ = run("--help")
    assert status == 0
    for line in ("0  OK in all lines", "1  at least one WARN", "2  at least one FAIL"):
        assert line in output


@pytest.mark.parametrize(
    ("verdicts", "status"), [(["OK"], 0), (["OK", "WARN"], 1), (["FAIL", "WARN", "OK"], 2)]
)
def test_the_worst_finding_is_the_verdict(inner, verdicts, status):
    report = inner("report")
    findings = [report.Finding("semantics", "probe", one, "seen") for one in verdicts]
    diagnosis = report.Diagnosis("/", findings)
    assert diagnosis.status == status
    assert diagnosis.verdict == ["OK", "WARN", "FAIL"][status]


def test_a_line_says_what_was_seen_what_it_breaks_and_what_to_do(inner):
    finding = inner("report").Finding("mount", "x", "FAIL", "seen.", "broken.", "this.")
    assert str(finding) == "FAIL  mount, x: seen. Breaks: broken. Do: this."


# --- where it can't work ---------------------------------------------------------------------


def test_no_such_directory(package, run, tmp_path):
    with pytest.raises(FileNotFoundError):
        package.diagnose(tmp_path / "missing")
    status, output, errors = run(tmp_path / "missing")
    assert (status, output) == (2, "") and "missing" in errors
    assert errors.count("\n") == 1


def test_not_a_directory(package, run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        package.diagnose(tmp_path / "file")
    status, output, errors = run(tmp_path / "file", "--json")
    assert (status, output) == (2, "") and "file" in errors
    assert (tmp_path / "file").read_text() == ""


@pytest.mark.parametrize("arguments", [("--seconds", "0"), ("--wait", "-1"), ("--wait", "nan")])
def test_seconds_that_are_none(run, tmp_path, arguments):
    status, output, errors = run(tmp_path, *arguments)
    assert (status, output) == (2, "") and arguments[0] in errors


def check_that_nothing_can_be_made(diagnosis):
    assert diagnosis.verdict == "FAIL"
    [mkdir] = [one for one in diagnosis.findings if one.section == "semantics"]
    assert mkdir.verdict == "FAIL" and mkdir.advice
    assert {one.section for one in diagnosis.findings} == {"mount", "semantics", "room"}


@pytest.fixture
def public():
    """A directory to which every user can get."""
    with tempfile.TemporaryDirectory() as path:
        os.chmod(path, 0o555)
        yield path


def test_a_directory_where_this_user_may_not_write(public):
    """As another user than root, who may everything."""
    # What the command needs is imported as root, whoever may read it.
    become = "import os, sys, json, encodings.ascii; from nfsdict.cli import main; "
    become += "os.getuid() or os.setuid(65534); sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", become, "doctor", public, "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and not done.stderr
    told = json.loads(done.stdout)
    [mkdir] = [one for one in told["findings"] if one["section"] == "semantics"]
    assert mkdir["verdict"] == "FAIL" and "PermissionError" in mkdir["seen"]
    assert os.listdir(public) == []


@pytest.fixture
def mounted(tmp_path):
    """A tmpfs of this size and these options."""
    made = []

    def mounted(options):
        path = tmp_path / "mounted"
        path.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", path]
        done = subprocess.run(command, capture_output=True)
        if done.returncode:
            pytest.skip("mounting needs root")
        made.append(path)
        return path

    yield mounted
    for path in made:
        subprocess.run(["umount", path], check=True)


def test_a_read_only_mount(package, few, mounted):
    path = mounted("ro,size=1m")
    check_that_nothing_can_be_made(package.diagnose(path))


def test_a_full_file_system(package, few, mounted):
    path = mounted("size=64k")
    with pytest.raises(OSError):
        (path / "full").write_bytes(bytes(1 << 20))
    diagnosis = package.diagnose(path)
    found = {(one.section, one.probe): one for one in diagnosis.findings}
    assert found["room", "bytes"].verdict == found["room", "quota"].verdict == "FAIL"
    assert os.listdir(path) == ["full"]


def test_a_file_system_that_does_not_tell_its_size(package, few, mounted):
    diagnosis = package.diagnose(mounted("size=0"))
    found = {one.probe: one for one in diagnosis.findings if one.section == "room"}
    assert found["bytes"].verdict == found["quota"].verdict == "OK"
    assert "unknown" in found["bytes"].seen


@pytest.mark.parametrize(
    ("options", "verdict"),
    [
        ("size=512k", "FAIL"),
        ("size=10m,nr_inodes=3", "FAIL"),  # not even one key
        ("size=10m,nr_inodes=100", "WARN"),
    ],
)
def test_without_room_the_file_system_is_not_blamed(package, few, mounted, options, verdict):
    path = mounted(options)
    diagnosis = package.diagnose(path)
    assert diagnosis.verdict == verdict and os.listdir(path) == []
    found = {one.probe: one for one in diagnosis.findings if one.section in ("semantics", "clock")}
    assert found.keys() == {"all"}
    assert "room" in found["all"].seen and "make room" in found["all"].advice


def test_what_cannot_be_written_for_another_reason_is_no_lack_of_room(
    package, few, monkeypatch, tmp_path
):
    probes = importlib.import_module("nfsdict.storage.probes")
    monkeypatch.setattr(probes.Directory, "fill", lambda self, name, size: errno.EIO)
    found = {(one.section, one.probe): one for one in package.diagnose(tmp_path).findings}
    assert found["room", "quota"].verdict == "FAIL"
    assert ("semantics", "all") not in found and found["semantics", "link"].verdict == "OK"


def test_an_empty_path_is_not_where_the_process_is(package, start, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ("", b""):
        with pytest.raises(FileNotFoundError):
            package.diagnose(path)
    process = start("")
    assert process.communicate()[1].count(b"\n") == 1 and process.returncode == 2


def test_the_second_host_takes_no_path_for_an_id(start, tmp_path):
    (tmp_path / ".nfsdict-doctor-x").mkdir()
    (tmp_path / "precious").mkdir()
    process = start(tmp_path, "--join", "x/../precious")
    assert b"--join takes the ID" in process.communicate()[1] and process.returncode == 2
    assert (tmp_path / "precious").is_dir()


def test_what_is_mounted_when_it_is_used_is_mounted(package, few, tmp_path, monkeypatch):
    """An automounter waits for more than a stat."""
    probes = importlib.import_module("nfsdict.storage.probes")
    order, with_open = [], probes.with_open
    monkeypatch.setattr(
        probes, "with_open", lambda path, *rest: order.append(path) or with_open(path, *rest)
    )
    mounts = importlib.import_module("nfsdict.storage.mounts")
    examine = mounts.examine
    monkeypatch.setattr(mounts, "examine", lambda path: order.append("mount") or examine(path))
    package.diagnose(tmp_path)
    assert order[:2] == [str(tmp_path), "mount"]


def test_a_file_system_without_inodes(package, few, mounted):
    path = mounted("size=10m,nr_inodes=3")
    (path / "one").touch()
    diagnosis = package.diagnose(path)
    assert diagnosis.verdict == "FAIL"
    assert os.listdir(path) == ["one"]


# --- what it leaves --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "section"),
    [(signal.SIGINT, "semantics"), (signal.SIGTERM, "speed"), (signal.SIGHUP, "clock")],
)
def test_a_signal_ends_it_and_nothing_is_left(start, tmp_path, number, section):
    process = start(tmp_path)
    for line in process.stdout:
        if f"  {section}, ".encode() in line:
            break
    assert os.listdir(tmp_path) != []
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert os.listdir(tmp_path) == []


def test_signals_while_it_removes_its_directories(inner, package, few, tmp_path, monkeypatch):
    """Each is put off until the directory is gone."""
    probes = importlib.import_module("nfsdict.storage.probes")
    original = probes._remove_tree
    tries = []

    def interrupted(path):
        tries.append(path)
        if len(tries) < 4:
            raise KeyboardInterrupt
        original(path)

    monkeypatch.setattr(probes, "_remove_tree", interrupted)
    with pytest.raises(KeyboardInterrupt):
        package.diagnose(tmp_path)
    assert len(tries) == 5  # 4 for the local directory, in the middle of ``speed``
    assert len(set(tries)) == 2 and not any(map(os.path.exists, tries))
    assert os.listdir(tmp_path) == []


def test_with_few_descriptors_nothing_is_left(tmp_path):
    """There isn't one for each level of its directories."""
    doctor = [sys.executable, "-m", "nfsdict", "doctor", str(tmp_path)]
    subprocess.run(["sh", "-c", 'ulimit -n 7; exec "$@"', "sh", *doctor], timeout=60)
    assert os.listdir(tmp_path) == []


def test_a_directory_that_cannot_be_removed_is_an_error(package, few, tmp_path, monkeypatch):
    probes = importlib.import_module("nfsdict.storage.probes")
    monkeypatch.setattr(probes, "_SECONDS", 0.1)

    def refuse(path):
        raise PermissionError(13, "refused", path)

    monkeypatch.setattr(probes, "_remove_tree", refuse)
    with pytest.raises(PermissionError):
        package.diagnose(tmp_path)


def test_an_error_of_a_store_is_a_finding(inner, package, few, tmp_path, monkeypatch):
    speed = inner("speed")

    def refuse(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(speed, "opened", refuse)
    diagnosis = package.diagnose(tmp_path)
    [found] = [one for one in diagnosis.findings if one.section == "speed"]
    assert found.verdict == "FAIL" and "No space left" in found.seen


def test_what_is_put_and_not_found_is_a_finding(inner, package, few, tmp_path, monkeypatch):
    """A file system that loses or hides a new file, or somebody who removes it."""
    speed = inner("speed")
    original = speed._anew

    def lost(directory):
        for path in Path(directory).glob("speed/??/*.*"):
            path.unlink()
        return original(directory)

    monkeypatch.setattr(speed, "_anew", lost)
    diagnosis = package.diagnose(tmp_path)
    [found] = [one for one in diagnosis.findings if one.section == "speed"]
    assert found.verdict == "FAIL" and "is not found in" in found.seen


@pytest.mark.parametrize("call", ["make", "remove"])
def test_a_local_disk_with_an_error_is_not_the_directorys(
    package, few, tmp_path, monkeypatch, call
):
    """Its temporary directory is full, say: then there is nothing to compare with."""
    probes = importlib.import_module("nfsdict.storage.probes")
    monkeypatch.setattr(probes.tempfile, "gettempdir", lambda: str(tmp_path / "local"))
    (tmp_path / "local").mkdir()
    original = getattr(probes.PrivateDirectory, call)

    def refused(self, *arguments):
        original(self, *arguments)
        if os.path.dirname(self.path) == str(tmp_path / "local"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.path)

    monkeypatch.setattr(probes.PrivateDirectory, call, refused)
    local, *timed = [one for one in package.diagnose(tmp_path).findings if one.section == "speed"]
    assert local.verdict == "WARN" and str(tmp_path / "local") in local.seen
    assert "TMPDIR" in local.advice
    assert len(timed) == 7 and {one.verdict for one in timed} == {"OK"}
    if call == "make":
        assert all("locally" not in one.seen for one in timed)
        assert all(one.figures["local_median_s"] is None for one in timed)


def test_where_there_is_no_temporary_directory(package, few, tmp_path, monkeypatch):
    probes = importlib.import_module("nfsdict.storage.probes")

    def missing():
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(probes.tempfile, "gettempdir", missing)
    local, *timed = [one for one in package.diagnose(tmp_path).findings if one.section == "speed"]
    assert local.verdict == "WARN" and "No usable temporary directory" in local.seen
    assert len(timed) == 7


def test_slow_calls_are_a_warning(inner):
    speed = inner("speed")
    slow, quick = speed.Timing(3, 0.5, 0.6, 4.0), speed.Timing(3, 0.01, 0.02, None)
    found = speed._finding("put", slow, quick, "/tmp")
    assert found.verdict == "WARN" and "4 calls" in found.seen
    assert speed._finding("put", quick, quick, "/tmp").verdict == "OK"


MOUNTSTATS = """\
device rootfs mounted on / with fstype rootfs
device server:/a mounted on /mnt/a\\040b with fstype nfs4 statvers=1.1
\tcaps:\tcaps=0x3ffbffff,wtmult=512
\tRPC iostats version: 1.1  p/v: 100003/4 (nfs)
\tper-op statistics
\t        NULL: 1 1 0 44 24 0 0 0 0
\t        READ: 20 20 0 4000 4000 0 1 1 0
\t     READDIR: 3 3 0 44 24 0 0 0 0
\t       RENEW: 99 99 0 44 24 0 0 0 0
device server:/b mounted on /mnt/b with fstype nfs statvers=1.1
\tper-op statistics
\t     GETATTR: 7 7 0 44 24 0 0 0 0
"""


def test_calls_to_the_server_are_counted(package):
    calls_in = importlib.import_module("nfsdict.storage.mountstats").calls_in
    assert calls_in(MOUNTSTATS, "/mnt/a b") == 24
    assert calls_in(MOUNTSTATS, "/mnt/b") == 7
    assert calls_in(MOUNTSTATS, "/") is None


def test_listings_are_counted(package, monkeypatch):
    mountstats = importlib.import_module("nfsdict.storage.mountstats")
    monkeypatch.setattr(mountstats, "_mountstats", lambda: MOUNTSTATS)
    found = [mountstats.listings(point) for point in ("/mnt/a b", "/mnt/b", "/")]
    assert found == [(3, 24), (0, 0), None]
