"""Keys of memoised calls: the same everywhere, of different values never the same."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import importlib
import io
import os
import pathlib
import re
import struct
import subprocess
import sys
import typing
import uuid
import zoneinfo
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

DOCUMENT = Path(__file__).parents[2] / "docs" / "call-keys.md"


# No core takes part in keys, so these tests run once.


@pytest.fixture(scope="module")
def encoding():
    return importlib.import_module("nfsdict.coordination.encoding")


@pytest.fixture(scope="module")
def calls():
    """The keys of a function's calls, with the options of ``memoize``."""
    module = importlib.import_module("nfsdict.coordination.calls")

    def calls(function, name=None, version=None, key=None, ignore=()):
        return module.Calls(function, name, version, key, ignore)

    return calls


class Color(enum.Enum):
    RED = 1
    CRIMSON = 1
    BLUE = 2


class Level(enum.IntEnum):
    LOW = 1


class Right(enum.IntFlag):
    READ = 4
    WRITE = 2


class Point(typing.NamedTuple):
    x: int
    y: int


class PointToo(typing.NamedTuple):
    x: int
    y: int


@dataclasses.dataclass
class Config:
    rate: float
    layers: list = dataclasses.field(default_factory=list)
    quiet: bool = dataclasses.field(default=False, compare=False)


@dataclasses.dataclass
class Larger(Config):
    more: int = 0


# --- the table in the documentation ----------------------------------------------------------


def rows():
    """Tag, example and item of each row of the table."""
    for line in DOCUMENT.read_text().splitlines():
        cells = [cell.strip(" `") for cell in line.split("|")[1:-1]]
        if len(cells) == 5 and len(cells[1]) == 1:
            yield cells[1], cells[3], cells[4]


def test_the_table_is_what_is_done(encoding):
    names = {
        **vars(datetime),
        "Decimal": decimal.Decimal,
        "Fraction": fractions.Fraction,
        "UUID": uuid.UUID,
        "PurePosixPath": pathlib.PurePosixPath,
        "ZoneInfo": zoneinfo.ZoneInfo,
    }
    found = list(rows())
    for tag, example, expected in found:
        if example:
            encoded = encoding.encode(eval(example, dict(names))).hex()
            assert f"{encoded[:2]} {encoded[2:18]} {encoded[18:]}".strip() == expected, example
            assert encoded[:2] == tag.encode().hex()
    assert sum(bool(example) for _, example, _ in found) == 22


def test_the_table_has_every_tag_once(encoding):
    tags = [tag for tag, _, _ in rows()]
    assert len(set(tags)) == len(tags)
    sources = [Path(encoding.__file__), Path(encoding.__file__).with_name("arrays.py")]
    used = re.findall(r'(?:item|_sorted|_clock)\(b"(.)"', "".join(map(Path.read_text, sources)))
    assert set(used) == set(tags)


# --- of different values never the same ------------------------------------------------------


def decode(data):
    """A value from its item: an inverse, written from the documentation alone."""
    [value] = elements(data)
    return value


def elements(data):
    while data:
        tag, length = data[:1], int.from_bytes(data[1:9], "big")
        assert len(data) >= 9 + length
        yield DECODERS[tag](data[9 : 9 + length])
        data = data[9 + length :]


def pairs(data):
    found = list(elements(data))
    return list(zip(found[::2], found[1::2]))


def double(data):
    return struct.unpack(">d", data)[0]


DECODERS = {
    b"N": lambda data: None,
    b"B": lambda data: {b"\0": False, b"\1": True}[data],
    b"I": lambda data: int.from_bytes(data, "big", signed=True),
    b"F": double,
    b"C": lambda data: complex(double(data[:8]), double(data[8:])),
    b"S": lambda data: data.decode("utf-8", "surrogatepass"),
    b"Y": bytes,
    b"T": lambda data: tuple(elements(data)),
    b"L": lambda data: list(elements(data)),
    b"D": lambda data: dict(pairs(data)),
    b"E": lambda data: set(elements(data)),
    b"Z": lambda data: frozenset(elements(data)),
    b"R": lambda data: range(*elements(data)),
    b"V": lambda data: slice(*elements(data)),
    b"d": lambda data: datetime.date.fromisoformat(data.decode()),
    b"t": lambda data: clock(datetime.time, *elements(data)),
    b"m": lambda data: clock(datetime.datetime, *elements(data)),
    b"l": lambda data: datetime.timedelta(*elements(data)),
    b"z": lambda data: zone(*elements(data)),
    b"g": lambda data: zoneinfo.ZoneInfo(*elements(data)),
    b"X": lambda data: dec(*elements(data)),
    b"Q": lambda data: fractions.Fraction(*elements(data)),
    b"U": lambda data: uuid.UUID(bytes=data),
    b"P": lambda data: path(*elements(data)),
}


def clock(kind, text, fold, zone):
    return kind.fromisoformat(text).replace(fold=fold, tzinfo=zone)


def zone(offset, name):
    unnamed = datetime.timezone(offset)
    return unnamed if unnamed.tzname(None) == name else datetime.timezone(offset, name)


def dec(sign, digits, exponent):
    return decimal.Decimal((sign, tuple(map(int, digits)), exponent))


def path(kind, text):
    return getattr(pathlib, kind)(text)


def exact(value):
    """What tells values apart, as Python's own ``repr`` does."""
    if isinstance(value, (set, frozenset)):
        return type(value), sorted(map(repr, map(exact, value)))
    if isinstance(value, dict):
        return dict, sorted(repr((exact(key), exact(of))) for key, of in value.items())
    if isinstance(value, (tuple, list)):
        return type(value), list(map(exact, value))
    if isinstance(value, slice):
        return slice, exact([value.start, value.stop, value.step])
    if isinstance(value, (datetime.time, datetime.datetime)):
        return repr(value), value.fold
    return type(value), repr(value)


zones = st.none() | st.builds(
    datetime.timezone, st.timedeltas(datetime.timedelta(hours=-23), datetime.timedelta(hours=23))
)
folded = st.integers(0, 1)
hashable = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.integers(-300, 300),
        st.floats(),
        st.complex_numbers(),
        st.text(st.characters()),
        st.binary(),
        st.dates(),
        st.builds(clock_of := lambda t, f: t.replace(fold=f), st.times(timezones=zones), folded),
        st.builds(clock_of, st.datetimes(timezones=zones), folded),
        st.timedeltas(),
        st.decimals(allow_nan=False),
        st.fractions(),
        st.uuids(),
        st.builds(pathlib.PurePosixPath, st.text()),
        st.builds(range, st.integers(-9, 9), st.integers(-9, 9), st.integers(1, 9)),
    ),
    lambda children: st.lists(children).map(tuple) | st.frozensets(children),
    max_leaves=5,
)
values = st.recursive(
    hashable | st.decimals() | st.builds(slice, hashable, hashable, hashable),
    lambda children: st.one_of(
        st.lists(children),
        st.lists(children).map(tuple),
        st.sets(hashable),
        st.dictionaries(hashable, children),
    ),
    max_leaves=5,
)


@given(value=values)
def test_an_item_can_be_decoded_to_the_very_value(encoding, value):
    """So no two values have one item: there is a function back."""
    assert exact(decode(encoding.encode(value))) == exact(value)


@given(data=st.data(), entries=st.dictionaries(st.integers() | st.text(), st.integers()))
def test_the_order_of_dicts_and_sets_does_not_matter(encoding, data, entries):
    shuffled = data.draw(st.permutations(list(entries.items())))
    assert encoding.encode(dict(shuffled)) == encoding.encode(entries)
    assert encoding.encode(set(dict(shuffled))) == encoding.encode(set(entries))


def test_types_that_compare_equal_differ(encoding):
    alike = [1, True, 1.0, 1 + 0j, decimal.Decimal(1), fractions.Fraction(1), Level.LOW]
    alike += [decimal.Decimal("1.0"), 0.0, -0.0, 0, (1, 2), [1, 2], Point(1, 2), PointToo(1, 2)]
    alike += [set(), frozenset(), {}, "1", b"1", Config(1), Larger(1), {"x": 1, "y": 2}]
    alike += [pathlib.PurePosixPath("1"), pathlib.PureWindowsPath("1"), pathlib.PosixPath("1")]
    assert len({encoding.encode(value) for value in alike}) == len(alike)


def test_every_nan_is_one(encoding):
    [negative] = struct.unpack(">d", bytes.fromhex("fff8000000000001"))
    assert encoding.encode(negative) == encoding.encode(float("nan"))


def test_enums_dataclasses_and_named_tuples(encoding):
    assert encoding.encode(Color.RED) == encoding.encode(Color.CRIMSON)
    distinct = [Color.RED, Color.BLUE, Right.READ, Right.READ | Right.WRITE, Point(1, 2)]
    distinct += [Point(2, 1), Config(1.0), Config(2.0), Config(1.0, [1]), Config(1.0, quiet=True)]
    assert len({encoding.encode(value) for value in distinct}) == len(distinct)
    assert encoding.encode(Right.READ & ~Right.WRITE) == encoding.encode(Right.READ)
    assert encoding.encode(~Right.READ)[-1] == 3
    assert encoding.encode(Config(1.0)) == encoding.encode(Config(1.0, []))


# --- what has no item ------------------------------------------------------------------------


class Text(str):
    """A subclass that may hold more."""


class Undecorated(Config):
    """The same of a dataclass."""


@dataclasses.dataclass
class Listing(list):
    name: str


class PointAndMore(Point):
    """One that has a ``__dict__``."""


def test_other_values_are_a_type_error_that_says_what_to_do(calls):
    def f(x, model=None):
        pass

    key_of = calls(f, "f").key_of
    refused = [object(), Text("a"), collections.OrderedDict(), collections.Counter(), bytearray()]
    refused += [Undecorated(1), Listing("a"), PointAndMore(1, 2), len, int, lambda: 0, Ellipsis]
    refused += [unnamed_zone()]
    for value in refused:
        for holder in (value, [value], {"k": (value,)}):
            with pytest.raises(TypeError, match="'model'") as error:
                key_of((1,), {"model": holder})
            assert re.search(r" of f .*ignore=.*key=.*register_key", str(error.value))
    with pytest.raises(TypeError, match=r"test_call_keys\.Text has no encoding"):
        key_of((Text("a"),), {})


def unnamed_zone():
    """A zone from a file, which is in the format of RFC 8536, version 1, and has no transitions."""
    header = b"TZif" + bytes(16) + struct.pack(">6l", 0, 0, 0, 0, 1, 4)
    return zoneinfo.ZoneInfo.from_file(io.BytesIO(header + bytes(6) + b"UTC\0"))


def test_what_holds_itself_is_a_type_error(calls):
    loop = []
    loop.append(loop)
    deep = ()
    for _ in range(100_000):
        deep = (deep,)
    for value in (loop, deep):
        with pytest.raises(TypeError, match=r"'x' of f .*holds itself, or is nested too deeply"):
            calls(lambda x: x, "f").key_of((value,), {})


# --- types of one's own ----------------------------------------------------------------------


class Model:
    def __init__(self, name, weights):
        self.name = name
        self.weights = weights


class ModelToo(Model):
    pass


def test_register_key(encoding):
    with pytest.raises(TypeError):
        encoding.encode(Model("a", 1))
    encoding.register_key(Model, lambda model: model.name)
    assert encoding.encode(Model("a", 1)) == encoding.encode(Model("a", 2))
    assert encoding.encode(Model("a", 1)) != encoding.encode(Model("b", 1))
    assert encoding.encode(Model("a", 1)) != encoding.encode("a")
    with pytest.raises(TypeError, match="ModelToo"):
        encoding.encode(ModelToo("a", 1))
    encoding.register_key(ModelToo, lambda model: model.name)
    assert encoding.encode(Model("a", 1)) != encoding.encode(ModelToo("a", 1))
    encoding.register_key(Config, lambda config: config.rate)
    assert encoding.encode(Config(1.0, [1])) == encoding.encode(Config(1.0, [2]))
    del encoding._registered[Config]


def test_a_function_that_is_registered_can_be_called(encoding):
    with pytest.raises(TypeError, match="function"):
        encoding.register_key(Model, "name")


@pytest.mark.parametrize("fixed", [int, str, type(None), datetime.date, pathlib.PurePosixPath])
def test_pythons_own_types_are_fixed(encoding, fixed):
    with pytest.raises(ValueError, match=f"{fixed.__name__} is fixed"):
        encoding.register_key(fixed, str)
    with pytest.raises(TypeError):
        encoding.register_key(5, str)


# --- calls -----------------------------------------------------------------------------------


def train(x, p=2, *rest, flag=False, **options):
    """A function with every kind of parameter but positional-only."""


def test_calls_that_bind_alike_are_one(calls):
    key_of = calls(train).key_of
    assert key_of((1,), {}) == key_of((1, 2), {}) == key_of((), {"p": 2, "x": 1})
    assert key_of((1,), {"a": 1, "b": 2}) == key_of((1,), {"b": 2, "a": 1, "flag": False})
    distinct = [
        ((1,), {}),
        ((1.0,), {}),
        ((1, 3), {}),
        ((1, 2, 3), {}),
        ((1, 2, 3, 4), {}),
        ((1,), {"flag": True}),
        ((1,), {"a": 1}),
        ((1,), {"a": None}),
    ]
    assert len({key_of(*call) for call in distinct}) == len(distinct)
    with pytest.raises(TypeError, match="missing a required argument"):
        key_of((), {})


def test_the_order_of_parameters_does_not_matter(calls):
    assert calls(lambda a, b=1: 0, "f").key_of((2,), {}) == calls(lambda b, a: 0, "f").key_of(
        (1, 2), {}
    )


def test_what_is_ignored_does_not_matter(calls):
    key_of = calls(train, ignore=("flag", "options")).key_of
    assert key_of((1,), {}) == key_of((1,), {"flag": object(), "a": object()})
    assert key_of((1,), {}) != key_of((2,), {})
    with pytest.raises(ValueError, match="no parameter wrong"):
        calls(train, ignore=("wrong",))
    assert calls(train, ignore="x").key_of((object(),), {})


def test_key_tells_what_counts(calls):
    key_of = calls(train, key=lambda x, p, *rest, **_: (x["id"], p)).key_of
    assert key_of(({"id": 1, "at": object()},), {}) == key_of(({"id": 1}, 2), {"flag": True})
    assert key_of(({"id": 1},), {}) != key_of(({"id": 2},), {})
    with pytest.raises(ValueError, match="ignore="):
        calls(train, key=lambda *args: 1, ignore=("x",))
    with pytest.raises(TypeError, match=r"what key= returned of .*object has no encoding"):
        calls(train, key=lambda *args, **kwargs: object()).key_of((1,), {})


def test_the_key_has_name_and_version(calls):
    digest = "[0-9a-f]{64}"
    name = re.escape(__name__)
    assert re.fullmatch(f"{name}.train/0/{digest}", calls(train).key_of((1,), {}))
    assert re.fullmatch(f"a/b/2/{digest}", calls(train, "a/b", 2).key_of((1,), {}))
    assert calls(train, version="2").prefix == calls(train, version=2).prefix
    for name, version in (("", None), ("a", ""), ("a", "1/2")):
        with pytest.raises(ValueError, match="version"):
            calls(train, name, version)


def test_a_function_owns_its_calls_alone(calls):
    one = calls(train, "a", "b")
    assert one.owns(one.key_of((1,), {}))
    others = [calls(train, "a/b"), calls(train, "a", "bc"), calls(train, "a/b/0"), calls(train)]
    for other in others:
        assert not one.owns(other.key_of((1,), {}))
    assert not one.owns("a/b/" + "x" * 64) and not one.owns("a/b/" + "0" * 65)


class Trainer:
    def method(self, x):
        pass

    @classmethod
    def of_class(cls, x):
        pass

    @staticmethod
    def of_nobody(x):
        pass


def test_methods_need_to_say_what_counts(calls):
    for method, first in ((Trainer.method, "self"), (Trainer.of_class.__func__, "cls")):
        with pytest.raises(TypeError, match=rf"is a method: .*ignore=\('{first}',\).*key="):
            calls(method)
        assert calls(method, ignore=(first,)).key_of((object(), 1), {})
        assert calls(method, key=lambda _, x: x).key_of((object(), 1), {})
    assert calls(Trainer.of_nobody).key_of((1,), {})


def test_names_that_others_can_have_are_refused(calls):
    def inner():
        pass

    partial = __import__("functools").partial(train, 1)
    for function in (inner, lambda: 0, partial):
        with pytest.raises(TypeError, match="give name="):
            calls(function)
        assert calls(function, "named").key_of((), {})
    with pytest.raises(TypeError, match="signature"):
        calls(type, "named")


SCRIPT = """
import dataclasses, sys
sys.path[:0] = {path!r}
from nfsdict.coordination.calls import Calls
@dataclasses.dataclass
class Config:
    rate: float
def train(x): pass
def key(): return Calls(train, None, None, None, ()).key_of((Config(0.5),), {{}})
if __name__ == "__main__": print(key())
"""


def run(*arguments, **options):
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, **options
    )
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


def test_a_script_and_its_import_have_one_name(encoding, tmp_path):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    source = SCRIPT.format(path=[str(Path(encoding.__file__).parents[2])])
    for file in ("sweep.py", "package/sweep.py", "package/__main__.py"):
        (tmp_path / file).write_text(source)
    spawning = (
        "import multiprocessing as m, sweep\n"
        "if __name__ == '__main__':\n"
        "    print(m.get_context('spawn').Pool(1).apply(sweep.key))\n"
    )
    (tmp_path / "spawning.py").write_text(spawning)
    imported = run("-c", "import sweep; print(sweep.key())", cwd=tmp_path)
    assert imported.startswith("sweep.train/0/")
    assert run("sweep.py", cwd=tmp_path) == imported
    assert run(str(tmp_path / "sweep.py")) == imported
    assert run("-m", "sweep", cwd=tmp_path) == imported
    assert run("spawning.py", cwd=tmp_path) == imported
    in_package = run("-c", "import package.sweep as s; print(s.key())", cwd=tmp_path)
    assert in_package.startswith("package.sweep.train/0/")
    assert run("-m", "package.sweep", cwd=tmp_path) == in_package
    assert run("-m", "package", cwd=tmp_path).startswith("package.train/0/")
    assert "give name=" in run("-c", source)
    assert "give name=" in run("package/__main__.py", cwd=tmp_path)
    assert "give name=" in run("package", cwd=tmp_path)
    assert "give name=" in run("-", input=source)


def test_a_script_that_is_profiled_has_its_own_name(encoding, tmp_path):
    """A profiler runs a script in a module that has the script's name, or stays the profiler's."""
    source = SCRIPT.format(path=[str(Path(encoding.__file__).parents[2])])
    (tmp_path / "sweep.py").write_text(source.replace("Config(0.5)", "0.5"))
    profiled = run("-m", "cProfile", "-o", "profile", "sweep.py", cwd=tmp_path)
    assert profiled == run("sweep.py", cwd=tmp_path)
    assert profiled.startswith("sweep.train/0/")


def test_keys_do_not_depend_on_the_process():
    code = (
        "from nfsdict.coordination.encoding import encode; import enum, hashlib\n"
        "values = [{'a', 'b', 'c', 1, (2, 'x')}, {'k': {'y', 'z'}, 'l': frozenset('abc')}]\n"
        "print(hashlib.sha256(encode(values)).hexdigest())"
    )
    seeds = [{**os.environ, "PYTHONHASHSEED": str(seed)} for seed in range(5)]
    assert len({run("-c", code, env=seed) for seed in seeds}) == 1


# --- golden keys -----------------------------------------------------------------------------

# Their module is part of their keys, and this one's name is a matter of how tests are run.
for kind in (Color, Right, Point, Config):
    kind.__module__ = "samples"

SAMPLES = {
    "None": None,
    "True": True,
    "0": 0,
    "-1": -1,
    "2**64": 2**64,
    "0.1": 0.1,
    "nan": float("nan"),
    "2-1j": 2 - 1j,
    "text": "tëxt\ud800",
    "bytes": b"\0\xff",
    "tuple": (1, (2, "x")),
    "list": [1, [2]],
    "dict": {"b": [1], "a": {2: None}, 3: 4.5},
    "set": {"x", 1, None},
    "frozenset": frozenset([1.0, "y"]),
    "range": range(1, 10, 3),
    "slice": slice(1, None, 2),
    "date": datetime.date(1999, 12, 31),
    "time": datetime.time(23, 59, 59, 5, fold=1),
    "datetime": datetime.datetime(2026, 7, 1, 8, 30, tzinfo=datetime.timezone.utc),
    "zoned": datetime.datetime(2026, 7, 1, 8, 30, tzinfo=zoneinfo.ZoneInfo("UTC")),
    "timezone": datetime.timezone(datetime.timedelta(hours=-3, minutes=-30)),
    "timedelta": datetime.timedelta(-1, 5, 7),
    "Decimal": decimal.Decimal("-1.50E+7"),
    "Infinity": decimal.Decimal("Infinity"),
    "Fraction": fractions.Fraction(-2, 3),
    "UUID": uuid.UUID(int=5),
    "path": pathlib.PurePosixPath("/a/b.txt"),
    "enum": Color.BLUE,
    "flags": Right.READ | Right.WRITE,
    "named tuple": Point(1, -2),
    "dataclass": Config(0.5, [3, 4]),
}
GOLDEN = {
    "None": "a828bd04c984e57351ee4ef5b8b6a7bc2793b0cbfcd171a0bbd3340b11b490cb",
    "True": "aa04cbafb5cc8f67c2bc9c4cd19d2b0d246c560449ad417c7afc50688b797a77",
    "0": "b4282b2fccba49247a7f64c12f2287c82c89ae21287a941e2b71d014e125699c",
    "-1": "2ae510cfa24b0a1d6cd70d05856b28dbbb14e7d6bfd7896d92e2b4542b3f8913",
    "2**64": "eb11662494143dc08ed86753a107e980ee5f70cb0778478995d8c04e72156c7a",
    "0.1": "3631a51009a12df2e2c011a1381894e36e1a0f63ec447fe2ec7fcda89b65bff8",
    "nan": "50a0df26e4275f7625d3d68b8fc68daea10cd8f09a2be215d57116acf33d90cf",
    "2-1j": "f3584a8041a3fe9090244e2d18188ce98fc62753d881664d040e8156c5e9f053",
    "text": "33a165f8a09f2e7d5adc31b3c3ba574c781d5a67bb8d7c1bc65a48175e62afca",
    "bytes": "d935096ddea397ee43da8847b511ce0cf365df5e943785c2acd6248d328ea734",
    "tuple": "27c2c071e68ba59f58be62f26c069f7de1be85cc73c189603a78ad46564baecd",
    "list": "05c04eaae2f8da4877473c347aa97eace009161e5725c0dac6b90bd58a6f3880",
    "dict": "a74ae68ac3815127118edc62c198fb221dd423e5a567dcf7f08d784d8cd39511",
    "set": "99a46953085dc31bcd4a32a0924122d51a36320c4c4071997caedc2fb27b0ab8",
    "frozenset": "fd073fc05643f9929cafdaa3b4a07e093246a4fd1494650814de3ebb098f5684",
    "range": "709abb6db02e18efe8f5b9275d0c21143e7e0c72e5b52ceaa4d93de9bb31a341",
    "slice": "4354b1c0aca2f7aab7a0edbcad36790f6503465404f190abe75b2bb2812878b3",
    "date": "9cd03dcc6f6019ef26d24eb8395869189d04aeedb96bcdc5b28c8832ff1a9047",
    "time": "cceec6f7d5476b85d2e21f389ef5e32efb7de3befac2baf1af24c6eacfbfc857",
    "datetime": "77b871bced3feb4dd54ba4bde5b6765e88bde716e9563f9381846561be3eca83",
    "zoned": "6ca183502f6f66ba107a566019916e2691fb4535b6c09024c36e8de06146247b",
    "timezone": "16fe8612791a132ef9ac153b79c9e347d6fab81cd7ec0d94ecf36e7421f6b289",
    "timedelta": "d6688762d1bce9b780c4cb4ae6e2ea0a05d1cb5a75dbd768ab0f094c4066e271",
    "Decimal": "a7caaa3d7a09e7881a435c3723fb5ca5103339022b0d19dd06120beb62a2b7da",
    "Infinity": "cd1ac0c175348f3a64ed5844bbe484e8410cbd9b47e486902d209bf0acb1bb9c",
    "Fraction": "b11b090b0eb9fca7d7c95efb6db7fc5eac4bb7691be880f8f2e8d68c5fbc1d72",
    "UUID": "9c169ffbe0ab1fb98094df442727457f4f313f4934d33d89d65157129cecc2e1",
    "path": "145e99d13ee47a9387775767fb7f9aa8dcc666560ab738044a083acf681183bd",
    "enum": "9557aa63f585bb3d6de3adac6ad3fbb70634f4699b2ee8315cecd2a32dbb0ca1",
    "flags": "a69d0986e996e8e387a6be7cdaaad8499ef485fa72abe2f9333ca01310ff7b2b",
    "named tuple": "a5be33936f89930cf1b05bbc8c210fa1fedb2ae3b759e4185df52254917f9c30",
    "dataclass": "5d463e636c4b3617bba707baf36216cf2e633e21f513a4c0e9696780b9c87c68",
}


@pytest.mark.parametrize("sample", SAMPLES)
def test_golden_keys(calls, sample):
    """These never change: stores are full of them."""
    key = calls(lambda x, y=1: 0, "golden").key_of((SAMPLES[sample],), {})
    assert key == f"golden/0/{GOLDEN[sample]}"
