"""The doctor's probes: each can say what is wrong, on a file system that does it wrong.

The module that makes the probes' calls gets a system of its own, which lies in one call.
"""

from __future__ import annotations

import errno
import importlib
import os
import shutil
import types
from collections.abc import Callable

import pytest


@pytest.fixture
def probes(package):
    return importlib.import_module("nfsdict.storage.probes")


@pytest.fixture
def kinds(package):
    """Rules by the type of the mount."""
    return importlib.import_module("nfsdict.storage.mounts").KINDS


@pytest.fixture
def broken(probes, monkeypatch):
    """Replace calls of the probes' ``os``, with which they open files, too."""
    opening = importlib.import_module("nfsdict.opening")

    def broken(**calls: Callable) -> None:
        class System:
            def __getattr__(self, name: str):
                return calls.get(name) or getattr(os, name)

        for module in (probes, opening):
            monkeypatch.setattr(module, "os", System())

    return broken


@pytest.fixture
def findings(package, probes, kinds, tmp_path, monkeypatch):
    """Run one section's probes in the test's directory; the findings by their names."""

    def findings(section: str, kind: str = "ext4") -> dict:
        module = importlib.import_module(f"nfsdict.doctor.{section}")
        if section == "room":
            found = module.room(str(tmp_path), probes.Directory(str(tmp_path)), "/whole")
        else:
            found = getattr(module, section)(probes.Directory(str(tmp_path)), kinds[kind])
        return {finding.probe: finding for finding in found}

    return findings


@pytest.fixture
def quick(package, monkeypatch):
    """Nobody waits for a clock that stands still."""
    for module, name, value in (("semantics", "_TICKS", (0.02, 0.02)), ("clock", "_LONG", 0.1)):
        monkeypatch.setattr(importlib.import_module(f"nfsdict.doctor.{module}"), name, value)


def refusing(number: int, call: Callable | None = None) -> Callable:
    """Fails with this errno, after it was carried out."""

    def refuse(*arguments, **options):
        if call is not None:
            call(*arguments, **options)
        raise OSError(number, os.strerror(number))

    return refuse


def without(flag: int) -> Callable:
    return lambda path, flags, mode=0o777: os.open(path, flags & ~flag, mode)


def long_names(limit: int) -> Callable:
    def create(path, flags, mode=0o777):
        if len(os.path.basename(path)) > limit:
            raise OSError(errno.ENAMETOOLONG, "long")
        return os.open(path, flags, mode)

    return create


def copying_into(source, target):
    """A rename that writes into the file that is there."""
    shutil.copyfile(source, target)
    os.unlink(source)


def removing_first(source, target):
    os.unlink(target)
    raise OSError(errno.EACCES, "refused")


def ignoring(*_, **__):
    return None


def giving_away(path, flags, mode=0o777):
    descriptor = os.open(path, flags, mode)
    os.fchown(descriptor, 65534, 65534)
    return descriptor


def without_setgid(path, mode):
    os.chmod(path, mode & ~0o2000)


def losing_setgid(path, mode=0o777):
    os.mkdir(path, mode)
    os.chmod(path, 0o755)


def frozen(descriptor):
    status = os.fstat(descriptor)
    times = {"st_mtime_ns": 10**18, "st_ctime_ns": 10**18}
    return types.SimpleNamespace(**times, st_mode=status.st_mode)


def folding(path):
    directory, name = os.path.split(path)
    return os.lstat(os.path.join(directory, name.lower()))


WRONG = [
    ("exclusive create", "FAIL", {"open": without(os.O_EXCL)}),
    ("exclusive create", "FAIL", {"open": refusing(errno.EACCES)}),
    ("link", "WARN", {"link": refusing(errno.EPERM)}),
    ("link", "WARN", {"link": shutil.copyfile}),
    ("link over a name", "FAIL", {"link": shutil.copyfile}),
    ("rename over an open file", "FAIL", {"rename": removing_first}),
    ("rename over an open file", "FAIL", {"rename": copying_into}),
    ("rename over an open file", "FAIL", {"rename": ignoring}),
    ("unlink of an open file", "FAIL", {"unlink": refusing(errno.EBUSY)}),
    ("unlink of an open file", "FAIL", {"unlink": ignoring}),
    ("unlink of an open file", "FAIL", {"unlink": lambda path: os.truncate(path, 0)}),
    ("directory stamps", "FAIL", {"fstat": frozen}),
    ("fsync of a directory", "WARN", {"fsync": refusing(errno.EINVAL)}),
    ("fsync of a directory", "FAIL", {"fsync": refusing(errno.EIO)}),
    ("longest name", "WARN", {"open": long_names(143)}),
    ("longest name", "FAIL", {"open": long_names(100)}),
    ("modes and umask", "WARN", {"chmod": ignoring}),
    ("modes and umask", "WARN", {"open": lambda path, flags, _=0: os.open(path, flags, 0o600)}),
    ("setgid", "WARN", {"chmod": without_setgid}),
    ("setgid", "WARN", {"mkdir": losing_setgid}),
]


@pytest.mark.parametrize(("probe", "verdict", "calls"), WRONG)
def test_each_probe_says_what_is_wrong(broken, findings, quick, probe, verdict, calls):
    broken(**calls)
    found = findings("semantics")[probe]
    assert found.verdict == verdict, found
    assert found.seen and found.breaks and found.advice


def test_what_is_right_is_ok(findings):
    found = {**findings("semantics"), **findings("clock")}
    assert {name for name, one in found.items() if one.verdict != "OK"} == set()
    assert all(not one.breaks and not one.advice for one in found.values())
    assert len(found) == 17


@pytest.mark.parametrize(("longest", "verdict"), [(143, "WARN"), (100, "FAIL")])
def test_a_path_that_is_too_long_is_no_fault_of_the_file_system(broken, findings, longest, verdict):
    broken(open=long_names(longest), pathconf=lambda path, name: len(path) + longest)
    found = findings("semantics")["longest name"]
    assert found.verdict == verdict and "the path is too long" in found.seen
    assert "shorter path" in found.advice


def test_a_group_that_this_user_is_not_in(broken, findings):
    """Its directory hands group and bit down, and chmod takes the bit away."""

    def mkdir(path, mode=0o777):
        os.mkdir(path, mode)
        os.chown(path, -1, 4321)
        os.chmod(path, 0o2755)

    if os.geteuid() != 0:
        pytest.skip("giving a directory to a group needs root")
    broken(mkdir=mkdir, chmod=without_setgid, getgroups=lambda: [0], chown=refusing(errno.EPERM))
    found = findings("semantics")["setgid"]
    assert found.verdict == "WARN" and "isn't in group 4321" in found.seen
    assert "`mode=`" in found.breaks and "join the group" in found.advice


def test_links_that_are_followed_are_seen(probes, findings, monkeypatch):
    monkeypatch.setattr(probes, "READ_FLAGS", os.O_RDONLY)
    assert findings("semantics")["O_NOFOLLOW"].verdict == "FAIL"


@pytest.mark.parametrize(
    ("probe", "calls", "words"),
    [
        ("O_NOFOLLOW", {"symlink": refusing(errno.EPERM)}, "no symbolic links"),
        ("case folding", {"lstat": folding}, "fold case"),
        ("exclusive create", {}, "refused"),
    ],
)
def test_what_breaks_nothing_is_told(broken, findings, probe, calls, words):
    broken(**calls)
    found = findings("semantics")[probe]
    assert found.verdict == "OK" and words in found.seen


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be squashed")
def test_squashed_root_is_told(broken, findings):
    broken(open=giving_away)
    assert "squashed" in findings("semantics")["root squash"].seen


def test_a_refused_rename_is_no_failure_where_it_is_tried_again(broken, findings):
    broken(rename=removing_first)
    found = findings("semantics", "cifs")["rename over an open file"]
    assert found.verdict == "WARN" and "the old file went away" in found.seen


@pytest.mark.parametrize("kind", ["fuse.sshfs", "vfat"])
def test_stamps_that_nobody_believes_are_no_failure(broken, findings, quick, kind):
    broken(fstat=frozen)
    assert findings("semantics", kind)["directory stamps"].verdict == "WARN"


def test_an_error_of_a_probe_is_its_finding_and_the_others_go_on(broken, findings):
    broken(pread=refusing(errno.EIO))
    found = findings("semantics")
    assert found["link over a name"].verdict == "FAIL"
    assert "EIO" in found["link over a name"].seen or "Errno 5" in found["link over a name"].seen
    assert found["link"].verdict == "OK"


# --- clock -----------------------------------------------------------------------------------


def test_a_clock_that_stands_still(broken, findings, quick):
    broken(fstat=frozen)
    found = findings("clock")["granularity"]
    assert found.verdict == "FAIL" and found.figures["distinct"] == 1


def test_whole_seconds_are_told_and_allowed(broken, findings):
    def whole(descriptor):
        status = os.fstat(descriptor)
        times = {
            name: getattr(status, name) // 10**9 * 10**9 for name in ("st_mtime_ns", "st_ctime_ns")
        }
        return types.SimpleNamespace(**times, st_mode=status.st_mode)

    broken(fstat=whole)
    found = findings("clock")["granularity"]
    assert found.verdict == "OK" and "whole seconds" in found.seen
    assert found.figures["step_ns"] == 10**9


def test_steps_that_are_longer_than_stamps_allow(broken, findings):
    def coarse(descriptor):
        status = os.fstat(descriptor)
        moment = status.st_mtime_ns // 200_000_000 * 200_000_000 + 1
        return types.SimpleNamespace(st_mtime_ns=moment, st_ctime_ns=moment, st_mode=status.st_mode)

    broken(fstat=coarse)
    assert findings("clock")["granularity"].verdict == "FAIL"


def shifted(call: Callable, seconds: float) -> Callable:
    def shifted(path):
        status = call(path)
        moment = status.st_mtime_ns + int(seconds * 1e9)
        return types.SimpleNamespace(st_mtime_ns=moment, st_ctime_ns=moment, st_mode=status.st_mode)

    return shifted


def test_a_local_clock_is_told_as_the_same(findings):
    """Its times are behind by up to a tick, which a directory's needn't show."""
    found = findings("clock")
    assert "no difference to be seen" in found["difference"].seen
    assert found["difference"].figures["uncertainty_s"] >= 0.01
    assert "can't be told apart" in found["utime(NULL)"].seen


@pytest.mark.parametrize("seconds", [-3600.0, 60.0])
def test_a_server_with_another_time(broken, findings, seconds):
    broken(lstat=shifted(os.lstat, seconds), fstat=shifted(os.fstat, seconds))
    found = findings("clock")
    assert found["difference"].verdict == "OK"  # no promise rests on it
    assert abs(found["difference"].figures["difference_s"] - seconds) < 1
    assert found["writes"].verdict == "OK"
    assert "server's time" in found["utime(NULL)"].seen


def test_a_client_that_stamps_its_writes(broken, findings):
    broken(fstat=shifted(os.fstat, 60.0))
    assert findings("clock")["writes"].verdict == "FAIL"
    broken(fstat=shifted(os.fstat, 60.0))


def test_utime_by_the_local_clock(broken, findings):
    """The server is an hour ahead, and utime(NULL) gives the local time."""
    touched = []

    def lstat(path):
        real = os.lstat(path)
        if path in touched:
            return real
        return shifted(lambda _: real, 3600.0)(path)

    broken(
        lstat=lstat,
        fstat=shifted(os.fstat, 3600.0),
        utime=lambda path: touched.append(path) or os.utime(path),
    )
    assert "local clock" in findings("clock")["utime(NULL)"].seen


# --- room ------------------------------------------------------------------------------------


def room_of(free: int, files: int, inodes: int) -> Callable:
    return lambda _: types.SimpleNamespace(
        f_bavail=free, f_frsize=4096, f_blocks=1 << 30, f_files=files, f_favail=inodes
    )


@pytest.mark.parametrize(("times", "told"), [(4, "4 TiB of 16 TiB"), (1, "isn't used up")])
def test_a_quota_of_the_directory_shows_in_its_size(broken, findings, times, told):
    def statvfs(path):
        found = room_of(1 << 20, 0, 0)(path)
        found.f_blocks *= times if path == "/whole" else 1
        return found

    broken(statvfs=statvfs)
    found = findings("room")["quota"]
    assert found.verdict == "OK" and told in found.seen
    # A server may have another file system there: sshfs shows it so.
    assert ("a quota, or it is another file system on the server" in found.seen) == (times > 1)


@pytest.mark.parametrize(
    ("space", "bytes_", "inodes"),
    [
        (room_of(1 << 20, 1 << 20, 1 << 19), "OK", "OK"),
        (room_of(10, 1 << 20, 10), "WARN", "WARN"),
        (room_of(0, 1 << 20, 0), "WARN", "FAIL"),
        (room_of(1 << 20, 0, 0), "OK", "OK"),
        (room_of(1 << 20, 2, -1), "OK", "OK"),
        (room_of(1 << 20, 2, 2**64 - 1), "OK", "OK"),
    ],
)
def test_room_that_is_left(broken, findings, space, bytes_, inodes):
    broken(statvfs=space)
    found = findings("room")
    assert (found["bytes"].verdict, found["inodes"].verdict) == (bytes_, inodes)


def test_what_is_kept_for_root_is_room_for_nobody_else(broken, findings):
    broken(statvfs=room_of(0, 1 << 20, 1 << 19))
    found = findings("room")
    assert found["quota"].verdict == "OK" and found["bytes"].verdict == "WARN"
    assert "for users other than root" in found["bytes"].seen
    broken(statvfs=room_of(0, 1 << 20, 1 << 19), write=refusing(errno.ENOSPC))
    found = findings("room")
    assert found["bytes"].verdict == found["quota"].verdict == "FAIL"


def test_a_size_that_the_file_system_does_not_tell(broken, findings):
    """As ramfs does, and tmpfs with ``size=0``."""
    size = room_of(0, 0, 0)(None)
    size.f_blocks = 0
    broken(statvfs=lambda path: room_of(0, 0, 0)(path) if path == "/whole" else size)
    found = findings("room")
    assert {one.verdict for one in found.values()} == {"OK"}
    assert "unknown" in found["bytes"].seen and found["bytes"].figures["free_bytes"] is None
    assert "another file system" not in found["quota"].seen


def test_inodes_that_the_file_system_does_not_count(broken, findings):
    broken(statvfs=room_of(1 << 20, 0, 0))
    found = findings("room")["inodes"]
    assert "unknown" in found.seen and found.figures["free_inodes"] is None


@pytest.mark.parametrize("number", [errno.EDQUOT, errno.ENOSPC])
def test_a_quota_that_is_used_up(broken, findings, number, tmp_path):
    broken(write=refusing(number))
    found = findings("room")["quota"]
    assert found.verdict == "FAIL" and errno.errorcode[number] in found.seen
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("number", [errno.EDQUOT, errno.ENOSPC])
def test_a_quota_that_lets_no_directory_be_made(package, broken, number, tmp_path):
    broken(mkdir=refusing(number))
    diagnosis = package.diagnose(tmp_path)
    found = {one.probe: one for one in diagnosis.findings}
    assert diagnosis.verdict == found["mkdir"].verdict == found["quota"].verdict == "FAIL"
    assert found["mkdir"].advice == found["quota"].advice and "quota" in found["quota"].advice
    assert errno.errorcode[number] in found["quota"].seen


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EACCES, "let this user write there."),
        (errno.EPERM, "chattr -i"),
        (errno.EROFS, "mount it without `ro`."),
        (errno.ENOENT, "another file system, see"),  # /proc
        (errno.ENAMETOOLONG, "shorter path"),
    ],
)
def test_a_directory_that_may_not_be_made_is_no_quota(package, broken, tmp_path, number, advice):
    broken(mkdir=refusing(number))
    found = {one.probe: one for one in package.diagnose(tmp_path).findings}
    assert "quota" not in found and advice in found["mkdir"].advice
    assert ("`ro`" in found["mkdir"].advice) == (number == errno.EROFS)


def test_a_limit_of_file_sizes_is_no_quota(broken, findings):
    broken(write=refusing(errno.EFBIG))
    found = findings("room")["quota"]
    assert found.verdict == "FAIL" and found.breaks == "puts of larger values."
    assert "ulimit -f" in found.advice and not found.figures["full"]


def test_smb_has_a_warning_of_files_that_are_kept_open(nfsdict, tmp_path):
    """One host can't try it, so its rules tell; and the probe removes as a store does there."""
    semantics = importlib.import_module("nfsdict.doctor.semantics")
    rules = importlib.import_module("nfsdict.storage.file_systems")
    probes = importlib.import_module("nfsdict.storage.probes")
    kind = rules.of_type("cifs")
    found = {one.probe: one for one in semantics.semantics(probes.Directory(str(tmp_path)), kind)}
    warned = found["unlink of an open file"]
    assert warned.verdict == "WARN" and "EBUSY" in warned.breaks
    assert {one.verdict for one in found.values()} == {"OK", "WARN"}
