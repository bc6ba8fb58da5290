"""The command edit: what the user wrote is stored, or is in a file; what others wrote stays."""

from __future__ import annotations

import importlib
import os
import re
import signal
import sys
import tempfile
from pathlib import Path

import pytest

from support.processes import processes

JSON = {"list": [1, 2.5, None, True], "text": "ä\ud800\n", "empty": {}}


@pytest.fixture(autouse=True)
def drafts(tmp_path, monkeypatch):
    """Where the drafts are."""
    path = tmp_path / "drafts"
    path.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(path))
    return path


@pytest.fixture
def editor(nfsdict, monkeypatch):
    """Let this function of the draft's path be the editor."""
    edit = importlib.import_module("nfsdict.cli.edit")
    return lambda function: monkeypatch.setattr(edit, "_run_editor", function)


def replacing(old, new):
    """An editor, and what it saw."""
    seen = []

    def run(draft):
        text = draft.read_bytes()
        seen.append(text)
        assert old in text
        draft.write_bytes(text.replace(old, new))

    run.seen = seen
    return run


def kept(done, drafts):
    """The text in the file that the one line on standard error names."""
    assert done.status == 2 and done.out == b""
    assert done.err.startswith("nfsdict: ") and done.err.count("\n") == 1
    [path] = set(re.findall(r"your text stays in (\S+):", done.err))
    assert [Path(path)] == [*drafts.iterdir()]
    assert Path(path).stat().st_mode & 0o77 == 0
    return Path(path).read_bytes()


@pytest.mark.parametrize("serializer", ["json", "pickle", "buffers"])
def test_json_is_edited_as_json(cli, opened, editor, drafts, serializer):
    opened(serializer=serializer)["k"] = JSON
    edit = replacing(b"2.5", b"17")
    editor(edit)
    assert cli("edit", "s", "k") == (0, b"", "")
    assert '  "text": "ä\\ud800\\n",\n'.encode() in edit.seen[0]
    assert opened(serializer=serializer)["k"] == {**JSON, "list": [1, 17, None, True]}
    assert [*drafts.iterdir()] == []


@pytest.mark.parametrize(
    ("serializer", "value", "edited"),
    [
        ("json", "old text", "new text"),
        ("pickle", "old text\nend\n", "new text\nend\n"),
        ("bytes", "old ä".encode(), "new ä".encode()),
        ("pickle", b"old", b"new"),
    ],
)
def test_text_is_edited_as_it_is(cli, opened, editor, drafts, serializer, value, edited):
    opened(serializer=serializer)["k"] = value
    editor(replacing(b"old", b"new"))
    assert cli("edit", "s", "k") == (0, b"", "")
    found = opened(serializer=serializer)["k"]
    assert found == edited and type(found) is type(value)
    assert [*drafts.iterdir()] == []


def test_a_newline_that_the_editor_adds_is_taken_off(cli, opened, editor):
    opened().update(with_one="old\n", without="old")
    editor(lambda draft: draft.write_bytes(b"new\n"))
    cli("edit", "s", "with_one")
    cli("edit", "s", "without")
    assert dict(opened()) == {"with_one": "new\n", "without": "new"}


class Own:
    """A value that only its program understands."""

    def __eq__(self, other):
        return True


@pytest.mark.parametrize(
    "value",
    [(1, 2), {1: 2}, [(1,)], float("nan"), b"\xff", {"set"}, "\udcff", {"a": b""}, 1j, Own()],
    ids=repr,
)
def test_other_values_are_refused(cli, opened, editor, drafts, value, monkeypatch):
    monkeypatch.setitem(sys.modules, __name__, sys.modules[Own.__module__])
    opened()["k"] = value
    editor(lambda draft: pytest.fail("it isn't called"))
    done = cli("edit", "s", "k")
    assert (done.status, done.out, done.err.count("\n")) == (2, b"", 1)
    assert "can't be edited" in done.err
    assert [*drafts.iterdir()] == []


def test_an_absent_key_is_status_1(cli, opened, editor, drafts):
    opened()["k"] = 1
    editor(lambda draft: pytest.fail("it isn't called"))
    assert cli("edit", "s", "absent") == (1, b"", "nfsdict: no such key: 'absent'\n")


def test_what_is_not_edited_is_not_written(cli, opened, editor, drafts):
    d = opened()
    d["k"] = "text"
    before = d.path_of("k").stat()
    editor(lambda draft: draft.write_bytes(b"text\n"))
    done = cli("edit", "s", "k")
    assert (done.status, done.out) == (0, b"") and "as it was" in done.err
    assert d.path_of("k").stat().st_mtime_ns == before.st_mtime_ns
    assert [*drafts.iterdir()] == []


@pytest.mark.parametrize("other", ["new", "removed", "another type", "out of reach"])
def test_who_else_changed_it_meanwhile_is_not_overwritten(cli, opened, editor, drafts, other):
    d = opened()
    d["k"] = [1]
    theirs = {"new": [2], "another type": (1,), "out of reach": 1j}

    def edit(draft):
        if other == "removed":
            del d["k"]
        else:
            d["k"] = theirs[other]
        draft.write_bytes(b"[3]")

    editor(edit)
    done = cli("edit", "s", "k")
    assert "somebody else has changed" in done.err
    assert kept(done, drafts) == b"[3]"
    assert opened().get("k") == theirs.get(other)


def test_who_wrote_the_same_has_changed_nothing(cli, opened, editor):
    d = opened()
    d["k"] = [1]

    def edit(draft):
        d["k"] = [1]
        draft.write_bytes(b"[3]")

    editor(edit)
    assert cli("edit", "s", "k") == (0, b"", "")
    assert opened()["k"] == [3]


def test_a_key_that_others_hold_is_left_alone(nfsdict, cli, opened, editor, drafts, monkeypatch):
    monkeypatch.setattr(importlib.import_module("nfsdict.cli.edit"), "_PATIENCE", 0.05)
    d = opened()
    d["k"] = [1]
    editor(lambda draft: draft.write_bytes(b"[3]"))
    with d.lease("k"):
        done = cli("edit", "s", "k")
    assert kept(done, drafts) == b"[3]"
    assert opened()["k"] == [1]


@pytest.mark.parametrize("text", [b"[1", b"NaN", b"", b'"\xff"'])
def test_what_is_no_json_stays_in_a_file(cli, opened, editor, drafts, text):
    opened()["k"] = [1]
    editor(lambda draft: draft.write_bytes(text))
    done = cli("edit", "s", "k")
    if text:
        assert kept(done, drafts) == text
    else:
        assert done.status == 2 and [*drafts.iterdir()] == []
    assert opened()["k"] == [1]


def test_the_file_that_is_named_can_be_stored_as_it_says(cli, opened, editor, drafts, monkeypatch):
    d = opened()
    d["it's k"] = [1]

    def edit(draft):
        d["it's k"] = [2]
        draft.write_bytes(b"[3]")

    editor(edit)
    done = cli("edit", "s", "it's k")
    [command] = re.findall(r"nfsdict set (.*)", done.err)
    shlex = importlib.import_module("shlex")
    *arguments, sign, file = shlex.split(command)
    assert sign == "<"
    with open(file) as text:
        monkeypatch.setattr(sys, "stdin", text)
        assert importlib.import_module("nfsdict.cli").main(["set", *arguments]) == 0
    assert opened()["it's k"] == [3]


@pytest.mark.parametrize(("answer", "tries"), [("\n", 2), ("y\n", 2), ("n\n", 1), ("", 1)])
def test_a_person_is_asked_whether_to_edit_again(
    cli, opened, editor, drafts, terminal, monkeypatch, answer, tries
):
    opened()["k"] = [1]
    texts = [b"[2]", b"[2"]
    editor(lambda draft: draft.write_bytes(texts.pop()))
    monkeypatch.setattr(sys, "stdin", type("Person", (), {}))
    sys.stdin.isatty = lambda: True
    sys.stdin.readline = lambda: answer
    done = cli("edit", "s", "k")
    assert "Edit again? [Y/n]" in done.err
    assert len(texts) == 2 - tries
    assert (done.status == 0) == (tries == 2)
    assert opened()["k"] == ([2] if tries == 2 else [1])
    assert len([*drafts.iterdir()]) == 2 - tries


@pytest.mark.parametrize(
    ("editor_says", "status", "told"),
    [
        ("sed -i s/1/2/", 0, ""),
        ("false", 2, "false ended with status 1"),
        ("no-such-editor --wait", 2, "$EDITOR"),
        ("sh -c 'kill -INT $$'", 130, ""),
    ],
)
def test_the_editor_is_that_of_the_environment(
    cli, opened, drafts, monkeypatch, editor_says, status, told
):
    opened()["k"] = [1]
    monkeypatch.setenv("EDITOR", "false")
    monkeypatch.setenv("VISUAL", editor_says)
    done = cli("edit", "s", "k")
    assert done.status == status and told in done.err and done.err.count("\n") == bool(told)
    assert opened()["k"] == ([1] if status else [2])
    assert [*drafts.iterdir()] == []


def test_a_ctrl_c_is_the_editors_and_loses_no_text(cli, opened, drafts, monkeypatch):
    """The terminal sends it to both."""
    opened()["k"] = [1]
    monkeypatch.delenv("VISUAL", raising=False)
    both = 'trap "" INT; kill -INT $PPID; sed -i s/1/2/ "$1"'
    monkeypatch.setenv("EDITOR", f"sh -c '{both}' sh")
    assert cli("edit", "s", "k").status == 0
    assert opened()["k"] == [2]
    monkeypatch.setenv("EDITOR", "sh -c 'sed -i s/2/3/ $1; kill -INT $$' sh")
    done = cli("edit", "s", "k")
    assert (done.status, done.out) == (130, b"")
    [draft] = drafts.iterdir()
    assert str(draft) in done.err and b"3" in draft.read_bytes()
    assert opened()["k"] == [2]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_names_the_text_that_is_kept(nfsdict, opened, tmp_path, drafts, name):
    """Also what the editor saves only when it is told to end."""
    opened()["k"] = [1]
    saves = "trap 'sed -i s/1/2/ $1; exit 1' TERM; echo ready; while :; do sleep 0.1; done"
    script = tmp_path / "editor"
    script.write_text(saves)
    environment = {
        **os.environ,
        "NFSDICT_BACKEND": nfsdict.BACKEND,
        "VISUAL": f"sh {script}",
        "TMPDIR": str(drafts),
    }
    with processes() as start:
        words = ["edit", "--base-dir", tmp_path, opened().path.name, "k"]
        process = start([sys.executable, "-m", "nfsdict", *words], env=environment)
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(getattr(signal, name))
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + getattr(signal, name)
    [draft] = drafts.iterdir()
    line = errors.decode()
    assert line.startswith(f"nfsdict: your text stays in {draft}: ") and line.count("\n") == 1
    assert b"2" in draft.read_bytes()
    assert opened()["k"] == [1]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_just_as_the_editor_has_started_ends_it_too(
    cli, opened, drafts, monkeypatch, name
):
    opened()["k"] = [1]
    module = importlib.import_module("nfsdict.cli.edit")
    monkeypatch.setenv("VISUAL", "sh -c 'exec sleep 15'")
    original, editors = module.subprocess.Popen, []

    def started(*arguments):
        editors.append(original(*arguments))
        os.kill(os.getpid(), getattr(signal, name))
        return editors[-1]

    monkeypatch.setattr(module.subprocess, "Popen", started)
    try:
        with pytest.raises(SystemExit) as ended:
            cli("edit", "s", "k")
        assert ended.value.code == 128 + getattr(signal, name)
        assert [editor.poll() for editor in editors] == [-signal.SIGTERM]
    finally:
        for editor in editors:
            editor.kill()
            editor.wait()
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
    assert len([*drafts.iterdir()]) <= 1 and opened()["k"] == [1]


@pytest.mark.parametrize("does", ["unlink", "empty"])
def test_an_editor_that_leaves_nothing(cli, opened, editor, drafts, does):
    opened()["k"] = [1]
    editor(Path.unlink if does == "unlink" else lambda draft: draft.write_bytes(b"\n"))
    done = cli("edit", "s", "k")
    assert (done.status, done.out, done.err.count("\n")) == (2, b"", 1)
    assert "the value is as it was" in done.err and "`nfsdict del`" in done.err
    assert opened()["k"] == [1]
    # An empty text is one.
    opened()["k"] = "text"
    editor(lambda draft: draft.write_bytes(b""))
    assert cli("edit", "s", "k") == (0, b"", "")
    assert opened()["k"] == ""
