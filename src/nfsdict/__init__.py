"""A persistent dictionary that any number of processes on any number of hosts share over NFS."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .buffers import buffers
from .coordination.claims import Task
from .coordination.encoding import register_key
from .coordination.leases import Lease, LeaseInfo
from .core import BACKEND
from .doctor.report import Diagnosis, Finding
from .errors import (
    BatchError,
    CorruptValueError,
    LeaseLostError,
    NfsDictError,
    ReadOnlyError,
    UncertainWriteError,
    UnsafeMountWarning,
    WrongSerializerError,
)
from .mapping import NfsDict
from .repack import PackReport
from .serializers import Serializer, json_format
from .signed import signed
from .trust import UntrustedPickleWarning
from .upkeep.infos import EntryInfo
from .upkeep.repair import RepairReport
from .upkeep.verify import VerifyReport

if TYPE_CHECKING:
    from .doctor.examination import diagnose

Packing = PackReport  # the name that it had first

__version__ = "1.0.0.dev0"

__all__ = [
    "BACKEND",
    "BatchError",
    "CorruptValueError",
    "Diagnosis",
    "EntryInfo",
    "Finding",
    "Lease",
    "LeaseInfo",
    "LeaseLostError",
    "NfsDict",
    "NfsDictError",
    "PackReport",
    "Packing",
    "ReadOnlyError",
    "RepairReport",
    "Serializer",
    "Task",
    "UncertainWriteError",
    "UnsafeMountWarning",
    "UntrustedPickleWarning",
    "VerifyReport",
    "WrongSerializerError",
    "__version__",
    "buffers",
    "diagnose",
    "json_format",
    "register_key",
    "signed",
]


def __getattr__(name: str) -> object:
    """``diagnose``, when it is asked for: its probes would lengthen each import (PEP 562)."""
    if name == "diagnose":
        from .doctor.examination import diagnose

        return diagnose
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
