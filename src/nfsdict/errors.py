"""The errors that nfsdict defines. Everything else is the operating system's own OSError."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Callable, TypeVar

__all__ = [
    "ArchiveError",
    "BatchError",
    "CorruptValueError",
    "LeaseLostError",
    "NfsDictError",
    "ReadOnlyError",
    "UncertainWriteError",
    "UnsafeMountWarning",
    "WrongSerializerError",
]

T = TypeVar("T")


class NfsDictError(Exception):
    """The base of every error that nfsdict defines."""


class CorruptValueError(NfsDictError, KeyError):
    """A value file is damaged, or signed with another key: only this key's value is lost.

    It is a KeyError, so that code that computes missing values computes this one again. Assigning
    to the key replaces the file, deleting the key removes it, and ``repair()`` moves a damaged file
    aside. If a value's own code reads another entry, and that one is damaged, the value isn't: then
    the lookup of the value raises RuntimeError.
    """

    def __init__(
        self,
        path: str,
        reason: str,
        signature: bytes = b"",
        key: str | None = None,
        foreign: bool = False,
    ) -> None:
        super().__init__(path, reason, signature, key, foreign)
        self.path = path
        self.reason = reason
        self.signature = signature
        """of the file that was read: its inode, size, mtime and ctime"""
        self.key = key
        """the key that was asked for; None where files were read without one"""
        self.foreign = foreign
        """whether the file may be whole, but signed with another key than this dictionary's"""

    def __str__(self) -> str:  # KeyError's own would quote it
        kind = "refused" if self.foreign else "damaged"
        key = "" if self.key is None else f" of {self.key!r:.200}"
        return f"{kind} value file{key}: {self.path}: {self.reason}"


class WrongSerializerError(NfsDictError):
    """The store has entries of other serializers only, none of the one that it was opened with.

    Raised by the opening, or when lazy by the first lookup of a missing key or the first listing.
    To add entries of another serializer on purpose, open with ``lazy=True`` and write one first:
    once both have entries, dictionaries of both work.
    """

    def __init__(self, directory: str, extension: str, found: dict[str, int], advice: str) -> None:
        super().__init__(directory, extension, found, advice)
        self.directory = directory
        self.extension = extension
        """the extension of the serializer that the store was opened with"""
        self.found = found
        """extensions of the value files in the store, and how many of each were seen"""
        self.advice = advice

    def __str__(self) -> str:
        found = ", ".join(f"{count} or more of {kind}" for kind, count in self.found.items())
        return (
            f"{self.directory} holds no {self.extension} files, which this serializer writes, "
            f"but value files of another: {found}. Pass {self.advice}"
        )


class ReadOnlyError(NfsDictError, PermissionError):
    """A change was requested of a dictionary that was opened with ``read_only=True``.

    ``errno`` is EROFS, ``filename`` the store's directory.
    """


class ArchiveError(NfsDictError, ValueError):
    """What ``import_from`` was given isn't whole, or no export of such a store.

    The text says what is wrong, and how many entries were taken over before that was seen.
    """


class LeaseLostError(NfsDictError):
    """The lease isn't held any more: it was released, or couldn't be renewed in time.

    Another process may hold it by now. ``key`` is the key that it is for.
    """

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key

    def __str__(self) -> str:
        return f"the lease of {self.key!r:.200} is not held any more"


class UncertainWriteError(NfsDictError, OSError):
    """The system failed at a point where nobody can tell whether the change was made.

    The key has a whole value on disk, the old or the new one. The dictionary has forgotten the
    key's value and asks the disk at the next access. ``errno`` and ``filename`` are those of the
    call that failed. On file systems whose rename can lose the old file, such as SMB, the key may
    have no value, and the new value a private name: the message says so then, and ``repair()``
    gives the value back to the key.
    """


class UnsafeMountWarning(UserWarning):
    """The options of the store's mount alone break a promise, whatever this library does.

    Issued by the opening, once for each store and process, before anything is made or read. It
    names the options to mount with. Turned into an error (``warnings.simplefilter("error",
    UnsafeMountWarning)``), it keeps such stores from being opened. No server is asked: what can't
    be seen in ``/proc/self/mountinfo``, such as the options of sshfs and GlusterFS, counts as not
    given.
    """


class BatchError(NfsDictError, OSError):
    """Some keys of one ``update`` or ``clear`` failed; all others are done and durable.

    ``failed`` maps each failed key of an ``update``, or path of a ``clear``, to its OSError.
    ``errno`` is that of the first.
    """

    def __init__(self, failed: Mapping[str, OSError]) -> None:
        first, error = next(iter(failed.items()))
        super().__init__(
            error.errno,
            f"{len(failed)} failed, the first is {first!r}: {error.strerror}",
            error.filename,
        )
        self.failed = dict(failed)

    def __reduce__(self) -> tuple[type[BatchError], tuple[dict[str, OSError]]]:
        return type(self), (self.failed,)


def failure(number: int, path: str) -> OSError:
    """The OSError, or its subclass, for this errno."""
    return OSError(number, os.strerror(number), path)


def contained(code: Callable[..., T], *arguments: Any) -> T:
    """Run somebody's code. What it raises that is no Exception, such as SystemExit, comes out as
    RuntimeError: one value mustn't end the work on all others. So does an Exception of which
    ``isinstance`` can't tell the class.

    If a signal handler has raised it, the code run again doesn't, and it goes on as it is. So does
    KeyboardInterrupt always.
    """
    try:
        return code(*arguments)
    except KeyboardInterrupt:
        raise
    except Exception as error:
        if not _has_class(error):
            raise RuntimeError(f"its code raises {described(error)}") from error
        raise
    except BaseException as first:
        try:
            code(*arguments)
        except KeyboardInterrupt:
            raise
        except BaseException as again:
            if type(again) is type(first):
                raise RuntimeError(f"its code raises {described(again)}") from again
        raise


def _has_class(error: Exception) -> bool:
    """Whether its ``__class__``, which may be a user's code, gives one."""
    try:
        return isinstance(error.__class__, type)
    except BaseException:
        return False


def described(error: BaseException) -> str:
    """Type and text of an exception, whichever code raised it."""
    name = vars(type)["__name__"].__get__(type(error))  # its metaclass may have one that raises
    return f"{name}: {text_of(error)}"


def text_of(error: BaseException) -> str:
    """The exception's text. Its ``__str__`` may be a user's code, and itself raise, or give a
    ``str`` of a class that has such code."""
    try:
        return str.__str__(contained(str, error))
    except Exception:
        return "(no text: its __str__ raises)"


def name_key(error: Exception, key: str) -> None:
    """Add to this same exception which key's value it is about.

    If its only argument is its text, the key is appended to it. Any other exception, such as one
    whose class makes up the text, stays as it is and gets a note, from Python 3.11 on: before that
    nothing names the key.
    """
    about = f"the value of {key!r:.200}"
    args = error.args
    if len(args) == 1 and type(args[0]) is str and text_of(error) == args[0]:
        named = f"{args[0]} ({about})"
        error.args = (named,)
        if text_of(error) == named:
            return
        error.args = args  # its class keeps the text elsewhere, too
    if hasattr(error, "add_note"):
        error.add_note(about)
