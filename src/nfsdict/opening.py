"""Opening: files whose descriptors no exception loses, not even those that signal handlers raise.

Such an exception may come between any two steps of Python. One that came after ``os.open`` had
returned and before its result had a name would leave the file open for ever. So one call, during
which no handler runs, opens the file and stores the descriptor, and another one takes it and closes
it. All that lies between them is within one ``try``, as an exception between two of them would be
caught by neither. The same goes for the end of a ``with`` or of a ``finally``.

Another exception may come while the first one is dealt with, and more after it. No ``except``
meets them all. So a file is closed at the latest when its ``Opened`` is dropped, as Python does
with files of its own.
"""

from __future__ import annotations

import os
from collections import deque
from contextlib import suppress
from functools import partial
from typing import Callable, TypeVar

T = TypeVar("T")


class Opened:
    """One open file, or none yet or any more: a descriptor that is closed with this object.

    What closes it then is made of functions in C alone, and none of them looks for signals. A
    method in Python would be interrupted as it begins. PyPy knows no such finalizer.
    """

    __slots__ = ("__del__", "_descriptors")

    __del__: Callable[[], object]

    def __init__(self) -> None:
        self._descriptors: list[int] = []
        # Closes what the list has by then.
        self.__del__ = partial(deque, map(os.close, self._descriptors), 0)

    def __bool__(self) -> bool:
        """Whether the file is open."""
        return bool(self._descriptors)

    @property
    def descriptor(self) -> int:
        return self._descriptors[-1]

    def open(self, path: str, flags: int, mode: int = 0o666) -> int:
        """Open the file and return its descriptor. The caller closes it, from within a ``try``."""
        self._descriptors.extend(map(os.open, [path], [flags], [mode]))
        return self._descriptors[-1]

    def close(self) -> None:
        """Close the file if it is open. It must not be closed twice, as its descriptor could be
        another thread's by then."""
        if self._descriptors:
            next(map(os.close, map(self._descriptors.pop, [-1])))

    def give(self, to: Callable[[int], T]) -> T:
        """What this function in C returns for the descriptor, which it has to close from now on."""
        return next(map(to, map(self._descriptors.pop, [-1])))


def with_open(path: str, flags: int, use: Callable[[int], T], mode: int = 0o666) -> T:
    """What ``use`` returns for the file's descriptor. The file is closed afterwards, and after any
    exception. OSError if it can't be opened, or closed."""
    opened = Opened()
    try:
        result = use(opened.open(path, flags, mode))
        opened.close()
        return result
    except BaseException:
        with suppress(OSError):  # the first error is the one to report
            opened.close()
        raise
