"""A progress bar over the shards of a store, if one was asked for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

T = TypeVar("T")


class Progress:
    """A tqdm bar if wanted, else nothing. Raises ImportError, which names the extra to install, if
    tqdm is wanted and isn't installed."""

    def __init__(self, name: str, wanted: bool) -> None:
        self._name = name
        self._wanted = wanted
        if wanted:
            try:
                import tqdm  # noqa: F401
            except ImportError:
                raise ImportError(
                    "progress_bar=True needs tqdm: pip install 'nfsdict[progress]'"
                ) from None

    def over(self, items: Iterable[T], total: int) -> Iterable[T]:
        if not self._wanted:
            return items
        from tqdm.auto import tqdm

        return tqdm(items, desc=self._name, total=total, unit="shard", leave=False)
