"""The one switch NFSDICT_BACKEND: whether the compiled core is built, and which twin runs.

``setup.py`` loads this file by path, so it imports the standard library alone.
"""

from __future__ import annotations

import os
import sys

VARIABLE = "NFSDICT_BACKEND"
CHOICES = ("auto", "compiled", "pure")


def requested() -> str:
    """The variable's value: "auto" (also if unset or empty), "compiled" or "pure".

    Raises ValueError for any other value.
    """
    choice = os.environ.get(VARIABLE) or "auto"
    if choice not in CHOICES:
        raise ValueError(f"{VARIABLE} is {choice!r}; it has to be one of {', '.join(CHOICES)}")
    return choice


def expects_extension() -> bool:
    """Whether an installation under this interpreter and environment has the compiled core.

    True on CPython unless "pure" is requested; not on Windows, as the compiled core uses POSIX
    calls for files. Raises ImportError if "compiled" is requested where it can't be had.
    """
    choice = requested()
    possible = sys.implementation.name == "cpython" and sys.platform != "win32"
    if choice == "compiled" and not possible:
        raise ImportError(
            f"{VARIABLE}=compiled, but nfsdict has a compiled core only on CPython, "
            f"and not on Windows; use {VARIABLE}=pure, or unset it"
        )
    return possible and choice != "pure"


def running(extension_installed: bool) -> str:
    """The twin to run, "compiled" or "pure", given whether there is an extension to import.

    If CPython has no extension, as after installing a ``py3-none-any`` wheel, "auto" gives "pure",
    and "compiled" raises ImportError.
    """
    if not expects_extension():
        return "pure"
    if extension_installed:
        return "compiled"
    if requested() == "compiled":
        raise ImportError(
            f"{VARIABLE}=compiled, but this installation of nfsdict has no compiled core; "
            "install a C compiler and Python's headers and reinstall with "
            "'pip install --force-reinstall --no-binary nfsdict nfsdict', "
            f"or use {VARIABLE}=pure, or unset it"
        )
    return "pure"
