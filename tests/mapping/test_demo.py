"""The demo: that it does what it says, and that it can fail."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys

import pytest


@pytest.fixture
def demo(nfsdict):
    return importlib.import_module("nfsdict.demo")


@pytest.fixture
def root(tmp_path):
    """A tree of 40 sources, some in other encodings than UTF-8, and what is to be passed over."""
    root = tmp_path / "sources"
    (root / "package").mkdir(parents=True)
    for number in range(37):
        (root / f"module{number}.py").write_text(f"x = {number}\n" * number)
    (root / "package" / "__init__.py").touch()
    (root / "package" / "latin.py").write_bytes(
        "# -*- coding: latin-1 -*-\n# ä\n".encode("latin-1")
    )
    (root / "package" / "crlf.py").write_bytes(b"x = 1\r\ny = 2\r\n\x00\xff")
    (root / "site-packages").mkdir()
    (root / "site-packages" / "strange.py").touch()
    (root / "readme.txt").touch()
    return root


@pytest.fixture
def run(demo, root, tmp_path):
    return lambda: demo.run(tmp_path / "stores", root)


@pytest.fixture
def after_writing(demo, monkeypatch):
    """Have a function called between the writing and the check, with what was written."""
    write = demo.write

    def arrange(meddle):
        monkeypatch.setattr(demo, "write", lambda *arguments: meddle(write(*arguments)))

    return arrange


@pytest.fixture
def written(nfsdict, tmp_path):
    """The store that the demo makes."""
    return lambda: nfsdict.NfsDict("demo", tmp_path / "stores")


def test_every_source_is_stored_with_its_facts(demo, run, written, root, capsys):
    assert run() == 0
    store = written()
    assert len(store) == 40
    assert "site-packages/strange.py" not in store
    assert store["package/latin.py"]["lines"] == 2
    for key, value in store.items():
        data = (root / key).read_bytes()
        assert value["text"].encode("utf-8", "surrogateescape") == data
        assert value["size"] == len(data)
    printed = capsys.readouterr().out
    assert "mismatches  0\n" in printed
    assert "by signal 9, after " in printed


def test_one_process_is_killed_half_way_and_resumed(demo, root, tmp_path):
    files = list(demo.sources(root))
    done = demo.write(tmp_path, root, files)
    assert done.killed == -signal.SIGKILL
    assert done.share == 10
    assert 5 <= done.acknowledged < 10
    assert done.acknowledged <= done.found < 10
    assert done.found + done.resumed == done.share


def change(store):
    store["module3.py"] = {**store["module3.py"], "text": ""}


def remove(store):
    del store["module3.py"]


def damage(store):
    [file] = (path for path in store.path.glob("??/*.pkl") if b"module3.py" in path.read_bytes())
    file.write_bytes(file.read_bytes()[:-40])


def add(store):
    store["module3.py.orig"] = 1


@pytest.mark.parametrize("meddle", [change, remove, damage, add])
def test_a_mismatch_is_named_and_fails(run, written, after_writing, capsys, meddle):
    def meddling(done):
        with written() as store:
            meddle(store)
        return done

    after_writing(meddling)
    assert run() == 1
    printed = capsys.readouterr().out
    assert "mismatches  1\n" in printed
    assert "module3.py" in printed


def test_a_lost_acknowledged_write_fails(run, after_writing, capsys):
    after_writing(lambda done: done._replace(acknowledged=done.found + 1))
    assert run() == 1
    assert "lost        1 acknowledged writes\n" in capsys.readouterr().out


def test_a_store_that_is_there_already_is_left_alone(run, written):
    with written() as store:
        store["mine"] = 1
    with pytest.raises(FileExistsError, match="is there already"):
        run()
    assert dict(written()) == {"mine": 1}


def test_a_process_that_fails_is_reported(demo, root, tmp_path, capfd):
    (tmp_path / "stores").touch()
    with pytest.raises(ChildProcessError, match="ended by itself"):
        demo.write(tmp_path / "stores", root, list(demo.sources(root)))
    capfd.readouterr()


def test_too_few_sources_are_an_error(demo, tmp_path):
    with pytest.raises(FileNotFoundError):
        demo.run(tmp_path / "stores", tmp_path)


def test_the_command_on_the_standard_library(nfsdict, demo, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "nfsdict", "demo"],
        env={**os.environ, "NFSDICT_BACKEND": nfsdict.BACKEND, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert f"{nfsdict.BACKEND} core" in done.stdout
    assert "mismatches  0\n" in done.stdout
    assert list(tmp_path.iterdir()) == [], "the temporary directory is removed"


def test_the_command_tells_why_it_cannot_start(nfsdict, tmp_path):
    (tmp_path / "file").touch()
    done = subprocess.run(
        [sys.executable, "-m", "nfsdict", "demo", tmp_path / "file"],
        env={**os.environ, "NFSDICT_BACKEND": nfsdict.BACKEND},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("nfsdict: ")
    assert done.stderr.count("\n") == 1
