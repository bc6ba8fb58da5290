"""The core: both twins give the same for the same, and what the contract says. Files: see
``test_core_files``.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import inspect
import random
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.needed import needed
from support.twins import agreed, no_texts, outcome, texts


class Text(str):
    """A str of another type, whose own encode says nothing."""

    def encode(self, *arguments):
        return b"wrong"


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
        ("encode_table", "shards, /"),
        ("parse_table", "table, /"),
        ("split_values", "section, lengths, /"),
        ("read_stamps", "directories, /"),
        ("outlast", "started, ended, /"),
        ("identify", "path, /"),
        ("list_directory", "directory, forget, /"),
        ("list_changes", "directory, forget, keys, signatures, extension, /"),
        ("crc32", "data, checksum=0, /"),
        ("aligned", "data, /"),
        ("read_files", "paths, /"),
        ("read_aligned", "paths, /"),
        ("write_file", "target, data, mode, durable, synced, /"),
        ("write_files", "files, mode, durable, synced, exclusive, /"),
        ("prepare_files", "files, made, mode, durable, /"),
        ("publish_files", "files, synced, /"),
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


# --- large contents ------------------------


@given(
    size=st.one_of(st.integers(0, 300), st.integers(1000, 6000)),
    start=st.integers(0, 70),
    checksum=st.integers(0, (1 << 32) - 1),
)
def test_crc32(twins, size, start, checksum):
    """Of any length from any address: short ones go to zlib, of long ones only the rest."""
    view = memoryview(NOISE)[start : start + size]
    expected = zlib.crc32(bytes(view), checksum)
    assert agreed(twins, lambda twin: twin.crc32(view, checksum)) == expected
    assert agreed(twins, lambda twin: twin.crc32(bytes(view), checksum)) == expected
    assert agreed(twins, lambda twin: twin.crc32(view)) == zlib.crc32(view)


NOISE = random.Random(5).getrandbits(8 * 10_000).to_bytes(10_000, "big")


@pytest.mark.parametrize("wrong", ["text", None, 5])
def test_crc32_takes_buffers_alone(twins, wrong):
    assert agreed(twins, lambda twin: twin.crc32(wrong)) is TypeError
    assert agreed(twins, lambda twin: twin.aligned(wrong)) is TypeError


@pytest.mark.parametrize("size", [0, 1, 63, 64, 5000])
def test_aligned(twins, size):
    for twin in twins:
        for start in range(0, 66, 5):
            view = twin.aligned(memoryview(NOISE)[start : start + size])
            assert view.readonly and view == NOISE[start : start + size]
            assert size == 0 or address(view) % 64 == 0
            again = twin.aligned(view)
            assert again.readonly and (size == 0 or address(again) == address(view))


def address(view):
    """Where a view that can't be written begins."""
    np = needed("numpy")
    return np.frombuffer(view, "u1").ctypes.data


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


# --- a pack's table and sections ------------------------

NOTHING = ((0, 0), [], b"", b"", 0, 0)


@st.composite
def shard_lists(draw):
    shards = [NOTHING] * 256
    for number in draw(st.lists(st.integers(0, 255), max_size=6)):
        held = draw(st.lists(texts, max_size=4))
        shards[number] = (
            (draw(st.integers(-(2**63), 2**63 - 1)), draw(st.integers(-(2**63), 2**63 - 1))),
            held,
            draw(st.binary(min_size=32 * len(held), max_size=32 * len(held))),
            draw(st.binary(min_size=4 * len(held), max_size=4 * len(held))),
            draw(st.integers(0, 2**64 - 1)),
            draw(st.integers(0, 2**32 - 1)),
        )
    return shards


def reference_table(shards):
    table = b""
    for stamp, held, signatures, lengths, size, checksum in shards:
        encoded = [key.encode("utf-8", "surrogatepass") for key in held]
        text = b"".join(encoded)
        table += struct.pack("<qqIQQI", *stamp, len(held), len(text), size, checksum)
        table += signatures + lengths
        table += b"".join(struct.pack("<I", len(key)) for key in encoded) + text
    return table


@given(shards=shard_lists())
def test_table_round_trip(twins, shards):
    table = agreed(twins, lambda twin: twin.encode_table(shards))
    assert table == reference_table(shards)
    assert agreed(twins, lambda twin: twin.parse_table(table)) == shards


def numbers(bits, signed=False):
    """Those that fit, and those that just don't."""
    least, most = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return st.sampled_from([0, least, most, least - 1, most + 1, "0", None])


@given(
    count=st.one_of(st.just(256), st.integers(0, 300)),
    shard=st.tuples(
        st.one_of(
            st.tuples(numbers(64, signed=True), numbers(64, signed=True)),
            st.sampled_from([(), (0,), (0, 0, 0), 0, None]),
        ),
        st.lists(st.one_of(texts, no_texts), max_size=2),
        st.sampled_from([b"", bytes(32), bytes(64), bytes(33)]),
        st.sampled_from([b"", bytes(4), bytes(8), bytes(5)]),
        numbers(64),
        numbers(32),
    ),
)
def test_encode_table_refuses_the_same(twins, count, shard):
    agreed(twins, lambda twin: twin.encode_table([shard] * count))


@pytest.mark.parametrize(
    ("shards", "error"),
    [
        ([NOTHING] * 255, ValueError),
        ([NOTHING] * 257, ValueError),
        ([((0, 0), ["k"], b"", bytes(4), 0, 0)] * 256, ValueError),
        ([((0, 0), ["k"], bytes(33), bytes(4), 0, 0)] * 256, ValueError),
        ([((0, 0), ["k"], bytes(32), bytes(3), 0, 0)] * 256, ValueError),
        ([((0, 0), ["k"], bytes(32), b"", 0, 0)] * 256, ValueError),
        ([((0, 0), [], bytes(32), b"", 0, 0)] * 256, ValueError),
        ([((0, 0), [b"k"], bytes(32), bytes(4), 0, 0)] * 256, TypeError),
        ([((2**63, 0), [], b"", b"", 0, 0)] * 256, OverflowError),
        ([((0, -(2**63) - 1), [], b"", b"", 0, 0)] * 256, OverflowError),
        ([((0,), [], b"", b"", 0, 0)] * 256, ValueError),
        ([((0, 0, 0), [], b"", b"", 0, 0)] * 256, ValueError),
        ([(0, [], b"", b"", 0, 0)] * 256, TypeError),
        ([((0, 0), [], b"", b"", 2**64, 0)] * 256, OverflowError),
        ([((0, 0), [], b"", b"", -1, 0)] * 256, OverflowError),
        ([((0, 0), [], b"", b"", 0, 2**32)] * 256, OverflowError),
    ],
)
def test_encode_table_refuses(twins, shards, error):
    assert agreed(twins, lambda twin: twin.encode_table(shards)) is error


def parsed_as(twins, table):
    """Whether a foreign table is taken; what is taken must be what it encodes to."""

    def parse(twin):
        try:
            shards = twin.parse_table(table)
        except ValueError:
            return ValueError
        assert twin.encode_table(shards) == table
        return shards

    return agreed(twins, parse)


EXAMPLE = [
    (
        (7 * number, 5),
        ["é", "", "k\ud800"],
        bytes(range(96)),
        bytes(range(12)),
        number << 40,
        number,
    )
    if number % 100 == 7
    else NOTHING
    for number in range(256)
]


@pytest.mark.parametrize("flip", [0x01, 0x80, 0xFF])
def test_every_byte_of_a_table_changed(twins, flip):
    table = reference_table(EXAMPLE)
    refused = 0
    for position in range(len(table)):
        changed = bytearray(table)
        changed[position] ^= flip
        shards = parsed_as(twins, bytes(changed))
        assert shards != EXAMPLE
        refused += shards is ValueError
    assert refused > 256 * 12  # the two counts in each shard's header


def test_every_truncation_of_a_table(twins):
    table = reference_table(EXAMPLE)
    for end in range(len(table)):
        assert agreed(twins, lambda twin, end=end: twin.parse_table(table[:end])) is ValueError
    assert agreed(twins, lambda twin: twin.parse_table(table + b"\0")) is ValueError


@given(table=st.binary(max_size=8000))
def test_foreign_table(twins, table):
    assert parsed_as(twins, table) is ValueError


@given(data=st.data())
def test_overwritten_table(twins, data):
    table = bytearray(reference_table(EXAMPLE))
    start = data.draw(st.integers(0, len(table)))
    patch = data.draw(st.binary(max_size=40))
    table[start : start + len(patch)] = patch
    parsed_as(twins, bytes(table))


NO_BYTES = st.sampled_from([None, "text", bytearray(8192), memoryview(bytes(8192)), [], 0])


@given(table=NO_BYTES)
def test_parse_table_takes_bytes_alone(twins, table):
    assert agreed(twins, lambda twin: twin.parse_table(table)) is TypeError


values = st.lists(st.one_of(st.none(), st.binary(max_size=20)), max_size=8)


def lengths_of(values, absent=0xFFFFFFFF):
    return b"".join(struct.pack("<I", absent if value is None else len(value)) for value in values)


@given(values=values, absent=st.sampled_from([0xFFFFFFFE, 0xFFFFFFFF]))
def test_values_are_split(twins, values, absent):
    section = b"".join(value for value in values if value is not None)
    lengths = lengths_of(values, absent)
    assert agreed(twins, lambda twin: twin.split_values(section, lengths)) == values


@given(section=st.binary(max_size=30), lengths=st.lists(st.integers(0, 12), max_size=6))
def test_values_that_do_not_make_up_their_section(twins, section, lengths):
    packed = struct.pack(f"<{len(lengths)}I", *lengths)
    split = agreed(twins, lambda twin: twin.split_values(section, packed))
    if sum(lengths) != len(section):
        assert split is ValueError
    else:
        assert b"".join(split) == section
        assert list(map(len, split)) == lengths


@pytest.mark.parametrize("lengths", [b"\1", b"\1\0\0", b"\1\0\0\0\0", b"\xfd\xff\xff\xff"])
def test_lengths_that_are_none(twins, lengths):
    assert agreed(twins, lambda twin: twin.split_values(b"x", lengths)) is ValueError


@given(section=st.one_of(st.just(b""), NO_BYTES), lengths=NO_BYTES)
def test_split_values_takes_bytes_alone(twins, section, lengths):
    assert agreed(twins, lambda twin: twin.split_values(section, lengths)) is TypeError
    assert agreed(twins, lambda twin: twin.split_values(lengths, section)) is TypeError
