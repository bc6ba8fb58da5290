"""The encoding of arrays, tables and tensors: of what they hold, wherever it lies in memory.

Nothing here imports numpy, pandas or torch: who has a value of theirs has imported them.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterable
from typing import Any

from .items import NoEncodingError, item

Rule = Callable[[Any], bytes]


class Arrays:
    """The rules for classes of numpy, pandas and torch.

    ``encode`` gives the item of any value: shapes, names, and the elements of arrays of objects.
    """

    def __init__(self, encode: Callable[[object], bytes]) -> None:
        self._encode = encode

    def _items(self, *values: object) -> bytes:
        return b"".join(map(self._encode, values))

    def rule_of(self, kind: type) -> Rule | None:
        """How values of this very class are encoded; None if it is none of these libraries'."""
        numpy, pandas, torch = map(sys.modules.get, ("numpy", "pandas", "torch"))
        library = kind.__module__.partition(".")[0]
        if library == "numpy" and numpy is not None:
            if kind in (numpy.ndarray, numpy.memmap):
                return self._array
            if issubclass(kind, numpy.generic):
                return lambda value: item(b"a", self._array(numpy.asarray(value)))
        if library == "pandas" and pandas is not None:
            if kind in (pandas.DataFrame, pandas.Series):
                return self._table
            return self._index if issubclass(kind, pandas.Index) else self._scalar(kind, pandas)
        if torch is not None and kind is torch.Tensor:
            return self._tensor
        return None

    # --- numpy -----------------------------------------------------------------------------------

    def _array(self, array: Any) -> bytes:
        """dtype, shape, and contents in C order with the lowest byte of each number first."""
        dtype = array.dtype
        if dtype.names is not None:  # field by field: what lies between them is no content
            fields = (self._encode(name) + self._array(array[name]) for name in dtype.names)
            return item(b"A", self._items("fields", array.shape) + _tuple(fields))
        if dtype.kind in "OT":  # objects, and text of any length
            return item(b"A", self._items(dtype.kind, array.shape, array.ravel().tolist()))
        if dtype.char in "gG" or dtype.type.__module__ != "numpy":
            # Of a long double some bits mean nothing, and each processor has its own.
            raise NoEncodingError(f"an array of {dtype} has no encoding")
        array = array.astype(dtype.newbyteorder("<"), order="C", copy=False)
        if dtype.kind in "fc":
            array = _plain_nans(array)
        memory = array.reshape(-1).view("u1") if array.nbytes else b""  # no copy of it
        contents = hashlib.sha256(memory).digest()
        return item(b"A", self._items(array.dtype.str, array.shape, contents))

    # --- torch -----------------------------------------------------------------------------------

    def _tensor(self, tensor: Any) -> bytes:
        """dtype and what the array has; not the device, nor whether gradients are kept."""
        torch: Any = sys.modules["torch"]
        if tensor.layout is not torch.strided or tensor.is_quantized:
            raise NoEncodingError("a tensor that is sparse or quantized has no encoding")
        plain = tensor.detach().cpu().resolve_conj().resolve_neg()
        if tensor.is_floating_point() and tensor.element_size() < 4:
            plain = plain.float()  # exactly, and numpy doesn't know all of these
        return item(b"W", self._items(str(tensor.dtype), plain.numpy()))

    # --- pandas ----------------------------------------------------------------------------------

    def _table(self, table: Any) -> bytes:
        """Index and columns, with names, dtypes and values."""
        if table.ndim == 1:
            return item(b"s", self._items(table.name, table.index) + self._column(table))
        columns = (self._column(table.iloc[:, at]) for at in range(table.shape[1]))
        return item(b"f", self._items(table.columns, table.index) + _tuple(columns))

    def _index(self, index: Any) -> bytes:
        if not isinstance(index, sys.modules["pandas"].MultiIndex):
            return item(b"x", self._encode(index.name) + self._column(index))
        levels = (self._index(index.get_level_values(at)) for at in range(index.nlevels))
        return item(b"x", _tuple(levels))

    def _column(self, values: Any) -> bytes:
        """dtype and values of a column or an index."""
        numpy: Any = sys.modules["numpy"]
        dtype = values.dtype
        name = str(dtype)
        if name == "category":
            of = values.array
            return item(b"c", self._items(name, of.ordered, of.categories, of.codes))
        if not isinstance(dtype, numpy.dtype):
            zoned = name.startswith("datetime64[")  # then its name has the zone
            dtype = f"M8[{dtype.unit}]" if zoned else object
        return item(b"c", self._items(name, numpy.asarray(values.to_numpy(dtype))))

    def _scalar(self, kind: type, pandas: Any) -> Rule | None:
        if kind is pandas.Timestamp:
            return self._timestamp
        if kind is pandas.Timedelta:
            return lambda value: item(b"h", self._encode(value.isoformat()))
        if kind in (type(pandas.NA), type(pandas.NaT)):
            return lambda value: item(b"n", self._encode(str(value)))
        return None

    def _timestamp(self, value: Any) -> bytes:
        text = value.tz_localize(None).isoformat(timespec="nanoseconds")
        return item(b"j", self._items(text, value.fold, value.tzinfo))


def _tuple(items: Iterable[bytes]) -> bytes:
    return item(b"T", b"".join(items))


def _plain_nans(array: Any) -> Any:
    """The array with one and the same nan for all, as each processor makes others."""
    parts = array.reshape(-1).view(array.real.dtype)
    nans = parts != parts
    if nans.any():
        parts = parts.copy()
        parts[nans] = float("nan")
        array = parts.view(array.dtype).reshape(array.shape)
    return array
