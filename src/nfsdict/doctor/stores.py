"""Stores: the dictionaries that the doctor opens for itself."""

from __future__ import annotations

import warnings
from typing import Any

from ..errors import UnsafeMountWarning
from ..mapping import NfsDict


def opened(name: str, directory: str, **options: Any) -> NfsDict[Any]:
    """A store in the private directory. What its mount breaks the doctor tells itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnsafeMountWarning)
        return NfsDict(name, directory, "json", **options)
