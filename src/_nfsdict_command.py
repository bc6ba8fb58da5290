"""The first lines of the nfsdict command: from here on Ctrl-C ends it in silence, with status 130.

A module of its own beside the package, as any module of the package imports all of it first. That
takes most of the command's start, and would print a traceback if it were interrupted.
"""

from __future__ import annotations

import os
import signal


def main() -> int:
    """Run the command that the process was started for, and return its exit status."""
    # Where SIGINT is ignored, as in the background of a shell, it stays so.
    handled = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    try:
        if handled:
            signal.signal(signal.SIGINT, _end)
        from nfsdict.cli import main

        if handled:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return main()
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _end(number: int, _: object) -> None:
    """End the process while it imports, when nothing is to be cleared away. An exception could be
    lost there: in a callback of the import system Python prints it and goes on."""
    os._exit(128 + number)
