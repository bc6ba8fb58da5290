"""Which store a command is about: a name or a path, its serializer, its key."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys

import pytest

KEY = b"sixteen bytes or more\n"
OWN = """
import json

class Lines:
    extension = ".lines"
    def dumps(self, pair):
        return json.dumps(pair).encode()
    def loads(self, data):
        return json.loads(data)

def make():
    return Lines()

class inner:
    lines = Lines()

number = 5
"""


@pytest.fixture
def here(tmp_path):
    """The current directory of the command."""
    (tmp_path / "here").mkdir()
    return tmp_path / "here"


@pytest.fixture
def command(nfsdict, capsysbinary, monkeypatch, tmp_path, here):
    """Run the command here: its status, output and complaint. Names are below tmp_path/base."""
    cli = importlib.import_module("nfsdict.cli")
    monkeypatch.setenv("NFSDICT_BASE_DIR", str(tmp_path / "base"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "path", sys.path[:])
    handler = signal.getsignal(signal.SIGTERM)

    def run(*arguments):
        try:
            status = cli.main([os.fspath(one) for one in arguments])
        except SystemExit as error:  # argparse's
            status = error.code
        told = capsysbinary.readouterr()
        return status, told.out.decode(), told.err.decode()

    yield run
    signal.signal(signal.SIGTERM, handler)
    sys.modules.pop("own", None)


@pytest.fixture
def opened(nfsdict, tmp_path, command):
    """Open a store by its path below tmp_path."""
    return lambda path, **options: nfsdict.NfsDict.open(tmp_path / path, **options)


@pytest.fixture
def key_file(tmp_path):
    path = tmp_path / "key"
    path.write_bytes(KEY)
    path.chmod(0o600)
    return path


@pytest.fixture
def own(here):
    """A module with serializers, in the current directory."""
    (here / "own.py").write_text(OWN)


def complaint(done):
    """The one line of a command that ended with 2 and printed nothing."""
    status, out, err = done
    assert (status, out) == (2, ""), done
    assert err.startswith("nfsdict: ") and err.count("\n") == 1, err
    return err


# --- names and paths ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("results", "base/results"),
        ("lab/results", "base/lab/results"),
        ("results/", "base/results"),
        (".results", "base/.results"),
        ("...", "base/..."),
        ("./results", "here/results"),
        ("./lab/results/", "here/lab/results"),
        ("../results", "results"),
        ("~/results", "home/results"),
    ],
)
def test_names_and_paths(command, opened, tmp_path, name, path):
    assert command("set", name, "k", "v") == (0, "", "")
    assert command("ls", name) == (0, "k\n", "")
    assert opened(path, create=False) == {"k": "v"}
    assert command("get", tmp_path / path, "k")[:2] == (0, "v")


def test_a_dot_is_the_current_directory(command, opened, monkeypatch, tmp_path):
    opened("store")["k"] = 1
    monkeypatch.chdir(tmp_path / "store")
    assert command("ls", ".") == (0, "k\n", "")
    monkeypatch.chdir(tmp_path / "store" / opened("store").info("k").path.parent)
    assert command("ls", "..") == (0, "k\n", "")


def test_base_dir_comes_before_the_environment(command, opened, tmp_path):
    opened("other/s")["k"] = 1
    assert command("ls", "--base-dir", tmp_path / "other", "s") == (0, "k\n", "")
    assert command("ls", "--base-dir", "../other", "s") == (0, "k\n", "")


def test_a_path_has_no_base_dir(command, here, tmp_path):
    told = complaint(command("set", "--base-dir", tmp_path, "./s", "k", "v"))
    assert "'./s' is a path" in told and "--base-dir" in told
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("name", ["", "a/../b", "/"])
def test_what_names_no_store(command, tmp_path, name):
    complaint(command("set", name, "k", "v"))
    assert not (tmp_path / "base").exists()


COMMANDS = {
    **{name: ["x"] for name in ("ls", "stats", "verify", "repair", "pack", "leases")},
    "get": ["x", "k"],
    "del": ["x", "k"],
    "work": ["x", "--", "true"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_mistyped_name(command, opened, tmp_path, name):
    """Nothing is made, and what is there is told."""
    opened("base/results")["k"] = 1
    opened("base/y")["k"] = 1
    _, *rest = COMMANDS[name]
    told = complaint(command(name, "reslts", *rest))
    assert f"no such store; stores in {str(tmp_path / 'base')!r}: 'results', 'y'" in told
    assert "'results', 'y'" in complaint(command(name, tmp_path / "base" / "reslts", *rest))
    assert "no such store" in complaint(command(name, tmp_path / "base", *rest))
    assert sorted(path.name for path in (tmp_path / "base").iterdir()) == ["results", "y"]


def test_the_store_beside(command, opened):
    """Who meant a path, and wrote a name, is told."""
    opened("here/lab/s")["k"] = 1
    told = complaint(command("ls", "lab/s"))
    assert "the one in this directory is ./lab/s" in told
    assert "in this directory" not in complaint(command("ls", "lab"))


# --- serializers of one's own -------------------------------------------------------------------


@pytest.mark.parametrize("name", ["own:Lines", "own:make", "own:inner.lines"])
def test_a_serializer_of_ones_own(command, opened, own, name):
    assert command("set", "s", "k", "v", "--serializer", name) == (0, "", "")
    assert command("get", "s", "k", "--serializer", name) == (0, "v", "")
    assert command("verify", "s", "--serializer", name)[0] == 0
    [file] = opened("base/s", lazy=True).path.glob("??/*")
    assert file.suffix == ".lines" and json.loads(file.read_bytes()) == ["k", "v"]
    told = complaint(command("ls", "s"))
    assert "1 or more of .lines" in told and "--serializer MODULE:OBJECT" in told


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("own:absent", "no attribute 'absent'"),
        ("absent:x", "No module named 'absent'"),
        ("own:number", "5 is no serializer"),
        ("own:", "own"),
        (":x", "module"),
        ("json:dumps", "missing 1 required positional argument"),
        ("broken:x", "SyntaxError"),
        ("yaml", "unknown serializer 'yaml'"),
    ],
)
def test_what_is_no_serializer(command, own, here, tmp_path, name, told):
    (here / "broken.py").write_text("1 +")
    line = complaint(command("set", "s", "k", "v", "--serializer", name))
    assert told in line
    assert not (tmp_path / "base").exists()


def test_the_current_directory_takes_no_librarys_place(nfsdict, own, here):
    """As the installed command runs: its own directory is on the path, not the current one."""
    (here / "own.py").write_text(f"import colorsys\n{OWN}")
    (here / "colorsys.py").write_text("raise SystemExit('not the library')")
    run = "import sys; sys.path.remove(''); from nfsdict.cli import main; sys.exit(main())"
    arguments = ["set", "./s", "k", "v", "--serializer", "own:Lines"]
    env = {**os.environ, "NFSDICT_BACKEND": nfsdict.BACKEND}
    done = subprocess.run([sys.executable, "-c", run, *arguments], cwd=here, env=env)
    assert done.returncode == 0
    if sys.version_info >= (3, 11):
        env["PYTHONSAFEPATH"] = "1"
        run = run.replace("sys.path.remove(''); ", "")
        done = subprocess.run(
            [sys.executable, "-c", run, *arguments], cwd=here, env=env, capture_output=True
        )
        assert done.returncode == 2 and b"No module named 'own'" in done.stderr


# --- signed stores ------------------------------------------------------------------------------


@pytest.mark.parametrize("inner", ["pickle", "json", "bytes", "buffers"])
def test_a_signed_store(nfsdict, command, opened, key_file, inner):
    """What is inside is found."""
    value = b"v" if inner == "bytes" else "v"
    with opened("base/s", serializer=nfsdict.signed(inner, key=KEY)) as d:
        d["k"] = value
    assert command("get", "s", "k", "--key-file", key_file) == (0, "v", "")
    assert command("set", "s", "l", "w", "--key-file", key_file) == (0, "", "")
    wanted = {"k": value, "l": b"w" if inner == "bytes" else "w"}
    assert opened("base/s", serializer=nfsdict.signed(inner, key=KEY)) == wanted
    told = complaint(command("ls", "s"))
    assert f"--serializer {inner} --key-file FILE" in told
    assert json.loads(command("stats", "s", "--json", "--key-file", key_file)[1])["keys"] == 2


def test_a_new_store_is_signed(nfsdict, command, opened, own, key_file):
    assert command("set", "s", "k", "v", "--key-file", key_file) == (0, "", "")
    assert opened("base/s", serializer=nfsdict.signed(key=KEY)) == {"k": "v"}
    arguments = "--serializer", "own:Lines", "--key-file", str(key_file)
    assert command("set", "own", "k", "v", *arguments) == (0, "", "")
    assert command("get", "own", "k", *arguments) == (0, "v", "")
    [file] = opened("base/own", lazy=True).path.glob("??/*")
    assert file.name.endswith(".lines.signed")
    told = complaint(command("ls", "own", "--key-file", key_file))
    assert "--serializer MODULE:OBJECT --key-file FILE" in told


def test_another_key(nfsdict, command, opened, tmp_path, key_file):
    opened("base/s", serializer=nfsdict.signed(key=b"another key, long enough"))["k"] = "v"
    assert "another key" in complaint(command("get", "s", "k", "--key-file", key_file))
    assert command("verify", "s", "--key-file", key_file)[0] == 1


def test_a_store_that_is_not_signed(command, opened, key_file):
    opened("base/s")["k"] = "v"
    told = complaint(command("ls", "s", "--key-file", key_file))
    assert "Use --serializer pickle without --key-file" in told
    told = complaint(command("ls", "s", "--key-file", key_file, "--serializer", "pickle"))
    assert "serializer='pickle'" in told


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o610, 0o644, 0o666])
def test_a_key_that_others_may_use_is_refused(command, opened, key_file, mode):
    key_file.chmod(mode)
    told = complaint(command("set", "s", "k", "v", "--key-file", key_file))
    assert f"(mode {mode:04o}); chmod 600 it" in told and str(key_file) in told
    assert KEY.decode().strip() not in told


def test_a_key_file_that_is_none(command, tmp_path, key_file):
    assert str(tmp_path / "absent") in complaint(
        command("set", "s", "k", "v", "--key-file", tmp_path / "absent")
    )
    complaint(command("set", "s", "k", "v", "--key-file", tmp_path))
    key_file.write_bytes(b"short")
    told = complaint(command("set", "s", "k", "v", "--key-file", key_file))
    assert "5 bytes, at least 16" in told
    assert not (tmp_path / "base").exists()


def test_help_says_how_a_store_is_named(command):
    _, told, _ = command("ls", "--help")
    for part in ("`./`", "NFSDICT_BASE_DIR", "MODULE:OBJECT", "--key-file FILE"):
        assert part in told
    assert "NAME is a store" not in command("doctor", "--help")[1]
