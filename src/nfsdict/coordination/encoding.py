"""The encoding of arguments: one byte string for each value, the same in every process.

Keys of memoised calls are digests of it. It is neither a pickle nor a ``repr``, which differ
between versions of Python and of libraries. ``docs/call-keys.md`` gives it byte by byte. It never
changes: where a value was encoded, later releases encode it alike.
"""

from __future__ import annotations

import dataclasses
import enum
import struct
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from .arrays import Arrays, Rule
from .items import NoEncodingError, item

T = TypeVar("T")

_NAN = bytes.fromhex("7ff8000000000000")
# What each registered type's values are encoded as.
_registered: dict[type, Callable[[Any], object]] = {}


def register_key(kind: type[T], function: Callable[[T], object], /) -> None:
    """Let values of one type be arguments of memoised functions.

    ``function(value)`` gives what identifies a value: anything that can be such an argument itself,
    as a tuple of the attributes that count. It must give the same in every process. The name of the
    type (its module and qualified name) is part of the key, so values of two types never share one.
    Subclasses are registered for themselves, as they may have more that counts.

    A registration replaces what was known of the type: an earlier one, or the rule for enums,
    dataclasses, named tuples, and types of numpy, pandas and torch.

    Raises:
        TypeError: ``kind`` isn't a class, or ``function`` can't be called.
        ValueError: ``kind`` is one of Python's own, such as ``int``, whose encoding is fixed.
    """
    if not isinstance(kind, type):
        raise TypeError(f"register_key takes a class, not {kind!r:.100}")
    if not callable(function):
        raise TypeError(f"register_key takes a function, not {function!r:.100}")
    if kind in _FIXED or _lazy(kind) is not None:
        raise ValueError(f"the encoding of {class_name(kind)} is fixed")
    _registered[kind] = function


def encode(value: object) -> bytes:
    """The item of a value. ``NoEncodingError`` if its type has none."""
    kind = type(value)
    rule = _registered.get(kind)
    if rule is not None:
        return item(b"r", items([class_name(kind), rule(value)]))
    rule = _FIXED.get(kind) or _lazy(kind) or _structural(kind, value) or _arrays.rule_of(kind)
    if rule is None:
        raise NoEncodingError(f"{class_name(kind)} has no encoding")
    encoded: bytes = rule(value)
    return encoded


def items(values: Iterable[object]) -> bytes:
    """The items of several values, one after another."""
    return b"".join(map(encode, values))


def class_name(kind: type) -> str:
    """Module and qualified name of a class."""
    return f"{module_name(kind.__module__) or '__main__'}.{kind.__qualname__}"


def module_name(module: str, namespace: Mapping[str, Any] | None = None) -> str | None:
    """The name under which others import this module; None if it can't be imported.

    ``namespace``: the module's, where it is known; a profiler has its own under the module's name.
    The module that Python was started with is called ``__main__`` there (``__mp_main__`` in
    processes that multiprocessing started). Its own name is that after ``-m``, or its file's.
    """
    if module not in ("__main__", "__mp_main__"):
        return module
    if namespace is None or namespace.get("__name__") != module:
        namespace = vars(sys.modules.get(module, object))
    name: str = getattr(namespace.get("__spec__"), "name", "__main__")
    if name != "__main__":  # as it is for a directory, and under a profiler
        return name.rpartition(".")[0] if name.endswith(".__main__") else name
    file = namespace.get("__file__")
    if not isinstance(file, str) or not file.endswith(".py"):
        return None
    name = file.replace("\\", "/").rpartition("/")[2][: -len(".py")]
    return None if name == "__main__" else name


# --- Python's own types ----------------------------------------------------------------------


def _int(value: int) -> bytes:
    return item(b"I", value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def _double(value: float) -> bytes:
    return struct.pack(">d", value) if value == value else _NAN


def _text(value: str) -> bytes:
    return item(b"S", value.encode("utf-8", "surrogatepass"))


def _dict(value: dict[object, object]) -> bytes:
    return item(b"D", b"".join(sorted(encode(key) + encode(of) for key, of in value.items())))


def _sorted(tag: bytes) -> Callable[[Iterable[object]], bytes]:
    return lambda value: item(tag, b"".join(sorted(map(encode, value))))


_FIXED: dict[type, Rule] = {
    type(None): lambda value: item(b"N", b""),
    bool: lambda value: item(b"B", bytes([value])),
    int: _int,
    float: lambda value: item(b"F", _double(value)),
    complex: lambda value: item(b"C", _double(value.real) + _double(value.imag)),
    str: _text,
    bytes: lambda value: item(b"Y", value),
    tuple: lambda value: item(b"T", items(value)),
    list: lambda value: item(b"L", items(value)),
    dict: _dict,
    set: _sorted(b"E"),
    frozenset: _sorted(b"Z"),
    range: lambda value: item(b"R", items([value.start, value.stop, value.step])),
    slice: lambda value: item(b"V", items([value.start, value.stop, value.step])),
}


# --- types of the standard library, which are imported where there are such values ----------


def _timezone(value: Any) -> bytes:
    return item(b"z", items([value.utcoffset(None), value.tzname(None)]))


def _zone(value: Any) -> bytes:
    if value.key is None:
        raise NoEncodingError("a ZoneInfo that was read from a file has no name, so no encoding")
    return item(b"g", _text(value.key))


def _clock(tag: bytes) -> Rule:
    def rule(value: Any) -> bytes:
        text = value.replace(tzinfo=None, fold=0).isoformat(timespec="microseconds")
        return item(tag, items([text, value.fold, value.tzinfo]))

    return rule


def _path(value: Any) -> bytes:
    return item(b"P", items([type(value).__name__, str(value)]))


def _timedelta(value: Any) -> bytes:
    return item(b"l", items([value.days, value.seconds, value.microseconds]))


def _decimal(value: Any) -> bytes:
    sign, digits, exponent = value.as_tuple()
    return item(b"X", items([sign, "".join(map(str, digits)), exponent]))


_LAZY: dict[str, tuple[str, Rule]] = {
    "date": ("datetime", lambda value: item(b"d", value.isoformat().encode())),
    "time": ("datetime", _clock(b"t")),
    "datetime": ("datetime", _clock(b"m")),
    "timedelta": ("datetime", _timedelta),
    "timezone": ("datetime", _timezone),
    "ZoneInfo": ("zoneinfo", _zone),
    "Decimal": ("decimal", _decimal),
    "Fraction": ("fractions", lambda value: item(b"Q", items(value.as_integer_ratio()))),
    "UUID": ("uuid", lambda value: item(b"U", value.bytes)),
    "PurePosixPath": ("pathlib", _path),
    "PosixPath": ("pathlib", _path),
    "PureWindowsPath": ("pathlib", _path),
    "WindowsPath": ("pathlib", _path),
}


def _lazy(kind: type) -> Rule | None:
    """The rule of a class of the standard library. A class of that name elsewhere has none."""
    module, rule = _LAZY.get(kind.__name__, ("", None))
    return rule if getattr(sys.modules.get(module), kind.__name__, None) is kind else None


# --- classes that say what they are made of -----------------------------------------------------


def _structural(kind: type, value: object) -> Rule | None:
    if isinstance(value, enum.Enum):
        return _enum
    if isinstance(value, tuple) and hasattr(kind, "_fields") and not hasattr(value, "__dict__"):
        return _named_tuple
    # Not a subclass that isn't decorated itself, nor one of, say, dict: they may hold more.
    if "__dataclass_fields__" in kind.__dict__ and not isinstance(value, tuple(_FIXED)):
        return _dataclass
    return None


def _enum(value: enum.Enum) -> bytes:
    return item(b"M", items([class_name(type(value)), _member(value)]))


def _member(value: enum.Enum) -> object:
    """The name; of flags the bits, as combined ones have other names in each version of Python."""
    if not isinstance(value, enum.Flag):
        return value.name
    bits: int = value.value
    if bits < 0:  # before 3.11, what ``~`` gives for an IntFlag
        bits &= (1 << max(member.value.bit_length() for member in type(value))) - 1
    return bits


def _named_tuple(value: Any) -> bytes:
    pairs = zip(value._fields, value)
    return item(b"K", items([class_name(type(value)), *(part for pair in pairs for part in pair)]))


def _dataclass(value: Any) -> bytes:
    parts: list[object] = [class_name(type(value))]
    for field in dataclasses.fields(value):
        parts += [field.name, getattr(value, field.name)]
    return item(b"O", items(parts))


_arrays = Arrays(encode)
