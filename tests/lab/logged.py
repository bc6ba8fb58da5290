"""A disk whose power can be cut at any moment afterwards: ext4 on dm-log-writes, and its replay.

The kernel's documentation has dm-log-writes under admin-guide/device-mapper. It logs what reaches
the disk, in the order in which flushes and forced writes make it durable. The log up to some entry,
replayed over what was there before, is what a cut at that moment leaves.
"""

from __future__ import annotations

import re
import shutil
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Union

from .devices import Loop, message, mount, unmount
from .system import modprobe, run

SECTOR = 512
DISK_MB = 12
LOG_MB = 400
_SUPER = struct.Struct("<QQQI")
_MAGIC = 0x6A736677736872
_ENTRY = struct.Struct("<QQQQ")
_DISCARD, _MARK = 4, 8


class Written(NamedTuple):
    """What one write has put on the disk."""

    offset: int
    data: bytes


_LETTERS = re.compile("[^a-z0-9]+")

Event = Union[Written, str]
"""A write, or the text of a mark."""


class LoggedDisk:
    """An ext4 file system below `mount_point`, recorded from its first mount to `end`.

    It begins as `before`, or empty. Its files lie in `directory`, which should be in memory. Needs
    root, loop devices, and the kernel's modules below /run/modules, as the guest has them.
    """

    def __init__(self, directory: Path, mount_point: Path, before: bytes | None = None) -> None:
        self.directory = directory
        self.mount_point = mount_point
        image, self._log = directory / "disk", directory / "log"
        modprobe("loop", "dm-mod", "dm-log-writes")
        directory.mkdir()
        if before is None:
            with image.open("wb") as file:
                file.truncate(DISK_MB << 20)
            _make_ext4(image)
        else:
            image.write_bytes(before)
        with self._log.open("wb") as file:
            file.truncate(LOG_MB << 20)
        self._before = image.read_bytes()
        self._cut = directory / "cut"
        self._cut.write_bytes(self._before)
        self._loops = [Loop(path) for path in (image, self._log)]
        self._cut_loop = Loop(self._cut)
        self._name = f"logged-{_LETTERS.sub('-', str(directory))}"
        devices = " ".join(loop.device for loop in self._loops)
        table = f"0 {len(self._before) // SECTOR} log-writes {devices}"
        _dmsetup("create", self._name, "--table", table)
        mount_point.mkdir(parents=True, exist_ok=True)
        mount(f"/dev/mapper/{self._name}", mount_point, "ext4")

    def mark(self, text: str) -> None:
        """What is durable now was so before this mark, a word."""
        message(self._name, f"mark {text}")

    def end(self) -> None:
        """Unmount it; nothing more is recorded."""
        unmount(self.mount_point)
        _dmsetup("remove", self._name)
        for loop in self._loops:
            loop.detach()

    def remove(self) -> None:
        """After `end`: free the memory that it took."""
        self._cut_loop.detach()
        shutil.rmtree(self.directory)

    def events(self) -> list[Event]:
        """All that was recorded."""
        events: list[Event] = []
        with self._log.open("rb") as log:
            magic, _, count, sector_size = _SUPER.unpack(log.read(_SUPER.size))
            assert (magic, sector_size) == (_MAGIC, SECTOR)
            log.seek(SECTOR)
            for _ in range(count):
                entry = log.read(SECTOR)
                sector, sectors, flags, size = _ENTRY.unpack_from(entry)
                if flags & _MARK:
                    events.append(entry[_ENTRY.size : _ENTRY.size + size].decode())
                elif not flags & _DISCARD:
                    events.append(Written(sector * SECTOR, log.read(sectors * SECTOR)))
        return events

    def disks(self, events: list[Event]) -> Iterator[tuple[int, bytearray]]:
        """The disk before each of the events, and after the last; the same object each time."""
        disk = bytearray(self._before)
        for number, event in enumerate(events):
            yield number, disk
            if isinstance(event, Written):
                disk[event.offset : event.offset + len(event.data)] = event.data
        yield len(events), disk

    @contextmanager
    def mounted(self, disk: bytearray) -> Iterator[Path]:
        """Such a disk, mounted after its recovery, and writable: what is written is forgotten."""
        where = self.directory / "mounted"
        where.mkdir(exist_ok=True)
        with self._cut.open("r+b") as file:
            file.write(disk)
        mount(self._cut_loop.device, where, "ext4")
        try:
            yield where
        finally:
            unmount(where)


def _make_ext4(path: Path) -> None:
    """A small journal, and nothing left for the kernel to do later."""
    options = ["-J", "size=4", "-E", "lazy_itable_init=0,lazy_journal_init=0", "-N", "2048"]
    run("mkfs.ext4", "-q", "-F", "-b", "1024", *options, str(path))


def _dmsetup(*arguments: str) -> None:
    run("env", "DM_DISABLE_UDEV=1", "dmsetup", *arguments)  # there is no udev in the guest
