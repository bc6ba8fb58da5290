"""Views: values and items of a dictionary, while others may remove its keys."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, Mapping, ValuesView
from typing import Any, TypeVar

from .core import MISSING
from .errors import CorruptValueError

V = TypeVar("V")


def present(mapping: Mapping[str, V]) -> Iterator[tuple[str, V]]:
    """The entries, without keys whose files are gone, or damaged (which was logged)."""
    for key in mapping:
        try:
            value: Any = mapping.get(key, MISSING)
        except CorruptValueError:
            continue
        if value is not MISSING:
            yield key, value


class Values(ValuesView[V]):
    _mapping: Mapping[str, V]

    def __iter__(self) -> Iterator[V]:
        for _, value in present(self._mapping):
            yield value

    def __contains__(self, value: object) -> bool:
        return any(own is value or own == value for own in self)


class Items(ItemsView[str, V]):
    _mapping: Mapping[str, V]

    def __iter__(self) -> Iterator[tuple[str, V]]:
        return present(self._mapping)

    def __contains__(self, item: object) -> bool:
        # As in a dict's items, something that isn't a pair isn't an item.
        return isinstance(item, tuple) and len(item) == 2 and super().__contains__(item)
