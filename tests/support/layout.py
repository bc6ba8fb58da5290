"""Where the file of a key is, told without the package."""

from __future__ import annotations

import hashlib
from pathlib import Path


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def value_file(base: Path, key: str) -> Path:
    """In the store named "store" below *base*."""
    return base / "store" / digest(key)[:2] / f"{digest(key)}.pkl"
