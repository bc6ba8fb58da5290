"""Export, import and copy: what arrives, what is refused, what an interruption leaves."""

from __future__ import annotations

import importlib
import io
import json
import os
import pickle
import tarfile
import threading

import pytest

PAIRS = {f"k{number}": ("value", number, "x" * (number % 300)) for number in range(300)}


@pytest.fixture
def store(nfsdict, tmp_path):
    """Open the store of this name."""
    return lambda name, serializer="pickle", **options: nfsdict.NfsDict(
        name, tmp_path, serializer, **options
    )


@pytest.fixture
def archive(store):
    """Write a store with these pairs, and return its archive."""

    def archive(pairs, serializer="pickle"):
        source = store("source", serializer)
        source.update(pairs)
        return exported(source)

    return archive


def exported(source, **options):
    file = io.BytesIO()
    report = source.export_to(file, **options)
    assert not report.failed
    return file.getvalue()


def import_of(destination, data, **options):
    return destination.import_from(io.BytesIO(data), **options)


class Pipe(io.BytesIO):
    """What can't be read twice."""

    def seekable(self):
        return False

    def seek(self, *_):
        raise io.UnsupportedOperation


def counts(report):
    return report.written, report.same, report.kept


def snapshot(path):
    return {
        file: (status.st_ino, status.st_mtime_ns, status.st_ctime_ns)
        for file in path.rglob("*")
        for status in [file.stat()]
    }


# --- round trips -----------------------------------------------------------------------------


def test_ten_thousand_entries_arrive_and_are_the_same_afterwards(store):
    pairs = {f"k{number}": (number, "x" * (number % 90)) for number in range(10_000)}
    source, destination = store("source", durable=False), store("destination", durable=False)
    source.update(pairs)
    data = exported(source)
    assert counts(import_of(destination, data)) == (10_000, 0, 0)
    destination["k7"] = "other"
    del destination["k8"]
    assert counts(import_of(destination, data)) == (2, 9_998, 0)
    assert dict(store("destination")) == pairs


@pytest.mark.parametrize("serializer", ["pickle", "json", "bytes", "buffers", "signed", "own"])
def test_each_serializer_writes_archives_that_it_reads(nfsdict, store, serializer):
    class Own:
        extension = ".own"
        dumps = staticmethod(lambda pair: repr(pair).encode())
        loads = staticmethod(lambda data: eval(data))

    known = {"signed": nfsdict.signed(key=bytes(16)), "own": Own()}
    serializer = known.get(serializer, serializer)
    pairs = {"": b"", "ä\n": b"x" * 300_000, "\ud800": b"y"}
    if serializer == "json":
        pairs = {key: value.decode() for key, value in pairs.items()}
    source = store("source", serializer)
    source.update(pairs)
    destination = store("destination", serializer)
    assert counts(import_of(destination, exported(source))) == (3, 0, 0)
    assert dict(store("destination", serializer)) == pairs
    files = [
        {one.name: one.read_bytes() for one in each.path.glob("??/*")}
        for each in (source, destination)
    ]
    assert files[0] == files[1]


def test_what_is_the_same_is_not_written(store, archive):
    data = archive(PAIRS)
    destination = store("destination")
    import_of(destination, data)
    before = snapshot(destination.path)
    assert counts(import_of(destination, data)) == (0, 300, 0)
    assert counts(destination.copy_from(store("source"))) == (0, 300, 0)
    assert snapshot(destination.path) == before


def test_two_archives_of_one_store_are_the_same(store, archive):
    data = archive(PAIRS)
    assert exported(store("source", lazy=True, read_only=True)) == data
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        names = tar.getnames()
    assert names == sorted(names, key=lambda name: (name == ".nfsdict-archive-end", name))


def test_tar_makes_a_store_of_it(store, archive, tmp_path):
    with tarfile.open(fileobj=io.BytesIO(archive(PAIRS))) as tar:
        for member in tar:
            (tmp_path / "by tar" / member.name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "by tar" / member.name).write_bytes(tar.extractfile(member).read())
    opened = store("by tar")
    assert dict(opened) == PAIRS
    assert len(opened.repair(grace=-1).removed) == 2
    assert {one.name for one in opened.path.iterdir() if one.name.startswith(".")} == set()


def test_an_export_reads_what_others_replace_whole(store):
    source = store("source", durable=False)
    source.update({f"still{number}": number for number in range(300)})
    source.update({f"moving{number}": (0, [0] * 50) for number in range(100)})
    ended = threading.Event()

    def write():
        other, turn = store("source", lazy=True, durable=False), 0
        while not ended.is_set():
            turn += 1
            for number in range(0, 100, 7):
                other[f"moving{number}"] = turn, [turn] * (50 + turn % 50)
                other[f"new{turn}"] = turn
                del other[f"new{turn}"]

    writer = threading.Thread(target=write)
    writer.start()
    try:
        archives = [exported(source) for _ in range(3)]
    finally:
        ended.set()
        writer.join()
    for number, data in enumerate(archives):
        found = store(f"copy{number}")
        import_of(found, data)
        assert {key for key in found if not key.startswith("new")} == set(source)
        for one in range(100):
            turn, values = found[f"moving{one}"]
            assert set(values) == {turn}


def test_what_is_gone_before_it_is_read_is_no_entry(store, monkeypatch):
    source = store("source")
    source.update({"a": 1, "b": 2})
    shards = importlib.import_module("nfsdict.storage.shards").Shards
    listed = shards.list

    def then_removed(self, shard):
        listing = listed(self, shard)
        source.path_of("a").unlink(missing_ok=True)
        return listing

    monkeypatch.setattr(shards, "list", then_removed)
    file = io.BytesIO()
    report = source.export_to(file)
    assert (report.entries, report.failed) == (1, {})


def test_what_cannot_be_read_is_left_out_and_named(store, monkeypatch):
    source = store("source")
    source.update({"a": 1, "damaged": 2, "undecodable": 3})
    source.path_of("damaged").write_bytes(b"\x80")
    source.path_of("undecodable").write_bytes(
        pickle.dumps(("undecodable", 3), 3).replace(b"K\x03", b"cno_such_module\nC\n")
    )
    file = io.BytesIO()
    report = source.export_to(file)
    assert report.entries == 1
    assert set(report.failed) == {str(source.path_of(key)) for key in ("damaged", "undecodable")}
    assert "no_such_module" in report.failed[str(source.path_of("undecodable"))]
    destination = store("destination")
    assert counts(import_of(destination, file.getvalue())) == (1, 0, 0)
    copied = store("copied").copy_from(source)
    assert counts(copied) == (1, 0, 0) and copied.failed == report.failed


def test_reading_a_store_writes_nothing_and_fills_no_cache(store, archive):
    archive(PAIRS)
    opened = store("source", lazy=True, read_only=True)
    before = snapshot(opened.path)
    exported(opened)
    store("copy").copy_from(opened)
    assert snapshot(opened.path) == before
    assert not opened._cache


def test_an_import_fills_no_cache_and_what_was_cached_is_replaced(store, archive):
    data = archive({"k": "new"})
    destination = store("destination")
    destination["k"] = "old"
    import_of(destination, data)
    assert destination["k"] == "new"
    missing = importlib.import_module("nfsdict.core").MISSING
    assert import_of(store("other"), data).written == 1
    other = store("third")
    import_of(other, data)
    assert other._cache == {"k": missing}


# --- what is there already -------------------------------------------------------------------


def test_existing_keys_are_kept(store, archive):
    data = archive({"a": 1, "b": 2, "c": 3})
    destination = store("destination")
    destination.update({"a": "mine", "own": 0})
    assert counts(import_of(destination, data, keep_existing=True)) == (2, 0, 1)
    assert dict(store("destination")) == {"a": "mine", "own": 0, "b": 2, "c": 3}
    assert counts(import_of(destination, data, keep_existing=True)) == (0, 0, 3)


def test_keys_that_others_create_meanwhile_are_kept(store, archive, monkeypatch):
    data = archive({"a": 1, "b": 2})
    destination, other = store("destination"), store("destination")
    writing = importlib.import_module("nfsdict.upkeep.writing")
    there = writing.Writing._there

    def slow(self, batch):
        found = there(self, batch)
        other["a"] = "theirs"
        return found

    monkeypatch.setattr(writing.Writing, "_there", slow)
    assert counts(import_of(destination, data, keep_existing=True)) == (1, 0, 1)
    assert dict(store("destination")) == {"a": "theirs", "b": 2}


@pytest.mark.parametrize(("keep", "value"), [(False, 2), (True, 1)])
def test_of_a_key_that_comes_twice(store, keep, value):
    lines = b'{"key": "a", "value": 1}\n\n{"value": 2, "key": "a"}'
    destination = store("s", "json")
    report = import_of(destination, lines, keep_existing=keep, jsonl=True)
    assert report.written + report.kept == 2
    assert dict(store("s", "json")) == {"a": value}


def test_one_entry_that_cannot_be_written_costs_itself(nfsdict, store, archive):
    data = archive(PAIRS)
    for keep in (False, True):
        destination = store(f"destination{keep}")
        destination.path_of("k5").mkdir(parents=True)
        with pytest.raises(nfsdict.BatchError) as failure:
            import_of(destination, data, keep_existing=keep)
        assert set(failure.value.failed) == {"k5"}
        assert len(store(f"destination{keep}")) == 299


def test_an_interrupted_import_is_run_again_for_the_rest(store, archive, monkeypatch):
    monkeypatch.setattr(importlib.import_module("nfsdict.upkeep.writing"), "_ENTRIES", 50)
    data = archive(PAIRS)

    class Interrupted(Pipe):
        def read(self, size):
            if self.tell() > len(data) // 2:
                raise KeyboardInterrupt
            return super().read(size)

    destination = store("destination")
    with pytest.raises(KeyboardInterrupt):
        destination.import_from(Interrupted(data))
    done = len(list(destination.path.glob("??/*.pkl")))
    assert 0 < done < 300 and done % 50 == 0
    assert counts(import_of(destination, data)) == (300 - done, done, 0)
    assert dict(store("destination")) == PAIRS


def test_a_read_only_dictionary_takes_nothing(nfsdict, store, archive):
    data = archive(PAIRS)
    store("destination")
    destination = store("destination", read_only=True)
    for call in (
        lambda: import_of(destination, data),
        lambda: import_of(destination, b"", jsonl=True),
        lambda: destination.copy_from({"a": 1}),
    ):
        with pytest.raises(nfsdict.ReadOnlyError):
            call()


@pytest.mark.parametrize("source", [3, None, "path", [("a", 1)]])
def test_a_source_that_is_no_mapping(store, source):
    destination = store("destination")
    with pytest.raises(TypeError, match="neither an NfsDict nor a mapping"):
        destination.copy_from(source)
    assert dict(destination) == {}


# --- archives that aren't whole, or aren't ours ----------------------------------------------


def test_of_a_file_that_is_cut_short_nothing_is_taken(nfsdict, store, archive, monkeypatch):
    monkeypatch.setattr(importlib.import_module("nfsdict.upkeep.writing"), "_ENTRIES", 1)
    data = archive({"a": 1, "b": 2, "c": "x" * 2000})
    destination = store("destination", lazy=True)
    for end in range(0, len(data) - 1024, 256):
        with pytest.raises(nfsdict.ArchiveError, match=r"cut short|no archive"):
            import_of(destination, data[:end])
    assert not list(destination.path.glob("??/*"))


def test_of_a_pipe_that_is_cut_short_it_is_told_what_was_taken(
    nfsdict, store, archive, monkeypatch
):
    monkeypatch.setattr(importlib.import_module("nfsdict.upkeep.writing"), "_ENTRIES", 50)
    data = archive(PAIRS)
    destination = store("destination")
    with pytest.raises(nfsdict.ArchiveError, match="250 entries were taken over before that"):
        destination.import_from(Pipe(data[: -3 * 1024]))
    assert len(store("destination")) == 250


def test_each_byte_counts(nfsdict, archive):
    module = importlib.import_module("nfsdict.upkeep.archive")
    data = bytearray(archive({"a": 1, "b": "x" * 700}))
    whole = list(module.Archive(io.BytesIO(data)))
    unseen = 0
    for position in range(len(data)):
        data[position] ^= 0x81
        try:
            assert list(module.Archive(io.BytesIO(data))) == whole
            unseen += 1
        except nfsdict.ArchiveError:
            pass
        data[position] ^= 0x81
    # Between a member's end and the next block, after the end, and in JSON's blanks.
    padding = sum(-len(one.data) % 512 for one in whole) + 2 * 512 + 1024
    assert padding - 300 < unseen <= padding


def header(name, kind=tarfile.REGTYPE, size=0, **fields):
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    for field, value in fields.items():
        setattr(info, field, value)
    return info.tobuf(tarfile.GNU_FORMAT)


A = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"  # of the key "a"
VALUE = f"ca/{A}.pkl"
# Where nothing else is said, "no export writes".
HOSTILE = {
    "above": header("../outside"),
    "absolute": header("/outside"),
    "above a shard": header(f"../{VALUE}"),
    "another shard": header(f"aa/{A}.pkl"),
    "capitals": header(f"ca/{A.upper()}.pkl"),
    "another extension": header(f"ca/{A}.json"),
    "an index": header("_index.nfsdict-pkl"),
    "a symbolic link": header(VALUE, tarfile.SYMTYPE, linkname="/etc/passwd"),
    "a hard link": header(VALUE, tarfile.LNKTYPE, linkname="/etc/passwd"),
    "a device": header(VALUE, tarfile.CHRTYPE, devmajor=1, devminor=3),
    "a block device": header(VALUE, tarfile.BLKTYPE, devmajor=8),
    "a fifo": header(VALUE, tarfile.FIFOTYPE),
    "a directory": header("ca/", tarfile.DIRTYPE),
    "a sparse file": header(VALUE, tarfile.GNUTYPE_SPARSE, 1 << 40),
    "a long name": header("././@LongLink", tarfile.GNUTYPE_LONGNAME, 1 << 40),
    "an extended header": header("x", tarfile.XHDTYPE, 1 << 40),
    "a global header": header("x", tarfile.XGLTYPE, 100),
    "an unknown type": header(VALUE, b"\xff"),
    "a terabyte: cut short": header(VALUE, size=1 << 40),
    "no size": header(VALUE, size=-5),
    "zeros: damaged": bytes(1024),
    "noise: damaged": os.urandom(512),
    "a second beginning": header(".nfsdict-archive"),
    "a long end: no JSON": header(".nfsdict-archive-end", size=1 << 40),
    "an end of brackets: no JSON": header(".nfsdict-archive-end", size=4000) + b"[" * 4096,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_members_that_no_export_writes_are_refused(nfsdict, store, archive, tmp_path, name):
    whole = archive({"b": 2})
    begin = 1024  # the first member: a header and a block
    hostile = whole[:begin] + HOSTILE[name] + whole[begin:]
    destination = store("destination", lazy=True)
    before = snapshot(tmp_path)
    for kind in (io.BytesIO, Pipe):
        with pytest.raises(
            nfsdict.ArchiveError, match=name.partition(": ")[2] or "no export writes"
        ):
            destination.import_from(kind(hostile))
    assert snapshot(tmp_path) == before


def test_a_value_under_the_name_of_another_key_is_left_out(nfsdict, store, archive):
    module = importlib.import_module("nfsdict.upkeep.archive")
    [member] = module.Archive(io.BytesIO(archive({"b": 2})))
    file = io.BytesIO()
    writer = module.ArchiveWriter(file, ".pkl")
    writer.add(member.hexdigest, member.data, 0)
    writer.add(A, member.data, 0)
    writer.add("0" * 64, b"\x80", 0)
    writer.end()
    destination = store("destination")
    report = import_of(destination, file.getvalue())
    assert counts(report) == (1, 0, 0)
    assert "another key" in report.failed[f"{A}.pkl"]
    assert set(report.failed) == {f"{A}.pkl", "0" * 64 + ".pkl"}
    assert dict(store("destination")) == {"b": 2}


def test_what_is_no_archive(nfsdict, store, archive):
    whole = archive({"b": 2})
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as opened:
        opened.addfile(tarfile.TarInfo(VALUE))
    later = whole.replace(b'"format": 1', b'"format": 2')
    odd = whole.replace(b'".pkl"', b'"/../"')
    for data in (b"", b"text", tar.getvalue(), later, odd, whole[1024:]):
        with pytest.raises(nfsdict.ArchiveError, match="archive"):
            import_of(store("destination"), data)


def test_an_archive_of_another_serializer_is_refused(nfsdict, store, archive):
    data = archive({"b": 2}, "json")
    with pytest.raises(nfsdict.ArchiveError, match=r"\.json files.*serializer='json'"):
        import_of(store("destination"), data)


def test_an_extension_that_no_header_holds_is_refused(store):
    class Own:
        dumps = staticmethod(lambda pair: repr(pair).encode())
        loads = staticmethod(lambda data: eval(data))

    for length in (33, 34):
        own = Own()
        own.extension = "." + "x" * (length - 1)
        source = store(f"s{length}", own)
        source["a"] = 1
        if length == 33:
            assert import_of(store("d", own), exported(source)).written == 1
        else:
            with pytest.raises(ValueError, match="33 characters"):
                exported(source)


# --- lines of JSON ---------------------------------------------------------------------------


def test_lines_of_json_both_ways(nfsdict, store):
    pairs = {"": None, "ä": ["ü", 1.5], "\ud800": {"\udc00": "\ud83d\ude00"}, "\ud83d\ude00": 2}
    source = store("source", nfsdict.json_format(indent=2))
    source.update(pairs)
    data = exported(source, jsonl=True)
    assert data.count(b"\n") == 4
    destination = store("destination", "json")
    assert counts(import_of(destination, data, jsonl=True)) == (4, 0, 0)
    assert dict(store("destination", "json")) == pairs
    assert counts(import_of(destination, data, jsonl=True)) == (0, 4, 0)


def test_nan_in_json_is_left_out_both_ways(store):
    destination = store("destination", "json")
    lines = b'{"key": "a", "value": NaN}\n{"key": "b", "value": 1}\n'
    report = import_of(destination, lines, jsonl=True)
    assert (report.written, report.failed.keys()) == (1, {"a"})
    destination.path_of("b").write_bytes(b'["b", NaN]')  # as release 0.2.1 did
    report = destination.export_to(io.BytesIO(), jsonl=True)
    assert (report.entries, report.failed.keys()) == (0, {str(destination.path_of("b"))})


@pytest.mark.parametrize(
    ("line", "about"),
    [
        (b'{"key": "b", "value": 1', "line 2: no JSON"),
        (b'{"key": "b"}', 'line 2 is no object of "key" and "value"'),
        (b'{"key": "b", "value": 1, "more": 2}', "line 2 is no object"),
        (b'["b", 1]', "line 2 is no object"),
        (b'{"key": 1, "value": 1}', "line 2: its key is no text"),
        (b'{"key": "b", "value": \xff}', "line 2: no JSON"),
        (b"[" * 100_000, "line 2: "),
    ],
)
def test_other_lines_are_refused(nfsdict, store, line, about):
    destination = store("destination", "json")
    with pytest.raises(nfsdict.ArchiveError, match=about):
        import_of(destination, b'{"key": "a", "value": 1}\n' + line, jsonl=True)
    assert len(store("destination", "json")) == 0


def test_lines_of_json_are_for_stores_of_json(store, archive):
    archive(PAIRS)
    with pytest.raises(ValueError, match=r"\.pkl"):
        exported(store("source"), jsonl=True)
    with pytest.raises(ValueError, match=r"\.pkl"):
        import_of(store("source"), b"", jsonl=True)


# --- copies ----------------------------------------------------------------------------------


def test_a_copy_between_serializers_names_what_it_cannot_write(store):
    source = store("source")
    source.update({"a": [1], "b": "text", "set": {1}, "nan": float("nan")})
    destination = store("destination", "json")
    report = destination.copy_from(source)
    assert counts(report) == (2, 0, 0)
    assert report.failed.keys() == {str(source.path_of(key)) for key in ("set", "nan")}
    assert "'set'" in report.failed[str(source.path_of("set"))]
    assert counts(destination.copy_from(source)) == (0, 2, 0)
    assert dict(store("destination", "json")) == {"a": [1], "b": "text"}


def test_a_copy_to_the_same_serializer_has_the_same_bytes(nfsdict, store):
    source, destination = store("source"), store("destination")
    source["plain"] = 1
    source.path_of("plain").write_bytes(pickle.dumps(("plain", 2), 2))  # as others may write it
    assert counts(destination.copy_from(source)) == (1, 0, 0)
    assert destination.path_of("plain").read_bytes() == source.path_of("plain").read_bytes()
    signed = store("signed", nfsdict.signed(key=b"1" * 16))
    signed.copy_from(source)
    other = store("other", nfsdict.signed(key=b"2" * 16))
    assert counts(other.copy_from(signed)) == (1, 0, 0)  # signed anew
    assert dict(store("other", nfsdict.signed(key=b"2" * 16))) == {"plain": 2}


def test_a_copy_of_any_mapping(nfsdict, store):
    class Failing(dict):
        def __getitem__(self, key):
            if key == "exit":
                raise SystemExit
            return 1 // super().__getitem__(key)

    destination = store("destination")
    report = destination.copy_from(Failing({"a": 1, "zero": 0, 5: 1, "exit": 1}))
    assert counts(report) == (1, 0, 0)
    assert report.failed.keys() == {"zero", "5", "exit"}
    assert dict(store("destination")) == {"a": 1}


def test_a_store_is_not_copied_into_itself(store):
    source = store("source")
    for serializer in ("pickle", "json"):
        with pytest.raises(ValueError, match="the same"):
            store("source", serializer, lazy=True).copy_from(source)


def test_the_wrong_serializer_of_either_is_an_error(nfsdict, store, archive):
    archive(PAIRS, "json")
    for call in (
        lambda: store("source", lazy=True).export_to(io.BytesIO()),
        lambda: store("source", lazy=True).copy_from({"a": 1}),
        lambda: store("destination").copy_from(store("source", lazy=True)),
    ):
        with pytest.raises(nfsdict.WrongSerializerError):
            call()
    assert json.loads(next(store("source", "json").path.glob("??/*")).read_bytes())


@pytest.mark.parametrize("jsonl", [False, True])
def test_a_path_is_no_open_file(store, tmp_path, jsonl):
    d = store("source", "json")
    path = tmp_path / "file"
    for file in (path, str(path), None):
        with pytest.raises(TypeError, match=r"open\(path, 'wb'\)"):
            d.export_to(file, jsonl=jsonl)
        with pytest.raises(TypeError, match=r"open\(path, 'rb'\)"):
            d.import_from(file, jsonl=jsonl)
    assert not path.exists()
