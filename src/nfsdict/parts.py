"""The parts of which a dictionary is made: imported at the first opening, not with the package."""

from __future__ import annotations

from .bulk import Bulk
from .draw import Draw
from .entries import Entries
from .index.memory import Index
from .index.writer import IndexWriter
from .interrupting import Interrupting
from .kinds import Kinds
from .loads import Loads
from .one_key import OneKey
from .read_ahead import ReadAhead
from .scan import Scanner
from .state import StoreState
from .storage import Storage
from .storage.neighbours import no_such_store
from .taking import Taker
from .trust import warn_of_mount, warn_of_writers

__all__ = [
    "Bulk",
    "Draw",
    "Entries",
    "Index",
    "IndexWriter",
    "Interrupting",
    "Kinds",
    "Loads",
    "OneKey",
    "ReadAhead",
    "Scanner",
    "Storage",
    "StoreState",
    "Taker",
    "no_such_store",
    "warn_of_mount",
    "warn_of_writers",
]
