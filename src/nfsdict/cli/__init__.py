"""The nfsdict command: look into a store and change it from the shell."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from .. import BACKEND, NfsDictError, UntrustedPickleWarning, __version__
from . import (
    coordination,
    doctor,
    edit,
    entries,
    listing,
    prune,
    report,
    stats,
    transfer,
    upkeep,
    watch,
)
from .output import ERROR, complain, finish_output
from .stores import NAMING, add_store
from .telling import Telling
from .telling import options as telling_options

ASKED = "_ARGCOMPLETE"  # set in the environment when a shell asks for completions

# Too deeply nested values are RecursionErrors.
_TOLD = OSError, NfsDictError, UntrustedPickleWarning, ValueError, TypeError, RecursionError

EPILOG = """\
exit status:
  0  done
  1  get, del, edit, path, du: no such key; verify, repair: files that can't be read;
     verify: files that the index contradicts; export, import, copy, migrate: entries that
     were left out, or have other values in JSON; prune: entries that are left and were to
     be removed; work: a COMMAND failed; demo: a mismatch
  N  run: that of a COMMAND that failed
  2  an error: wrong usage, no such store, a damaged value, the system said no
  130  Ctrl-C
  141  the reader of the output has gone away

A pickle can run any code when it is read. Open stores of pickles only where you
trust everybody who can write to them; --serializer json or bytes reads no pickle.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command `argv` (default: the process's arguments) and return its exit status.

    Errors are printed on standard error, in one line. If the reader of the output goes away, as in
    `nfsdict ls NAME | head`, the command ends silently with status 141, as SIGPIPE would end it.
    """
    commands = parser()
    if ASKED in os.environ:
        from .completion import complete  # which a shell asks for: the extra `completion`

        complete(commands)
    arguments = commands.parse_args(argv)
    if sys.stdout is None:
        return ERROR if sys.stderr is None else complain("standard output is closed")
    with Telling(arguments.verbose) as telling:
        try:
            status: int = arguments.run(arguments)
            sys.stdout.flush()
            return status
        except BrokenPipeError:
            return 128 + 13
        except KeyboardInterrupt:
            return 128 + 2
        except _TOLD as error:
            return telling.error(error)
        finally:
            finish_output()


def parser() -> argparse.ArgumentParser:
    """The commands and their arguments; each sets `run`, the function that carries it out."""
    parser = argparse.ArgumentParser(
        prog="nfsdict",
        description="Look into stores of nfsdict and change them.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version", action="version", version=f"nfsdict {__version__} ({BACKEND} core)"
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    store = argparse.ArgumentParser(add_help=False)
    add_store(store)

    telling = telling_options()

    def command(name: str, run: Any, text: str, over: Sequence[Any] = (store,)) -> Any:
        added = commands.add_parser(
            name,
            parents=[*over, telling],
            help=text.partition(".")[0],
            description=text,
            epilog=f"{NAMING}\n{EPILOG}" if store in over else EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(run=run)
        return added

    groups = listing, entries, edit, watch, stats, report, upkeep, prune, transfer
    for group in (*groups, coordination, doctor):
        group.add_commands(command)

    added = command(
        "demo",
        run_demo,
        "Write this Python's standard library from four processes, kill one, check all.\n\n"
        "The killed process is started again and goes on with what is missing. Then a fresh\n"
        "process opens the store and compares every value with its file.",
        over=(),
    )
    added.add_argument(
        "directory",
        metavar="DIR",
        nargs="?",
        help="where to make the store 'demo', which stays there "
        "(default: a temporary directory, removed afterwards)",
    )
    return parser


def run_demo(arguments: argparse.Namespace) -> int:
    from .. import demo  # starting processes takes many modules that no other command needs

    return demo.run(arguments.directory)
