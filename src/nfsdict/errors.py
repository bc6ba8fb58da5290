"""What can go wrong, by name. Everything else is the operating system's own OSError."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = [
    "BatchError",
    "CorruptValueError",
    "NfsDictError",
    "ReadOnlyError",
    "UncertainWriteError",
]


class NfsDictError(Exception):
    """The base of every error that nfsdict defines."""


class CorruptValueError(NfsDictError, KeyError):
    """A value file is damaged: one key is lost, and no other.

    A KeyError, so that code which computes what is missing computes this again. Assigning to the
    key replaces the file, deleting it removes the file, ``repair()`` moves the file aside.
    """

    def __init__(self, path: str, reason: str, signature: bytes = b"") -> None:
        super().__init__(path, reason, signature)
        self.path = path
        self.reason = reason
        self.signature = signature
        """of the file that was read: its inode, size and mtime"""

    def __str__(self) -> str:  # KeyError's own would quote it
        return f"damaged value file {self.path}: {self.reason}"


class ReadOnlyError(NfsDictError, PermissionError):
    """A change was asked of a dictionary that was opened with ``read_only=True``."""


class UncertainWriteError(NfsDictError, OSError):
    """The system failed at a point where it can't be known whether the change was made.

    A whole value lies on the disk, the old or the new one; the dictionary has forgotten the
    key's value and asks the disk at the next access. ``errno`` and ``filename`` are those of the
    call that failed.
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
