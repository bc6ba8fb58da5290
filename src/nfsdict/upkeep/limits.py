"""Limits: what ``prune`` is asked for, and its report."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..arguments import checked_count, checked_seconds, plain


@dataclass
class PruneReport:
    """What ``prune`` did, or would do, to the entries that it was asked about."""

    removed: int = 0
    """entries removed; with ``dry_run`` those that would be"""
    bytes: int = 0
    """in the files of those"""
    kept: int = 0
    """entries listed in the beginning, less those that this call removed, or found removed by
    others when it was their turn; what others add or remove besides isn't in it"""
    kept_bytes: int = 0
    """in the files of those, as they were in the beginning"""
    left: int = 0
    """entries that were still to be removed when the time limit, or an exception, ended this"""
    leased: int = 0
    """entries that were to be removed and stay, as some process holds their leases: those that are
    older than the last one to be removed; of all entries, if the limits can't be kept without them.
    Such a limit isn't reached although nothing is ``left``"""
    replaced: int = 0
    """entries that stay as they were written anew between the listing of their group, just before
    its removal, and their own turn; what was written anew before that listing isn't chosen at all,
    and only counts as kept"""
    failures: int = 0
    """entries that couldn't be removed"""
    failed: dict[str, str] = field(default_factory=dict)
    """paths of the first 100 of those, and why"""
    dry_run: bool = False
    """whether nothing was removed"""

    @property
    def complete(self) -> bool:
        """Whether all was removed that was to be, but what is leased or was replaced."""
        return not (self.left or self.failures)


@dataclass(frozen=True)
class Limits:
    """What is asked of ``prune``. ValueError or TypeError if it can't be."""

    max_age: float | None = None
    max_items: int | None = None
    max_bytes: int | None = None
    min_free_inodes: int | None = None
    prefix: str = ""
    time_limit: float | None = None

    def __post_init__(self) -> None:
        for name in ("max_age", "time_limit"):
            if getattr(self, name) is not None:
                checked_seconds(name, getattr(self, name), 0)
        counts = self.max_items, self.max_bytes, self.min_free_inodes
        for name, count in zip(("max_items", "max_bytes", "min_free_inodes"), counts):
            if count is not None:
                checked_count(name, count)
        plain(self.prefix)
        if self.max_age is None and all(count is None for count in counts):
            raise ValueError("give max_age, max_items, max_bytes or min_free_inodes")
