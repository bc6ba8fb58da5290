"""Facts: all that the report tells of a store."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from ...coordination.leases import LeaseInfo
from ...doctor.mount import mount
from ...doctor.report import Figures, Finding
from ...doctor.room import room
from ...doctor.speed import speed
from ...entries import Entries
from ...errors import NfsDictError, described
from ...layout import SHARDS
from ...mapping import NfsDict
from ...storage import Storage
from ...storage.mountstats import calls_sent
from ...storage.probes import PrivateDirectory
from ..stats import StoreStats, stats
from ..verify import VerifyReport

_BINS = 4096


class Histogram:
    """How many numbers fall into bins of one width, which doubles when more than 4096 bins have
    some: so its memory is bounded, whatever the numbers are."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._counts: Counter[int] = Counter()

    def add(self, numbers: Iterable[int]) -> None:
        self._counts.update(number // self._width for number in numbers)
        while len(self._counts) > _BINS:
            self._widen()

    def _widen(self) -> None:
        self._width *= 2
        counts: Counter[int] = Counter()
        for number, count in self._counts.items():
            counts[number // 2] += count
        self._counts = counts

    def bins(self, most: int) -> list[tuple[int, int]]:
        """Where each bin begins, and how many numbers it has: at most so many bins, 2 or more,
        without gaps, as wide as need be. At last the end of the last one, with 0. Empty if there
        are no numbers."""
        if not self._counts:
            return []
        factor = 1
        while max(self._counts) // factor - min(self._counts) // factor >= most:
            factor *= 2
        counts: Counter[int] = Counter()
        for number, count in self._counts.items():
            counts[number // factor] += count
        width = self._width * factor
        return [(one * width, counts[one]) for one in range(min(counts), max(counts) + 2)]


@dataclass
class Facts:
    """What the report tells."""

    path: str
    serializer: str
    host: str
    made: datetime
    """when, by this host's clock"""
    file_system: str
    """type and mount of the store's file system, as far as this system tells"""
    leases: list[LeaseInfo]
    stats: StoreStats = field(default_factory=StoreStats)
    keys_by_size: Counter[int] = field(default_factory=Counter)
    """how many value files have a size of so many binary digits"""
    bytes_by_size: Counter[int] = field(default_factory=Counter)
    """the bytes of these files"""
    written: Histogram = field(default_factory=lambda: Histogram(1_000_000_000))
    """when value files were written, in ns since 1970"""
    keys_by_shard: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SHARDS, 0))
    verified: VerifyReport | None = None
    """None: no file was examined"""
    room: Figures = field(default_factory=dict)
    """free and total bytes and inodes"""
    speed: list[Finding] = field(default_factory=list)
    """how long calls take; empty if they weren't timed"""
    untimed: str = ""
    """why they weren't"""

    def add_shard(self, shard: str, files: list[tuple[int, int]]) -> None:
        """Count these files, by their sizes and mtimes in ns."""
        self.keys_by_shard[shard] = len(files)
        self.written.add(time for _, time in files)
        for size, _ in files:
            self.keys_by_size[size.bit_length()] += 1
            self.bytes_by_size[size.bit_length()] += size


def gather(
    store: NfsDict[Any],
    serializer: str,
    storage: Storage,
    entries: Entries,
    workers: int,
    *,
    timed: bool,
    verified: bool,
) -> Facts:
    """Look at the store. Memory as ``stats`` and, with ``verified``, ``verify`` need it.

    With ``timed``, calls are timed on a store that is made in a private directory inside this one,
    and removed again. OSError if a directory can't be listed, or that one can't be removed.
    """
    path = str(store.path)
    mounted, (file_system, *_) = mount(path)
    facts = Facts(
        path,
        serializer,
        socket.gethostname(),
        datetime.now(timezone.utc),
        file_system.seen.partition(", options ")[0],
        store.leases(),
    )
    facts.stats = stats(storage, entries, workers, facts.add_shard)
    if verified:
        facts.verified = store.verify()
    facts.room = {name: figure for one in room(path, None) for name, figure in one.figures.items()}
    if timed:
        _time(facts, mounted.point)
    else:
        facts.untimed = "not asked for."
    return facts


def _time(facts: Facts, mount_point: str) -> None:
    directory = PrivateDirectory(facts.path)
    try:
        directory.make()
        found = speed(directory.path, lambda: calls_sent(mount_point))
        facts.speed = [one for one in found if one.figures]
    except (OSError, NfsDictError) as error:
        facts.untimed = f"it failed there, {described(error)}."
    finally:
        directory.remove()
