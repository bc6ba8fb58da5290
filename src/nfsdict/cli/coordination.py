"""Commands that coordinate processes: leases, run, work."""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .. import LeaseLostError, NfsDict, NfsDictError
from ..coordination.claims import FAILED, Task
from .entries import as_value, check_key
from .output import DONE, NO, complain, emit, emit_json, encode, text_or_bytes
from .signals import end
from .stores import chosen, writing

LONGEST = 5.0  # seconds between two looks with --wait


def add_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    added = command(
        "leases",
        leases,
        "List the leases that are held, in lines of five fields with tabs between them.\n\n"
        "These are key, host, process, seconds since it was taken, generation.",
    )
    added.add_argument("--json", action="store_true", help="one JSON array of objects")

    added = command(
        "run",
        run,
        "Print the value of KEY, or if there is none, the output of COMMAND, and keep that.\n\n"
        "Of any number of callers, on any hosts, one runs COMMAND; the others wait for its\n"
        "output. If COMMAND fails, its output is printed and not kept, and its status is that\n"
        "of this command; the next caller that waits runs its own. The store is made if it is\n"
        "not there.",
    )
    added.add_argument("key", metavar="KEY")
    added.add_argument(
        "--lease",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="without a sign of life for so long, a caller counts as dead (default: %(default)g)",
    )
    added.add_argument("--timeout", type=float, metavar="SECONDS", help="wait no longer for others")
    added.add_argument(
        "--max-age",
        type=float,
        metavar="SECONDS",
        help="run COMMAND also if the value is older, by the server's clock",
    )
    added.add_argument("argv", metavar="COMMAND", nargs="+", help="after `--`, with its arguments")

    added = command(
        "work",
        work,
        "Work on the entries of a store: run COMMAND for each, and remove what is done.\n\n"
        "COMMAND gets the key as its last argument and the value on standard input. If it\n"
        "exits with 0, the entry is removed. Otherwise the entry is given back, to this and\n"
        "other workers; after --max-attempts, also by workers that died, it is set aside\n"
        "under the key failed/KEY. Any number of workers, on any hosts, share the entries.\n"
        "SIGTERM and Ctrl-C end the command and give its entry back; that is no attempt.\n"
        "Ends when nothing is left that nobody works on.",
    )
    added.add_argument(
        "--lease",
        type=float,
        default=300.0,
        metavar="SECONDS",
        help="without a sign of life for so long, a worker counts as dead (default: %(default)g)",
    )
    added.add_argument(
        "--max-attempts",
        type=int,
        default=3,
        metavar="N",
        help="then an entry is set aside (default: %(default)s)",
    )
    added.add_argument(
        "--wait",
        action="store_true",
        help="go on until no entry is left but those set aside, to take over from workers that die",
    )
    added.add_argument("--json", action="store_true", help="the value goes to COMMAND as JSON")
    added.add_argument("argv", metavar="COMMAND", nargs="+", help="after `--`, with its arguments")


def leases(arguments: argparse.Namespace) -> int:
    with writing(arguments, create=False) as store:
        found = store.leases()
    if arguments.json:
        emit_json([dataclasses.asdict(lease) for lease in found])
        return DONE
    for lease in found:
        fields = lease.key, lease.host, lease.process, f"{lease.age:.0f}", lease.generation
        emit(encode("\t".join(map(str, fields)) + "\n"))
    return DONE


def run(arguments: argparse.Namespace) -> int:
    serializer = chosen(arguments)
    check_key(arguments.key, serializer)

    def output() -> Any:
        return as_value(_run(arguments.argv, stdout=subprocess.PIPE), serializer)

    signal.signal(signal.SIGTERM, end)
    try:
        with writing(arguments) as store:
            value = store.get_or_create(
                arguments.key,
                output,
                lease=arguments.lease,
                timeout=arguments.timeout,
                max_age=arguments.max_age,
            )
    except subprocess.CalledProcessError as error:
        emit(error.stdout)
        return 128 - error.returncode if error.returncode < 0 else error.returncode
    emit(text_or_bytes(value, as_json=False))
    return DONE


def work(arguments: argparse.Namespace) -> int:
    if shutil.which(arguments.argv[0]) is None:
        raise NfsDictError(f"no such command: {arguments.argv[0]!r}")
    signal.signal(signal.SIGTERM, end)
    status, pause = DONE, 0.1
    with writing(arguments, create=False) as store:
        while True:
            task = store.claim(arguments.lease, max_attempts=arguments.max_attempts)
            if task is not None:
                pause = 0.1
                if not _do(task, arguments):
                    status = NO
            elif arguments.wait and _unfinished(store):
                time.sleep(pause)
                pause = min(2 * pause, LONGEST)
            else:
                return status


def _unfinished(store: NfsDict[Any]) -> bool:
    return any(not key.startswith(FAILED) for key in store)


def _do(task: Task[Any], arguments: argparse.Namespace) -> bool:
    """Run the command for this task. Whether it is done. Where it can't be started, this command
    ends, and that is no attempt."""
    try:
        with task:
            value = text_or_bytes(task.value, arguments.json)
            try:
                _run([*arguments.argv, task.key], value, check=task.lease.check)
            except OSError as error:
                sys.exit(complain(error))
    # A value that is no JSON, or too deeply nested for it; a key with a NUL.
    except (TypeError, ValueError, RecursionError) as error:
        complain(f"{task.key!r}: {error}")
        return False
    except subprocess.CalledProcessError as error:
        of = f"attempt {task.attempt} of {arguments.max_attempts}"
        complain(f"{task.key!r}: exit status {error.returncode} ({of})")
        return False
    except LeaseLostError as error:
        complain(error)
        return False
    return True


def _run(
    argv: list[str],
    value: bytes | None = None,
    stdout: int | None = None,
    check: Callable[[], object] = lambda: None,
) -> bytes:
    """The command's output, if that is piped. CalledProcessError if it fails.

    It gets ``value``, if any, on standard input. It is killed by any exception: that of a signal's
    handler, or one that ``check``, called each second, raises.
    """
    process: subprocess.Popen[bytes] | None = None
    stdin = None if value is None else subprocess.PIPE
    output = None
    try:
        with _signals_held_back():
            process = subprocess.Popen(argv, stdin=stdin, stdout=stdout)
        while process.returncode is None:
            try:
                output, _ = process.communicate(value, timeout=1.0)
            except subprocess.TimeoutExpired:
                value = None  # what is left of it is written by the next call
                check()
    except BaseException:
        if process is not None:
            with process:
                process.kill()
        raise
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, argv, output)
    return output or b""


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """Handle SIGINT and SIGTERM that come within this block at its end.

    A handler's exception while a command is started would leave it running, and nobody knows it.
    """
    came: list[int] = []
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    held = {number: handler for number, handler in handlers.items() if callable(handler)}
    for number in held:
        signal.signal(number, lambda number, _: came.append(number))
    try:
        yield
    finally:
        for number, handler in held.items():
            signal.signal(number, handler)
        for one in came:
            signal.raise_signal(one)
