"""A persistent dictionary that any number of processes on any number of hosts share over NFS."""

from __future__ import annotations

from .core import BACKEND
from .errors import (
    BatchError,
    CorruptValueError,
    NfsDictError,
    ReadOnlyError,
    UncertainWriteError,
    WrongSerializerError,
)
from .index.writer import Packing
from .mapping import NfsDict
from .serializers import Serializer, json_format
from .signed import signed
from .trust import UntrustedPickleWarning
from .verify import Repair, Report

__version__ = "1.0.0.dev0"

__all__ = [
    "BACKEND",
    "BatchError",
    "CorruptValueError",
    "NfsDict",
    "NfsDictError",
    "Packing",
    "ReadOnlyError",
    "Repair",
    "Report",
    "Serializer",
    "UncertainWriteError",
    "UntrustedPickleWarning",
    "WrongSerializerError",
    "__version__",
    "json_format",
    "signed",
]
