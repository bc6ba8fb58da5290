"""The first and last lines of the nfsdict command: between them Ctrl-C ends it in silence, with
status 130.

A module of its own beside the package, as any module of the package imports all of it first. That
takes most of the command's start, and would print a traceback if it were interrupted.
"""

from __future__ import annotations

import atexit
import os
import signal


def main() -> int:
    """Run the command that the process was started for, and return its exit status."""
    # Where SIGINT is ignored, as in the background of a shell, it stays so.
    handled = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    try:
        try:
            if handled:
                # Of what is called at exit the first one registered comes last.
                atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
                signal.signal(signal.SIGINT, _end)
            from nfsdict.cli import main

            if handled:
                signal.signal(signal.SIGINT, signal.default_int_handler)
            return main()
        finally:
            if handled:
                signal.signal(signal.SIGINT, _end)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _end(number: int, _: object) -> None:
    """End the process while it imports, or after its last output, when nothing is to be cleared
    away. An exception could be lost there: in a callback of the import system, or of ``atexit``,
    Python prints it and goes on. After those callbacks Ctrl-C is ignored, as Python takes its
    handlers away then, and the process would end by the signal."""
    os._exit(128 + number)
