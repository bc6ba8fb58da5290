"""Opening: files whose descriptors no exception loses, not even one that a signal handler raises.

Such an exception may come between any two steps of Python. One that came after ``os.open`` had
returned and before its result had a name would leave the file open for ever. So one call, during
which no handler runs, opens the file and stores the descriptor, and another one takes it and closes
it. All that lies between them is within one ``try``, as an exception between two of them would be
caught by neither. The same goes for the end of a ``with`` or of a ``finally``.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Callable, TypeVar

T = TypeVar("T")


def open_into(opened: list[int], path: str, flags: int, mode: int = 0o666) -> int:
    """Open the file and append its descriptor to this list, which the caller has in its ``try``."""
    opened.extend(map(os.open, [path], [flags], [mode]))
    return opened[-1]


def close(opened: list[int]) -> None:
    """Take the descriptor, if there is one, out of this list and close it. It must not be closed
    twice, as it could be another thread's by then."""
    if opened:
        next(map(os.close, map(opened.pop, [-1])))


def with_open(path: str, flags: int, use: Callable[[int], T], mode: int = 0o666) -> T:
    """What ``use`` returns for the file's descriptor. The file is closed afterwards, and after any
    exception. OSError if it can't be opened, or closed."""
    opened: list[int] = []
    try:
        result = use(open_into(opened, path, flags, mode))
        close(opened)
        return result
    except BaseException:
        with suppress(OSError):  # the first error is the one to report
            close(opened)
        raise
