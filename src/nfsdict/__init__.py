"""A persistent dictionary that any number of processes on any number of hosts share over NFS."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from .buffers import buffers
from .core import BACKEND
from .errors import (
    ArchiveError,
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
from .progress import ProgressUpdate
from .serializers import Serializer, json_format
from .signed import signed

if TYPE_CHECKING:
    from .coordination.claims import Task
    from .coordination.encoding import register_key
    from .coordination.leases import Lease, LeaseInfo
    from .doctor.examination import diagnose
    from .doctor.report import Diagnosis, Finding
    from .repack import Packing, PackReport
    from .trust import UntrustedPickleWarning
    from .upkeep.infos import EntryInfo
    from .upkeep.limits import PruneReport
    from .upkeep.reading import ExportReport
    from .upkeep.repair import RepairReport
    from .upkeep.verify import VerifyReport
    from .upkeep.writing import TransferReport

__version__ = "1.0.0.dev0"

__all__ = [
    "BACKEND",
    "ArchiveError",
    "BatchError",
    "CorruptValueError",
    "Diagnosis",
    "EntryInfo",
    "ExportReport",
    "Finding",
    "Lease",
    "LeaseInfo",
    "LeaseLostError",
    "NfsDict",
    "NfsDictError",
    "PackReport",
    "Packing",
    "ProgressUpdate",
    "PruneReport",
    "ReadOnlyError",
    "RepairReport",
    "Serializer",
    "Task",
    "TransferReport",
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

# The public names that most programs don't use, and their modules, which are imported when such a
# name is first asked for: they would lengthen each import of the package.
_LATER = {
    "Diagnosis": ".doctor.report",
    "EntryInfo": ".upkeep.infos",
    "ExportReport": ".upkeep.reading",
    "Finding": ".doctor.report",
    "Lease": ".coordination.leases",
    "LeaseInfo": ".coordination.leases",
    "PackReport": ".repack",
    "Packing": ".repack",
    "PruneReport": ".upkeep.limits",
    "RepairReport": ".upkeep.repair",
    "Task": ".coordination.claims",
    "TransferReport": ".upkeep.writing",
    "UntrustedPickleWarning": ".trust",
    "VerifyReport": ".upkeep.verify",
    "diagnose": ".doctor.examination",
    "register_key": ".coordination.encoding",
}


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_LATER[name], __name__), name)
    globals()[name] = value  # found from now on
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
