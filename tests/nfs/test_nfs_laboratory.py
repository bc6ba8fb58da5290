"""The NFS laboratory itself: what it shows of NFS, counts and does, and that failures get out."""

from __future__ import annotations

import errno
import itertools
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lab.guest import obstacle
from lab.laboratory import Lab
from lab.rpcs import Rpcs

ALL = ("3", "4.0", "4.1", "4.2")


def revalidate(directory: Path) -> None:
    os.close(os.open(directory, os.O_RDONLY | os.O_DIRECTORY))


def put(path: Path, data: bytes = b"value") -> None:
    temporary = path.with_name(".temporary")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    os.write(descriptor, data)
    os.fsync(descriptor)
    os.close(descriptor)
    os.rename(temporary, path)


def either(*numbers: int) -> str:
    """A pattern for the message of an OSError with one of these errnos."""
    return "|".join(rf"\[Errno {number}\]" for number in numbers)


# What the laboratory shows


@pytest.mark.nfs(version=ALL, export=("tmpfs", "ext4"))
def test_a_miss_is_remembered_until_the_directory_is_revalidated(lab: Lab) -> None:
    time.sleep(0.05)  # on v3 a change in the tick in which the directory was made would go unseen
    assert not (lab.a / "key").exists()
    put(lab.b / "key")
    assert (lab.server / "key").exists()
    with lab.rpcs("a") as rpcs:
        assert not (lab.a / "key").exists()
    assert rpcs == {}
    with lab.rpcs("a") as rpcs:
        revalidate(lab.a)
    assert rpcs["GETATTR"] == 1
    assert (lab.a / "key").read_bytes() == b"value"


@pytest.mark.nfs(version=ALL)
def test_the_calls_of_a_put_are_counted_exactly(lab: Lab) -> None:
    put(lab.a / "first")  # on v4.0 a client's first open is confirmed by one more call
    for name in ("new", "new"):
        with lab.rpcs("a") as ours, lab.rpcs("b") as theirs:
            put(lab.a / name)
        v3 = lab.configuration.version == "3"
        names = ("LOOKUP", "CREATE") if v3 else ("OPEN", "CLOSE")
        assert ours == dict.fromkeys((*names, "WRITE", "RENAME"), 1)
        assert ours.total == 4
        assert theirs == {}


@pytest.mark.nfs(version="4.2")
def test_calls_that_fail_are_counted_too(lab: Lab) -> None:
    with pytest.raises(FileNotFoundError), lab.rpcs("a") as rpcs:
        os.stat(lab.a / "missing")
    assert rpcs == {"LOOKUP": 1}


@pytest.mark.nfs(version=("4.0", "4.1", "4.2"), timeout=300)
def test_the_clients_are_two_to_the_server(lab: Lab) -> None:
    """One client's delegation is recalled by what the other does, as between hosts.

    Files are offered for up to 90 s: the server withholds delegations from any whose handle looks
    to a Bloom filter like one that was recalled in the last 60 s, as other tests may have had it
    do often (fs/nfsd/nfs4state.c, delegation_blocked).
    """
    end = time.monotonic() + 90
    for number in itertools.count():
        name = str(number)
        (lab.server / name).write_bytes(b"old")
        for _ in range(3):
            (lab.a / name).read_bytes()
        with lab.rpcs("a") as rpcs:
            assert (lab.a / name).read_bytes() == b"old"
        if rpcs == {} or time.monotonic() > end:
            break
        time.sleep(0.1)
    assert rpcs == {}
    with lab.rpcs("a") as rpcs:
        put(lab.b / name, b"new")
    assert rpcs == {"DELEGRETURN": 1}


@pytest.mark.nfs(version="4.2", delegations=False)
def test_delegations_can_be_forbidden(lab: Lab) -> None:
    (lab.server / "key").write_bytes(b"old")
    for _ in range(3):
        with lab.rpcs("a") as rpcs:
            os.close(os.open(lab.a / "key", os.O_RDONLY))
    assert rpcs.total == 2  # an open and a close


# What the laboratory does


@pytest.mark.nfs(version="4.2")
def test_caches_are_dropped(lab: Lab) -> None:
    put(lab.a / "key")

    def calls() -> Rpcs:
        with lab.rpcs("a") as rpcs:
            os.stat(lab.a / "key")
        return rpcs

    calls()
    assert calls() == {}
    lab.drop_caches()
    assert calls().total > 0


@pytest.mark.nfs(version=("3", "4.2"), rtt_ms=20)
def test_round_trips_take_as_long_as_asked(lab: Lab) -> None:
    def seconds() -> float:
        start = time.monotonic()
        revalidate(lab.a)
        return time.monotonic() - start

    assert 0.02 <= min(seconds() for _ in range(5)) < 0.06
    lab.delay(0)
    assert min(seconds() for _ in range(5)) < 0.02


@pytest.mark.nfs(version=ALL)
def test_a_hard_mount_rides_out_a_restart(lab: Lab) -> None:
    put(lab.a / "before")
    lab.restart_server()
    put(lab.a / "after")
    assert (lab.server / "after").read_bytes() == b"value"


@pytest.mark.nfs(version=("3", "4.2"))
def test_a_soft_mount_fails_while_the_server_is_down(lab: Lab) -> None:
    lab.remount("b", "soft,timeo=10,retrans=1")
    lab.stop_server()
    with pytest.raises(OSError, match=either(errno.EIO, errno.ETIMEDOUT)):
        revalidate(lab.b)
    lab.start_server()
    deadline = time.monotonic() + 30
    while True:
        try:
            revalidate(lab.b)
            break
        except OSError:
            assert time.monotonic() < deadline


@pytest.mark.nfs(version=("3", "4.2"))
def test_the_server_is_running_again_for_the_next_test(lab: Lab) -> None:
    put(lab.b / "key")
    assert (lab.server / "key").exists()


@pytest.mark.nfs(version=ALL)
def test_what_was_unlinked_is_lost_by_a_restart(lab: Lab) -> None:
    (lab.server / "key").write_bytes(b"x" * 100_000)
    descriptor = os.open(lab.a / "key", os.O_RDONLY)
    os.unlink(lab.server / "key")
    lab.restart_server()
    with pytest.raises(OSError, match=either(errno.ESTALE, errno.EBADF)):
        os.read(descriptor, 100_000)
    try:
        os.close(descriptor)
    except OSError:
        pass


@pytest.mark.nfs(version=("3", "4.2"))
def test_unexporting_refuses_both_clients(lab: Lab) -> None:
    lab.unexport()
    for client in (lab.a, lab.b):
        with pytest.raises(OSError, match=either(errno.EACCES, errno.ESTALE)):
            revalidate(client)
    lab.export()
    put(lab.a / "key")


@pytest.mark.nfs(version=("3", "4.2"), size_mb=4)
def test_a_small_export_runs_out_of_space(lab: Lab) -> None:
    with pytest.raises(OSError, match=either(errno.ENOSPC)):
        put(lab.a / "key", b"x" * (6 << 20))


@pytest.mark.nfs(version=("3", "4.2"))
def test_processes_run_as_the_user_they_are_given(lab: Lab) -> None:
    os.chown(lab.server, 0, 2000)
    os.chmod(lab.server, 0o2770)
    write = "import sys; open(sys.argv[1], 'w').write('mine')"
    lab.run(write, lab.a / "key", user=1001, group=1001, groups=[2000])
    assert (lab.server / "key").stat().st_uid == 1001
    assert (lab.server / "key").stat().st_gid == 2000
    refused = """
        import sys
        try:
            open(sys.argv[1])
        except PermissionError:
            print("refused")
    """
    assert lab.run(refused, lab.b / "key", user=1002, group=1002) == "refused\n"
    assert lab.run(refused, lab.b / "key", user=1002, group=2000) == ""
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        lab.run("1 / 0")


@pytest.mark.nfs(version=("3", "4.2"), root_squash=True)
def test_root_is_nobody_where_it_is_squashed(lab: Lab) -> None:
    with pytest.raises(PermissionError):
        put(lab.a / "key")
    os.chmod(lab.server, 0o777)
    put(lab.a / "key")
    assert (lab.server / "key").stat().st_uid == 65534


# How its tests are run


@pytest.fixture
def guests(request: pytest.FixtureRequest) -> None:
    """Treats a machine without guests as the plugin does."""
    reason = obstacle(["knfsd"])
    if reason and request.config.getoption("shared"):
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)


def run_pytest(
    directory: Path, *arguments: str, ci: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run pytest on the files in *directory*, with the plugin and nothing of this project's."""
    (directory / "pytest.ini").write_text("[pytest]\n")
    environment = {k: v for k, v in os.environ.items() if k != "CI" and "PYTEST" not in k}
    environment["PYTHONPATH"] = str(Path(__file__).parents[1])
    environment["TMPDIR"] = str(directory / "temporary")
    if ci:
        environment["CI"] = "true"
    Path(environment["TMPDIR"]).mkdir()
    command = [sys.executable, "-m", "pytest", "-p", "lab.plugin", "-p", "no:cacheprovider"]
    return subprocess.run(
        [*command, *arguments],
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


INNER = """
import time
import pytest

pytestmark = pytest.mark.nfs(version="4.2", timeout=10)

@pytest.fixture
def broken():
    raise ValueError("broken fixture")

def test_passes(lab):
    assert (lab.a / "key").exists() is False

def test_fails(lab):
    print("printed inside")
    value = 1
    assert value == 2

def test_skips(lab):
    pytest.skip("skipped inside")

def test_errs(lab, broken):
    pass

@pytest.mark.nfs(timeout=3)
def test_hangs(lab):
    time.sleep(1000)

def test_ends_the_guest(lab):
    open("/proc/sysrq-trigger", "w").write("o")
    time.sleep(1000)

def test_passes_in_a_later_guest(lab):
    pass
"""


def test_what_happens_in_a_guest_is_reported_outside(guests: None, tmp_path: Path) -> None:
    (tmp_path / "test_inner.py").write_text(INNER)
    (tmp_path / "test_outer.py").write_text("def test_outside(): pass\n")
    output = run_pytest(tmp_path, "-v", "-rs").stdout
    lines = output.splitlines()
    assert "3 failed, 3 passed, 1 skipped, 1 error" in lines[-1], output
    progress = lines[: next(i for i, line in enumerate(lines) if "= ERRORS =" in line)]
    passed = [line.split()[0] for line in progress if " PASSED " in line]
    assert passed == [
        "test_outer.py::test_outside",
        "test_inner.py::test_passes[v4.2]",
        "test_inner.py::test_passes_in_a_later_guest[v4.2]",
    ]
    assert "E       assert 1 == 2" in lines
    assert "printed inside" in lines
    assert "E       ValueError: broken fixture" in lines
    assert "skipped inside" in output
    assert "nothing heard from the guest for 3 s" in lines
    assert "the guest ended with status None" in lines
    # Neither directories nor processes are left.
    assert list((tmp_path / "temporary").glob("nfsdict-lab-*")) == []
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert str(tmp_path).encode() not in command.read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            pass  # ended meanwhile


def test_what_keeps_tests_from_starting_fails_each(guests: None, tmp_path: Path) -> None:
    (tmp_path / "test_inner.py").write_text(
        "import os, pytest\n"
        "if 'NFSDICT_LAB' in os.environ: raise RuntimeError('not in a guest')\n"
        "@pytest.mark.nfs(version=('3', '4.2'))\n"
        "def test_any(lab): pass\n"
    )
    output = run_pytest(tmp_path).stdout
    assert "2 failed" in output.splitlines()[-1], output
    assert "not in a guest" in output


@pytest.fixture
def without_packages(tmp_path: Path) -> Path:
    """A directory whose tests find a package missing."""
    (tmp_path / "conftest.py").write_text(
        "import lab.guest\nlab.guest.NEEDED['no-such-program'] = 'no-such-package'\n"
    )
    (tmp_path / "test_inner.py").write_text(
        "import pytest\n\n@pytest.mark.nfs(version='3')\ndef test_any(lab): pass\n"
    )
    return tmp_path


def test_without_the_packages_tests_are_skipped_with_the_command(without_packages: Path) -> None:
    output = run_pytest(without_packages, "-rs").stdout
    assert "1 skipped" in output.splitlines()[-1], output
    assert "apt-get install -y no-such-package" in output


@pytest.mark.parametrize("arguments", [("--shared=knfsd",), ()], ids=["--shared", "CI"])
def test_without_the_packages_a_run_that_must_have_them_is_an_error(
    without_packages: Path, arguments: tuple[str, ...]
) -> None:
    done = run_pytest(without_packages, *arguments, ci=not arguments)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR, done.stdout
    assert "apt-get install -y no-such-package" in done.stdout


@pytest.mark.parametrize(
    ("test", "complaint"),
    [
        ("@pytest.mark.nfs(version='5')\ndef test_any(lab): pass", "NFS version '5' is none of"),
        ("@pytest.mark.nfs(exprot='ext4')\ndef test_any(lab): pass", "exprot"),
        ("@pytest.mark.nfs\ndef test_any(): pass", "go together"),
        ("def test_any(lab): pass", "go together"),
    ],
    ids=["version", "argument", "no fixture", "no marker"],
)
def test_a_wrong_marker_is_an_error(tmp_path: Path, test: str, complaint: str) -> None:
    (tmp_path / "test_inner.py").write_text(f"import pytest\n{test}\n")
    done = run_pytest(tmp_path)
    assert done.returncode != pytest.ExitCode.OK
    assert complaint in done.stdout
