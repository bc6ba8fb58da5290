"""Arrays, tables and tensors as arguments of memoised functions: what they hold is what counts."""

from __future__ import annotations

import datetime
import hashlib
import importlib
import importlib.util
import platform
import subprocess
import sys

import pytest

if platform.python_implementation() != "CPython":
    pytest.skip("numpy and pandas are installed with the tests on CPython", allow_module_level=True)

import numpy as np
import pandas as pd


@pytest.fixture(scope="module")
def encode():
    return importlib.import_module("nfsdict.coordination.encoding").encode


def golden(encoded):
    return hashlib.sha256(encoded).hexdigest()[:16]


# --- numpy -----------------------------------------------------------------------------------


def test_an_array_is_dtype_shape_and_contents(encode):
    """Byte by byte, as the documentation has it."""
    contents = hashlib.sha256(b"\1\0\2\0").digest()
    shape = encode((2, 1))
    payload = encode("<i2") + shape + encode(contents)
    expected = b"A" + len(payload).to_bytes(8, "big") + payload
    assert encode(np.array([[1], [2]], "i2")) == expected


def test_the_layout_in_memory_does_not_matter(encode, tmp_path):
    array = np.arange(24, dtype="<f8").reshape(2, 3, 4)
    strided = np.zeros((4, 6, 8))
    strided[::2, ::2, ::2] = array
    mapped = np.memmap(tmp_path / "file", "f8", "w+", shape=array.shape)
    mapped[:] = array
    alike = [np.asfortranarray(array), array.astype(">f8"), strided[::2, ::2, ::2], mapped]
    alike += [array.T.copy().T, array[::-1].copy()[::-1]]
    for other in alike:
        assert encode(other) == encode(array)
    text = np.array(["a", "bc"])
    assert encode(text.astype(">U2")) == encode(text)


def test_arrays_that_differ_have_different_keys(encode):
    distinct = [
        *(np.zeros(3, kind) for kind in ("f4", "f8", "i4", "i8", "u8", "?", "U1", "S1", "c8", "O")),
        *(np.zeros(shape) for shape in ((), (0,), (1,), (3, 1), (1, 3), (0, 3), (3, 0))),
        *(np.array([1, 2, 3], f"M8[{unit}]") for unit in ("s", "ms")),
        *(np.array(pair, object) for pair in ([1, "a"], [1.0, "a"], [[1, 2], [3, 4]])),
        *(np.zeros(2, fields) for fields in ("i4,i4", "i4,f4", [("x", "i4"), ("y", "i4")])),
        np.array([-0.0]),
        np.array([np.nan]),
        np.zeros(3, "V8"),
        np.float64(0),
        np.float32(0),
        np.str_("a"),
        "a",
        0.0,
        [0.0, 0.0, 0.0],
    ]
    assert len({encode(value) for value in distinct}) == len(distinct)


def test_every_nan_is_one(encode):
    for kind in ("f2", "f4", "f8", "c16"):
        nans = np.array([np.nan, 1, np.nan], kind)
        raw = nans.copy().view("u1")
        raw[nans.real.dtype.itemsize - 1] ^= 0x80  # the sign of the first
        other = raw.view(kind)
        assert other.tobytes() != nans.tobytes()
        assert encode(other) == encode(nans)
        assert encode(np.array(other[0])) == encode(np.array(nans[0]))


def test_what_lies_between_fields_does_not_matter(encode):
    padded = np.dtype([("a", "u1"), ("b", "f8")], align=True)
    one = np.frombuffer(bytes(32), padded)
    other = np.frombuffer((b"\0" + b"\xff" * 7 + bytes(8)) * 2, padded)
    assert encode(one) == encode(other)
    packed = np.zeros(2, [("a", "u1"), ("b", "f8")])
    assert encode(one) == encode(packed)
    assert encode(one[0]) == encode(packed[0]) != encode(packed[:1])


def test_arrays_without_an_encoding(encode):
    masked = np.ma.masked_array([1, 2], [True, False])
    for value in (np.zeros(2, "g"), np.zeros(2, "G"), masked, np.rec.array([1]), np.longdouble(1)):
        with pytest.raises(TypeError, match="has no encoding"):
            encode(value)
    with pytest.raises(TypeError, match=r"builtins\.object has no encoding"):
        encode(np.array([object()]))


def test_golden_arrays(encode):
    """These never change: stores are full of them."""
    assert {
        "f8": golden(encode(np.arange(6.0).reshape(2, 3))),
        "U": golden(encode(np.array(["a", "bcd"]))),
        "O": golden(encode(np.array([1, None, "x"], object))),
        "M8": golden(encode(np.array(["2026-07-01"], "M8[D]"))),
        "fields": golden(encode(np.array([(1, 2.0)], "i4,f8"))),
        "scalar": golden(encode(np.float32(1.5))),
    } == GOLDEN_ARRAYS


GOLDEN_ARRAYS = {
    "f8": "3d8f6a02105de829",
    "U": "cc01160457a1169c",
    "O": "45ffea02a5342514",
    "M8": "6da4d4501b219e76",
    "fields": "80039c01b31c36d0",
    "scalar": "10eb0692ec58184b",
}


# --- pandas ----------------------------------------------------------------------------------


def frame():
    days = pd.date_range("2026-01-01", periods=2, unit="us")
    return pd.DataFrame(
        {
            "n": np.array([1, 2]),
            "text": pd.array(["a", None], dtype="string"),
            "category": pd.Categorical(["u", "v"], ordered=True),
            "day": days,
            "zoned": days.tz_localize("UTC"),
            "whole": pd.array([1, None], dtype="Int64"),
        },
        index=pd.Index(["p", "q"], name="row", dtype="string"),
    )


def changed(column, values):
    one = frame()
    one[column] = values
    return one


def test_tables_are_their_contents(encode):
    one = frame()
    assert encode(one) == encode(frame())
    assert encode(one.iloc[::-1].iloc[::-1]) == encode(one)
    assert encode(one[["n"]]) == encode(pd.DataFrame({"n": one["n"]}))
    renamed = frame()
    renamed.index.name = "other"
    distinct = [
        one,
        renamed,
        one.iloc[::-1],
        one[one.columns[::-1]],
        one.reset_index(),
        changed("n", [1, 3]),
        changed("n", [1.0, 2.0]),
        changed("text", pd.array(["a", "b"], dtype="string")),
        changed("category", pd.Categorical(["u", "v"], ["v", "u"], ordered=True)),
        changed("category", pd.Categorical(["u", "v"])),
        changed("day", one["day"] + pd.Timedelta("1us")),
        changed("zoned", one["zoned"].dt.tz_convert("Europe/Berlin")),
        changed("whole", pd.array([1, 0], dtype="Int64")),
        one["n"],
        one["n"].rename("m"),
        one["n"].to_frame(),
        one.index,
        one.set_index(["n", "day"]).index,
    ]
    assert len({encode(value) for value in distinct}) == len(distinct)


def test_a_multiindex_of_one_level_has_its_level_in_it(encode):
    levels = (
        pd.Index(np.array([1, 2], "int64"), name="a"),
        pd.Index(np.array([1, 2], "int64"), name="b"),
        pd.Index([1, 2], dtype="Int64", name="a"),
        pd.CategoricalIndex([1, 2], name="a"),
    )
    found = {encode(pd.MultiIndex.from_arrays([level])) for level in levels}
    assert len(found | {encode(level) for level in levels}) == 2 * len(levels)


def test_scalars_of_pandas(encode):
    stamp = pd.Timestamp("2026-07-01 08:00:00.000000001")
    distinct = [
        *(stamp, stamp.tz_localize("UTC"), stamp.floor("us"), stamp.floor("us").to_pydatetime()),
        *(pd.Timedelta("1ns"), pd.Timedelta("1us"), datetime.timedelta(microseconds=1)),
        *(pd.NA, pd.NaT, None),
    ]
    assert len({encode(value) for value in distinct}) == len(distinct)
    assert encode(stamp.floor("us").as_unit("us")) == encode(stamp.floor("us").as_unit("ns"))
    with pytest.raises(TypeError, match="Period has no encoding"):
        encode(pd.Series(pd.period_range("2026", periods=2)))


def test_golden_tables(encode):
    one = frame()
    assert golden(encode(one)) == "4dc8176274511416"
    assert golden(encode(one["n"])) == "b39aafae9f9f6d99"


# --- torch -----------------------------------------------------------------------------------


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch isn't installed")
def test_tensors_are_their_contents():
    """In a process of its own, as importing torch warns of this and that."""
    code = """
import hashlib, torch
from nfsdict.coordination.encoding import encode
one = torch.arange(6.0).reshape(2, 3)
assert encode(one.T.contiguous().T) == encode(one) == encode(one.clone().requires_grad_())
distinct = [one, one.T, one.double(), one.half(), one.bfloat16(), one.int(), one.bool(), one + 1]
distinct += [one.reshape(6), torch.tensor(1.0), torch.tensor([1.0]), one + 1j, (one + 1j).conj()]
distinct.append(one.numpy())
assert len({encode(value) for value in distinct}) == len(distinct)
for value in (one.to_sparse(), torch.nn.Parameter(one)):
    try:
        encode(value)
    except TypeError as error:
        assert "has no encoding" in str(error)
    else:
        raise AssertionError(value)
print(hashlib.sha256(encode(one)).hexdigest()[:16])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("493d01d465491237", "")


# --- none of them is imported by us ----------------------------------------------------------


def test_nothing_is_imported():
    code = (
        "import sys; from nfsdict.coordination.encoding import encode; encode([1, (2, 'x')])\n"
        "try: encode(object())\n"
        "except TypeError: print(sorted({'numpy', 'pandas', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")
