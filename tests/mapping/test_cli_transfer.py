"""The commands that move entries: what they print, their statuses, and what they leave."""

from __future__ import annotations

import errno
import importlib
import io
import json
import os
import resource
import shelve
import signal
import subprocess
import sys
import tarfile
import time
from collections import OrderedDict

import pytest

from support.processes import processes

PAIRS = {f"k{number}": "x" * (number % 300) for number in range(100)}


@pytest.fixture
def command(package, tmp_path):
    """Run the command in a process of its own, over stores below tmp_path."""

    def run(name, *arguments, **options):
        return subprocess.run(
            [sys.executable, "-m", "nfsdict", name, "--base-dir", tmp_path, *arguments],
            env={**os.environ, "NFSDICT_BACKEND": package.BACKEND},
            **{"capture_output": True, **options},
        )

    return run


@pytest.fixture
def store(package, tmp_path):
    def store(pairs, name="s", serializer="pickle"):
        with package.NfsDict(name, tmp_path, serializer) as opened:
            opened.update(pairs)
        return opened

    return store


def output(done):
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout


def complaint(done, status=2):
    assert (done.returncode, done.stdout) == (status, b""), done.stderr
    line = done.stderr.decode()
    assert line.startswith("nfsdict: ") and line.count("\n") == 1, line
    return line


def names(path):
    return {file.name for file in path.iterdir()}


@pytest.mark.parametrize("serializer", ["json", "bytes"])
def test_export_and_import(package, command, store, tmp_path, serializer):
    pairs = PAIRS if serializer == "json" else dict.fromkeys(PAIRS, b"")
    store(pairs, serializer=serializer)
    archive = tmp_path / "archive.tar"
    archive.write_text("older")
    assert b"entries  100\n" in output(command("export", "s", archive))
    with tarfile.open(archive) as tar:
        assert len(tar.getnames()) == 102
    done = json.loads(output(command("import", archive, "t", "--json")))
    assert done == {"written": 100, "same": 0, "kept": 0, "changed": 0, "failed": {}}
    assert dict(package.NfsDict("t", tmp_path, serializer)) == pairs
    done = json.loads(output(command("import", archive, "t", "--json", "--keep-existing")))
    assert done == {"written": 0, "same": 0, "kept": 100, "changed": 0, "failed": {}}
    assert names(tmp_path) == {"archive.tar", "s", "t"}


def test_from_pipe_to_pipe(package, command, store, tmp_path):
    store(PAIRS)
    data = output(command("export", "s", "-"))
    assert json.loads(output(command("import", "-", "t", "--json", input=data)))["written"] == 100
    assert dict(package.NfsDict("t", tmp_path)) == PAIRS
    line = complaint(command("import", "-", "u", input=data[:-2000]))
    assert "cut short; 0 entries were taken over before that" in line


def test_lines_of_json(package, command, store, tmp_path):
    store({"a": [1], "b": None}, serializer="json")
    data = output(command("export", "s", "-", "--jsonl"))
    assert sorted(data.splitlines()) == [
        b'{"key": "a", "value": [1]}',
        b'{"key": "b", "value": null}',
    ]
    output(command("import", "-", "t", "--jsonl", input=data))
    assert dict(package.NfsDict("t", tmp_path, "json")) == {"a": [1], "b": None}
    store({"a": 1}, "pickles")
    assert ".pkl files" in complaint(command("export", "pickles", "-", "--jsonl"))
    assert ".pkl files" in complaint(command("import", "-", "pickles", "--jsonl", input=data))


def test_what_was_left_out_is_named_and_status_1(command, store, tmp_path):
    damaged = store({"a": 1, "b": 2}).path_of("b")
    damaged.write_bytes(b"")
    done = command("export", "s", tmp_path / "archive.tar", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["failed"] == {str(damaged): "the file is empty"}
    done = command("export", "s", "-")
    assert done.returncode == 1
    assert f"left out {damaged}: the file is empty\n".encode() in done.stderr
    assert json.loads(command("copy", "s", "t", "--json").stdout)["written"] == 1


def test_copy(package, command, store, tmp_path):
    store({"a": [1], "b": "text"})
    copied = json.loads(output(command("copy", "s", "t", "--json")))
    assert copied == {"written": 2, "same": 0, "kept": 0, "changed": 0, "failed": {}}
    copied = json.loads(output(command("copy", "s", "u", "--to-serializer", "json", "--json")))
    assert copied == {"written": 2, "same": 0, "kept": 0, "changed": 0, "failed": {}}
    assert dict(package.NfsDict("u", tmp_path, "json")) == {"a": [1], "b": "text"}
    store({"b": "mine"}, "t")
    copied = json.loads(output(command("copy", "u", "t", "--json", "--keep-existing")))
    assert copied == {"written": 0, "same": 0, "kept": 2, "changed": 0, "failed": {}}
    assert b"same     1\n" in output(command("copy", "u", "t"))
    done = command("copy", "t", "v", "--to-serializer", "bytes")
    assert done.returncode == 1 and b"failed   2\n" in done.stdout


def test_values_that_json_changes_are_counted(package, command, store, tmp_path):
    deep: list = []
    for _ in range(300):
        deep = [deep]
    same = {"plain": {"a": [1, 2.5, -0.0, True, None, "\ud800"]}, "deep": deep, "big": 1 << 200}
    other = {
        "tuple": [{"a": (1, 2)}],
        "int key": {1: "a"},
        "None key": {None: "a"},
        "derived": OrderedDict(a=1),
    }
    store({**same, **other})
    done = command("copy", "s", "t", "--to-serializer", "json", "--json")
    assert (done.returncode, done.stderr) == (1, b"")
    report = {"written": 7, "same": 0, "kept": 0, "changed": 4, "failed": {}}
    assert json.loads(done.stdout) == report
    copied = package.NfsDict("t", tmp_path, "json")
    assert {key for key in copied if repr(copied[key]) != repr({**same, **other}[key])} == set(
        other
    )
    # Told again when it is run again, but not of entries that aren't taken over.
    done = command("copy", "s", "t", "-v")
    assert done.returncode == 1 and b"changed  4\n" in done.stdout
    assert all(key in done.stderr.decode() for key in other)
    done = command("copy", "s", "t", "--keep-existing", "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["changed"] == 0
    assert command("copy", "s", "u", "--to-serializer", "json", "--keep-existing").returncode == 1
    # What was JSON, or isn't afterwards, changes nothing.
    output(command("copy", "t", "v", "--to-serializer", "pickle"))
    output(command("copy", "s", "w", "--to-serializer", "pickle"))
    lines = output(command("export", "t", "-", "--jsonl"))
    assert json.loads(output(command("import", "-", "x", "--jsonl", "--json", input=lines))) == {
        **report,
        "changed": 0,
    }
    # Other sources are asked as well.
    with shelve.open(str(tmp_path / "shelf")) as shelf:
        shelf.update(other)
    done = command("migrate", "shelve", tmp_path / "shelf", "y", "--serializer", "json", "--json")
    assert done.returncode == 1 and json.loads(done.stdout)["changed"] == 4


def test_signed_stores(package, command, store, tmp_path):
    for name, key in (("key", b"1" * 16), ("other", b"2" * 16)):
        (tmp_path / name).write_bytes(key)
        (tmp_path / name).chmod(0o600)
    signed = package.signed(key=b"1" * 16)
    store(PAIRS, serializer=signed)
    data = output(command("export", "s", "-", "--key-file", tmp_path / "key"))
    key = ("--key-file", tmp_path / "key")
    assert json.loads(output(command("import", "-", "t", *key, "--json", input=data)))[
        "written"
    ] == len(PAIRS)
    other = ("--key-file", tmp_path / "other")
    done = json.loads(command("import", "-", "u", *other, "--json", input=data).stdout)
    assert len(done["failed"]) == len(PAIRS)
    source = ("--from-key-file", tmp_path / "key", "--json")
    assert json.loads(output(command("copy", "s", "t", *source)))["same"] == len(PAIRS)
    assert json.loads(output(command("copy", "s", "v", *source)))["written"] == len(PAIRS)
    assert dict(package.NfsDict("v", tmp_path, signed)) == PAIRS
    output(command("copy", "s", "w", *source, "--to-serializer", "pickle"))
    assert dict(package.NfsDict("w", tmp_path)) == PAIRS
    output(command("copy", "s", "x", *source, "--to-key-file", tmp_path / "other"))
    assert dict(package.NfsDict("x", tmp_path, package.signed(key=b"2" * 16))) == PAIRS


def test_migrate(package, command, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.pkl").write_bytes(b"I1\n.")
    output(command("migrate", "pickles", tmp_path / "folder", "s"))
    assert dict(package.NfsDict("s", tmp_path)) == {"a": 1}


@pytest.mark.parametrize(
    "arguments",
    [
        ("export", "missing", "FILE"),
        ("export", "s", "missing/FILE"),
        ("export", "s", "FILE", "--serializer", "json"),
        ("export", "s", "."),
        ("import", "missing", "t"),
        ("import", ".", "t"),
        ("import", "text", "t"),
        ("import", "text", "j", "--jsonl"),
        ("copy", "missing", "t"),
        ("copy", "s", "s"),
        ("copy", "s", "x/../t"),
        ("migrate", "shelve", "missing", "t"),
        ("migrate", "sqlitedict", "text", "t"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_leaves_nothing(
    package, store, tmp_path, monkeypatch, capfdbinary, arguments
):
    store({"a": 1})
    (tmp_path / "text").write_text("text")
    before = names(tmp_path) | {"t", "j"}  # a destination may be made
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NFSDICT_BASE_DIR", str(tmp_path))
    status = importlib.import_module("nfsdict.cli").main(arguments)
    complaint(subprocess.CompletedProcess(arguments, status, *capfdbinary.readouterr()))
    assert names(tmp_path) <= before
    assert not list(tmp_path.glob("[tj]/??/*"))


def test_a_disk_that_is_full_leaves_the_older_file(command, store, tmp_path):
    store(PAIRS)
    (tmp_path / "archive.tar").write_text("older")
    done = command(
        "export",
        "s",
        tmp_path / "archive.tar",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
    )
    assert str(tmp_path / "archive.tar") in complaint(done)
    assert (tmp_path / "archive.tar").read_text() == "older"
    assert names(tmp_path) == {"archive.tar", "s"}
    with open("/dev/full", "wb") as full:
        done = command("export", "s", "-", capture_output=False, stdout=full, stderr=-1)
    assert done.returncode == 2 and b"No space left" in done.stderr
    assert "/dev/full" in complaint(command("export", "s", "/dev/full"))
    assert os.path.exists("/dev/full")


def test_a_reader_that_goes_away_ends_an_export_in_silence(command, store):
    store({"k": "x" * 1_000_000})
    reader, writer = os.pipe()
    os.close(reader)
    done = command("export", "s", "-", capture_output=False, stdout=writer, stderr=-1)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("kind", ["file", "pipe", "lines", "pickles"])
def test_what_brings_nothing_leaves_no_new_store(command, store, tmp_path, kind):
    store(PAIRS, serializer="json")
    archive = output(command("export", "s", "-"))[:-2000]
    (tmp_path / "cut.tar").write_bytes(archive)
    (tmp_path / "empty").mkdir()
    before = names(tmp_path)
    for name in ("lab/t", "empty"):
        if kind == "file":
            told = complaint(command("import", tmp_path / "cut.tar", name))
        elif kind == "pipe":
            told = complaint(command("import", "-", name, input=archive))
            assert "; 0 entries were taken over before that" in told
        elif kind == "lines":
            complaint(
                command("import", "-", name, "--jsonl", input=b'{"key": "k", "value": 1}\n{"')
            )
        else:
            complaint(command("copy", "s", name, "--to-serializer", "absent:module"))
        assert names(tmp_path) == before and names(tmp_path / "empty") == set()


def test_where_every_entry_fails_no_new_store_is_left(package, command, store, tmp_path):
    """Not even one of another serializer, which the next command would take for new."""
    archive, right, wrong = (tmp_path / name for name in ("archive", "right", "wrong"))
    for path in (right, wrong):
        path.write_bytes(path.name.encode() * 8)
        path.chmod(0o600)
    store(PAIRS, serializer=package.signed(key=b"right" * 8))
    output(command("export", "s", archive, "--key-file", right))
    store({"k": {1, 2}}, "sets")
    before = names(tmp_path)
    for words in (
        ("import", archive, "lab/t", "--key-file", wrong, "--json"),
        ("copy", "sets", "lab/t", "--to-serializer", "json", "--json"),
    ):
        done = command(*words)
        assert (done.returncode, done.stderr) == (1, b"")
        assert json.loads(done.stdout)["written"] == 0
        assert names(tmp_path) == before
    # A store that is there stays, and an empty one comes of an empty one.
    (tmp_path / "there").mkdir()
    assert command("copy", "sets", "there", "--to-serializer", "json").returncode == 1
    store({}, "nothing")
    output(command("copy", "nothing", "lab/t"))
    assert names(tmp_path) == before | {"there", "nothing", "lab"}


@pytest.mark.parametrize("others", [False, True])
def test_a_full_disk_leaves_no_new_store(
    package, command, store, tmp_path, monkeypatch, capfd, others
):
    """It has made the shards by then. What another process has put there meanwhile stays."""
    store(PAIRS)
    archive = tmp_path / "archive.tar"
    output(command("export", "s", archive))
    main = importlib.import_module("nfsdict.cli").main
    Bulk = importlib.import_module("nfsdict.bulk").Bulk

    def full(bulk, items, count):
        for item in items:
            os.makedirs(tmp_path / "lab/t" / item.hexdigest[:2], exist_ok=True)
        if others:
            package.NfsDict("lab/t", tmp_path)["k"] = "of another"
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Bulk, "put", full)
    assert main(["import", "--base-dir", str(tmp_path), str(archive), "lab/t"]) == 2
    assert "make room" in capfd.readouterr().err
    if others:
        assert dict(package.NfsDict("lab/t", tmp_path)) == {"k": "of another"}
    else:
        assert names(tmp_path) == {"archive.tar", "s"}


def test_a_cut_pipe_brings_the_batches_before_and_is_imported_again(
    package, command, store, tmp_path, monkeypatch, capfd
):
    """The help says what is true: here of batches of 2,000 bytes, 4 entries."""
    store({str(number): "x" * 500 for number in range(10)})
    archive = output(command("export", "s", "-"))
    text = " ".join(output(command("import", "--help")).decode().split())
    assert "batches of 64 MiB" in text and "of the batch that was under way nothing is" in text
    monkeypatch.setattr(importlib.import_module("nfsdict.upkeep.writing"), "_BATCH_BYTES", 2000)
    monkeypatch.setenv("NFSDICT_BASE_DIR", str(tmp_path))
    reader, writer = os.pipe()
    with open(writer, "wb") as pipe:
        pipe.write(archive[:-3000])  # 9 entries and a piece of one
    with open(reader) as stdin, monkeypatch.context() as patch:
        patch.setattr(sys, "stdin", stdin)
        assert importlib.import_module("nfsdict.cli").main(["import", "-", "t"]) == 2
    assert "; 8 entries were taken over before that" in capfd.readouterr().err
    assert len(package.NfsDict("t", tmp_path, lazy=True)) == 8
    done = json.loads(output(command("import", "-", "t", "--json", input=archive)))
    assert (done["written"], done["same"]) == (2, 8)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_import_is_run_again(package, command, store, tmp_path, number):
    store(PAIRS)
    data = output(command("export", "s", "-"))
    process = subprocess.Popen(
        [sys.executable, "-m", "nfsdict", "import", "--base-dir", tmp_path, "-", "t"],
        env={**os.environ, "NFSDICT_BACKEND": package.BACKEND},
        stdin=-1,
        stdout=-1,
        stderr=-1,
    )
    with process:
        process.stdin.write(data[:-2000])
        process.stdin.flush()
        while not (tmp_path / "t").exists():  # it waits for the rest
            assert process.poll() is None
        process.send_signal(number)
        assert process.wait() == (130 if number == signal.SIGINT else -number)
        assert process.stderr.read() == b""
    assert json.loads(output(command("import", "-", "t", "--json", input=data)))["written"] == 100
    assert dict(package.NfsDict("t", tmp_path)) == PAIRS


BLOCKED = """
import sys, time
from nfsdict import NfsDict, cli
def blocked(store, file, **options):
    file.write(b"a part")
    print("begun", file=sys.stderr, flush=True)
    time.sleep(60)
NfsDict.export_to = blocked
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_no_part_of_an_export(package, store, tmp_path, number):
    store(PAIRS)
    words = ["export", "--base-dir", tmp_path, "s", tmp_path / "archive.tar"]
    environment = {**os.environ, "NFSDICT_BACKEND": package.BACKEND}
    with processes() as start:
        process = start([sys.executable, "-c", BLOCKED, *words], env=environment)
        assert process.stderr.readline() == b"begun\n"
        process.send_signal(number)
        process.communicate()
    assert process.returncode == 128 + number
    assert names(tmp_path) == {"s"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_no_store_to_which_nothing_came(package, store, tmp_path, number):
    archive = io.BytesIO()
    store(PAIRS).export_to(archive)
    command = [sys.executable, "-m", "nfsdict", "import", "--base-dir", tmp_path, "-", "above/new"]
    environment = {**os.environ, "NFSDICT_BACKEND": package.BACKEND}
    with processes() as start:
        process = start(command, env=environment, stdin=subprocess.PIPE)
        process.stdin.write(archive.getvalue()[:20000])
        process.stdin.flush()
        end = time.monotonic() + 60
        while not (tmp_path / "above" / "new").exists():
            assert time.monotonic() < end
            time.sleep(0.01)
        process.send_signal(number)
        process.communicate()
    assert process.returncode == 128 + number
    assert names(tmp_path) == {"s"}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(5, "an error"), None])
def test_a_file_gets_its_name_when_it_is_whole(package, tmp_path, error):
    whole_file = importlib.import_module("nfsdict.cli.files").whole_file
    path = tmp_path / "link"
    path.symlink_to("target")
    (tmp_path / "target").write_bytes(b"older")

    def write():
        with whole_file(str(path)) as file:
            file.write(b"newer")
            file.flush()
            assert (tmp_path / "target").read_bytes() == b"older"
            if error:
                raise error
        raise ZeroDivisionError

    with pytest.raises(type(error) if error else ZeroDivisionError) as raised:
        write()
    assert getattr(raised.value, "filename", str(path)) == str(path)
    assert (tmp_path / "target").read_bytes() == (b"older" if error else b"newer")
    assert names(tmp_path) == {"link", "target"}
