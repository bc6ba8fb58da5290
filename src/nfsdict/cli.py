"""The nfsdict command: look into a store and change it from the shell."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from . import (
    BACKEND,
    CorruptValueError,
    NfsDict,
    NfsDictError,
    UntrustedPickleWarning,
    __version__,
)
from .arguments import store_directory
from .errors import described, text_of
from .kinds import kinds_in
from .serializers import KNOWN, serializer_named
from .storage import Storage
from .upkeep.stats import stats as count

DONE, NO, ERROR = 0, 1, 2  # exit statuses as grep's: an error differs from an absent key

AUTO = "auto"

EPILOG = """\
exit status:
  0  done
  1  get, del: no such key; verify, repair: files that can't be read; verify: files that the
     index contradicts; demo: a mismatch
  2  an error: wrong usage, no such store, a damaged value, the system said no

A pickle can run any code when it is read. Open stores of pickles only where you
trust everybody who can write to them; --serializer json or bytes reads no pickle.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command `argv` (default: the process's arguments) and return its exit status.

    Errors are printed on standard error, in one line. If the reader of the output goes away, as in
    `nfsdict ls NAME | head`, the command ends silently with status 141, as SIGPIPE would end it.
    """
    arguments = parser().parse_args(argv)
    if sys.stdout is None:
        return ERROR if sys.stderr is None else complain("standard output is closed")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = tell
            status: int = arguments.run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        discard_output()
        return 128 + 13
    except KeyboardInterrupt:
        return 128 + 2
    except OSError as error:
        discard_output()  # the output may have failed, and would again at exit
        return complain(error)
    except (NfsDictError, UntrustedPickleWarning, ValueError, TypeError) as error:
        return complain(text_of(error))
    return status


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
    store.add_argument("name", metavar="NAME", help="the store's name below the base directory")
    store.add_argument(
        "--base-dir",
        metavar="DIR",
        help="where stores are kept (default: the user's data directory, as for NfsDict)",
    )
    store.add_argument(
        "--serializer",
        metavar="auto|pickle|json|bytes|buffers",
        default=AUTO,
        help="how the store's values are written (default: %(default)s, found from its files; "
        "pickle for a new store)",
    )

    def command(name: str, run: Any, text: str, over: Sequence[Any] = (store,)) -> Any:
        added = commands.add_parser(
            name,
            parents=list(over),
            help=text.partition(".")[0],
            description=text,
            epilog=EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(run=run)
        return added

    added = command("ls", list_keys, "List the keys, sorted, one to a line.")
    added.add_argument(
        "--json", action="store_true", help="one JSON array: exact, keys with newlines included"
    )

    added = command(
        "get",
        get,
        "Print a value.\n\n"
        "Text and bytes are written as they are, with nothing added (but a newline after\n"
        "text on a terminal), anything else as Python's repr.",
    )
    added.add_argument("key", metavar="KEY")
    added.add_argument("--json", action="store_true", help="print the value as JSON, in one line")

    added = command(
        "set",
        set_value,
        "Store a value: text, or bytes where the serializer is bytes.\n\n"
        "The store is made if it is not there, of pickles unless --serializer says else.\n"
        "Arguments that begin with a hyphen go after `--`.",
    )
    added.add_argument("key", metavar="KEY")
    added.add_argument("value", metavar="VALUE", help="- reads it from standard input, exactly")
    added.add_argument("--json", action="store_true", help="VALUE is JSON and is stored decoded")

    added = command("del", delete, "Delete a key.")
    added.add_argument("key", metavar="KEY")

    for name, run, text in (
        ("stats", stats, "Show what a store holds and how large it is."),
        ("verify", verify, "Examine every file of a store and change nothing."),
        (
            "repair",
            repair,
            "Sweep old temporary files, set damaged values aside, rebuild the index.",
        ),
        (
            "pack",
            pack,
            "Write the index, and all small values into one file, for those who open the store.\n\n"
            "Openers do so themselves when it pays. Prints how many values are packed, how many\n"
            "are left to their files, and how many of those changed within the last seconds.",
        ),
    ):
        added = command(name, run, text)
        added.add_argument("--json", action="store_true", help="one JSON object")

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


def list_keys(arguments: argparse.Namespace) -> int:
    keys = sorted(reading(arguments))
    if arguments.json:
        emit_json(keys)
    else:
        emit(b"".join(encode(key) + b"\n" for key in keys))
    return DONE


def get(arguments: argparse.Namespace) -> int:
    store = reading(arguments)
    try:
        value = store[arguments.key]
    except (CorruptValueError, OSError):
        raise
    except Exception as error:  # unpickling runs the code of the value's class
        if arguments.key not in store:
            return no_such_key(arguments)
        raise NfsDictError(f"can't load the value: {described(error)}") from error
    if arguments.json:
        emit_json(value)
    elif isinstance(value, str):
        # Only for a terminal: for a script nothing is added, so that `get | set -` copies exactly.
        emit(encode(value) + (b"\n" if sys.stdout.isatty() else b""))
    elif isinstance(value, (bytes, bytearray)):
        emit(value)
    else:
        emit(encode(repr(value)) + b"\n")
    return DONE


def set_value(arguments: argparse.Namespace) -> int:
    serializer = chosen(arguments)
    data = os.fsencode(arguments.value) if arguments.value != "-" else sys.stdin.buffer.read()
    value: Any = data
    if arguments.json:
        value = json.loads(data, parse_constant=no_json)
    elif serializer == "json":
        value = data.decode()  # JSON has only text: other bytes than UTF-8 are an error
    elif serializer != "bytes":
        # Bytes that aren't UTF-8 become lone surrogates, as in the program's arguments; `get` turns
        # them back into these bytes.
        value = data.decode("utf-8", "surrogateescape")
    if serializer == "json":
        os.fsencode(arguments.key).decode()
    with writing(arguments) as store:
        store[arguments.key] = value
    return DONE


def no_json(constant: str) -> Any:
    """Called by ``json.loads`` for NaN and the infinities."""
    raise ValueError(f"{constant} is no JSON")


def delete(arguments: argparse.Namespace) -> int:
    reading(arguments)
    with writing(arguments) as store:
        try:
            del store[arguments.key]
        except CorruptValueError:
            raise
        except KeyError:
            return no_such_key(arguments)
    return DONE


def stats(arguments: argparse.Namespace) -> int:
    store = reading(arguments)
    extension = serializer_named(chosen(arguments)).extension
    found = count(Storage(str(store.path), extension, mode=None, durable=False), workers=16)
    report = {
        "path": str(store.path),
        "keys": len(store),
        **dataclasses.asdict(found),
        "backend": BACKEND,
        "version": __version__,
    }
    show(report, arguments)
    return DONE


def verify(arguments: argparse.Namespace) -> int:
    report = reading(arguments).verify()
    show(dataclasses.asdict(report), arguments)
    return DONE if report.ok else NO


def repair(arguments: argparse.Namespace) -> int:
    reading(arguments)
    with writing(arguments) as store:
        done = store.repair()
    found = dataclasses.asdict(done.report)
    done_here = {
        "removed": done.removed,
        "quarantined": done.quarantined,
        "failed": done.failed,
    }
    show({**found, **done_here}, arguments)
    return NO if done.report.unreadable or done.failed else DONE


def pack(arguments: argparse.Namespace) -> int:
    reading(arguments)
    with writing(arguments) as store:
        show(store.pack()._asdict(), arguments)
    return DONE


def run_demo(arguments: argparse.Namespace) -> int:
    from . import demo  # starting processes takes many modules that no other command needs

    return demo.run(arguments.directory)


def chosen(arguments: argparse.Namespace) -> Any:
    """The serializer that the user named, or else the one that the store's files show."""
    if arguments.serializer == AUTO:
        arguments.serializer = found(store_directory(arguments.name, arguments.base_dir))
    return arguments.serializer


def found(directory: str) -> str:
    """The name of the serializer whose value files the store has; pickle if it has none."""
    try:
        kinds = kinds_in(directory)
    except FileNotFoundError:
        kinds = {}
    names = {serializer.extension: name for name, serializer in KNOWN.items()}
    if not kinds:
        return "pickle"
    if len(kinds) == 1 and kinds.keys() <= names.keys():
        [extension] = kinds
        return names[extension]
    there = ", ".join(f"{count} or more of {kind}" for kind, count in sorted(kinds.items()))
    known = [f"--serializer {names[kind]}" for kind in sorted(kinds) if kind in names]
    advice = " or ".join(known) or "Python: this command knows only " + ", ".join(names)
    raise NfsDictError(
        f"{directory} holds value files of several serializers, or of one that "
        f"isn't known here: {there}. Use {advice}"
    )


def reading(arguments: argparse.Namespace) -> NfsDict[Any]:
    """The store, opened read-only; FileNotFoundError if there is none."""
    store = NfsDict[Any](
        arguments.name, arguments.base_dir, chosen(arguments), lazy=True, read_only=True
    )
    os.stat(store.path)  # a mistyped name is an error, not an empty store
    return store


def writing(arguments: argparse.Namespace) -> NfsDict[Any]:
    """The store, opened for writing and made if it doesn't exist."""
    return NfsDict[Any](arguments.name, arguments.base_dir, chosen(arguments), lazy=True)


def encode(text: str) -> bytes:
    """`text` in UTF-8; lone surrogates that stand for other bytes become those bytes again."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # lone surrogates that stand for no byte
        return text.encode("utf-8", "backslashreplace")


def emit(data: bytes | bytearray) -> None:
    sys.stdout.buffer.write(data)


def emit_json(value: object) -> None:
    emit(json.dumps(value, allow_nan=False).encode() + b"\n")


def show(report: dict[str, Any], arguments: argparse.Namespace) -> None:
    """Print `report`: as JSON with `--json`, else a line for each field and each of its items."""
    if arguments.json:
        emit_json(report)
        return
    width = max(map(len, report)) + 2
    for name, value in report.items():
        many = isinstance(value, (dict, list))
        emit(encode(f"{name:{width}}{len(value) if many else value}\n"))
        if isinstance(value, dict):
            value = [f"{key}: {detail}" for key, detail in value.items()]
        if many:
            emit(encode("".join(f"  {item}\n" for item in value)))


def no_such_key(arguments: argparse.Namespace) -> int:
    return complain(f"no such key: {arguments.key!r}", NO)


def complain(problem: object, status: int = ERROR) -> int:
    print(f"nfsdict: {problem}", file=sys.stderr)
    return status


def tell(message: Warning | str, *_: Any, **__: Any) -> None:
    """Replaces ``warnings.showwarning``: prints one line, without the place in the code."""
    complain(f"warning: {message}")


def discard_output() -> None:
    """Redirect standard output to the null device, so that flushing its buffer can't fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
