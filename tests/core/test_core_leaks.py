"""No call of the core keeps memory, descriptors or threads, nor does one that fails."""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import sys

import pytest

from support.growth import growth, settled
from support.proof import FACTOR


@pytest.fixture(scope="module", autouse=True)
def nothing_else():
    with settled():
        yield


NOBODY = 65534


def assert_no_growth(call, count):
    assert growth(call, count * FACTOR) == {}


def refused(error, call, *arguments, **options):
    """Do what raises."""
    try:
        call(*arguments, **options)
    except error:
        return
    raise AssertionError(f"{error} was not raised")


# --- the core: memory ------------------------------------------------------------------------

ONE = ((1, 1 << 62), ["k", "é\ud800", "x" * 600], bytes(96), bytes(12), 5, 6)
SHARDS = [ONE, *[((0, 0), [], b"", b"", 0, 0)] * 255]
LENGTHS = struct.pack("<3I", 3, 0xFFFFFFFF, 600)
SECTION = bytes(603)


class Damaged:
    """Tables that can't be read: each stops the parser elsewhere."""

    def __init__(self, table):
        head, n, t = 40, 3, struct.unpack_from("<Q", table, 20)[0]
        key_lengths = head + 36 * n
        text = key_lengths + 4 * n
        self.short = table[:-1]
        self.inside = table[: text + 1]
        self.longer = table + b"\0"
        self.key_too_long = table[:key_lengths] + b"\xff" + table[key_lengths + 1 :]
        self.left_over = table[: text - 4] + struct.pack("<I", 1) + table[text:]
        self.no_text = table[: text + 1] + b"\xff" + table[text + 2 :]
        self.no_text_at_the_end = table[: text + t - 1] + b"\xff" + table[text + t :]


def cache_of(core):
    """A cache in the state that makes each way through it possible."""

    class Cache(core.ReadCache):
        def _lookup(self, key, fresh, /):
            if key == "broken":
                raise OSError(errno.EIO, "")
            return core.MISSING if key == "gone" else [key]

        def _exists(self, key, /):
            if key == "broken":
                raise OSError(errno.EIO, "")
            return key != "gone"

    cache = Cache()
    cache._cache.update({"k": [1], "unloaded": core.MISSING})
    return cache


class BrokenTruth:
    def __bool__(self):
        raise ZeroDivisionError


COMPUTING = {
    "digest": lambda w: w.core.digest("k"),
    "digest of other letters": lambda w: w.core.digest("é\ud800" * 500),
    "digest of a number": lambda w: refused(TypeError, w.core.digest, 1),
    "path": lambda w: w.core.value_path("/d", "k", ".pkl"),
    "path of other letters": lambda w: w.core.value_path("/é\udc80", "ü", ".é"),
    "path of a number": lambda w: refused(TypeError, w.core.value_path, "/d", 1, ".pkl"),
    "path in none": lambda w: refused(TypeError, w.core.value_path, None, "k", ".pkl"),
    "a cache": lambda w: cache_of(w.core),
    "hit": lambda w: (w.cache["k"], w.cache.get("k"), "k" in w.cache),
    "miss": lambda w: (w.cache["unloaded"], w.cache.get("new"), "new" in w.cache),
    "fresh": lambda w: (w.cache.get("k", fresh=True), w.cache.get("gone", [], fresh=True)),
    "absent": lambda w: (refused(KeyError, w.cache.__getitem__, "gone"), "gone" in w.cache),
    "broken": lambda w: [
        refused(OSError, call, "broken")
        for call in (w.cache.__getitem__, w.cache.get, w.cache.__contains__)
    ],
    "no key": lambda w: [
        refused(TypeError, call, []) for call in (w.cache.__getitem__, w.cache.get)
    ],
    "no truth": lambda w: refused(ZeroDivisionError, w.cache.get, "k", fresh=BrokenTruth()),
    "encode": lambda w: w.core.encode_table(SHARDS),
    "encode too few": lambda w: refused(ValueError, w.core.encode_table, SHARDS[1:]),
    "encode what doesn't match": lambda w: refused(
        ValueError, w.core.encode_table, [ONE] * 255 + [((0, 0), ["k"], b"", bytes(4), 0, 0)]
    ),
    "encode no key": lambda w: refused(
        TypeError, w.core.encode_table, [ONE] * 255 + [((0, 0), [b"k"], bytes(32), bytes(4), 0, 0)]
    ),
    "encode what is too large": lambda w: refused(
        OverflowError, w.core.encode_table, [ONE] * 255 + [((0, 0), [], b"", b"", 0, 1 << 32)]
    ),
    "encode no shard": lambda w: refused(ValueError, w.core.encode_table, [ONE] * 255 + [()]),
    "parse": lambda w: w.core.parse_table(w.table),
    "parse no bytes": lambda w: refused(TypeError, w.core.parse_table, "table"),
    "split": lambda w: w.core.split_values(SECTION, LENGTHS),
    "split too little": lambda w: refused(ValueError, w.core.split_values, SECTION[1:], LENGTHS),
    "split too much": lambda w: refused(ValueError, w.core.split_values, SECTION * 2, LENGTHS),
    "split oddly": lambda w: refused(ValueError, w.core.split_values, SECTION, LENGTHS[:-1]),
}
for _cut in vars(Damaged(bytes(8192))):
    COMPUTING[f"parse {_cut}"] = lambda w, cut=_cut: refused(
        ValueError, w.core.parse_table, getattr(w.damaged, cut)
    )


class World:
    def __init__(self, core):
        self.core = core
        self.cache = cache_of(core)
        self.table = core.encode_table(SHARDS)
        self.damaged = Damaged(self.table)


@pytest.mark.parametrize("operation", COMPUTING)
def test_computing(nfsdict, core, operation):
    world = World(core)
    large = "encode" in operation or "parse" in operation
    assert_no_growth(lambda: COMPUTING[operation](world), 50 if large else 500)


# --- the core: files -------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path):
    """One of each kind; paths as text."""
    (tmp_path / "file").write_bytes(bytes(1000))
    (tmp_path / "large").write_bytes(bytes(300_000))
    (tmp_path / "directory").mkdir()
    for number in range(40):
        (tmp_path / "directory" / f"file {number} {'é' * number}").touch()
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "exabytes").touch()
    with contextlib.suppress(OSError):  # as large as the file system takes
        for bits in range(30, 62):
            os.truncate(tmp_path / "exabytes", 1 << bits)
    return lambda name: str(tmp_path / name)


def reading(core, place, names, wanted):
    paths = list(map(place, names))

    def read():
        outcomes = core.read_files(paths)
        assert [one if isinstance(one, int) else 0 for one in outcomes] == wanted

    return read


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["file"], [0]),
        (["large"], [0]),
        (["gone"], [errno.ENOENT]),
        (["directory"], [errno.EISDIR]),
        (["link"], [errno.ELOOP]),
        (["fifo"], [errno.ENXIO]),
        (["exabytes"], [errno.ENOMEM]),
        (["file", "gone", "large", "fifo", "file"], [0, errno.ENOENT, 0, errno.ENXIO, 0]),
    ],
    ids=str,
)
def test_reading(nfsdict, core, place, names, wanted):
    assert_no_growth(reading(core, place, names, wanted), 200)


@pytest.mark.skipif(sys.platform != "linux", reason="a file of Linux's that can't be read")
def test_reading_what_can_be_opened_and_not_read(nfsdict, core):
    def read():
        assert core.read_files(["/sys/class/net/lo/speed"]) == [errno.EINVAL]

    assert_no_growth(read, 200)


@pytest.mark.parametrize(("last", "error"), [("a\0b", ValueError), (1, TypeError)])
def test_no_paths(nfsdict, core, place, last, error):
    paths = [place("file")] * 5 + [last]
    BOTH = (ValueError, TypeError)
    assert_no_growth(lambda: refused(error, core.read_files, paths), 200)
    assert_no_growth(lambda: refused(BOTH, core.read_stamps, paths), 200)
    assert_no_growth(lambda: refused(error, core.list_directory, last, True), 200)
    assert_no_growth(lambda: refused(error, core.list_changes, last, 1, [], b"", ".pkl"), 200)
    assert_no_growth(lambda: refused(error, core.identify, last), 200)
    files = [(path, b"data") for path in paths[-1:]]
    assert_no_growth(lambda: refused(BOTH, core.write_file, *files[0], None, False, False), 200)
    assert_no_growth(lambda: refused(BOTH, core.write_files, files, None, 0, 0, 0), 200)


@pytest.mark.parametrize("name", ["directory", "gone", "file", "link"])
def test_looking_and_listing(nfsdict, core, place, name):
    assert_no_growth(lambda: core.read_stamps([place(name)] * 3), 200)
    assert_no_growth(lambda: core.identify(place(name)), 200)
    keys, signatures = ["a", "b"], bytes(64)
    for forget in (0, 1, 2):
        assert_no_growth(lambda forget=forget: core.list_directory(place(name), forget), 100)
        assert_no_growth(
            lambda forget=forget: core.list_changes(place(name), forget, keys, signatures, ".pkl"),
            100,
        )
    for wrong, error in ((["a"], ValueError), (["a", 1], TypeError), (None, TypeError)):
        assert_no_growth(
            lambda wrong=wrong, error=error: refused(
                error, core.list_changes, place(name), 1, wrong, signatures, ".pkl"
            ),
            100,
        )


@contextlib.contextmanager
def as_nobody():
    """Without root's right to pass over permissions."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_a_listing_that_fails_half_way(nfsdict, core, tmp_path, monkeypatch):
    """Names may be read there, attributes may not."""
    inside = tmp_path / "inside"
    inside.mkdir()
    for number in range(40):
        (inside / f"file {number}").touch()
    os.chmod(inside, 0o444)
    # The directories above are pytest's own, and only for the user that runs it.
    monkeypatch.chdir(tmp_path)

    def fail():
        assert core.list_directory("inside", False) == errno.EACCES

    os.chmod(tmp_path, 0o755)
    with as_nobody():
        assert_no_growth(fail, 200)


WRITTEN = {
    "written": ("file", None, False, False, 0),
    "durable": ("file", None, True, True, 0),
    "with a mode": ("file", 0o640, False, False, 0),
    "no directory": ("gone/file", None, True, False, errno.ENOENT),
    "no directory to sync": ("gone/file", None, True, True, errno.ENOENT),
    "a file for a directory": ("file/file", None, True, True, errno.ENOTDIR),
    "over a directory": ("directory", None, False, False, errno.EISDIR),
    "over a directory, synced": ("directory", None, False, True, errno.EISDIR),
}


@pytest.mark.parametrize("case", WRITTEN)
def test_writing(nfsdict, core, place, case):
    name, mode, durable, synced, wanted = WRITTEN[case]

    def check(outcome):
        assert isinstance(outcome, bytes) if wanted == 0 else outcome[1] == wanted

    def write():
        check(core.write_file(place(name), bytes(2000), mode, durable, synced))
        for outcome in core.write_files(
            [(place(name), b"data")] * 2 + [(place("other"), b"")], mode, durable, synced, False
        )[:2]:
            check(outcome)

    assert_no_growth(write, 20 if durable else 100)


def test_writing_in_two_halves(nfsdict, core, place):
    def write():
        files = [(place("one"), b"data"), (place("missing/two"), b"data")]
        made = []
        core.prepare_files(files, made, None, False)
        first, second = made
        assert second == errno.ENOENT
        pairs = [(first[0], place("one")), (place("none"), place("missing/two"))]
        done, failed = core.publish_files(pairs, False)
        assert done is None and failed[1] == errno.ENOENT

    assert_no_growth(write, 100)


def test_linking(nfsdict, core, place):
    def link():
        target = place("once")
        outcomes = core.write_files([(target, b"data")] * 2, None, False, False, True)
        assert outcomes[1] == (1, errno.EEXIST)
        os.unlink(target)

    assert_no_growth(link, 150)


def test_writing_no_bytes(nfsdict, core, place):
    def write(data):
        files = [(place("a"), b"data"), (place("b"), data)]
        refused(TypeError, core.write_files, files, None, False, False, False)

    for data in (None, "text", 1):
        assert_no_growth(lambda data=data: write(data), 100)
