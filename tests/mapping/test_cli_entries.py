"""The commands ls, del and path: which entries there are, and what becomes of them."""

from __future__ import annotations

import errno
import importlib
import json
import os
import select
import sys

import pytest


@pytest.fixture
def store(opened):
    """A store of values of several sizes, written one after the other."""
    d = opened()
    for number, key in enumerate(("b/large", "a", "b/small")):
        d[key] = "x" * (1000 if key == "b/large" else number)
        os.utime(d.path_of(key), ns=(0, (1_700_000_000 + number) * 10**9))
    return d


def test_ls_of_a_prefix(cli, store):
    assert cli("ls", "s", "b/") == (0, b"b/large\nb/small\n", "")
    assert cli("ls", "s", "b/", "--json") == (0, b'["b/large", "b/small"]\n', "")
    assert cli("ls", "s", "c") == (0, b"", "")
    assert cli("ls", "s", "c", "--json") == (0, b"[]\n", "")


@pytest.mark.parametrize(
    ("order", "keys"),
    [
        ("age", ["b/small", "a", "b/large"]),
        ("size", ["b/large", "b/small", "a"]),
        ("key", ["a", "b/large", "b/small"]),
    ],
)
def test_ls_sorts(cli, store, order, keys):
    lines = "".join(f"{key}\n" for key in keys).encode()
    assert cli("ls", "s", "--sort", order) == (0, lines, "")
    long = cli("ls", "s", "-l", "--sort", order).out
    assert [line.split(b"\t")[2].decode() for line in long.splitlines()] == keys


def test_ls_l_tells_size_and_time_in_fields_for_scripts(cli, store):
    size = store.path_of("a").stat().st_size
    assert cli("ls", "s", "a", "-l").out == f"{size}\t2023-11-14T22:13:21+00:00\ta\n".encode()


def test_ls_l_json_has_what_infos_tell(cli, store):
    told = json.loads(cli("ls", "s", "-l", "--json").out)
    assert [one["key"] for one in told] == sorted(store)
    for one in told:
        info = store.info(one["key"])
        assert one == {
            "key": info.key,
            "path": str(info.path),
            "size": info.size,
            "modified": info.modified.isoformat(),
            "packed": info.packed,
        }


def test_ls_l_is_aligned_and_coloured_on_a_terminal_alone(cli, store, terminal, monkeypatch):
    lines = cli("ls", "s", "-l").out.decode().splitlines()
    assert all(line.startswith("\033[2m") for line in lines)
    assert {line.index("\033[m ") for line in lines} == {4 + 9 + 1 + 19}
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\033" not in cli("ls", "s", "-l").out.decode()


def test_a_terminal_does_not_obey_keys(cli, opened, terminal, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    key = "\033]0;title\a\n\ud800"
    opened()[key] = 1
    for options in ((), ("-l",)):
        line = cli("ls", "s", *options).out
        assert line.endswith(b"\\x1b]0;title\\x07\\n\\ud800'\n") and line.isascii()
        assert line.count(b"\n") == 1 and b"\033" not in line


def test_ls_without_an_order_prints_while_it_lists(nfsdict, opened, lists, monkeypatch):
    """The first line is there when few of 256 directories are listed."""
    listing = importlib.import_module("nfsdict.cli.listing")
    cli = importlib.import_module("nfsdict.cli")
    opened().update({str(number): number for number in range(1000)})
    listed_by_then = []

    def emit_each(lines):
        lines = iter(lines)
        next(lines)
        listed_by_then.append(len(lists))
        assert len([*lines]) == 999

    monkeypatch.setattr(listing, "emit_each", emit_each)
    base = str(opened().path.parent)
    for options in ((), ("-l",)):
        lists.clear()
        # Named, as finding the serializer lists as many directories as have 1,000 files.
        options = "--sort", "none", "--serializer", "pickle", *options
        assert cli.main(["ls", "s", "--base-dir", base, *options]) == 0
        assert len(set(lists)) > 200
    assert max(listed_by_then) < 50


def test_the_first_line_is_printed_at_once(nfsdict, monkeypatch):
    output = importlib.import_module("nfsdict.cli.output")
    reader, writer = os.pipe()

    def lines():
        yield b"first\n"
        assert select.select([reader], [], [], 0)[0] and os.read(reader, 100) == b"first\n"

    with open(reader), open(writer, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        output.emit_each(lines())


@pytest.mark.parametrize("items", [[], ["a"], ["a", {"b": 1}, None]])
def test_an_array_in_pieces_is_the_array(nfsdict, items):
    output = importlib.import_module("nfsdict.cli.output")
    pieces = output.json_array(json.dumps(item).encode() for item in items)
    assert b"".join(pieces) == json.dumps(items).encode() + b"\n"


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1200, "1.172 KiB"),
        ((1 << 20) - 1, "1024 KiB"),
        (1 << 20, "1 MiB"),
        (35 << 30, "35 GiB"),
        (5 << 60, "5120 PiB"),
    ],
)
def test_sizes_for_people_fit_their_column(nfsdict, size, text):
    assert importlib.import_module("nfsdict.wording").binary(size) == text


# --- del -----------------------------------------------------------------------------------------


def test_del_of_several_keys_names_the_absent_ones(cli, store):
    done = cli("del", "s", "a", "nothing", "b/small", "a")
    assert done == (1, b"", "nfsdict: no such key: 'nothing'\n")
    assert store.refresh() == {"a", "b/small"}


def test_del_of_a_prefix_says_how_many(cli, store, opened):
    assert cli("del", "s", "--prefix", "b/") == (0, b"2 deleted\n", "")
    assert set(opened()) == {"a"}
    assert cli("del", "s", "--prefix", "b/") == (0, b"0 deleted\n", "")


def test_a_dry_run_deletes_nothing(cli, store, opened):
    assert cli("del", "s", "--prefix", "b/", "--dry-run") == (0, b"2 would be deleted\n", "")
    done = cli("del", "s", "a", "nothing", "--dry-run")
    assert done == (1, b"1 would be deleted\n", "nfsdict: no such key: 'nothing'\n")
    assert set(opened()) == {"a", "b/large", "b/small"}


@pytest.mark.parametrize(
    "arguments", [(), ("--prefix", ""), ("a", "--prefix", "b"), ("a", "--prefix", "")]
)
def test_del_of_nobody_knows_what_deletes_nothing(cli, store, opened, arguments):
    """An empty prefix is that of every key, and mostly a variable that isn't set."""
    done = cli("del", "s", *arguments)
    assert (done.status, done.out, done.err.count("\n")) == (2, b"", 1)
    assert set(opened()) == {"a", "b/large", "b/small"}


def test_del_goes_on_after_a_key_that_cannot_be_deleted(nfsdict, cli, store, opened, monkeypatch):
    delete = nfsdict.NfsDict.__delitem__

    def failing(self, key):
        if key == "b/large":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        delete(self, key)

    monkeypatch.setattr(nfsdict.NfsDict, "__delitem__", failing)
    done = cli("del", "s", "--prefix", "b/")
    assert done.status == 2
    assert done.out == b"1 deleted\n"
    assert "1 failed, the first is 'b/large'" in done.err and done.err.count("\n") == 1
    assert set(opened()) == {"a", "b/large"}


# --- path ----------------------------------------------------------------------------------------


def test_path_prints_where_the_value_is(cli, store):
    assert cli("path", "s", "a") == (0, f"{store.path_of('a')}\n".encode(), "")


def test_path_of_an_absent_key_is_told_but_not_printed(cli, store):
    done = cli("path", "s", "nothing")
    assert (done.status, done.out) == (1, b"")
    assert str(store.path_of("nothing")) in done.err and done.err.count("\n") == 1
