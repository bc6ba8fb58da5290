"""The command edit: a value in the user's editor."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from .. import NfsDictError
from .advice import advised
from .entries import no_json, value_of
from .output import DONE, complain
from .signals import end_on_signals, noted_signals
from .stores import writing

# So many seconds another process may hold the key's lease while the new value is to be written.
_PATIENCE = 10.0
# Seconds after which it is seen that a signal has come.
_TICK = 0.2
# So many seconds the editor may take to end after a SIGTERM.
_LAST_MOMENTS = 5.0
_GONE = object()
_AS_IT_WAS = "the value is as it was; edit it again, or remove the key with `nfsdict del`"


def add_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    added = command(
        "edit",
        edit,
        "Edit a value with $VISUAL or $EDITOR, or else vi.\n\n"
        "Text, and bytes that are text, are edited as they are (where they have no newline at\n"
        "their end, one that the editor adds is taken off); what else JSON has is edited as\n"
        "JSON; other values are refused. Nothing is stored if somebody else has changed the\n"
        "value meanwhile, if the editor fails, or if its text is no JSON and isn't edited\n"
        "again: then the text stays in a file, which is named. The value is compared and\n"
        "written under the key's lease. What another process assigns without it, in the\n"
        "milliseconds between these two, is replaced.",
    )
    added.add_argument("key", metavar="KEY")


def edit(arguments: argparse.Namespace) -> int:
    key = arguments.key
    end_on_signals()
    store = writing(arguments, create=False)
    form, before = _presented(value_of(store, key))
    with store, _draft(arguments, form, before) as draft:
        text = _edited(draft, form)
        if not before.endswith(b"\n"):
            text = text[:-1] if text.endswith(b"\n") else text
        if text == before:
            complain(f"{key!r} is as it was")
            return DONE
        value = form.loads(text)

        def unless_changed(now: Any) -> Any:
            with suppress(NfsDictError):  # a value that can't be edited
                if now is not _GONE and _presented(now) == (form, before):
                    return value
            raise NfsDictError(f"somebody else has changed or removed {key!r} meanwhile")

        store.modify(key, unless_changed, default=_GONE, timeout=_PATIENCE)
    return DONE


# --- how a value is written for the editor -------------------------------------------------------


class _Form(NamedTuple):
    suffix: str
    dumps: Callable[[Any], bytes]
    loads: Callable[[bytes], Any]
    set: str
    """options of `nfsdict set` for such a text"""


def _dump_json(value: Any) -> bytes:
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    return f"{text}\n".encode("utf-8", "backslashreplace")  # lone surrogates as JSON has them


def _load_json(data: bytes) -> Any:
    return json.loads(data, parse_constant=no_json)


_JSON = _Form(".json", _dump_json, _load_json, "--json ")
_FORMS: dict[type, _Form] = {
    str: _Form(".txt", str.encode, bytes.decode, ""),
    bytes: _Form(".txt", bytes, bytes, ""),
}


def _presented(value: Any) -> tuple[_Form, bytes]:
    """The value as text, in a form in which this very value comes back if nothing is edited."""
    form = _FORMS.get(type(value), _JSON)
    with suppress(TypeError, ValueError, RecursionError):
        text = form.dumps(value)
        text.decode()
        if _same(form.loads(text), value):
            return form, text
    raise NfsDictError(
        f"a value of type {type(value).__name__} that is neither text nor JSON can't be edited: "
        "change it in Python"
    )


def _same(one: Any, other: Any) -> bool:
    """Whether two values are equal and of the same types throughout: a tuple is no list."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return _same([*one.items()], [*other.items()])
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


# --- the file ------------------------------------------------------------------------------------


@contextmanager
def _draft(arguments: argparse.Namespace, form: _Form, text: bytes) -> Iterator[Path]:
    """A file with this text. After an exception it stays if the user has changed it, and the error
    says where it is; else it is removed."""
    descriptor, name = tempfile.mkstemp(form.suffix, "nfsdict-")
    draft = Path(name)
    try:
        with open(descriptor, "wb") as file:
            file.write(text)
        yield draft
    except BaseException as error:
        if not draft.exists() or draft.read_bytes() in (text, b""):
            draft.unlink(missing_ok=True)
            raise
        store = [] if arguments.base_dir is None else ["--base-dir", arguments.base_dir]
        again = shlex.join([*store, "--", arguments.name, arguments.key, "-"])
        kept = f"your text stays in {draft}: nfsdict set {form.set}{again} < {draft}"
        if not isinstance(error, Exception):
            complain(kept)
            raise
        raise NfsDictError(f"{advised(error)}; {kept}") from error
    draft.unlink(missing_ok=True)


def _edited(draft: Path, form: _Form) -> bytes:
    """The text as the user leaves it, which this form can load. ValueError if it can't, and the
    user, if there is one to be asked, doesn't want to edit it again."""
    while True:
        _run_editor(draft)
        try:
            text = draft.read_bytes()
        except FileNotFoundError:
            raise NfsDictError(f"the editor has removed its file: {_AS_IT_WAS}") from None
        try:
            if form is _JSON and not text.strip():
                raise ValueError(f"the editor has left nothing in its file: {_AS_IT_WAS}")
            form.loads(text)
            return text
        except ValueError as error:
            if sys.stdin is None or not (sys.stdin.isatty() and sys.stderr.isatty()):
                raise
            complain(f"{error}. Edit again? [Y/n]")
            if sys.stdin.readline().lower() not in ("\n", "y\n", "yes\n"):
                raise


def _awaited(editor: subprocess.Popen[bytes], noted: list[int]) -> int | None:
    """The editor's status, once it has ended. After a signal it is told to end, and may save its
    text by itself; None if it doesn't end then."""
    while not noted:
        with suppress(subprocess.TimeoutExpired):
            return editor.wait(_TICK)
    editor.terminate()
    with suppress(subprocess.TimeoutExpired):
        return editor.wait(_LAST_MOMENTS)
    return None


def _run_editor(draft: Path) -> None:
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    before = signal.signal(signal.SIGINT, lambda *_: None)  # a Ctrl-C is the editor's
    try:
        with noted_signals() as noted:
            status = _awaited(subprocess.Popen([*shlex.split(editor), draft]), noted)
    except OSError as error:
        raise NfsDictError(f"{error}; name an editor by $EDITOR") from error
    finally:
        signal.signal(signal.SIGINT, before)
    if status == -signal.SIGINT:
        raise KeyboardInterrupt
    if status:
        raise NfsDictError(f"{editor} ended with status {status}")
