"""Arguments: check what a caller passes, and bring it into the form that the store needs."""

from __future__ import annotations

import os
import re
import threading
import time
from functools import partial


def user_data_dir(name: str) -> str:
    """The user's data directory for a program of this name."""
    from platformdirs import user_data_dir  # takes long, and most callers name a directory

    return user_data_dir(name)


BASE_DIR = "NFSDICT_BASE_DIR"
"""the environment variable that says where stores are, if the caller doesn't"""


def base_directory(base_dir: str | os.PathLike[str] | None) -> str:
    """The directory that holds stores: absolute, ``~`` expanded.

    None: what the environment says, or else the user's data directory."""
    if base_dir is None:
        base_dir = os.environ.get(BASE_DIR) or user_data_dir("nfsdict")
    return _absolute(base_dir, "base_dir")


def base_and_name(path: str | os.PathLike[str]) -> tuple[str, str]:
    """``base_dir`` and ``name`` of the store whose directory has this path; ``~`` is expanded.

    ValueError if it is the root of a file system, or can't be a path.
    """
    base, name = os.path.split(_absolute(path, "path"))
    if not os.fspath(path) or not name:
        raise ValueError(f"path must be that of a store's directory, not {os.fspath(path)!r}")
    return base, checked_name(name)


def _absolute(path: str | os.PathLike[str], argument: str) -> str:
    text = os.fspath(path)
    if not isinstance(text, str):
        raise TypeError(f"{argument} is a path in text, not {type(text).__name__}")
    return os.path.abspath(os.path.expanduser(text))


def checked_name(name: str | os.PathLike[str]) -> str:
    """The name as a path below ``base_dir``, in its shortest form: ``x//y/./`` becomes ``x/y``.

    ValueError if it is empty, absolute or leaves ``base_dir``, has a newline, or begins with
    ``~/``, which only ``base_dir`` may.
    """
    text = os.fspath(name)
    if not isinstance(text, str):
        raise TypeError(f"name is a path in text, not {type(text).__name__}")
    drive, path = os.path.splitdrive(text)
    parts = path.replace(os.path.altsep or os.path.sep, os.path.sep).split(os.path.sep)
    shortest = os.path.normpath(text)
    if drive or not parts[0] or ".." in parts or "\0" in text or shortest == ".":
        raise ValueError(f"name must be a relative path without '..' or NUL, not {text!r}")
    if "\n" in text:
        raise ValueError(f"name must be without a newline, not {text!r}")
    if shortest.split(os.path.sep)[0] == "~":
        raise ValueError(f"name must be a path below base_dir, where ~ goes, not {text!r}")
    return shortest


def checked_mode(mode: int | None) -> int | None:
    """The permission bits, or None. TypeError or ValueError if they are none."""
    if mode is None:
        return None
    if not isinstance(mode, int) or isinstance(mode, bool):
        meant = f", so perhaps 0o{mode}" if re.fullmatch("[0-7]{3}", str(mode)) else ""
        raise TypeError(f"mode is an int of permission bits such as 0o660, not {mode!r}{meant}")
    if not 0 <= mode <= 0o777:
        raise ValueError(f"mode must be permission bits, 0 to 0o777, not {mode} ({mode:#o})")
    return mode


def checked_workers(workers: int) -> int:
    """The number of threads. TypeError or ValueError if it is none, or less than 1."""
    return checked_count("workers", workers, 1)


def checked_cache_bytes(cache_bytes: int | None) -> int | None:
    """The limit of the cache in bytes, or None. TypeError or ValueError if it is none."""
    return None if cache_bytes is None else checked_count("cache_bytes", cache_bytes)


def checked_seconds(name: str, seconds: float, least: float = 0.001) -> float:
    """A number of seconds, at least so many, and so few that threads can wait for so long.

    TypeError or ValueError if it is none; ``name`` is the argument's.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(f"{name} is a number of seconds, not {seconds!r}")
    if not least <= seconds <= threading.TIMEOUT_MAX:
        raise ValueError(f"{name} must be finite seconds, at least {least:g}, not {seconds}")
    return float(seconds)


def deadline(timeout: float | None) -> float | None:
    """When this many seconds have passed, by ``time.monotonic``; None: never. Raises as
    ``checked_seconds``."""
    return None if timeout is None else time.monotonic() + checked_seconds("timeout", timeout, 0)


def checked_count(name: str, count: int, least: int = 0) -> int:
    """A number that is at least this. TypeError or ValueError if it is none; ``name`` is the
    argument's."""
    if isinstance(count, bool) or not isinstance(count, int):
        raise TypeError(f"{name} is an int, not {count!r}")
    if count < least:
        raise ValueError(f"{name} must be at least {least}, not {count}")
    return count


def is_coroutine_function(function: object) -> bool:
    """Whether a call of it gives a coroutine: also of an object whose class has an asynchronous
    ``__call__``, and of a ``functools.partial``."""
    from inspect import iscoroutinefunction  # takes long, and few callers pass functions

    while isinstance(function, partial):
        function = function.func
    if iscoroutinefunction(function):
        return True
    return callable(function) and iscoroutinefunction(type(function).__call__)


def check_file(file: object, call: str, mode: str) -> None:
    """TypeError unless it is an open file, which has this call; ``mode`` is what it is opened
    with."""
    if not callable(getattr(file, call, None)):
        raise TypeError(
            f"file is an open binary file, such as open(path, {mode!r}), not {type(file).__name__}"
        )


def plain(key: str) -> str:
    """The key as an exact ``str``: pickling a subclass would write its module's name into the file.

    TypeError if it isn't a ``str``.
    """
    if type(key) is str:
        return key
    if not isinstance(key, str):
        raise TypeError(f"keys are str, not {type(key).__name__}")
    return str.__str__(key)
