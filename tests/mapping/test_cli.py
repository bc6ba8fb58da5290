"""The command: what a script can rely on, its output and its exit statuses."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
import types

import pytest

READING = (
    "ls",
    "stats",
    "du",
    "verify",
    "repair",
    "pack",
)  # the commands whose one argument is NAME


@pytest.fixture
def process(nfsdict, tmp_path):
    """Run the command in a process of its own, over stores below tmp_path."""

    def run(name, *arguments, stdin=b"", **options):
        options.setdefault("stdout", subprocess.PIPE)
        return subprocess.run(
            [sys.executable, "-m", "nfsdict", name, "--base-dir", tmp_path, *arguments],
            env={**os.environ, "NFSDICT_BACKEND": nfsdict.BACKEND},
            input=stdin,
            stderr=subprocess.PIPE,
            **options,
        )

    return run


@pytest.fixture
def command(cli, monkeypatch):
    """The same in this process, which takes a hundredth of the time."""

    def run(name, *arguments, stdin=b""):
        with io.TextIOWrapper(io.BytesIO(stdin)) as text:
            monkeypatch.setattr(sys, "stdin", text)
            done = cli(name, *map(os.fsdecode, arguments))
        return subprocess.CompletedProcess(name, done.status, done.out, done.err.encode())

    return run


@pytest.fixture
def store(nfsdict, tmp_path):
    """Write pairs to the store "s" and hand back its path."""

    def write(pairs, serializer="pickle"):
        with nfsdict.NfsDict("s", tmp_path, serializer) as opened:
            opened.update(pairs)
        return opened.path

    return write


def output(done):
    """The standard output of a command that did what was asked for, in silence."""
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout


def complaint(done, status):
    """The one line on standard error of a command that ended with `status` and printed nothing."""
    assert done.returncode == status, done.stderr
    assert done.stdout in (b"", None)
    line = done.stderr.decode()
    assert line.startswith("nfsdict: "), line
    assert line.count("\n") == 1, line
    return line


def value_file(path):
    [file] = path.glob("??/" + "?" * 64 + ".*")
    return file


def snapshot(path):
    """What is there; not when it was last read, which reading changes."""
    return {
        file: (
            status.st_mode,
            status.st_ino,
            status.st_size,
            status.st_mtime_ns,
            status.st_ctime_ns,
        )
        for file in [path, *path.rglob("*")]
        for status in [file.stat()]
    }


def test_set_makes_the_store_and_get_prints_text_exactly(nfsdict, process, tmp_path):
    assert output(process("set", "s", "key", " väl\nue ")) == b""
    assert output(process("get", "s", "key")) == " väl\nue ".encode()
    assert dict(nfsdict.NfsDict("s", tmp_path)) == {"key": " väl\nue "}


@pytest.mark.parametrize("serializer", ["pickle", "bytes"])
def test_get_into_set_copies_exactly(command, serializer):
    data = b"two lines\nnot UTF-8: \xff\xfe\n\n"
    output(command("set", "s", "a", "-", "--serializer", serializer, stdin=data))
    copy = output(command("get", "s", "a", "--serializer", serializer))
    output(command("set", "s", "b", "-", "--serializer", serializer, stdin=copy))
    assert output(command("get", "s", "b", "--serializer", serializer)) == data


def test_arguments_that_are_no_utf8_come_back_as_they_were(process):
    output(process("set", "s", b"k\xff", b"v\xfe"))
    assert output(process("ls", "s")) == b"k\xff\n"
    assert output(process("get", "s", b"k\xff")) == b"v\xfe"


def test_hyphens_go_after_a_double_hyphen(command):
    output(command("set", "--", "s", "-k", "--json"))
    assert output(command("get", "--", "s", "-k")) == b"--json"


def test_other_values_are_printed_as_repr_or_json(command, store):
    store({"tuple": (1, None), "bytes": b"\x00\xff"})
    assert output(command("get", "s", "tuple")) == b"(1, None)\n"
    assert output(command("get", "s", "tuple", "--json")) == b"[1, null]\n"
    assert output(command("get", "s", "bytes")) == b"\x00\xff"
    assert "JSON" in complaint(command("get", "s", "bytes", "--json"), 2)


def test_set_json_stores_the_decoded_value(nfsdict, command, tmp_path):
    output(command("set", "s", "k", "--json", '{"a": [1, 2.5, null]}'))
    output(command("set", "s", "stdin", "--json", "-", stdin=b'"text"'))
    assert dict(nfsdict.NfsDict("s", tmp_path)) == {"k": {"a": [1, 2.5, None]}, "stdin": "text"}
    complaint(command("set", "s", "k", "--json", "{"), 2)


def test_the_serializer_bytes_refuses_json(command):
    complaint(command("set", "s", "k", "--json", "[1]", "--serializer", "bytes"), 2)


@pytest.mark.parametrize("serializer", ["json", "bytes"])
def test_stores_of_other_serializers(command, store, serializer):
    store({"k": "text" if serializer == "json" else b"text"}, serializer)
    assert output(command("ls", "s", "--serializer", serializer)) == b"k\n"
    assert output(command("get", "s", "k", "--serializer", serializer)) == b"text"


@pytest.mark.parametrize(
    "arguments",
    [("k", b"v\xff"), (b"k\xff", "v"), ("k", "--json", b'"\xff"'), ("k", "--json", "NaN")],
)
def test_what_is_no_json_is_refused(command, store, arguments):
    path = store({"k": 1}, "json")
    before = snapshot(path)
    complaint(command("set", "s", *arguments), 2)
    complaint(command("set", "s", *arguments, "--serializer", "json"), 2)
    assert snapshot(path) == before
    complaint(command("set", "s", "k", "-", stdin=b"\xff"), 2)
    output(command("set", "s", "k", "-", stdin="ü\n".encode()))
    assert output(command("get", "s", "k")) == "ü\n".encode()


@pytest.mark.parametrize("serializer", ["json", "bytes", "pickle", "buffers"])
def test_it_finds_the_serializer_itself(nfsdict, command, store, tmp_path, serializer):
    value = b"text" if serializer == "bytes" else "text"
    path = store({"k": value, "gone": value}, serializer)
    assert output(command("ls", "s")) == b"gone\nk\n"
    assert output(command("get", "s", "k")) == b"text"
    output(command("set", "s", "new", "text"))
    output(command("del", "s", "gone"))
    complaint(command("get", "s", "gone"), 1)
    assert dict(nfsdict.NfsDict("s", tmp_path, serializer)) == {"k": value, "new": value}
    assert json.loads(output(command("stats", "s", "--json")))["keys"] == 2
    assert json.loads(output(command("verify", "s", "--json")))["entries"] == 2
    assert json.loads(output(command("repair", "s", "--json")))["entries"] == 2
    output(command("pack", "s"))
    assert len({file.suffix for file in path.glob("??/*")}) == 1


def test_a_serializer_that_is_not_the_stores_is_an_error(command, store):
    store({"k": 1}, "json")
    for arguments in (("get", "s", "k"), ("ls", "s"), ("verify", "s"), ("repair", "s")):
        line = complaint(command(*arguments, "--serializer", "pickle"), 2)
        assert "'json'" in line and ".json" in line


def test_several_kinds_of_values_are_an_error_that_lists_them(nfsdict, command, tmp_path):
    for serializer in ("json", "pickle"):
        nfsdict.NfsDict("s", tmp_path, serializer, lazy=True)["k"] = "text"
    for arguments in (("get", "s", "k"), ("set", "s", "k", "v"), ("ls", "s")):
        line = complaint(command(*arguments), 2)
        assert all(word in line for word in (".json", ".pkl", "--serializer pickle"))
    assert output(command("get", "s", "k", "--serializer", "json")) == b"text"


def test_values_that_it_cannot_read_are_an_error(nfsdict, command, tmp_path):
    nfsdict.NfsDict("s", tmp_path, nfsdict.signed(key=bytes(16)))["k"] = "text"
    assert ".pkl.signed" in complaint(command("get", "s", "k"), 2)


def test_ls_prints_sorted_keys(command, store):
    store({"b": 1, "": 2, "ä": 3, "a": 4})
    assert output(command("ls", "s")) == "\na\nb\nä\n".encode()


def test_ls_json_is_exact_for_any_key(command, store):
    keys = ["", "a\nb", "nul\0", "\ud800", "ä", "x" * 5000]
    store(dict.fromkeys(keys))
    assert json.loads(output(command("ls", "s", "--json"))) == sorted(keys)
    assert b"\\ud800\n" in output(command("ls", "s"))


def test_del_deletes(nfsdict, command, store, tmp_path):
    store({"k": 1, "other": 2})
    assert output(command("del", "s", "k")) == b""
    assert dict(nfsdict.NfsDict("s", tmp_path)) == {"other": 2}


@pytest.mark.parametrize("name", ["get", "del"])
def test_an_absent_key_is_status_1(command, store, name):
    store({"k": 1})
    assert "no such key: 'absent'" in complaint(command(name, "s", "absent"), 1)


def test_a_damaged_value_is_an_error_and_no_absent_key(command, store):
    path = store({"k": 1})
    value_file(path).write_bytes(b"\x80")
    done = command("get", "s", "k")
    assert done.returncode == 2
    assert b"damaged value file" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("error", [KeyError, RuntimeError])
def test_a_value_whose_class_fails_is_an_error_and_no_absent_key(
    process, store, monkeypatch, tmp_path, error
):
    source = f"class C:\n    def __setstate__(self, state):\n        raise {error.__name__}('no')\n"
    (tmp_path / "failing.py").write_text(source)
    module = types.ModuleType("failing")
    exec(source, module.__dict__)
    monkeypatch.setitem(sys.modules, "failing", module)
    value = module.C()
    value.attribute = 1
    store({"k": value})
    assert "ModuleNotFoundError" in complaint(process("get", "s", "k"), 2)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    assert error.__name__ in complaint(process("get", "s", "k"), 2)


def test_an_error_that_cannot_be_told_is_an_error_all_the_same(
    process, store, monkeypatch, tmp_path
):
    source = (
        "class Untold(RuntimeError):\n"
        "    def __str__(self):\n"
        "        raise ZeroDivisionError\n"
        "def fail(): raise Untold\n"
        "class C:\n"
        "    def __reduce__(self): return fail, ()\n"
    )
    (tmp_path / "untold.py").write_text(source)
    module = types.ModuleType("untold")
    exec(source, module.__dict__)
    monkeypatch.setitem(sys.modules, "untold", module)
    store({"k": module.C()})
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    assert "Untold" in complaint(process("get", "s", "k"), 2)
    assert process("verify", "s").returncode == 1
    assert process("repair", "s").returncode == 1


@pytest.mark.parametrize("name", [*READING, "get", "del"])
def test_a_store_that_is_not_there_is_an_error_and_is_not_made(command, tmp_path, name):
    key = () if name in READING else ("k",)
    assert str(tmp_path / "s") in complaint(command(name, "s", *key), 2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", "..", "/absolute"])
def test_a_bad_name_is_an_error(command, name):
    complaint(command("ls", name), 2)


def test_an_unknown_serializer_is_an_error_that_lists_the_known(command):
    line = complaint(command("set", "s", "k", "v", "--serializer", "yaml"), 2)
    assert all(known in line for known in ("pickle", "json", "bytes"))


def test_what_the_operating_system_says_is_told(command, tmp_path):
    (tmp_path / "s").write_text("a file")
    assert os.strerror(20) in complaint(command("set", "s", "k", "v"), 2)


def test_output_that_cannot_be_written_is_an_error(process, store, tmp_path):
    store({"k": 1})
    with open(os.devnull, "rb") as unwritable:
        assert os.strerror(9) in complaint(process("ls", "s", stdout=unwritable), 2)


def test_a_reader_that_goes_away_ends_the_command_in_silence(process, store):
    store({"k": "x" * 1_000_000})
    reader, writer = os.pipe()
    os.close(reader)
    done = process("get", "s", "k", stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_reading_commands_write_nothing(command, store):
    path = store({"k": 1})
    for file in path.glob("_*"):
        file.unlink()
    before = snapshot(path)
    for name in ("ls", "stats", "du", "verify"):
        output(command(name, "s"))
    output(command("get", "s", "k"))
    assert snapshot(path) == before


def test_verify_and_repair_of_a_store_with_one_damaged_value(command, store):
    path = store({"k": 1})
    assert json.loads(output(command("verify", "s", "--json")))["entries"] == 1
    damaged = value_file(path)
    damaged.write_bytes(b"")
    store({"other": 2})

    done = command("verify", "s", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["damaged"].keys() == {str(damaged)}
    assert damaged.exists()
    assert str(damaged) in command("verify", "s").stdout.decode()

    done = command("repair", "s", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["quarantined"].keys() == {str(damaged)}
    assert not damaged.exists()
    assert output(command("verify", "s"))
    assert output(command("ls", "s")) == b"other\n"


def test_verify_tells_what_the_index_contradicts(command, store):
    path = store({"a": "old"})
    output(command("pack", "s"))
    [file] = path.glob("??/*.pkl")
    file.write_bytes(pickle.dumps(("a", "new")))
    done = command("verify", "s", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["contradicted"].keys() == {str(file)}
    assert str(file) in command("verify", "s").stdout.decode()
    assert output(command("repair", "s"))
    assert output(command("verify", "s"))


def test_pack_makes_one_file_of_the_values_that_it_counts(command, store):
    path = store({"small": 1, "also small": 2, "large": "x" * 100_000})
    report = json.loads(output(command("pack", "s", "--json")))
    assert report == {"packed": 2, "unpacked": 1, "racy": 0}
    assert len(list(path.glob("_pack.nfsdict-pkl-*"))) == 1
    assert output(command("pack", "s")) == b"packed    2\nunpacked  1\nracy      0\n"
    assert output(command("get", "s", "small")) == b"1\n"


def test_the_help_warns_of_unpickling(command):
    for arguments in (("--help",), ("get", "--help")):
        done = subprocess.run([sys.executable, "-m", "nfsdict", *arguments], capture_output=True)
        assert b"A pickle can run any code" in output(done)


def test_the_version_names_the_core(nfsdict):
    done = subprocess.run(
        [sys.executable, "-m", "nfsdict", "--version"],
        env={**os.environ, "NFSDICT_BACKEND": nfsdict.BACKEND},
        capture_output=True,
    )
    assert output(done).decode() == f"nfsdict {nfsdict.__version__} ({nfsdict.BACKEND} core)\n"


def test_no_command_is_wrong_usage(nfsdict):
    done = subprocess.run([sys.executable, "-m", "nfsdict"], capture_output=True)
    assert done.returncode == 2
    assert done.stderr.startswith(b"usage: nfsdict")
