"""Packages that some tests need, and that not every interpreter has."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import pytest


def needed(name: str) -> Any:
    """This module; the test is skipped without it, but not in CI on CPython."""
    if os.environ.get("CI") and sys.implementation.name == "cpython":
        return importlib.import_module(name)
    return pytest.importorskip(name)
