"""Repair: what a crash has left is cleared away. No file that may be a value is deleted."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..entries import Entries
from ..errors import CorruptValueError
from ..layout import digest_of, is_private, named_path
from ..storage import Storage
from .verify import VerifyReport, verify


@dataclass(frozen=True)
class RepairReport:
    """What ``repair`` did."""

    report: VerifyReport
    """what was there before"""
    removed: list[str]
    """temporary files that were removed, or given back if a crash left them half taken"""
    quarantined: dict[str, str]
    """damaged value files, and where each was moved"""
    failed: dict[str, str] = field(default_factory=dict)
    """paths of what should have been done, and could not be, and why"""


def repair(storage: Storage, entries: Entries, workers: int, grace: float) -> RepairReport:
    """Remove temporary files older than ``grace`` seconds, and move damaged files aside.

    What can't be done doesn't keep the rest from being done.
    """
    report = verify(storage, entries, workers)
    # The server's clock on both sides: the local one says nothing about a file's age.
    limit = storage.files.probe_clock() - int(grace * 1e9)
    done = RepairReport(report, [], {})
    for path in [path for path, moment in report.temporary.items() if moment < limit]:
        try:
            if is_private(path):
                named = named_path(path)
                if named != storage.values.path_of(digest_of(named)):
                    continue  # of another serializer
                storage.exclusive.give_back(path)  # by a pop that never returned
            else:
                storage.files.sweep(path)
            done.removed.append(path)
        except OSError as error:
            done.failed[path] = str(error)
    for path in report.damaged:
        try:
            # Since it was looked at, somebody may have computed and written this value anew.
            [entry] = entries.read_entries([digest_of(path)])
            if isinstance(entry, CorruptValueError) and not entry.foreign:
                aside = storage.exclusive.quarantine(path, entry.signature)
                if aside:
                    done.quarantined[path] = aside
        except OSError as error:
            done.failed[path] = str(error)
    return done
