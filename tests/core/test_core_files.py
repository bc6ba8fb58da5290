"""The core's files: read, written and listed alike by both twins, and as the contract says."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import resource
import socket
import stat
import struct
import tempfile
import threading
from array import array
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.needed import needed
from support.twins import agreed

SIGNATURE = struct.Struct("<QQqq")


def digest(key):
    return hashlib.sha256(key.encode()).hexdigest()


# --- reading files ------------------------


def signature_of(path):
    status = os.lstat(path)
    return SIGNATURE.pack(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def assert_written(signature, path):
    """The file's, from before it got its name: that sets its ctime."""
    *written, ctime = SIGNATURE.unpack(signature)
    *found, later = SIGNATURE.unpack(signature_of(path))
    assert written == found and ctime <= later


@pytest.fixture
def zoo(tmp_path):
    """One path of each kind."""
    (tmp_path / "regular").write_bytes(b"content\0\xff")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "directory").mkdir()
    (tmp_path / "link").symlink_to("regular")
    (tmp_path / "dangling").symlink_to("nothing")
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as made:
        # Its path must be short, and that of a test's directory isn't.
        with tempfile.TemporaryDirectory(dir="/tmp") as short:
            made.bind(f"{short}/s")
            os.rename(f"{short}/s", tmp_path / "socket")
        yield tmp_path


def test_read_files(twins, zoo):
    expected = {
        "regular": (b"content\0\xff", signature_of(zoo / "regular")),
        "empty": (b"", signature_of(zoo / "empty")),
        "missing": errno.ENOENT,
        "directory": errno.EISDIR,
        "link": errno.ELOOP,
        "dangling": errno.ELOOP,
        "fifo": errno.ENXIO,  # and doesn't wait for a writer
        "regular/below": errno.ENOTDIR,
        "x" * 300: errno.ENAMETOOLONG,
    }
    paths = [str(zoo / name) for name in expected]
    assert agreed(twins, lambda twin: twin.read_files(paths)) == list(expected.values())
    assert agreed(twins, lambda twin: twin.read_files([])) == []
    [number] = agreed(twins, lambda twin: twin.read_files([str(zoo / "socket")]))
    assert number in (errno.ENXIO, errno.EOPNOTSUPP)


def test_reading_keeps_no_descriptor(twins, zoo):
    paths = [str(path) for path in zoo.iterdir()]
    before = os.open(zoo, os.O_RDONLY)
    os.close(before)
    for twin in twins:
        twin.read_files(paths * 3)
    after = os.open(zoo, os.O_RDONLY)
    os.close(after)
    assert after == before


@pytest.mark.parametrize(
    ("paths", "error"),
    [
        (["a\0b"], ValueError),
        (["é\0"], ValueError),
        ([None], TypeError),
        (None, TypeError),
        (["\ud800"], UnicodeError),
    ],
)
def test_read_files_refuses(twins, paths, error):
    assert issubclass(agreed(twins, lambda twin: twin.read_files(paths)), error)


# --- directories ------------------------


def times_of(path):
    status = os.stat(path)
    return status.st_mtime_ns, status.st_ctime_ns


def test_read_stamps(twins, zoo):
    os.utime(zoo / "directory", ns=(1, 1_234_567_890_123_456_789))
    (zoo / "way").symlink_to("directory")
    expected = {
        "directory": times_of(zoo / "directory"),
        "way": times_of(zoo / "directory"),
        "missing": errno.ENOENT,
        "regular": errno.ENOTDIR,
        "regular/below": errno.ENOTDIR,
        "fifo": errno.ENOTDIR,
        "dangling": errno.ENOENT,
        "": times_of(zoo),
    }
    assert expected["directory"][0] == 1_234_567_890_123_456_789
    paths = [str(zoo / name) for name in expected]
    assert agreed(twins, lambda twin: twin.read_stamps(paths)) == list(expected.values())
    assert agreed(twins, lambda twin: twin.read_stamps([])) == []


def test_times_before_1970(twins, zoo):
    os.utime(zoo / "directory", ns=(-1_500_000_000, -1_500_000_000))
    [(mtime, _)] = agreed(twins, lambda twin: twin.read_stamps([str(zoo / "directory")]))
    assert mtime == -1_500_000_000


@pytest.mark.parametrize("forget", [0, 1, 2, 3])
def test_list_directory(twins, zoo, forget):
    (zoo / os.fsdecode(b"no \xff utf-8")).write_bytes(b"x")
    status = {name: os.lstat(zoo / name) for name in os.listdir(zoo)}
    assert len(status) == 8

    def listed(twin):
        mtime, ctime, entries = twin.list_directory(str(zoo), forget)
        return mtime, ctime, sorted(entries)

    assert agreed(twins, listed) == (
        *times_of(zoo),
        sorted(
            (name, found.st_mode, signature_of(zoo / name), found.st_ctime_ns)
            for name, found in status.items()
        ),
    )


def test_a_long_directory_is_listed_to_its_end(twins, tmp_path):
    names = {f"{number:0100d}" for number in range(3000)}
    for name in names:
        (tmp_path / name).touch()
    for twin in twins:
        entries = twin.list_directory(str(tmp_path), False)[2]
        assert len(entries) == 3000
        assert {entry[0] for entry in entries} == names


@pytest.mark.parametrize("name", ["missing", "regular", "regular/below", "fifo", "dangling"])
def test_list_directory_of_what_is_none(twins, zoo, name):
    number = agreed(twins, lambda twin: twin.list_directory(str(zoo / name), False))
    assert number == (errno.ENOENT if name in ("missing", "dangling") else errno.ENOTDIR)
    known = ["k"], bytes(32), ".pkl"
    assert agreed(twins, lambda twin: twin.list_changes(str(zoo / name), 1, *known)) == number


# --- a directory and what is known of it ------------------------

KEYS = sorted(map(str, range(300)), key=digest)
PLANTED = ("the same", "another", "gone", "not known", "a directory", "a link", "other extension")


def planted(directory, fates):
    """A file for each key, as its fate says: the known keys, their signatures, and by key the name
    of what a comparison has to tell of."""
    keys, signatures, told = [], [], {}
    for key, fate in zip(KEYS, fates):
        path = directory / f"{digest(key)}{'.json' if fate == 'other extension' else '.pkl'}"
        if fate == "a directory":
            path.mkdir()
        elif fate == "a link":
            path.symlink_to("nothing")
        else:
            path.touch()
        if fate != "not known":
            keys.append(key)
            signatures.append(signature_of(path))
        if fate == "gone":
            path.unlink()
        elif fate == "another":
            os.utime(path, ns=(1, 1))
        if fate not in ("the same", "gone"):
            told[key] = path.name
    return keys, b"".join(signatures), told


@given(fates=st.lists(st.sampled_from(PLANTED), max_size=60), forget=st.integers(0, 2))
@settings(max_examples=60)
def test_list_changes(twins, fates, forget):
    with tempfile.TemporaryDirectory() as name:
        keys, signatures, told = planted(Path(name), fates)
        (Path(name) / f"{digest('0')}.pkl.damaged-1").touch()
        (Path(name) / digest("0")[:63]).touch()

        def listed(twin):
            *times, entries, others = twin.list_changes(name, forget, keys, signatures, ".pkl")
            return times, sorted(entries), others

        times, entries, others = agreed(twins, listed)
        *expected, all_entries = twins[0].list_directory(name, 0)
    assert times == expected
    wanted = {*told.values(), f"{digest('0')}.pkl.damaged-1", digest("0")[:63]}
    assert entries == sorted(entry for entry in all_entries if entry[0] in wanted)
    fate_of = dict(zip(KEYS, fates))
    assert [keys[at] for at in others] == [key for key in keys if fate_of[key] != "the same"]


def test_a_file_of_another_signature_is_told_of(twins, tmp_path):
    """Whichever of its numbers differs; zeros are no file's."""
    path = tmp_path / f"{digest('k')}.pkl"
    path.touch()
    signature = signature_of(path)
    for twin in twins:
        assert twin.list_changes(str(tmp_path), 0, ["k"], signature, ".pkl")[2:] == ([], [])
        for at in range(32):
            other = bytearray(signature)
            other[at] ^= 1
            [entry] = twin.list_changes(str(tmp_path), 0, ["k"], bytes(other), ".pkl")[2]
            assert entry[0] == path.name and entry[2] == signature
        assert twin.list_changes(str(tmp_path), 0, ["k"], bytes(32), ".pkl")[3] == [0]


@pytest.mark.parametrize(
    ("keys", "signatures", "extension", "error"),
    [
        (["k"], b"", ".pkl", ValueError),
        ([], bytes(32), ".pkl", ValueError),
        (["k"], bytes(31), ".pkl", ValueError),
        ([b"k"], bytes(32), ".pkl", TypeError),
        (["k"], bytes(32), b".pkl", TypeError),
    ],
)
def test_what_is_known_is_checked(twins, tmp_path, keys, signatures, extension, error):
    call = str(tmp_path), 0, keys, signatures, extension
    assert agreed(twins, lambda twin: twin.list_changes(*call)) is error


def test_identify(twins, zoo):
    for name in ("regular", "directory", "link", "fifo"):
        status = os.stat(zoo / name)
        found = agreed(twins, lambda twin, name=name: twin.identify(str(zoo / name)))
        assert found == (status.st_dev, status.st_ino)
    assert agreed(twins, lambda twin: twin.identify(str(zoo / "dangling"))) == errno.ENOENT
    assert agreed(twins, lambda twin: twin.identify(str(zoo / "regular/x"))) == errno.ENOTDIR
    assert agreed(twins, lambda twin: twin.identify("a\0b")) is ValueError
    assert agreed(twins, lambda twin: twin.identify(b"bytes")) is TypeError


@pytest.mark.parametrize(
    ("path", "error"),
    [("a\0b", ValueError), (None, TypeError), (b"bytes", TypeError), (3, TypeError)],
)
def test_directories_are_named_by_str(twins, path, error):
    assert agreed(twins, lambda twin: twin.list_directory(path, False)) is error
    assert agreed(twins, lambda twin: twin.read_stamps([path])) is error


def test_directories_keep_no_descriptor(twins, zoo):
    before = os.open(zoo, os.O_RDONLY)
    os.close(before)
    paths = [str(path) for path in (zoo, *zoo.iterdir())]
    for twin in twins:
        twin.read_stamps(paths * 3)
        for path in paths * 3:
            twin.list_directory(path, True)
    after = os.open(zoo, os.O_RDONLY)
    os.close(after)
    assert after == before


# --- large files, and writing ------------------------


def test_a_large_file(twins, tmp_path):
    content = random.Random(3).getrandbits(8 * 5_000_000).to_bytes(5_000_000, "big")
    for twin in twins:
        target = str(tmp_path / "large")
        [signature] = twin.write_files([(target, content)], None, True, True, False)
        assert twin.read_files([target]) == [(content, signature_of(target))]
        assert_written(signature, target)


@pytest.mark.parametrize("size", [0, 5, (1 << 20) - 1, 1 << 20, 5_000_000])
def test_reading_aligned(twins, zoo, size):
    """As ``read_files``, but for where large contents lie."""
    path = zoo / "regular"
    path.write_bytes(random.Random(size).getrandbits(8 * size).to_bytes(size, "big"))
    paths = [str(zoo / name) for name in ("regular", "missing", "link", "directory", "fifo")]
    for twin in twins:
        [(content, signature), *errors] = twin.read_aligned(paths)
        assert content == path.read_bytes() and signature == signature_of(path)
        assert errors == [errno.ENOENT, errno.ELOOP, errno.EISDIR, errno.ENXIO]
        if size < 1 << 20:
            assert type(content) is bytes
            continue
        assert type(content) is memoryview and content.readonly
        np = needed("numpy")
        assert np.frombuffer(content, "u1").ctypes.data % 64 == 0


def test_views_are_written(twins, tmp_path):
    """From where they lie, between bytes, whatever their items are."""
    target = str(tmp_path / "views")
    numbers = array("d", [1.5, 2.5])
    parts = [
        b"start",
        memoryview(bytearray(b"view"))[1:3],
        b"",
        memoryview(numbers),
        memoryview(b""),
    ]
    parts += [memoryview(bytes([number])) for number in range(100)]
    for twin in twins:
        [signature] = twin.write_files([(target, parts)], None, False, False, False)
        assert_written(signature, target)
        expected = b"startie" + numbers.tobytes() + bytes(range(100))
        assert Path(target).read_bytes() == expected
        assert twin.write_file(target, parts, None, False, False)[8:16] == signature[8:16]


def test_views_that_cannot_be_written(twins, tmp_path):
    target = str(tmp_path / "views")
    released = memoryview(bytearray(3))
    released.release()
    refused = [(memoryview(b"abc")[::2], BufferError), (released, ValueError)]
    refused += [(part, TypeError) for part in (bytearray(b"x"), "text", None)]
    for part, error in refused:
        for twin in twins:
            with pytest.raises(error):
                twin.write_files([(target, [b"a", part])], None, True, True, False)
            with pytest.raises(error):
                twin.write_file(target, [part], None, True, True)
    assert os.listdir(tmp_path) == []


def test_a_large_file_that_is_cut_while_it_is_read(twins, tmp_path):
    path = tmp_path / "large"
    size = 4 << 20
    path.write_bytes(bytes(size))
    ended = threading.Event()

    def cut():
        while not ended.is_set():
            os.truncate(path, 1)
            os.truncate(path, size)

    cutter = threading.Thread(target=cut)
    cutter.start()
    try:
        for twin in twins * 100:
            read = random.choice([twin.read_files, twin.read_aligned])
            [(content, signature)] = read([str(path)])
            assert len(content) <= SIGNATURE.unpack(signature)[1] <= size
            assert not bytes(content).strip(b"\0")
    finally:
        ended.set()
        cutter.join()


# --- writing files ------------------------

BEFORE, AT_RENAME, AT_SYNC = range(3)


@pytest.mark.parametrize("durable", [True, False])
@given(contents=st.lists(st.tuples(st.sampled_from("abc"), st.binary(max_size=3000)), max_size=6))
@settings(max_examples=25)
def test_what_is_written_is_read(twins, durable, contents):
    for twin in twins:
        with tempfile.TemporaryDirectory() as name:
            directory = Path(name)
            for shard in "abc":
                (directory / shard).mkdir()
            files = [
                (str(directory / shard / f"{i}"), content)
                for i, (shard, content) in enumerate(contents)
            ]
            signatures = twin.write_files(files, None, durable, durable, False)
            for signature, (target, _) in zip(signatures, files):
                assert_written(signature, target)
            assert [Path(target).read_bytes() for target, _ in files] == [c for _, c in contents]
            assert len(list(directory.glob("*/*"))) == len(contents)


def test_a_target_is_replaced(core, tmp_path):
    target = tmp_path / "target"
    target.write_bytes(b"old and longer")
    with open(target, "rb") as old:
        [signature] = core.write_files([(str(target), b"new")], None, True, True, False)
        assert old.read() == b"old and longer"  # another file took the name
    assert target.read_bytes() == b"new"
    assert_written(signature, target)


@pytest.mark.parametrize(
    ("mode", "umask", "expected"),
    [
        (None, 0o022, 0o644),
        (None, 0o077, 0o600),
        (None, 0o000, 0o666),
        (0o660, 0o077, 0o660),
        (0o644, 0o027, 0o644),
        (0o600, 0o000, 0o600),
        (0o440, 0o777, 0o440),
    ],
)
def test_mode_and_umask(core, tmp_path, mode, umask, expected):
    target = tmp_path / "target"
    before = os.umask(umask)
    try:
        [done] = core.write_files([(str(target), b"x")], mode, True, True, False)
    finally:
        os.umask(before)
    assert isinstance(done, bytes)
    assert stat.S_IMODE(target.stat().st_mode) == expected


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("nowhere/target", (BEFORE, errno.ENOENT)),
        ("regular/target", (BEFORE, errno.ENOTDIR)),
        ("x" * 300, (AT_RENAME, errno.ENAMETOOLONG)),
        ("directory", (AT_RENAME, errno.EISDIR)),
    ],
)
def test_a_write_that_fails_leaves_nothing(core, zoo, target, expected):
    before = sorted(zoo.iterdir())
    right = str(zoo / "other")
    failed, done = core.write_files(
        [(str(zoo / target), b"x"), (right, b"y")], None, True, True, False
    )
    assert failed == expected
    assert_written(done, right)  # the files after it are written none the less
    os.unlink(right)
    assert sorted(zoo.iterdir()) == before
    assert (zoo / "regular").read_bytes() == b"content\0\xff"


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="needs a file system for such sizes")
@pytest.mark.parametrize("size", [2**63 - 1, 2**63 - 4096, 2**62])
def test_a_size_beyond_all_memory(twins, size):
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
        os.truncate(file.name, size)
        for twin in twins:
            for read in (twin.read_files, twin.read_aligned):
                assert read([file.name]) == [errno.ENOMEM]


def test_an_exclusive_write_replaces_nothing(core, zoo):
    new, taken, link = (str(zoo / name) for name in ("new", "regular", "dangling"))
    files = [(new, b"first"), (taken, b"second"), (new, b"third"), (link, b"fourth")]
    before = sorted(zoo.iterdir())
    first, *others = core.write_files(files, None, True, True, True)
    assert_written(first, new)
    assert others == [(AT_RENAME, errno.EEXIST)] * 3
    assert (zoo / "new").read_bytes() == b"first"
    assert (zoo / "regular").read_bytes() == b"content\0\xff"
    assert sorted(zoo.iterdir()) == sorted([*before, zoo / "new"])


@pytest.mark.parametrize("durable", [True, False])
def test_files_are_written_in_two_halves(core, zoo, durable):
    before = sorted(zoo.iterdir())
    targets = [str(zoo / name) for name in ("new", "regular", "nowhere/target", "directory")]
    files = [(target, [b"some ", b"bytes"]) for target in targets]
    made = ["before"]
    assert core.prepare_files(files, made, 0o640, durable) is None
    _, first, second, missing, third = made
    assert missing == errno.ENOENT
    prepared = [first, second, third]
    paths = [Path(temporary) for temporary, _ in prepared]
    assert {path.parent for path in paths} == {zoo}
    assert sorted(zoo.iterdir()) == sorted([*before, *paths])
    for path, (_, signature) in zip(paths, prepared):
        assert path.read_bytes() == b"some bytes" and signature_of(path) == signature
        assert path.name.startswith(".nfsdict-") and stat.S_IMODE(path.stat().st_mode) == 0o640
    lost = str(zoo / ".nfsdict-lost")
    pairs = [(str(path), target) for path, target in zip(paths, (*targets[:2], targets[3]))]
    outcomes = core.publish_files([*pairs, (lost, targets[0]), (lost, targets[2])], durable)
    assert outcomes[:2] == [None, None]
    assert outcomes[2:] == [(AT_RENAME, errno.EISDIR), *[(AT_RENAME, errno.ENOENT)] * 2]
    for target, (_, signature) in zip(targets, prepared):
        if target != targets[2]:
            assert_written(signature, target)
    assert sorted(zoo.iterdir()) == sorted([*before, zoo / "new"])


@pytest.mark.parametrize(
    ("files", "error"),
    [
        ([("a\0b", "x")], ValueError),
        ([("x", "a\0b")], ValueError),
        ([("x", b"x")], TypeError),
        ([(None, "x")], TypeError),
        ([None], TypeError),
        (None, TypeError),
    ],
)
def test_publish_files_refuses(twins, files, error):
    assert agreed(twins, lambda twin: twin.publish_files(files, False)) is error


@pytest.mark.parametrize("target", ["new", "regular", "directory", "nowhere/target"])
def test_one_file_is_written_as_several_are(core, zoo, target):
    path = str(zoo / target)
    outcome = core.write_file(path, b"one", 0o640, True, True)
    if isinstance(outcome, bytes):
        assert_written(outcome, path)
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o640
        assert Path(path).read_bytes() == b"one"
    else:
        assert [outcome] == core.write_files([(path, b"one")], 0o640, True, True, False)


@pytest.mark.parametrize("arguments", [("a\0b", b"x"), ("é\0b", b"x"), (1.5, b"x"), ("a", "text")])
def test_write_file_refuses(twins, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    assert issubclass(
        agreed(twins, lambda twin: twin.write_file(*arguments, None, True, False)),
        (TypeError, ValueError),
    )
    assert list(tmp_path.iterdir()) == []


@given(contents=st.lists(st.lists(st.binary(max_size=9), max_size=40), min_size=1, max_size=4))
@settings(max_examples=50)
def test_a_content_in_parts(twins, contents):
    with tempfile.TemporaryDirectory() as directory:
        for number, parts in enumerate(contents):
            for name, twin in enumerate(twins):
                path = f"{directory}/{number}-{name}"
                before = list(parts)
                assert_written(twin.write_file(path, parts, None, False, False), path)
                assert Path(path).read_bytes() == b"".join(parts) and parts == before
        for twin in twins:
            files = [(f"{directory}/{n}", parts) for n, parts in enumerate(contents)]
            files[1:1] = [(f"{directory}/whole", b"whole")]
            outcomes = twin.write_files(files, 0o600, True, True, False)
            for (path, content), outcome in zip(files, outcomes):
                assert_written(outcome, path)
                assert Path(path).read_bytes() == (
                    content if content == b"whole" else b"".join(content)
                )


def test_large_parts(twins, tmp_path):
    parts = [os.urandom(size) for size in (1, 300_000, 0, 7, 200_000)] * 5
    for twin in twins:
        target = tmp_path / "target"
        [_] = twin.write_files([(str(target), parts)], None, True, True, False)
        assert target.read_bytes() == b"".join(parts)


@pytest.mark.parametrize("content", [None, "text", [b"a", "b"], [None], (b"a",), bytearray(b"a")])
def test_what_is_no_content(twins, tmp_path, content):
    target = str(tmp_path / "target")
    for call in (
        lambda twin: twin.write_file(target, content, None, False, False),
        lambda twin: twin.write_files([(target, content)], None, False, False, False),
    ):
        assert agreed(twins, call) is TypeError
    assert list(tmp_path.iterdir()) == []


def test_a_symlink_is_replaced_not_followed(core, zoo):
    [done] = core.write_files([(str(zoo / "link"), b"new")], None, True, True, False)
    assert_written(done, zoo / "link")
    assert (zoo / "regular").read_bytes() == b"content\0\xff"


def test_a_disk_that_takes_no_more_leaves_nothing(core, tmp_path):
    target = tmp_path / "target"
    target.write_bytes(b"old")
    before, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, most))
    try:
        # The first 1000 bytes are written, so that this fails in the second call.
        [failed] = core.write_files([(str(target), bytes(2000))], None, True, True, False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, most))
    assert failed == (BEFORE, errno.EFBIG)
    assert list(tmp_path.iterdir()) == [target]
    assert target.read_bytes() == b"old"


@pytest.mark.parametrize(
    ("files", "error"),
    [
        ([("a\0b", b"x")], ValueError),
        ([("é\0b", b"x")], ValueError),
        ([("target", "text")], TypeError),
        ([("target", None)], TypeError),
        ([(1.5, b"x")], TypeError),
        ([(None, b"x")], TypeError),
        ([None], TypeError),
        (None, TypeError),
    ],
)
def test_write_files_refuses(twins, tmp_path, monkeypatch, files, error):
    monkeypatch.chdir(tmp_path)
    assert agreed(twins, lambda twin: twin.write_files(files, None, True, False, False)) is error
    assert list(tmp_path.iterdir()) == []
