"""Stores: the dictionaries that the doctor opens for itself."""

from __future__ import annotations

from typing import Any

from ..mapping import NfsDict


class Store(NfsDict[Any]):
    """A store in the private directory. What its mount breaks the doctor tells itself."""

    # Not by a filter of warnings: those are the whole process's, in which others open stores.
    _warns_of_mount = False


def opened(name: str, directory: str, **options: Any) -> NfsDict[Any]:
    return Store(name, directory, "json", **options)
