"""`nfsdict stats` and `nfsdict du`: what is counted, against what lies there."""

from __future__ import annotations

import importlib
import json
import os
import types
from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as some

LAYERS = some.lists(some.sampled_from(["a", "b", "", "/", "::", "ab"]), max_size=6)


@pytest.fixture
def command(nfsdict, tmp_path, capsysbinary):
    """Run the command over the test's store; its status, output and errors."""
    main = importlib.import_module("nfsdict.cli").main

    def run(name, *arguments):
        status = main([name, "--base-dir", str(tmp_path), "s", *arguments])
        return status, *capsysbinary.readouterr()

    return run


@pytest.fixture
def printed(command):
    """What it prints, in silence."""

    def run(*arguments):
        status, output, errors = command(*arguments)
        assert (status, errors) == (0, b"")
        return output.decode()

    return run


@pytest.fixture
def told(printed):
    """The same of ``--json``."""
    return lambda *arguments: json.loads(printed(*arguments, "--json"))


@pytest.fixture(scope="module")
def module(nfsdict):
    return lambda name: importlib.import_module(f"nfsdict.{name}")


def complaint(done, status=2):
    assert done[0] == status
    assert done[1] == b""
    line = done[2].decode()
    assert line.startswith("nfsdict: ") and line.count("\n") == 1, line
    return line


def when(file):
    seconds, rest = divmod(file.stat().st_mtime_ns // 1000, 1_000_000)
    return datetime.fromtimestamp(seconds, timezone.utc).replace(microsecond=rest).isoformat()


def test_stats_counts_what_lies_there(nfsdict, opened, told):
    with opened() as d:
        d.update({str(number): "x" * number for number in range(50)})
    path = d.path
    (path / "stranger").touch()
    files = sorted(path.glob("??/*.pkl"), key=lambda file: file.stat().st_size)
    (files[0].parent / ".nfsdict-left").touch()
    (files[0].parent / f"{files[0].name}.damaged-0123456789ab").touch()
    (path / ".nfsdict-0123").touch()
    os.utime(files[5], ns=(0, 1_234_567_891_000))
    with d.lease("held"):
        report = told("stats")
    assert report.pop("index").keys() == {file.name for file in path.glob("_*")}
    assert [lease["key"] for lease in report.pop("leases")] == ["held"]
    largest = [one["path"] for one in report.pop("largest")]
    assert largest == [str(file) for file in reversed(files)][:10]
    for name in ("free_bytes", "total_bytes", "free_inodes", "total_inodes", "packs", "packed"):
        report.pop(name)
    assert report == {
        "path": str(path),
        "serializer": "pickle",
        "keys": 50,
        "bytes": sum(file.stat().st_size for file in files),
        "shards": len({file.parent for file in files}),
        "oldest": "1970-01-01T00:20:34.567891+00:00",
        "newest": when(max(files, key=lambda file: file.stat().st_mtime_ns)),
        "other_files": 5,  # with the directory of the leases
        "temporary": 2,
        "damaged": 1,
        "backend": nfsdict.BACKEND,
        "version": nfsdict.__version__,
    }


def test_of_what_is_packed_no_value_is_read(opened, told, printed, reads):
    d = opened()
    d.update({str(number): b"x" * number for number in range(100, 3000, 100)})
    d["large"] = b"x" * 100_000
    d.pack()
    reads.clear()
    report = told("stats")
    largest = ["large", *map(str, range(2900, 2000, -100))]
    assert [one["key"] for one in report["largest"]] == largest
    assert [one["path"] for one in report["largest"]] == [str(d.path_of(key)) for key in largest]
    assert [one["modified"] for one in report["largest"]] == [
        when(d.path_of(key)) for key in largest
    ]
    [(name, pack)] = report["packs"].items()
    assert name in report["index"]
    size = sum(info.size for info in d.infos() if info.key != "large")
    assert pack == {"keys": 30, "values": 29, "value_bytes": size, "tombstones": 0}
    assert report["packed"] == 29
    assert told("du")["files"] == 30
    assert reads == []

    d.update({str(number): b"" for number in range(100, 1100, 100)})
    del d["2000"]
    report = told("stats")
    assert (report["keys"], report["packed"]) == (29, 18)
    assert "values of 18 keys" in printed("stats")


def test_keys_of_the_largest_values_come_from_their_files_unless_these_are_too_large(
    opened, told, reads, monkeypatch, module
):
    with opened() as d:
        d.update({str(number): b"x" * number for number in range(100, 3000, 100)})
    for file in d.path.glob("_*"):
        file.unlink()
    largest = list(map(str, range(2900, 1900, -100)))
    reads.clear()
    found = told("stats")["largest"]
    assert [one["key"] for one in found] == largest
    assert len(reads) == 10

    monkeypatch.setattr(module("upkeep.stats"), "_READ", found[4]["bytes"])
    found = told("stats")["largest"]
    assert [one["key"] for one in found] == [None] * 4 + largest[4:]


def test_a_table_for_people_is_aligned(opened, printed):
    with opened() as d:
        d.update({"short": b"", "a\nb\x1b[31m\udcff": b"x" * 10_000, "long": b"x" * 3_000_000})
    text = printed("stats")
    assert "\x1b" not in text
    table = text.partition("largest values\n")[2].splitlines()
    assert len(table) == 4
    columns = table[0].index("key")
    assert [line[columns:] for line in table] == ["key", "long", r"'a\nb\x1b[31m\udcff'", "short"]
    assert "keys          3, in" in text


def test_an_empty_store(opened, told, printed):
    assert opened().path.is_dir()
    report = told("stats")
    assert (report["keys"], report["bytes"], report["oldest"]) == (0, 0, None)
    assert "newest write  -\n" in printed("stats")
    assert told("du")["prefixes"] == {}


def test_the_serializer_is_named(nfsdict, opened, told, module):
    opened(serializer="json")["k"] = 1
    assert told("stats")["serializer"] == "json"
    named = module("cli.stats").name_of_serializer
    assert named(nfsdict.signed("json", key=bytes(32))) == "signed json"
    assert named(types.SimpleNamespace(extension=".own", dumps=repr, loads=repr)) == ".own"


@pytest.mark.parametrize("name", ["stats", "du"])
def test_another_serializer_is_an_error(opened, command, name):
    opened()["k"] = 1
    assert "pickle" in complaint(command(name, "--serializer", "json"))


@pytest.mark.parametrize("name", ["stats", "du"])
def test_a_damaged_value_counts_as_what_is_known_of_it(opened, command, name):
    d = opened()
    d["k"] = 1
    d.path_of("k").write_bytes(b"")
    status, output, _ = command(name, "--json")
    report = json.loads(output)
    assert status == 0
    if name == "stats":
        assert (report["keys"], report["largest"][0]["key"]) == (1, None)
    else:
        assert report["files"] == 0


def test_damage_that_was_put_aside_is_counted(opened, told):
    d = opened()
    d.update(k=1, whole=2)
    d.path_of("k").write_bytes(b"")
    d.repair()
    report = told("stats")
    assert (report["keys"], report["damaged"], report["other_files"]) == (1, 1, 1)


# --- du ------------------------------------------------------------------------------------------


def expected(infos, prefix, separator, depth):
    """By the definition: each prefix of a key that ends with one of the first separators."""
    found = {}
    for info in infos:
        rest = info.key[len(prefix) :]
        parts = rest.split(separator)[:-1][:depth]
        for number in range(1, len(parts) + 1):
            name = prefix + separator.join([*parts[:number], ""])
            size, files = found.get(name, (0, 0))
            found[name] = size + info.size, files + 1
    return found


@given(
    keys=some.sets(LAYERS.map("".join)),
    prefix=some.sampled_from(["", "a", "a/", "ab"]),
    separator=some.sampled_from(["/", "::", "a"]),
    depth=some.integers(0, 4),
)
def test_prefixes_are_counted_as_defined(module, keys, prefix, separator, depth):
    info = module("upkeep.infos").EntryInfo
    infos = [
        info(key, None, 2**number, None, False)
        for number, key in enumerate(sorted(keys))
        if key.startswith(prefix)
    ]
    found = module("upkeep.usage").usage(infos, prefix, separator, depth)
    by_name = {name: (one.bytes, one.files) for name, one in found.prefixes.items()}
    assert by_name == expected(infos, prefix, separator, depth)
    assert (found.keys.bytes, found.keys.files) == (sum(one.size for one in infos), len(infos))


def test_room_that_the_file_system_does_not_tell(opened, told, printed, module, monkeypatch):
    opened().close()
    unknown = types.SimpleNamespace(f_frsize=4096, f_bavail=0, f_blocks=0, f_files=0, f_favail=0)
    monkeypatch.setattr(module("doctor.room"), "space", lambda path: unknown)
    for name in ("stats", "du"):
        assert printed(name).count("the file system gives no number") == 2
        assert told(name)["free_bytes"] is None


def test_du_of_a_store(opened, told, printed):
    with opened() as d:
        d.update({f"run/{number % 3}/{number}": b"x" * number for number in range(30)}, top=b"")
    sizes = {info.key: info.size for info in d.infos()}
    report = told("du")
    runs = sum(size for key, size in sizes.items() if key != "top")
    assert report["prefixes"] == {"run/": {"bytes": runs, "files": 30}}
    assert (report["bytes"], report["files"]) == (sum(sizes.values()), 31)
    index = list(d.path.glob("_*"))
    assert report["index_files"] == len(index) > 0
    assert report["index_bytes"] == sum(file.stat().st_size for file in index)
    inodes = len({d.path, *d.path.rglob("*")})
    assert report["inodes"] == inodes
    assert report["free_inodes"] is None or report["free_inodes"] <= report["total_inodes"]

    below = told("du", "run/", "--depth", "1")
    assert below["prefixes"].keys() == {"run/0/", "run/1/", "run/2/"}
    assert below["files"] == 30

    lines = printed("du", "-d", "2").splitlines()
    assert [line.split()[-1] for line in lines[1:5]] == ["run/", "run/2/", "run/1/", "run/0/"]
    assert lines[5].endswith("31  all keys")
    column = lines[0].index("prefix")
    assert all(line[column - 2 : column] == "  " != line[column] for line in lines[:6])


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--separator", ""], "separator"),
        (["--depth", "-1"], "depth"),
        (["--depth", "2"], "more than 5 prefixes"),
    ],
)
def test_what_du_refuses(opened, command, module, monkeypatch, arguments, reason):
    monkeypatch.setattr(module("upkeep.usage"), "_MOST", 5)
    opened().update({f"a/{number}/k": number for number in range(5)})
    assert reason in complaint(command("du", *arguments))
    assert command("du", "a/")[0] == 0


def test_a_prefix_of_no_key_is_told(opened, command, told):
    opened()["run/1"] = 1
    assert "none begins with 'rum/'" in complaint(command("du", "rum/"), status=1)
    assert told("du", "rum/")["files"] == 0
    del opened()["run/1"]
    assert command("du")[0] == 0
