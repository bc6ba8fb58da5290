"""Mounts, loop devices and messages to device-mapper by system call.

The programs for it would do: but starting one takes the guest a tenth of a second or more.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
import time
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
_DETACH = 2  # MNT_DETACH
# linux/loop.h
_SET_FD, _CLEAR_FD, _GET_FREE = 0x4C00, 0x4C01, 0x4C82
# linux/dm-ioctl.h: version, size, start of the data, four numbers, padding, device, name, uuid
_DM = struct.Struct("=3I5I2IQ128s129s7x")
_DM_VERSION = (4, 0, 0)
_DM_TARGET_MESSAGE = 0xC138FD0E


def mount(device: str, where: Path, kind: str, options: str = "") -> None:
    """As mount(8), for a device."""
    _check(_libc.mount(device.encode(), bytes(where), kind.encode(), 0, options.encode()), device)


def unmount(where: Path, seconds: float = 20, detached: bool = False) -> None:
    """As umount(8), waiting so long while it is busy: an NFS server lets go of what it no longer
    exports some time after ``exportfs`` has returned. If it is busy then, it is only taken out of
    sight where ``detached`` allows that; else OSError."""
    end = time.monotonic() + seconds
    while (result := _libc.umount2(bytes(where), 0)) and ctypes.get_errno() == errno.EBUSY:
        if time.monotonic() > end:
            if detached:
                result = _libc.umount2(bytes(where), _DETACH)
            break
        time.sleep(0.05)
    _check(result, str(where))


def _check(result: int, path: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)


class Loop:
    """A block device that has a file's content."""

    def __init__(self, path: Path) -> None:
        with open("/dev/loop-control", "rb") as control:
            self.device = f"/dev/loop{fcntl.ioctl(control, _GET_FREE)}"
        with open(self.device, "r+b", buffering=0) as device, path.open("r+b") as file:
            fcntl.ioctl(device, _SET_FD, file.fileno())

    def detach(self) -> None:
        """Nothing if it is detached."""
        with open(self.device, "rb") as device:
            try:
                fcntl.ioctl(device, _CLEAR_FD)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise


def message(name: str, text: str) -> None:
    """Send a message to the first target of this device-mapper device."""
    body = struct.pack("=Q", 0) + text.encode() + b"\0"
    size = _DM.size + len(body)
    head = _DM.pack(*_DM_VERSION, size, _DM.size, *[0] * 5, 0, name.encode(), b"")
    with open("/dev/mapper/control", "r+b", buffering=0) as control:
        fcntl.ioctl(control, _DM_TARGET_MESSAGE, bytearray(head + body))
