"""Repair: clear away what a crash has left. No file that may hold a value is deleted."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..entries import Entries
from ..errors import CorruptValueError
from ..layout import digest_of, is_private, named_path
from ..progress import Progress
from ..storage import Storage
from .verify import VerifyReport, verify


@dataclass(frozen=True)
class RepairReport:
    """What ``repair`` did."""

    report: VerifyReport
    """what ``verify`` found before anything was repaired"""
    removed: list[str]
    """temporary files that were removed, or given back to their keys if a crash left them taken;
    and files of leases that nobody has renewed for long"""
    quarantined: dict[str, str]
    """damaged value files, and where each was moved"""
    failed: dict[str, str] = field(default_factory=dict)
    """paths of files that could not be removed, given back or moved, and why; and the directory of
    leases, if it can't be listed"""


def repair(
    storage: Storage, entries: Entries, workers: int, progress: Progress, grace: float
) -> RepairReport:
    """Remove temporary files older than ``grace`` seconds, and move damaged files aside.

    An OSError for one file is noted in the report, and the rest goes on.
    """
    report = verify(storage, entries, workers, progress, "repair")
    # By the server's clock, as times on files are: the local one says nothing about their age.
    now = storage.files.probe_clock()
    limit = now - int(grace * 1e9)
    done = RepairReport(report, [], {})
    outlived = []
    try:
        outlived = storage.leases.outlived(now, grace)
    except OSError as error:
        done.failed[storage.leases.directory] = str(error)
    for path in outlived:
        try:
            storage.files.sweep(path)
            done.removed.append(path)
        except OSError as error:
            done.failed[path] = str(error)
    for path in [path for path, moment in report.temporary.items() if moment < limit]:
        try:
            if is_private(path):
                named = named_path(path)
                if named != storage.values.path_of(digest_of(named)):
                    continue  # of another serializer
                storage.exclusive.give_back(path)  # taken by a pop that never returned
            else:
                storage.files.sweep(path)
            done.removed.append(path)
        except OSError as error:
            done.failed[path] = str(error)
    for path in report.damaged:
        try:
            # Read again: another process may have written the value anew since ``verify``.
            [entry] = entries.read_entries([digest_of(path)], lambda name, entry: entry)
            if isinstance(entry, CorruptValueError) and not entry.foreign:
                aside = storage.exclusive.quarantine(path, entry.signature)
                if aside:
                    done.quarantined[path] = aside
        except OSError as error:
            done.failed[path] = str(error)
    return done
