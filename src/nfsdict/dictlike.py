"""The methods of ``NfsDict`` that a ``dict`` has too, or that show a dictionary to people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar, overload

from .core import MISSING
from .errors import CorruptValueError
from .views import Items, Values

if TYPE_CHECKING:
    from _typeshed import SupportsKeysAndGetItem
    from typing_extensions import Self

    from .locks import Locks
    from .read_ahead import ReadAhead
    from .scan import Scanner
    from .state import StoreState
    from .storage import Storage

V = TypeVar("V")
T = TypeVar("T")

# With more keys a notebook's completion would take long, and show nobody anything.
_COMPLETED = 10_000


class DictLike(MutableMapping[str, V]):
    """Base class of ``NfsDict``, which sets the attributes."""

    _ahead: ReadAhead
    _locks: Locks
    _scanner: Scanner
    _state: StoreState
    _storage: Storage

    def __iter__(self) -> Iterator[str]:
        """Iterate over a copy of the keys, as lookups and other threads may change them.

        A loop that looks up each key as it gets it reads values that aren't in memory from packs,
        where these have them and the key's directory hasn't changed: a few reads in place of one
        for each key. Such values are those of a moment within the loop. Likewise ``values`` and
        ``items``.
        """
        return self._ahead.over(self._scanner.known_keys())

    def __reversed__(self) -> Iterator[str]:
        """Iterate over the keys in the opposite order."""
        return self._ahead.over(self._scanner.known_keys()[::-1])

    def __len__(self) -> int:
        if not self._state.index.listed:
            self._scanner.scan()
        return self._count()

    def _count(self) -> int:
        if self._locks.interrupted:
            return len(self._state.cached_keys())
        with self._locks.guard:
            return self._state.count()

    def values(self) -> Values[V]:
        """A view of the values. Iterating skips keys whose files are gone, or damaged (logged)."""
        return Values(self)

    def items(self) -> Items[V]:
        """A view of (key, value) pairs. Iterating skips the same keys as for ``values``."""
        return Items(self)

    def __eq__(self, other: object) -> bool:
        """Whether ``other`` is a mapping with the same keys and equal values, but for entries that
        ``items`` skips. They are compared one by one, until two differ: beside what the cache keeps
        no others are in memory."""
        if not isinstance(other, Mapping):
            return NotImplemented
        same = 0
        for key, value in self.items():
            counterpart = MISSING
            with suppress(CorruptValueError):  # ``items`` skips it, too
                counterpart = other.get(key, MISSING)
            if counterpart is MISSING or not (value is counterpart or value == counterpart):
                return False
            same += 1
        if isinstance(other, DictLike) and same < len(other):
            return same == sum(1 for _ in other.items())
        return same == len(other)

    def copy(self) -> dict[str, V]:
        """A plain ``dict`` of all entries but those that ``items`` skips, with all values in
        memory. (``copy.copy`` opens the same store anew.)"""
        return dict(self.items())

    @overload
    def __or__(self, other: Mapping[str, V], /) -> dict[str, V]: ...
    @overload
    def __or__(self, other: Mapping[str, T], /) -> dict[str, V | T]: ...

    def __or__(self, other: Any, /) -> Any:
        """A plain ``dict`` of the entries here and in ``other``, whose values count where both have
        a key."""
        return _merged(self, other)

    @overload
    def __ror__(self, other: Mapping[str, V], /) -> dict[str, V]: ...
    @overload
    def __ror__(self, other: Mapping[str, T], /) -> dict[str, V | T]: ...

    def __ror__(self, other: Any, /) -> Any:
        return _merged(other, self)

    def __ior__(  # type: ignore[misc]  # as dict's: it takes pairs, too
        self, other: SupportsKeysAndGetItem[str, V] | Iterable[tuple[str, V]]
    ) -> Self:
        self.update(other)
        return self

    def __repr__(self) -> str:
        keys = "not listed yet"
        if self._state.index.listed:
            count = self._count()
            keys = "1 key" if count == 1 else f"{count} keys"
        return f"<{type(self).__name__} {self._storage.directory!r} {keys}>"

    def _ipython_key_completions_(self) -> list[str]:
        """The keys that IPython and Jupyter offer after ``d["``: none if they are more than 10,000,
        or weren't listed yet; nothing is listed for this."""
        if not self._state.index.listed or self._count() > _COMPLETED:
            return []  # for None, IPython prints a traceback
        return self._scanner.known_keys()


def _merged(first: Any, second: Any) -> Any:
    if not (isinstance(first, Mapping) and isinstance(second, Mapping)):
        return NotImplemented
    entries = dict(first.items())
    entries.update(second.items())
    return entries
