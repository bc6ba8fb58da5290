"""The command that examines a directory: doctor."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing

from ..arguments import checked_seconds
from ..doctor.clock import difference
from ..doctor.examination import directory_of, examine
from ..doctor.mount import mount
from ..doctor.peer import accept, facts, follow, invite, lead
from ..doctor.report import Diagnosis, Finding
from ..errors import NfsDictError
from ..layout import is_random_name
from ..storage.file_systems import Kind
from ..storage.probes import PrivateDirectory, check_directory
from .output import ERROR, complain, emit_now, encode, json_line
from .signals import end_on_signals

TEXT = """\
Try in a directory what a store needs of its file system, and say what it breaks.

Works in a private directory below DIR, which is removed, whatever happens. Prints a
line for each probe: OK, WARN or FAIL, what was seen, what it breaks, what to do.
docs/which-mount.md explains them.

With --peer it prints a command for a second host, waits for that, and both look for
what the other one does: how soon each sees it, and whether races have one winner.

exit status of this command:
  0  OK in all lines
  1  at least one WARN: something works less well, or couldn't be tried
  2  at least one FAIL: a promise of nfsdict doesn't hold there; or an error
"""


def add_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    added = command("doctor", doctor, TEXT, over=())
    added.add_argument("directory", metavar="DIR", help="where a store is, or might be")
    added.add_argument("--json", action="store_true", help="one JSON object")
    added.add_argument("--peer", action="store_true", help="try it with a second host, too")
    added.add_argument(
        "--seconds",
        type=float,
        default=20.0,
        metavar="N",
        help="for how long the two hosts try (default: %(default)g); all is tried once at least",
    )
    added.add_argument(
        "--wait",
        type=float,
        default=120.0,
        metavar="N",
        help="for how many seconds a host waits for the other, to come and then for each of its "
        "answers (default: %(default)g)",
    )
    added.add_argument("--join", metavar="ID", help="be the second host: see --peer")


def doctor(arguments: argparse.Namespace) -> int:
    try:
        return _doctor(arguments)
    except (OSError, NfsDictError, ValueError, TypeError):
        raise  # any command's are told in a line
    except Exception:  # Python's exit status for it would be that of a WARN
        traceback.print_exc()
        return ERROR


def _doctor(arguments: argparse.Namespace) -> int:
    path = directory_of(arguments.directory)
    checked_seconds("--seconds", arguments.seconds)
    checked_seconds("--wait", arguments.wait)
    end_on_signals()
    if arguments.join is not None:
        findings = _joined(path, arguments)
    elif arguments.peer:
        findings = examine(path, lambda *about: _led(path, arguments, *about))
    else:
        findings = examine(path)
    found = []
    with closing(findings):  # type: ignore[type-var]
        for finding in findings:
            found.append(finding)
            if not arguments.json:
                emit_now(encode(f"{finding}\n"))
    diagnosis = Diagnosis(path, found)
    if arguments.json:
        emit_now(json_line(diagnosis.as_dict()))
    else:
        unseen = "".join(f"  {name}: {text}\n" for name, text in diagnosis.unseen.items())
        emit_now(encode(f"\nNo client can see:\n{unseen}\n{diagnosis.verdict}\n"))
    return diagnosis.status


def _led(
    path: str,
    arguments: argparse.Namespace,
    directory: PrivateDirectory,
    kind: Kind,
    found: list[Finding],
) -> Iterator[Finding]:
    """The first host's part, after all that one host can find alone."""
    invite(directory)
    command = f"nfsdict doctor {_quoted(path)} --join {directory.name}"
    complain(f"now run this on a second host, within {arguments.wait:g} s: {command}")
    yield from lead(directory, kind, facts(path, found), arguments.seconds, arguments.wait)


def _quoted(path: str) -> str:
    """The path as bash and zsh read it: by octal numbers where it has what can't be printed, or
    what standard error's encoding has other bytes for."""
    if path.isprintable() and _is_printed_so(path):
        return shlex.quote(path)
    octal = (f"\\{byte:03o}" for byte in os.fsencode(path))
    return f"$'{''.join(octal)}'"


def _is_printed_so(path: str) -> bool:
    try:
        return path.encode(getattr(sys.stderr, "encoding", None) or "ascii") == os.fsencode(path)
    except UnicodeEncodeError:
        return False


def _joined(path: str, arguments: argparse.Namespace) -> Iterator[Finding]:
    """The second host's part."""
    if not is_random_name(arguments.join):  # it could lead elsewhere, and is removed in the end
        raise ValueError(f"--join takes the ID that the first host printed, not {arguments.join!r}")
    check_directory(path)
    directory = PrivateDirectory(path, arguments.join)
    check_directory(directory.path)
    accept(directory)
    found = [*mount(path)[1], difference(directory)]
    yield from found
    yield from follow(directory, facts(path, found), arguments.wait)
