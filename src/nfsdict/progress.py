"""Progress: how far a long call has come, shown by tqdm or told to the user's function.

What shows it is users' code. It runs in the thread that made the call, under no lock, and an error
of it ends the call as any other error does.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from typing import Any, Callable, NamedTuple, TypeVar, Union

T = TypeVar("T")


class ProgressUpdate(NamedTuple):
    """How far a call has come: what a ``progress_bar`` function is called with."""

    store: str
    """the store's name"""
    operation: str
    """such as "loading", "sync", "update" or "verify" """
    done: int
    """how many are done: 0 in the first call, ``total`` in the last one, unless that isn't known or
    an error ends it"""
    total: int
    """how many there are to do; 0 if that isn't known"""
    unit: str
    """what is counted: "key", or "shard", of which a store has 256 at most"""
    bytes: int
    """of values, read or written so far"""


ProgressBar = Union[bool, Callable[[ProgressUpdate], object], type[Any]]
"""True for tqdm's own bar; a function; a class of tqdm's, or one that is used as those are."""

_USED = ("update", "close", "set_postfix_str")


class Bar:
    """The progress of one call. This one shows nothing."""

    def add(self, count: int, size: int = 0) -> None:
        """So many more are done, with so many bytes of values. The caller holds no lock."""


NO_BAR = Bar()


class _Told(Bar):
    def __init__(self, tell: Callable[[ProgressUpdate], object], begun: ProgressUpdate) -> None:
        self._tell = tell
        self._now = begun
        tell(begun)

    def add(self, count: int, size: int = 0) -> None:
        now = self._now
        self._now = now._replace(done=now.done + count, bytes=now.bytes + size)
        self._tell(self._now)


class _Shown(Bar):
    def __init__(self, bar: Any) -> None:
        self._bar = bar
        self._bytes = 0

    def add(self, count: int, size: int = 0) -> None:
        self._bytes += size
        if size:
            self._bar.set_postfix_str(f"{self._bytes / 1e6:.1f} MB", refresh=False)
        self._bar.update(count)


def _tqdm(**options: Any) -> Any:
    from tqdm.auto import tqdm  # takes long to load, and most work is short

    return tqdm(**options)


class Progress:
    """Shows the progress of calls on one store, in the way that is ``wanted``, or not at all.

    TypeError if that is no way. ImportError, which names the extra to install, if tqdm's bar is
    wanted and tqdm isn't installed.
    """

    def __init__(self, name: str, wanted: ProgressBar) -> None:
        self._name = name
        self._tqdm: Any = None
        self._tell: Callable[[ProgressUpdate], object] | None = None
        if isinstance(wanted, bool):
            if wanted:
                if find_spec("tqdm") is None:
                    raise ImportError(
                        "progress_bar=True needs tqdm: pip install 'nfsdict[progress]'"
                    )
                self._tqdm = _tqdm
        elif isinstance(wanted, type) and all(hasattr(wanted, name) for name in _USED):
            self._tqdm = wanted
        elif callable(wanted) and not isinstance(wanted, type):
            self._tell = wanted
        else:
            raise TypeError(f"progress_bar is a bool, a function or a tqdm class, not {wanted!r}")

    @contextmanager
    def bar(self, operation: str, total: int | None, unit: str = "shard") -> Iterator[Bar]:
        """The progress of a call, from here to the end of the block. ``total`` is None if it isn't
        known; with 0 there is nothing to show."""
        if total == 0:
            yield NO_BAR
        elif self._tell is not None:
            yield _Told(self._tell, ProgressUpdate(self._name, operation, 0, total or 0, unit, 0))
        elif self._tqdm is not None:
            text = f"{self._name}: {operation}"
            shown = self._tqdm(desc=text, total=total, unit=unit, leave=False)
            try:
                yield _Shown(shown)
            finally:
                shown.close()
        else:
            yield NO_BAR

    def over(
        self,
        items: Iterable[T],
        total: int,
        operation: str = "loading",
        unit: str = "shard",
        *,
        count: Callable[[T], int] = lambda item: 1,
        size: Callable[[T], int] = lambda item: 0,
    ) -> Iterable[T]:
        """The items; each is done when the next one is taken.

        ``count`` is how many of ``total`` an item stands for, ``size`` how many bytes. A generator
        of items, as ``in_parallel`` is, is closed when this ends, by an error too.
        """
        if self._tqdm is None and self._tell is None:
            return items
        return self._over(items, self.bar(operation, total, unit), count, size)

    @staticmethod
    def _over(
        items: Iterable[T],
        bar: AbstractContextManager[Bar],
        count: Callable[[T], int],
        size: Callable[[T], int],
    ) -> Iterator[T]:
        try:
            with bar as shown:
                for item in items:
                    yield item
                    shown.add(count(item), size(item))
                    del item  # before the next one is made
        finally:
            if isinstance(items, Generator):
                items.close()
