"""The core: both twins give the same for the same, and what the contract says."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import importlib
import inspect
import os
import random
import resource
import socket
import stat
import struct
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nfsdict.backend import expects_extension

SIGNATURE = struct.Struct("<QQq")

# Lone surrogates are characters like any other here, and random text has none of itself.
characters = st.one_of(st.characters(), st.integers(0xD800, 0xDFFF).map(chr))
texts = st.text(characters)
no_texts = st.sampled_from([None, b"key", 0, 1.5, (), [], object()])


class Text(str):
    """A str of another type, whose own encode says nothing."""

    def encode(self, *arguments):
        return b"wrong"


@pytest.fixture(scope="module")
def twins():
    """The modules that meet the contract: both on CPython, where a missing one is an error."""
    names = ["_core", "_pure"] if expects_extension() else ["_pure"]
    return [importlib.import_module(f"nfsdict.{name}") for name in names]


@pytest.fixture
def core(nfsdict):
    return importlib.import_module("nfsdict.core")


def outcome(call):
    """What it returns, or the type of what it raises."""
    try:
        return call()
    except Exception as error:
        return type(error)


def agreed(twins, call):
    """The outcome of ``call(twin)``, which has to be the same for all."""
    first, *others = [outcome(lambda twin=twin: call(twin)) for twin in twins]
    for other in others:
        assert other == first
    return first


def reference(key):
    return hashlib.sha256(str.encode(key, "utf-8", "surrogatepass")).hexdigest()


# --- the contract's shape ------------------------


def parameters(function):
    return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("digest", "key, /"),
        ("value_path", "directory, key, extension, /"),
        ("encode_index", "shards, /"),
        ("parse_index", "body, /"),
        ("read_files", "paths, /"),
        ("write_file", "target, data, mode, durable, synced, /"),
        ("write_files", "files, mode, durable, synced, exclusive, /"),
        ("ReadCache.get", "self, key, default=None, *, fresh=False"),
        ("ReadCache._lookup", "self, key, fresh, /"),
        ("ReadCache._exists", "self, key, /"),
        ("ReadCache.__getitem__", "self, key, /"),
        ("ReadCache.__contains__", "self, key, /"),
    ],
)
def test_signatures(twins, name, expected):
    namespace = {}
    exec(f"def wanted({expected}): pass", namespace)
    for twin in twins:
        function = twin
        for part in name.split("."):
            function = getattr(function, part)
        assert parameters(function) == parameters(namespace["wanted"]), twin.__name__


def test_missing_is_one_object_that_shows_its_name(twins):
    for twin in twins:
        assert repr(twin.MISSING) == "MISSING"
        assert type(twin.MISSING) is twin.Missing


# --- key -> digest -> path ------------------------

AWKWARD = ["", "\0", "a\0b", "\n", "é", "\ud800", "\udc80x", "\U0001f600", "x" * 5000, "ü" * 70000]


@pytest.mark.parametrize(
    "key", [*AWKWARD, Text("é"), Text("plain")], ids=lambda key: ascii(key)[:9]
)
def test_digest_of_awkward_keys(twins, key):
    assert agreed(twins, lambda twin: twin.digest(key)) == reference(key)


@given(key=texts)
def test_digest(twins, key):
    assert agreed(twins, lambda twin: twin.digest(key)) == reference(key)


@given(key=no_texts)
def test_digest_takes_str_alone(twins, key):
    assert agreed(twins, lambda twin: twin.digest(key)) is TypeError


@given(directory=texts, key=texts, extension=texts)
def test_value_path(twins, directory, key, extension):
    name = reference(key)
    path = agreed(twins, lambda twin: twin.value_path(directory, key, extension))
    assert path == f"{directory}/{name[:2]}/{name}{extension}"
    assert type(path) is str


@given(position=st.integers(0, 2), wrong=no_texts)
def test_value_path_takes_str_alone(twins, position, wrong):
    arguments = ["directory", "key", ".pkl"]
    arguments[position] = wrong
    assert agreed(twins, lambda twin: twin.value_path(*arguments)) is TypeError


def test_value_path_of_something_huge(twins):
    directory = "/d" * 1_000_000
    path = agreed(twins, lambda twin: twin.value_path(directory, "k" * 3_000_000, ".pkl"))
    assert path == f"{directory}/{path[-68:-66]}/{reference('k' * 3_000_000)}.pkl"


# --- SHA-256 ------------------------


class Sha256:
    """The implementations inside the extension, reached by the C function for tests."""

    NAMES = ("sha-ni", "armv8", "portable")

    def __init__(self, extension):
        function = ctypes.CDLL(extension.__file__).nfsdict_sha256_with
        function.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p)
        function.restype = ctypes.c_int
        self._function = function

    def __call__(self, name, data):
        raw = ctypes.create_string_buffer(32)
        return raw.raw if self._function(name.encode(), data, len(data), raw) else None

    def available(self):
        return [name for name in self.NAMES if self(name, b"") is not None]


def messages():
    generator = random.Random(1)
    for length in range(301):
        yield bytes(length)
        yield b"\xff" * length
        yield bytes(generator.getrandbits(8) for _ in range(length))
    for _ in range(100):
        length = generator.randrange(100_000)
        yield generator.getrandbits(8 * length + 8).to_bytes(length + 1, "big")


def test_which_sha256_runs(twins):
    *compiled, pure = twins
    assert pure.SHA256_IMPLEMENTATION == "hashlib"
    for extension in compiled:
        available = Sha256(extension).available()
        assert available[-1] == "portable"
        assert available[0] == extension.SHA256_IMPLEMENTATION


def test_each_sha256_of_the_extension(twins):
    for extension in twins[:-1]:
        sha256 = Sha256(extension)
        for name in sha256.available():
            for data in messages():
                assert sha256(name, data) == hashlib.sha256(data).digest(), (name, len(data))


def test_digest_of_every_short_length(twins):
    generator = random.Random(2)
    for length in range(301):
        for alphabet in ("abc", "äöü", "\0\x7f\ud800"):
            key = "".join(generator.choices(alphabet, k=length))
            assert agreed(twins, lambda twin, key=key: twin.digest(key)) == reference(key)


# --- the read cache ------------------------

LOADED, UNLOADED, ON_DISK, GONE, BROKEN = "loaded", "unloaded", "on disk", "gone", "broken"
KEYS = (LOADED, UNLOADED, ON_DISK, GONE, BROKEN)


def cache_of(twin):
    class Cache(twin.ReadCache):
        def __init__(self):
            self.calls = []

        def _answer(self, key, found, not_found):
            if key == BROKEN:
                raise OSError(errno.EIO, "")
            return found if key in (UNLOADED, ON_DISK) else not_found

        def _lookup(self, key, fresh, /):
            self.calls.append(("_lookup", key, fresh))
            return self._answer(key, f"disk's {key}", twin.MISSING)

        def _exists(self, key, /):
            self.calls.append(("_exists", key))
            return self._answer(key, True, False)

    cache = Cache()
    cache._cache.update({LOADED: "cached", "none": None, UNLOADED: twin.MISSING})
    return cache


class NoTruth:
    def __bool__(self):
        raise ZeroDivisionError


keys = st.one_of(st.sampled_from([*KEYS, "none", Text(LOADED)]), no_texts)
accesses = st.one_of(
    st.tuples(st.just("__getitem__"), st.tuples(keys), st.just({})),
    st.tuples(st.just("__contains__"), st.tuples(keys), st.just({})),
    st.tuples(
        st.just("get"),
        st.one_of(st.tuples(keys), st.tuples(keys, st.just("default"))),
        st.one_of(
            st.just({}),
            st.fixed_dictionaries({"fresh": st.sampled_from([True, False, 0, "yes", NoTruth()])}),
            st.just({"unknown": 1}),
        ),
    ),
    st.just(("get", (), {})),
    st.just(("get", ("none", None, True), {})),
)


@given(accesses=st.lists(accesses, max_size=10))
def test_read_cache(twins, accesses):
    def run(twin):
        cache = cache_of(twin)
        outcomes = [
            outcome(lambda a=access: getattr(cache, a[0])(*a[1], **a[2])) for access in accesses
        ]
        return outcomes, cache.calls

    agreed(twins, run)


def test_a_hit_calls_nothing_and_a_miss_calls_once(core):
    cache = cache_of(core)
    assert cache[LOADED] == cache.get(LOADED) == "cached"
    assert cache["none"] is None and cache.get("none", 1) is None
    assert LOADED in cache and UNLOADED in cache and 1 not in cache and [] not in cache
    assert cache.calls == []
    assert cache[UNLOADED] == "disk's unloaded"
    assert cache.get(ON_DISK) == "disk's on disk"
    assert cache.get(LOADED, fresh=True) is None
    assert cache.get(GONE, "default") == "default"
    assert ON_DISK in cache and GONE not in cache
    with pytest.raises(KeyError, match=GONE):
        cache[GONE]
    with pytest.raises(OSError):
        cache.get(BROKEN, "default")
    assert cache.calls == [
        ("_lookup", UNLOADED, False),
        ("_lookup", ON_DISK, False),
        ("_lookup", LOADED, True),
        ("_lookup", GONE, False),
        ("_exists", ON_DISK),
        ("_exists", GONE),
        ("_lookup", GONE, False),
        ("_lookup", BROKEN, False),
    ]


def test_read_cache_is_generic_and_abstract(core):
    assert core.ReadCache[int].__origin__ is core.ReadCache
    for call in (lambda c: c["k"], lambda c: c.get("k"), lambda c: "k" in c):
        with pytest.raises(NotImplementedError):
            call(core.ReadCache())


# --- the index's body ------------------------


@st.composite
def shard_lists(draw):
    shards = [(0, [], b"")] * 256
    for number in draw(st.lists(st.integers(0, 255), max_size=6)):
        held = draw(st.lists(texts, max_size=4))
        signatures = draw(st.binary(min_size=24 * len(held), max_size=24 * len(held)))
        shards[number] = (draw(st.integers(-(2**63), 2**63 - 1)), held, signatures)
    return shards


def reference_body(shards):
    body = b""
    for stamp, held, signatures in shards:
        encoded = [key.encode("utf-8", "surrogatepass") for key in held]
        body += struct.pack("<qIQ", stamp, len(held), sum(map(len, encoded))) + signatures
        body += b"".join(struct.pack("<I", len(key)) for key in encoded) + b"".join(encoded)
    return body


@given(shards=shard_lists())
def test_index_round_trip(twins, shards):
    body = agreed(twins, lambda twin: twin.encode_index(shards))
    assert body == reference_body(shards)
    assert agreed(twins, lambda twin: twin.parse_index(body)) == shards


@given(
    count=st.integers(0, 300),
    shard=st.tuples(
        st.one_of(st.just(0), st.just(2**63), st.just(-(2**63) - 1), st.just("0")),
        st.lists(st.one_of(texts, no_texts), max_size=3),
        st.one_of(st.binary(max_size=72), st.just(bytes(24)), st.just(b"")),
    ),
)
def test_encode_index_refuses_the_same(twins, count, shard):
    agreed(twins, lambda twin: twin.encode_index([shard] * count))


@pytest.mark.parametrize(
    ("shards", "error"),
    [
        ([(0, [], b"")] * 255, ValueError),
        ([(0, [], b"")] * 257, ValueError),
        ([(0, ["k"], b"")] * 256, ValueError),
        ([(0, ["k"], bytes(25))] * 256, ValueError),
        ([(0, [], bytes(24))] * 256, ValueError),
        ([(0, [b"k"], bytes(24))] * 256, TypeError),
        ([(2**63, [], b"")] * 256, OverflowError),
    ],
)
def test_encode_index_refuses(twins, shards, error):
    assert agreed(twins, lambda twin: twin.encode_index(shards)) is error


def parsed_as(twins, body):
    """Whether a foreign body is taken; what is taken must be what it encodes to."""

    def parse(twin):
        try:
            shards = twin.parse_index(body)
        except ValueError:
            return ValueError
        assert twin.encode_index(shards) == body
        return shards

    return agreed(twins, parse)


EXAMPLE = [
    (7 * number, ["é", "", "k\ud800"] if number % 100 == 7 else [], bytes(range(72)))
    if number % 100 == 7
    else (0, [], b"")
    for number in range(256)
]


@pytest.mark.parametrize("flip", [0x01, 0x80, 0xFF])
def test_every_byte_of_an_index_changed(twins, flip):
    body = reference_body(EXAMPLE)
    refused = 0
    for position in range(len(body)):
        changed = bytearray(body)
        changed[position] ^= flip
        shards = parsed_as(twins, bytes(changed))
        assert shards != EXAMPLE
        refused += shards is ValueError
    assert refused > 256 * 12  # the two counts in each shard's header


def test_every_truncation_of_an_index(twins):
    body = reference_body(EXAMPLE)
    for end in range(len(body)):
        assert agreed(twins, lambda twin, end=end: twin.parse_index(body[:end])) is ValueError
    assert agreed(twins, lambda twin: twin.parse_index(body + b"\0")) is ValueError


@given(body=st.binary(max_size=6000))
def test_foreign_index(twins, body):
    assert parsed_as(twins, body) is ValueError


@given(data=st.data())
def test_overwritten_index(twins, data):
    body = bytearray(reference_body(EXAMPLE))
    start = data.draw(st.integers(0, len(body)))
    patch = data.draw(st.binary(max_size=40))
    body[start : start + len(patch)] = patch
    parsed_as(twins, bytes(body))


@given(body=st.sampled_from([None, "text", bytearray(5120), memoryview(bytes(5120)), []]))
def test_parse_index_takes_bytes_alone(twins, body):
    assert agreed(twins, lambda twin: twin.parse_index(body)) is TypeError


# --- reading files ------------------------


def signature_of(path):
    status = os.lstat(path)
    return SIGNATURE.pack(status.st_ino, status.st_size, status.st_mtime_ns)


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


def test_a_large_file(twins, tmp_path):
    content = random.Random(3).getrandbits(8 * 5_000_000).to_bytes(5_000_000, "big")
    for twin in twins:
        target = str(tmp_path / "large")
        [signature] = twin.write_files([(target, content)], None, True, True, False)
        assert twin.read_files([target]) == [(content, signature)]


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
            assert signatures == [signature_of(target) for target, _ in files]
            assert [Path(target).read_bytes() for target, _ in files] == [c for _, c in contents]
            assert len(list(directory.glob("*/*"))) == len(contents)


def test_a_target_is_replaced(core, tmp_path):
    target = tmp_path / "target"
    target.write_bytes(b"old and longer")
    with open(target, "rb") as old:
        [signature] = core.write_files([(str(target), b"new")], None, True, True, False)
        assert old.read() == b"old and longer"  # another file took the name
    assert target.read_bytes() == b"new"
    assert signature == signature_of(target)


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
    assert done == signature_of(right)  # the files after it are written none the less
    os.unlink(right)
    assert sorted(zoo.iterdir()) == before
    assert (zoo / "regular").read_bytes() == b"content\0\xff"


def test_an_exclusive_write_replaces_nothing(core, zoo):
    new, taken, link = (str(zoo / name) for name in ("new", "regular", "dangling"))
    files = [(new, b"first"), (taken, b"second"), (new, b"third"), (link, b"fourth")]
    before = sorted(zoo.iterdir())
    first, *others = core.write_files(files, None, True, True, True)
    assert first == signature_of(new)
    assert others == [(AT_RENAME, errno.EEXIST)] * 3
    assert (zoo / "new").read_bytes() == b"first"
    assert (zoo / "regular").read_bytes() == b"content\0\xff"
    assert sorted(zoo.iterdir()) == sorted([*before, zoo / "new"])


@pytest.mark.parametrize("target", ["new", "regular", "directory", "nowhere/target"])
def test_one_file_is_written_as_several_are(core, zoo, target):
    path = str(zoo / target)
    outcome = core.write_file(path, b"one", 0o640, True, True)
    if isinstance(outcome, bytes):
        assert outcome == signature_of(path)
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


def test_a_symlink_is_replaced_not_followed(core, zoo):
    [done] = core.write_files([(str(zoo / "link"), b"new")], None, True, True, False)
    assert done == signature_of(zoo / "link")
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
