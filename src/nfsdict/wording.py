"""Wording: sizes and text as people read them."""

from __future__ import annotations


def binary(size: int) -> str:
    """A number of bytes in at most 9 characters: 999 B, 1.2 KiB, 34.57 MiB; beyond PiB in more."""
    number, unit = float(size), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if number < 1024 or unit == "PiB":
            break
        number /= 1024
    return f"{number:.4g} {unit}"


def printable(text: str) -> str:
    """The text, or its ``repr`` if a terminal or a page would take part of it for something else,
    or couldn't show it."""
    return text if text.isprintable() else repr(text)
