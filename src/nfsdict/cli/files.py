"""Files that a command reads and writes outside of stores."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

from ..errors import failure
from ..layout import temporary_name


def standard_input() -> IO[bytes]:
    """OSError where it is closed."""
    if sys.stdin is None:
        raise OSError(errno.EBADF, "standard input is closed")
    return sys.stdin.buffer


@contextmanager
def whole_file(path: str) -> Iterator[IO[bytes]]:
    """A binary file that gets its name when the block ends, replacing what has it, or never.

    It is written beside that, as ``.nfsdict-…``, and removed after an exception; a process that is
    killed leaves it. If the path is a device or a pipe it is written itself. A link is followed.
    """
    target = os.path.realpath(path)
    temporary = os.path.join(os.path.dirname(target), temporary_name())
    try:
        if os.path.exists(target) and not os.path.isfile(target):
            with open(target, "wb") as file:
                yield file
            return
        try:
            with open(temporary, "xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as error:
        # Of a write no error names the file. One without a number isn't the system's.
        if error.errno and error.filename in (None, temporary):
            raise failure(error.errno, path) from error
        raise
