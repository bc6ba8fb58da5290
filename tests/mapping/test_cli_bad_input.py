"""Bad input: each command with each fault. One line that says what to do, a status, nothing lost.

The table has a row for each command of the parser, so a new command without one fails a test.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import errno
import gc
import hashlib
import importlib
import inspect
import os
import pickle
import re
import shlex
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest

from support import aging

# What each command is called with, and its exit status
#
# - well: without a fault,
# - missing: where there is no such store,
# - wrong: with --serializer json, in a store of pickles,
# - ro: on a read-only mount,
# - full: on a full disk,
# - no-read: in a store that this user may not read,
# - no-write: in one that this user may not write,
# - damaged: where the value of the key k is damaged,
# - closed: where the reader of the output has gone away.
#
# 130 is that of a command that goes on until it is interrupted. A hyphen: the fault can't be there,
# or has its tests elsewhere: those of the demo are in test_demo.py, of the doctor in
# test_doctor.py. STORE is the store that has the fault, NEW a file or directory to be made beside
# it; ARCHIVE is an export, and PICKLES a folder, with an entry for k.
TABLE = """
arguments                     well missing wrong ro  full no-read no-write damaged closed
ls STORE                      0    2       2     0   0    2       0        0       141
get STORE k                   0    2       2     0   0    2       0        2       141
set STORE k new               0    0       2     2   2    2       2        0       0
del STORE k                   0    2       2     2   0    2       2        0       0
edit STORE k                  0    2       2     2   2    2       2        2       0
path STORE k                  0    2       2     0   0    2       0        0       141
watch STORE --interval 0.01   130  2       2     130 130  2       130      130     141
stats STORE                   0    2       2     0   0    2       0        0       141
du STORE                      0    2       2     0   0    2       0        0       141
report STORE -o NEW           0    2       2     2   2    2       2        0       0
prune STORE --max-items 2     0    2       2     2   0    2       2        0       141
verify STORE                  0    2       2     0   0    2       0        1       141
repair STORE                  0    2       2     2   0    2       2        0       141
pack STORE                    0    2       2     2   2    2       2        0       141
export STORE NEW              0    2       2     2   2    2       2        1       141
import ARCHIVE STORE          0    0       2     2   2    2       2        0       141
copy STORE NEW                0    2       2     2   2    2       2        1       141
migrate pickles PICKLES STORE 0    0       2     2   2    2       2        0       141
leases STORE --json           0    2       0     0   0    2       0        0       141
run STORE k -- echo new       0    0       2     0   0    2       0        0       141
work STORE -- true            0    2       2     2   0    2       2        0       0
demo NEW                      -    -       -     2   -    -       -        -       -
doctor NEW                    -    -       -     -   -    -       -        -       -
"""

TOLD = {
    "missing": "'other'",  # a store that is there
    "wrong": "--serializer pickle",
    "ro": "mount it for writing",
    "full": "make room",
    "no-read": "permission",
    "no-write": "permission",
    "damaged": "nfsdict repair",
}
NOBODY = 65534
# What says nothing to people: the name of a lease, what is in it, a name beside a key's own.
PRIVATE = re.compile(r"[0-9a-f]{64}-|[{}]|\.nfsdict-taken-")
MS_RDONLY, MS_REMOUNT, MNT_DETACH = 1, 0x20, 2
BEFORE = {"k": [1], "other": "value", "another": 2}
# Which entries a command may change, if not k alone.
ABOUT = {"work": set(BEFORE), "prune": set(BEFORE)}
# Where the option isn't --serializer.
SERIALIZER = {"copy": "--from-serializer"}


class Row(NamedTuple):
    arguments: list[str]
    status: dict[str, int]


def rows() -> dict[str, Row]:
    heading, *lines = TABLE.strip().splitlines()
    _, *faults = heading.split()
    found = {}
    for line in lines:
        parts = line.rsplit(maxsplit=len(faults))
        told = {fault: int(one) for fault, one in zip(faults, parts[1:]) if one != "-"}
        found[parts[0].split()[0]] = Row(shlex.split(parts[0]), told)
    return found


ROWS = rows()


def cells(*faults: str) -> list[object]:
    return [
        pytest.param(name, fault, id=f"{name}-{fault}")
        for name, row in ROWS.items()
        for fault in row.status
        if fault in faults
    ]


# --- where it is tried ---------------------------------------------------------------------------


def mount(target: Path, flags: int, options: str = "") -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", bytes(target), b"tmpfs", flags, options.encode()):
        number = ctypes.get_errno()
        if number == errno.EPERM:
            pytest.skip("mounting needs root")
        raise OSError(number, os.strerror(number), str(target))


@pytest.fixture(scope="module")
def small_disk():
    """A small tmpfs, to which any user can get."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o755)
    mount(path, 0, "size=1m,mode=755")
    yield path
    ctypes.CDLL(None).umount2(bytes(path), MNT_DETACH)
    path.rmdir()


@pytest.fixture
def disk(small_disk):
    yield small_disk
    for entry in small_disk.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()


@pytest.fixture
def store(nfsdict, disk):
    """The store to which something happens; another one lies beside it."""
    nfsdict.NfsDict("other", disk)["k"] = 1
    return written(nfsdict, disk)


def written(nfsdict, disk):
    with nfsdict.NfsDict("s", disk) as d:
        d.clear()
        d.update(BEFORE)
        d.lease("k").release()  # so that there is a directory of leases
    aging.age(disk)  # or else `pack` waits
    return d.path


@contextlib.contextmanager
def read_only_mount(store):
    gc.collect()  # packs of earlier tests: the system refuses while removed files are open
    mount(store.parent, MS_REMOUNT | MS_RDONLY)
    try:
        yield
    finally:
        mount(store.parent, MS_REMOUNT)


@contextlib.contextmanager
def full_disk(store):
    filler = store.parent / "filler"
    with open(filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    try:
        yield
    finally:
        filler.unlink()


@contextlib.contextmanager
def without_right(store, bits):
    """As another user than root, who may everything; root's store has these permission bits."""
    if os.geteuid():
        pytest.skip("becoming another user needs root")
    store.chmod(bits)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        store.chmod(0o755)


@contextlib.contextmanager
def damaged_value(store):
    for index in store.glob("_*"):
        index.unlink()
    [path] = store.glob(f"??/{hashlib.sha256(b'k').hexdigest()}.*")
    path.write_bytes(b"\x80")
    yield


FAULTS = {
    "ro": read_only_mount,
    "full": full_disk,
    "no-read": lambda store: without_right(store, 0o700),
    "no-write": lambda store: without_right(store, 0o755),
    "damaged": damaged_value,
}


@pytest.fixture
def source(nfsdict):
    """What commands take entries from, for any user to read."""
    with tempfile.TemporaryDirectory() as path:
        source = Path(path)
        (source / "pickles").mkdir()
        (source / "pickles" / "k.pkl").write_bytes(pickle.dumps([2]))
        d = nfsdict.NfsDict("exported", source)
        d["k"] = [2]
        with open(source / "k.tar", "wb") as file:
            d.export_to(file)
        for one in (source, source / "pickles"):
            one.chmod(0o755)
        yield source


@pytest.fixture
def command(nfsdict, disk, source, capfdbinary, monkeypatch):
    """Run the command of this name as its row says; its exit status, and what it printed."""
    main = importlib.import_module("nfsdict.cli").main
    edit = importlib.import_module("nfsdict.cli.edit")
    scanner = importlib.import_module("nfsdict.scan").Scanner
    monkeypatch.setattr(edit, "_run_editor", lambda draft: draft.write_bytes(b"[2]"))
    monkeypatch.setenv("NFSDICT_BASE_DIR", str(disk))
    drafts = source / "drafts"  # which any user may write, whatever TMPDIR is
    drafts.mkdir()
    drafts.chmod(0o1777)
    monkeypatch.setattr(tempfile, "tempdir", str(drafts))

    def run(name, store="s", *options, ends=True):
        new = disk / "new"
        places = {"STORE": store, "NEW": str(new), "ARCHIVE": str(source / "k.tar")}
        places["PICKLES"] = str(source / "pickles")
        arguments = [places.get(one, one) for one in ROWS[name].arguments]
        capfdbinary.readouterr()
        with contextlib.ExitStack() as around:
            # Which some commands handle till they end.
            around.enter_context(handling(signal.SIGTERM, signal.SIG_DFL))
            if ends and ROWS[name].status.get("well") == 130:
                around.enter_context(interrupted_later(scanner))
            status = main([arguments[0], *options, *arguments[1:]])
        out, err = capfdbinary.readouterr()
        return status, out, err.decode()

    return run


@contextlib.contextmanager
def interrupted_later(scanner):
    """Ctrl-C in the second scan of a dictionary: for commands that go on until then."""
    scan = scanner.scan

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    def scan_once(self, *arguments, **options):
        scan(self, *arguments, **options)
        self.scan = interrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scanner, "scan", scan_once)
        yield


@contextlib.contextmanager
def handling(number, handler):
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


def check_that_nothing_is_lost(nfsdict, store, name, status):
    """All is as it was, but for what the command is about, unless it failed."""
    left = dict(nfsdict.NfsDict(store.name, store.parent, read_only=True))
    for key in () if status == 2 else ABOUT.get(name, {"k"}):
        left[key] = BEFORE[key]
    assert left == BEFORE


def check_what_was_told(done, status, fault):
    """One line that says what to do, if the command failed; else only of a damaged value."""
    assert done[0] == status, done
    if status == 2:
        assert done[1] == b""
    if status in (1, 2) or (done[2] and fault == "damaged"):
        assert done[2].startswith("nfsdict: ") and done[2].count("\n") == 1, done
        assert TOLD[fault] in done[2] or status == 0
    else:
        assert not done[2]


# --- the tests -----------------------------------------------------------------------------------


def test_each_command_has_a_row(nfsdict):
    parser = importlib.import_module("nfsdict.cli").parser()
    [commands] = [one for one in parser._actions if isinstance(one, argparse._SubParsersAction)]
    assert set(ROWS) == set(commands.choices)


def test_the_help_explains_each_status(nfsdict):
    parser = importlib.import_module("nfsdict.cli").parser()
    [commands] = [one for one in parser._actions if isinstance(one, argparse._SubParsersAction)]
    for name, row in ROWS.items():
        if name == "doctor":
            continue  # it has statuses of its own
        _, _, told = commands.choices[name].format_help().partition("exit status:\n")
        explained = dict(re.findall(r"^  (\w+)  (.*(?:\n {5}.*)*)", told, re.MULTILINE))
        assert {str(status) for status in row.status.values()} <= set(explained)
        if 1 in row.status.values():
            assert name in explained["1"]


@pytest.mark.parametrize(("name", "fault"), cells("well"))
def test_without_a_fault(nfsdict, command, store, name, fault):
    """The rows are right, and no command loses what it isn't about."""
    status = ROWS[name].status[fault]
    done = command(name)
    assert (done[0], done[2]) == (status, ""), done
    check_that_nothing_is_lost(nfsdict, store, name, status)


@pytest.mark.parametrize(("name", "fault"), cells(*FAULTS))
def test_a_fault_of_the_system(nfsdict, command, store, disk, name, fault):
    status = ROWS[name].status[fault]
    if fault.startswith("no-") and name != "demo":
        command(name, "other")  # imports what nobody may perhaps not read
    with FAULTS[fault](store):
        done = command(name)
    check_what_was_told(done, status, fault)
    if fault == "no-write" and status == 2:
        assert re.search(rf"user \w+ may not: ask root, owner of {disk}(/\S+)?, for", done[2]), done
        assert not PRIVATE.search(done[2]), done
    if fault != "damaged":
        check_that_nothing_is_lost(nfsdict, store, name, status)
    elif status == 2:
        assert nfsdict.NfsDict("s", store.parent).verify().damaged


@pytest.mark.parametrize(("name", "fault"), cells("missing"))
def test_a_store_that_is_not_there(nfsdict, command, store, name, fault):
    status = ROWS[name].status[fault]
    done = command(name, "anothr")
    if status:
        check_what_was_told(done, status, fault)
    assert {path.name for path in store.parent.iterdir()} == (
        {"s", "other"} if status else {"s", "other", "anothr"}
    )


@pytest.mark.parametrize(("name", "fault"), cells("wrong"))
def test_a_wrong_serializer(nfsdict, command, store, name, fault):
    status = ROWS[name].status[fault]
    done = command(name, "s", SERIALIZER.get(name, "--serializer"), "json")
    check_what_was_told(done, status, fault)
    check_that_nothing_is_lost(nfsdict, store, name, status)
    assert [*store.glob("*/*.json")] == []


@pytest.mark.parametrize(("name", "fault"), cells("closed"))
def test_a_reader_that_goes_away(nfsdict, command, store, name, fault, monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        done = command(name, ends=False)
    assert done[::2] == (ROWS[name].status[fault], "")
    check_that_nothing_is_lost(nfsdict, store, name, done[0])


# Of a pack that had just been opened: it is closed with its object.
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if "well" in row.status])
def test_ctrl_c(nfsdict, command, store, name):
    """At the first call of the part that speaks to the system, at the last, and in the middle."""
    with counting() as calls:
        command(name)
    for number in sorted({1, len(calls) // 2, len(calls)}):
        written(nfsdict, store.parent)
        with handling(signal.SIGINT, signal.default_int_handler), counting(number) as made:
            done = command(name)
        if len(made) >= number:
            assert done[0] == 130, (number, done)
        assert not done[2] or "your text stays in" in done[2]
        check_that_nothing_is_lost(nfsdict, store, name, 130)


@contextlib.contextmanager
def counting(stop=None):
    """The functions of ``nfsdict.storage`` that are called meanwhile; the one of this number is
    interrupted. Not generators: they are also resumed to be closed, as they are collected, and what
    is raised there is lost. Nothing is collected meanwhile, as CPython 3.11.2 crashes by it while
    other threads run and a profile function has seen generators; 3.11.7 doesn't."""
    calls = []

    def note(frame, event, _):
        code = frame.f_code
        inside = f"nfsdict{os.sep}storage{os.sep}" in code.co_filename
        if event == "call" and inside and not code.co_flags & inspect.CO_GENERATOR:
            calls.append(code.co_name)
            if len(calls) == stop:
                signal.raise_signal(signal.SIGINT)

    gc.disable()
    sys.setprofile(note)
    try:
        yield calls
    finally:
        sys.setprofile(None)
        gc.enable()


DEEP = 5_000  # lists in lists


@pytest.mark.parametrize(
    "arguments",
    ["get STORE deep", "get --json STORE deep", "set --json STORE k [", "import --jsonl LINES NEW"],
)
def test_what_is_nested_too_deeply(nfsdict, store, tmp_path, capfd, arguments):
    main = importlib.import_module("nfsdict.cli").main
    nested = "[" * DEEP + "]" * DEEP
    digest = hashlib.sha256(b"deep").hexdigest()
    value = store / digest[:2] / f"{digest}.pkl"
    value.parent.mkdir(exist_ok=True)
    begin, end = pickle.dumps(("deep", 0), 0).split(b"I0\n")
    value.write_bytes(begin + b"(" * DEEP + b"l" * DEEP + end)
    lines = tmp_path / "lines"
    lines.write_text(f'{{"key": "k", "value": {nested}}}\n')
    words = {"STORE": store.name, "NEW": "new", "[": nested, "LINES": str(lines)}
    command = [words.get(word, word) for word in arguments.split()]
    assert main([*command[:1], "--base-dir", str(store.parent), *command[1:]]) == 2
    told = capfd.readouterr().err
    assert told.startswith("nfsdict: ") and told.count("\n") == 1 and "recursion" in told


@pytest.mark.parametrize("arguments", ["set STORE k -", "import - NEW"])
def test_a_closed_standard_input(nfsdict, store, monkeypatch, capfd, arguments):
    main = importlib.import_module("nfsdict.cli").main
    monkeypatch.setattr(sys, "stdin", None)
    words = {"STORE": store.name, "NEW": "new"}
    command = [words.get(word, word) for word in arguments.split()]
    assert main([*command[:1], "--base-dir", str(store.parent), *command[1:]]) == 2
    assert "standard input is closed" in capfd.readouterr().err


def test_the_owner_who_is_named_is_the_one_who_can_help(nfsdict, disk, store, monkeypatch, capfd):
    """Of the directory, where a file can't be made, or replaced; of the file, where it can't be
    read. Also of a path below the current directory."""
    main = importlib.import_module("nfsdict.cli").main
    monkeypatch.chdir(disk)
    (disk / "mine").write_text("of the user, in a directory of root's")
    os.chown(disk / "mine", NOBODY, -1)
    unreadable = next(store.glob("??/*.pkl"))
    unreadable.chmod(0o600)
    for index in store.glob("_*"):
        index.unlink()
    with without_right(store, 0o755):
        for path in ("new.tar", "mine", str(disk / "mine")):
            assert main(["export", "./s", path]) == 2
            err = capfd.readouterr().err
            assert re.search(rf" may not: ask root, owner of {disk}, for permission", err), err
            assert err.count("\n") == 1
        assert main(["ls", "./s"]) == 0
        err = capfd.readouterr().err
        assert f"can't read {unreadable}: " in err and "`nfsdict verify` lists all" in err
        [key] = [key for key in BEFORE if hashlib.sha256(key.encode()).hexdigest() in err]
        assert main(["get", "./s", key]) == 2
        assert f"ask root, owner of {unreadable}, for" in capfd.readouterr().err
