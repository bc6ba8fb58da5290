"""Serializers: what they make is what others read, and damage is seen."""

from __future__ import annotations

import copy
import ctypes
import hashlib
import importlib
import inspect
import json
import os
import pickle
import pickletools
import struct
import sys
import time
import zlib
from array import array
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

characters = st.one_of(st.characters(), st.integers(0xD800, 0xDFFF).map(chr))
keys = st.text(characters)
values = st.recursive(
    # JSON has no infinities.
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False, allow_infinity=False),
        keys,
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(keys, inner, max_size=4)),
    max_leaves=8,
)


@pytest.fixture(scope="session")
def serializers(nfsdict):
    return importlib.import_module("nfsdict.serializers")


@pytest.fixture
def pickled(serializers):
    return serializers.serializer_named("pickle")


@pytest.mark.parametrize("name", ["pickle", "json", "buffers"])
@given(key=keys, value=values)
def test_round_trip(serializers, name, key, value):
    serializer = serializers.serializer_named(name)
    assert list(serializer.loads(serializer.dumps((key, value)))) == [key, value]


# --- pickle ------------------------

PAIR = ("key", {"number": 7, "text": "é\ud800", "many": [float("inf"), None, b"\0\xff"]})


def test_pickle_loads_passes_over_the_trailer(pickled):
    data = pickled.dumps(PAIR)
    assert pickle.loads(data) == PAIR
    body, trailer = data[:-12], data[-12:]
    assert pickle.loads(body) == PAIR
    assert trailer == struct.pack("<I", zlib.crc32(body)) + b"nfsdict\x01"


def test_protocol_is_one_that_every_supported_python_reads(pickled):
    data = pickled.dumps(PAIR)
    opcode, protocol, _ = next(pickletools.genops(data))
    assert (opcode.name, protocol) == ("PROTO", 5)


@pytest.mark.parametrize("protocol", range(6))
def test_plain_pickles_are_read(pickled, protocol):
    assert pickled.loads(pickle.dumps(PAIR, protocol)) == PAIR


def test_every_byte_of_a_pickle_changed(pickled, serializers):
    data = pickled.dumps(PAIR)
    for position in range(len(data)):
        for flip in (0x01, 0x08, 0x80, 0xFF):
            damaged = bytearray(data)
            damaged[position] ^= flip
            with pytest.raises(serializers.Damaged):
                pickled.loads(bytes(damaged))


def test_every_truncation_of_a_pickle(pickled, serializers):
    data = pickled.dumps(PAIR)
    harmless = []
    for end in range(len(data)):
        try:
            assert pickled.loads(data[:end]) == PAIR
        except serializers.Damaged:
            continue
        harmless.append(end)
    assert harmless == [len(data) - 12]  # a plain pickle, and whole


def test_every_truncation_of_a_plain_pickle(pickled, serializers):
    data = pickle.dumps(PAIR)
    for end in range(len(data)):
        with pytest.raises(serializers.Damaged):
            pickled.loads(data[:end])


@pytest.mark.parametrize(
    "data",
    [b"", b".", bytes(4096), b"nfsdict\x01", bytes(4) + b"nfsdict\x01", b"\x80\x05]."],
    ids=["empty", "stop", "zeros", "magic", "trailer", "no pair"],
)
def test_what_is_no_pickle_of_ours(pickled, serializers, data):
    if data == b"\x80\x05].":
        assert pickled.loads(data) == []  # a pickle; that it is no pair is seen by its reader
        return
    with pytest.raises(serializers.Damaged):
        pickled.loads(data)


@given(data=st.binary(max_size=200))
def test_random_bytes_never_get_past_pickle_as_another_error(serializers, data):
    # Without STOP at their end, for random opcodes with one may call for any import.
    with pytest.raises(serializers.Damaged):
        serializers.serializer_named("pickle").loads(data + b"\0")


class Refuses:
    def __reduce__(self):
        return refuse, ()


def refuse():
    raise ZeroDivisionError


def test_an_object_that_fails_to_load_is_no_damage(pickled):
    data = pickled.dumps(("key", Refuses()))
    with pytest.raises(ZeroDivisionError):
        pickled.loads(data)


def test_a_class_that_is_not_here_is_no_damage(pickled):
    with pytest.raises(ImportError):
        pickled.loads(b"cno_such_module_here\nName\n.")


@pytest.mark.parametrize("protocol", range(6))
def test_a_plain_pickle_whose_code_fails_is_no_damage(pickled, protocol):
    with pytest.raises(ZeroDivisionError):
        pickled.loads(pickle.dumps(("key", Refuses()), protocol))


class Raises:
    """Raises when it is unpickled."""

    def __init__(self, error):
        self.error = error

    def __reduce__(self):
        return throw, (self.error,)


def throw(error):
    raise error


@pytest.mark.parametrize(
    "error",
    [
        KeyError("x"),
        ValueError("x"),
        RuntimeError("x"),
        pickle.UnpicklingError("x"),
        EOFError("x"),
        RecursionError("x"),
        MemoryError("x"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_the_error_of_a_whole_plain_pickle_comes_out(pickled, error):
    with pytest.raises(type(error)) as caught:
        pickled.loads(pickle.dumps(("key", Raises(error)), 4))
    assert caught.value.args == ("x",)


@pytest.mark.parametrize(
    "data",
    [
        pickle.dumps(("key", 1), 0) + pickle.dumps(("key", 2), 0),
        b"\x80\x05h\x07.",
        b"\x80\x05\x95\xff\x00\x00\x00\x00\x00\x00\x00N.",
        b"\x80\x05NN\x86\x86.",
        b"\x80\x05Nu.",
        b"\x80\x05}(Nu.",
        b"\x80\x05(\x94N.",
        b"\x80\x05X\xff\x00\x00\x00abc.",
        b"\x80\x05\xfe.",
    ],
    ids=[
        "two",
        "memo",
        "frame",
        "stack",
        "mark",
        "odd",
        "nothing memoized",
        "short text",
        "no opcode",
    ],
)
def test_opcodes_that_no_pickler_writes_are_damage(serializers, data):
    flaw = serializers.serializer_named("pickle").flaw(data)
    assert flaw and flaw.startswith("no pickle: ")


class Node:
    def __init__(self):
        self.itself = self
        self.others = [self, (self,), {1: self}]


def awkward():
    own: list = []
    own.append((own, {1: own}))
    yield from (None, 10**50, "x" * 300, b"y" * 70_000, own, (own,), Node(), {1, 2}, frozenset("a"))
    yield from ([1, 2, 3] * 2000, {i: (i, str(i), b"%d" % i) for i in range(3000)}, [[]] * 5)
    yield from (bytearray(b"x"), 1.5, (1, 2, 3, 4), ValueError("x"), Node, len, 1j, range(3))


@pytest.mark.parametrize("protocol", range(6))
def test_no_pickle_of_python_has_a_flaw(pickled, protocol):
    for value in awkward():
        assert pickled.flaw(pickle.dumps(("key", value), protocol)) is None


def test_good_files_are_not_looked_at_twice(pickled, serializers, monkeypatch):
    monkeypatch.setattr(serializers, "pickle_flaw", None)
    assert pickled.loads(pickle.dumps(PAIR)) == pickled.loads(pickled.dumps(PAIR)) == PAIR


# --- JSON ------------------------


@pytest.fixture
def jsoned(serializers):
    return serializers.serializer_named("json")


def test_json_is_plain_text(jsoned):
    assert jsoned.dumps(("ké", [1, None, "ü"])) == '["ké", [1, null, "ü"]]'.encode()


def test_json_of_lone_surrogates(jsoned):
    pair = ["k\ud800", "\udc80"]
    assert jsoned.loads(jsoned.dumps(tuple(pair))) == pair


@pytest.mark.parametrize(
    "text", ["k\ud800", "\udc80", "\udfff\ud800", "\ud800x\udc00", "é\ud800😀"]
)
def test_json_of_lone_surrogates_is_valid(jsoned, text):
    data = jsoned.dumps((text, {text: [text]}))
    assert json.loads(data.decode()) == [text, {text: [text]}]


def test_json_of_what_it_cannot_say_is_read_all_the_same(jsoned):
    """Two surrogates that are not one character: their escapes would be."""
    pair = ["\ud83d\ude00", "\ud800"]
    assert jsoned.loads(jsoned.dumps(tuple(pair))) == pair != ["😀", "\ud800"]


def test_json_that_release_0_2_1_wrote_is_read(jsoned):
    assert jsoned.loads('["k\ud800", 1]'.encode("utf-8", "surrogatepass")) == ["k\ud800", 1]
    _, values = jsoned.loads(b'["k", [NaN, Infinity, -Infinity]]')
    assert str(values) == "[nan, inf, -inf]"


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("options", [None, {"indent": 2}])
def test_json_has_no_nan(nfsdict, opened, number, options):
    d = opened(serializer=nfsdict.json_format(**options) if options else "json")
    d["key"] = 1
    before = {path: path.read_bytes() for path in d.path.rglob("*") if path.is_file()}
    for value in (number, [{"a": number}]):
        with pytest.raises(ValueError, match="JSON"):
            d["key"] = value
        with pytest.raises(ValueError, match="JSON"):
            d.add("other", value)
        with pytest.raises(ValueError, match="JSON"):
            d.update(other=value)
        with pytest.raises(ValueError, match="JSON"):
            d.setdefault("other", value)
    assert dict(d) == {"key": 1}
    assert {path: path.read_bytes() for path in d.path.rglob("*") if path.is_file()} == before


def test_json_for_people(nfsdict, opened):
    d = opened(serializer=nfsdict.json_format(indent=2, sort_keys=True))
    d["ké"] = {"b": [1], "a": "ü"}
    [path] = d.path.glob("??/*.json")
    assert path.read_text() == (
        '[\n  "ké",\n  {\n    "a": "ü",\n    "b": [\n      1\n    ]\n  }\n]\n'
    )
    plain = opened(serializer="json")
    plain["other"] = 1
    for again in (plain, copy.copy(d), pickle.loads(pickle.dumps(d))):
        assert again["ké"] == {"b": [1], "a": "ü"} and again["other"] == 1
    copy.copy(d)["third"] = [1]
    [third] = d.path.glob(f"??/{hashlib.sha256(b'third').hexdigest()}*")
    assert b"\n" in third.read_bytes()
    assert repr(nfsdict.json_format(indent=2)) == "json_format(indent=2, sort_keys=False)"


def test_json_for_people_signed(nfsdict, opened):
    serializer = nfsdict.signed(nfsdict.json_format(indent="\t"), key=bytes(16))
    opened(serializer=serializer)["key"] = [1]
    assert dict(opened(serializer=nfsdict.signed("json", key=bytes(16)))) == {"key": [1]}


def test_an_indent_that_is_no_json(nfsdict):
    with pytest.raises(ValueError, match="indent"):
        nfsdict.json_format(indent="//")


@pytest.mark.parametrize("name", [None, 5])
def test_json_of_random_text_for_people(serializers, name):
    serializer = serializers.Json(name, True)
    assert serializer.loads(serializer.dumps(("k\ud800\n", "\udc00"))) == ["k\ud800\n", "\udc00"]


def test_json_that_a_person_edited(jsoned):
    assert jsoned.loads(b'\n[ "key" ,\n\t{"a": 1} ]\n') == ["key", {"a": 1}]
    assert jsoned.loads(b"\xef\xbb\xbf" + b'["key", 1]') == ["key", 1]


def test_every_truncation_of_json(jsoned, serializers):
    data = jsoned.dumps(("k\ud800é", {"a": [1, 2]}))
    for end in range(len(data)):
        with pytest.raises(serializers.Damaged):
            jsoned.loads(data[:end])


@pytest.mark.parametrize("data", [bytes(50), b"\xff\xfe\xfa", b'["k", 1] x', b"nfsb"])
def test_what_is_no_json(jsoned, serializers, data):
    with pytest.raises(serializers.Damaged):
        jsoned.loads(data)


@pytest.fixture
def digits():
    """The limit on the digits of an integer that are converted, or 0 if this Python has none."""
    if not hasattr(sys, "set_int_max_str_digits"):
        return 0
    return sys.get_int_max_str_digits()


DEEP = b'["deep", ' + b"[" * 100_000 + b"]" * 100_000 + b"]"


def nest(depth, call):
    return nest(depth - 1, call) if depth else call()


@pytest.mark.parametrize("signed", [False, True])
def test_json_beyond_this_processs_limits_is_no_damage(nfsdict, opened, digits, signed):
    """The reader's own error comes out, and repair() leaves the files."""
    limits = {"deep": RecursionError, **({"big": ValueError} if digits else {})}
    serializer = nfsdict.signed("json", key=bytes(16)) if signed else "json"
    texts = {"deep": DEEP, "big": b'["big", ' + b"1" * (digits + 1) + b"]"}
    d = opened(serializer=serializer)
    d["key"] = 1
    for key in limits:
        d[key] = None
        text = texts[key]
        if signed:
            text += serializer._code(text) + b"nfsdmac\x01"
        Path(d._values.path_of(hashlib.sha256(key.encode()).hexdigest())).write_bytes(text)
    lazy = opened(serializer=serializer, lazy=True)
    before = {path: path.read_bytes() for path in d.path.glob("??/*")}
    for key, error in limits.items():
        for read in (lambda: lazy[key], lambda: lazy.pop(key, None)):  # noqa: B023
            with pytest.raises(error) as caught:
                read()
            assert not isinstance(caught.value, (KeyError, nfsdict.CorruptValueError))
    report = lazy.verify()
    assert report.entries == 1 and len(report.unreadable) == len(limits) and not report.damaged
    assert lazy.repair(grace=-1).quarantined == {}
    assert {path: path.read_bytes() for path in d.path.glob("??/*")} == before


def test_json_read_by_a_caller_who_is_nested_deep_is_no_damage(opened):
    value = [1]
    for _ in range(200):
        value = [value]
    d = opened(serializer="json")
    d["key"] = value
    lazy = opened(serializer="json", lazy=True)
    left = sys.getrecursionlimit() - len(inspect.stack())
    for depth in range(left - 250, left, 3):
        try:
            nest(depth, lambda: lazy.get("key", fresh=True))
        except RecursionError:
            pass  # and no KeyError
    assert lazy["key"] == value


def test_json_cut_short_after_too_many_digits_is_damage(jsoned, serializers, digits):
    for data in (b'["k", ' + b"1" * (digits + 1), b'["k", ' + b"1" * (digits + 1) + b"] x"):
        with pytest.raises(serializers.Damaged):
            jsoned.loads(data)


def test_a_plain_pickle_of_too_many_digits_is_no_damage(pickled, serializers, digits):
    data = b"(Vkey\nL" + b"1" * (digits + 1) + b"L\nt."
    if digits and sys.implementation.name == "cpython":  # PyPy's pickle has no limit
        with pytest.raises(ValueError) as caught:
            pickled.loads(data)
        assert not isinstance(caught.value, serializers.Damaged)
    assert pickled.flaw(data) is None


@pytest.mark.parametrize("value", [b"bytes", {1, 2}, object()])
def test_json_refuses_with_its_own_error(jsoned, value):
    with pytest.raises(TypeError):
        jsoned.dumps(("key", value))
    assert json.loads(jsoned.dumps(("key", 1))) == ["key", 1]


# --- bytes ------------------------


@pytest.fixture
def raw(serializers):
    return serializers.serializer_named("bytes")


@given(key=keys, value=st.binary())
def test_bytes_round_trip(serializers, key, value):
    serializer = serializers.serializer_named("bytes")
    for given_as in (value, bytearray(value), memoryview(value)):
        data = serializer.dumps((key, given_as))
        read = serializer.loads(data)
        assert read == (key, value) and type(read[1]) is bytes


def test_bytes_layout(raw):
    checked = struct.pack("<I", 3) + "ké".encode() + b"value"
    assert raw.dumps(("ké", b"value")) == b"nfsb" + struct.pack("<I", zlib.crc32(checked)) + checked


@pytest.mark.parametrize("size", [0, 5, 100_000])
def test_fingerprints_tell_bytes_apart_however_they_are_split(raw, size):
    def fingerprint(value):
        parts, whole = raw.parts(("key", value)), raw.dumps(("key", value))
        assert raw.fingerprint(parts) == raw.fingerprint(whole) == raw.fingerprint(bytes(whole))
        return raw.fingerprint(whole)

    values = [bytes(size), bytes(size + 1), bytes(size) + b"\1", b"\1" + bytes(size)]
    assert len({fingerprint(value) for value in values}) == (3 if size == 0 else 4)


def test_every_byte_and_every_truncation_of_bytes(raw, serializers):
    data = raw.dumps(("key", b"value"))
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 0x20
        for wrong in (bytes(damaged), data[:position]):
            with pytest.raises(serializers.Damaged):
                raw.loads(wrong)
    with pytest.raises(serializers.Damaged):
        raw.loads(data + b"\0")


NO_BYTES = [
    "text",
    5,
    None,
    [1],
    array("d", [1.5]),
    array("B", [1]),
    memoryview(array("i", [1])),
    memoryview(array("q", [1])).cast("B").cast("B", (2, 4)),
    memoryview(b"abcd")[::2],
    memoryview(b"abcd").cast("?"),
    (ctypes.c_int * 3)(1, 2, 3),
]


@pytest.mark.parametrize("value", NO_BYTES, ids=repr)
@pytest.mark.parametrize("signed", [False, True])
def test_bytes_takes_bytes_alone(nfsdict, tmp_path, raw, value, signed):
    with pytest.raises(TypeError):
        raw.dumps(("key", value))
    serializer = nfsdict.signed("bytes", key=bytes(16)) if signed else "bytes"
    d = nfsdict.NfsDict("s", tmp_path, serializer, durable=False)
    for write in (
        lambda: d.__setitem__("key", value),
        lambda: d.add("key", value),
        lambda: d.setdefault("key", value),
        lambda: d.update(first=b"first", key=value),
    ):
        with pytest.raises(TypeError, match=r"takes bytes.*bytes\(a\)"):
            write()
    assert len(d) == 0 and not list((tmp_path / "s").glob("??/*"))


class Text(bytes):
    def __bytes__(self):
        return b"something else"


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("how", ["put", "add", "setdefault", "update"])
@pytest.mark.parametrize("size", [3, 300_000])
def test_bytes_keeps_what_was_assigned(nfsdict, tmp_path, how, size, signed):
    """And not the caller's buffer, which may change or go afterwards."""
    serializer = nfsdict.signed("bytes", key=bytes(16)) if signed else "bytes"
    d = nfsdict.NfsDict("s", tmp_path, serializer, durable=False)
    content = b"x" * size

    def assign(key, value):
        if how == "put":
            d[key] = value
        elif how == "add":
            assert d.add(key, value)
        elif how == "setdefault":
            assert type(d.setdefault(key, value)) is bytes
        else:
            d.update({key: value})

    buffer, view, inner = bytearray(content), memoryview(content), bytearray(content)
    part = memoryview(inner)
    for key, value in {"buffer": buffer, "view": view, "part": part}.items():
        assign(key, value)
    assign("bytes", content)
    assign("text", Text(content))
    buffer[:] = b"y" * size
    inner[:1] = b"z"
    view.release()
    part.release()
    for key in ("buffer", "view", "part", "bytes", "text"):
        assert d[key] == d.get(key, fresh=True) == content
        assert type(d[key]) is bytes
    assert nfsdict.NfsDict("s", tmp_path, serializer) == dict.fromkeys(d, content)


def test_bytes_are_kept_as_they_are(nfsdict, tmp_path):
    d = nfsdict.NfsDict("s", tmp_path, "bytes", durable=False)
    value = bytes(100)
    d["key"] = value
    assert d["key"] is value


def test_a_released_view_is_refused(raw):
    view = memoryview(b"value")
    view.release()
    with pytest.raises(ValueError):
        raw.dumps(("key", view))


def test_a_sealed_key_longer_than_its_file_is_no_other_error(raw, serializers):
    checked = struct.pack("<I", 99) + b"key"
    with pytest.raises(serializers.Damaged):
        raw.loads(b"nfsb" + struct.pack("<I", zlib.crc32(checked)) + checked)


def test_a_sealed_key_that_is_no_text_is_no_other_error(raw, serializers):
    checked = struct.pack("<I", 1) + b"\xff"
    with pytest.raises(serializers.Damaged):
        raw.loads(b"nfsb" + struct.pack("<I", zlib.crc32(checked)) + checked)


# --- a user's own ------------------------


class Lines:
    """A key and a line of text."""

    extension = ".line"

    def dumps(self, obj):
        return "\n".join(obj).encode()

    def loads(self, data):
        key, line = data.decode().split("\n")
        return key, line


def test_a_users_own(nfsdict, tmp_path):
    d = nfsdict.NfsDict("s", tmp_path, Lines(), durable=False)
    d["key"] = "value"
    [path] = (tmp_path / "s").glob("??/*")
    assert path.suffix == ".line" and path.read_bytes() == b"key\nvalue"
    assert dict(nfsdict.NfsDict("s", tmp_path, Lines())) == {"key": "value"}
    path.write_bytes(b"key")
    with pytest.raises(nfsdict.CorruptValueError):
        nfsdict.NfsDict("s", tmp_path, Lines(), lazy=True)["key"]


def test_a_users_own_is_a_serializer(nfsdict):
    assert isinstance(Lines(), nfsdict.Serializer)
    assert not isinstance(object(), nfsdict.Serializer)


def test_the_damage_that_a_users_own_reports(serializers):
    serializer = serializers.serializer_named(Lines())
    with pytest.raises(serializers.Damaged):
        serializer.loads(b"one line")
    with pytest.raises(serializers.Damaged):
        serializer.loads(b"\xff\n")


def test_dumps_that_gives_no_bytes(nfsdict, tmp_path):
    class Text(Lines):
        def dumps(self, obj):
            return "text"

    d = nfsdict.NfsDict("s", tmp_path, Text())
    with pytest.raises(TypeError, match="not bytes"):
        d["key"] = "value"
    assert len(d) == 0 and not list((tmp_path / "s").glob("??/*"))


@pytest.mark.parametrize("name", ["", "PICKLE", "pkl", "yaml"])
def test_an_unknown_name(serializers, name):
    with pytest.raises(ValueError, match=r"unknown serializer .*pickle, json, bytes"):
        serializers.serializer_named(name)


@pytest.mark.parametrize("thing", [None, 5, object(), pickle])
def test_no_serializer(serializers, thing):
    with pytest.raises(ValueError, match="extension, dumps and loads"):
        serializers.serializer_named(thing)


@pytest.mark.parametrize(
    "extension",
    [".nfsdict-pkl", ".NFSDICT-pkl", ".damaged-x", ".x.damaged-0", ".pkl.signed", ".x.Signed"],
)
def test_an_extension_that_is_the_stores_own(nfsdict, serializers, extension):
    serializer = Lines()
    serializer.extension = extension
    with pytest.raises(ValueError, match="is for"):
        serializers.serializer_named(serializer)
    with pytest.raises(ValueError, match="is for"):
        nfsdict.signed(serializer, key=bytes(16))


@pytest.mark.parametrize("extension", [None, 5, b".x", "." + "x" * 64])
def test_an_extension_that_is_no_text_or_too_long(serializers, extension):
    serializer = Lines()
    serializer.extension = extension
    with pytest.raises(ValueError, match=r"end a file name|characters at most"):
        serializers.serializer_named(serializer)


@pytest.mark.parametrize(
    "extension",
    [
        ".pkl-x",
        ".pkl-0123456789abcdef01234567",
        ".pkl_",
        ".pk",
        ".tmp",
        ".PKL",
        ".tar.gz",
        ".x" * 32,
    ],
)
def test_extensions_that_begin_alike(nfsdict, opened, extension, monkeypatch):
    """Neither store takes the other's files for its own, packs and index included."""
    packs = importlib.import_module("nfsdict.index.stack")
    monkeypatch.setattr(packs, "_GRACE_NS", -(10**18))  # whatever no head names is swept
    serializer = Lines()
    serializer.extension = extension
    pickles, lines = opened(), opened(serializer=serializer)
    pickles.update({str(number): number for number in range(20)})
    lines.update({str(number): "x" for number in range(20)})
    path = pickles.path
    past = time.time_ns() - 3600 * 10**9
    for file in sorted(path.rglob("*"), reverse=True):
        os.utime(file, ns=(past, past))
    for d in (lines, pickles, lines, pickles):
        d.sync()
        d.pack()
        assert d._storage.index.packs()
    assert lines._storage.index.packs()
    assert len(list(path.glob("_pack.*"))) == 2 and len(list(path.glob("_index.*"))) == 2
    lines.repair()
    assert len(list(path.glob("_pack.nfsdict-pkl-*"))) >= 1
    assert len(opened()) == len(opened(serializer=serializer)) == 20
    lines.clear()
    assert len(opened()) == 20


@pytest.mark.parametrize("extension", ["", ".", "pkl", "./x", ".a/b", ".a\0", "..", ". ", ".é"])
def test_an_extension_that_cannot_end_a_name(serializers, extension):
    serializer = Lines()
    serializer.extension = extension
    with pytest.raises(ValueError, match="can't end a file name"):
        serializers.serializer_named(serializer)
