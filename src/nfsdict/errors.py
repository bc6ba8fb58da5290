"""What can go wrong, by name. Everything else is the operating system's own OSError."""

from __future__ import annotations

import os
from collections.abc import Mapping

__all__ = [
    "BatchError",
    "CorruptValueError",
    "NfsDictError",
    "ReadOnlyError",
    "UncertainWriteError",
    "WrongSerializerError",
]


class NfsDictError(Exception):
    """The base of every error that nfsdict defines."""


class CorruptValueError(NfsDictError, KeyError):
    """A value file is damaged, or signed with another key: one key is lost, and no other.

    A KeyError, so that code which computes what is missing computes this again. Assigning to the
    key replaces the file, deleting it removes the file, ``repair()`` moves a damaged file aside.
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
        """of the file that was read: its inode, size and mtime"""
        self.key = key
        """the key that was asked for; None where files were read without one"""
        self.foreign = foreign
        """whether the file may be whole, and signed with another key than this dictionary's"""

    def __str__(self) -> str:  # KeyError's own would quote it
        kind = "refused" if self.foreign else "damaged"
        key = "" if self.key is None else f" of {self.key!r:.200}"
        return f"{kind} value file{key}: {self.path}: {self.reason}"


class WrongSerializerError(NfsDictError):
    """The store holds entries of other serializers than the one it was opened with, and none of it.

    Raised by an opening, or when lazy by the first lookup of a key that isn't there or whatever
    lists the store. To put entries of another serializer beside those on purpose, open with
    ``lazy=True`` and write one first: where both have entries, both go on working.
    """

    def __init__(self, directory: str, extension: str, found: dict[str, int], advice: str) -> None:
        super().__init__(directory, extension, found, advice)
        self.directory = directory
        self.extension = extension
        """of the serializer that it was opened with"""
        self.found = found
        """extensions of the value files that are there, and how many of each were seen"""
        self.advice = advice

    def __str__(self) -> str:
        found = ", ".join(f"{count} or more of {kind}" for kind, count in self.found.items())
        return (
            f"{self.directory} holds no {self.extension} files, which this serializer writes, "
            f"but value files of another: {found}. Pass {self.advice}"
        )


class ReadOnlyError(NfsDictError, PermissionError):
    """A change was asked of a dictionary that was opened with ``read_only=True``.

    ``errno`` is EROFS, ``filename`` the store's directory.
    """


class UncertainWriteError(NfsDictError, OSError):
    """The system failed at a point where it can't be known whether the change was made.

    A whole value lies on the disk, the old or the new one; the dictionary has forgotten the
    key's value and asks the disk at the next access. ``errno`` and ``filename`` are those of the
    call that failed. If its message says so, the new value has a private name, and nothing is under
    the key until ``repair()``: on file systems, such as SMB, whose rename can lose the old file.
    """


class BatchError(NfsDictError, OSError):
    """Some of the keys of one ``update`` or ``clear`` failed; all others are done and durable.

    ``failed`` maps what failed, each key of an ``update`` or path of a ``clear``, to its OSError;
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
    """The OSError, or the subclass of it, that stands for this errno."""
    return OSError(number, os.strerror(number), path)


def described(error: BaseException) -> str:
    """Type and text of an exception that anybody's code may have raised."""
    return f"{type(error).__name__}: {text_of(error)}"


def text_of(error: BaseException) -> str:
    """What the exception says. Its ``__str__`` may be anybody's code too, and raise."""
    try:
        return str(error)
    except Exception:
        return "(no text: its __str__ raises)"


def name_key(error: Exception, key: str) -> None:
    """Have the exception say which key's value it is about. It stays the one that it is.

    The text of an ordinary one gets the key after it. One that makes up its own text is left as it
    is, with a note where Python has them (3.11).
    """
    about = f"the value of {key!r:.200}"
    ordinary = type(error).__str__ is BaseException.__str__
    if ordinary and len(error.args) == 1 and isinstance(error.args[0], str):
        error.args = (f"{error.args[0]} ({about})",)
    elif hasattr(error, "add_note"):
        error.add_note(about)
