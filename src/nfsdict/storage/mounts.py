"""Mounts: which file system holds a path, and what is known of its type."""

from __future__ import annotations

import errno
import os

NFS = ("nfs", "nfs4")
# File systems on which an fsync of a directory does nothing.
NO_SYNC_NEEDED = (*NFS, "tmpfs")
# File systems on which a refused rename or link has certainly done nothing: NFS, whose server
# carries out the whole call or nothing, and those that this machine's kernel implements, on a disk
# or in memory. SMB isn't one: if Linux's client has the target open, it may unlink that file and
# then refuse the rename (fs/smb/client/inode.c, cifs_rename2). Of others, such as FUSE, it isn't
# known.
_DISKS = ("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "jfs", "nilfs2", "bcachefs")
TRUSTED = frozenset((*NFS, *_DISKS, "vfat", "exfat", "tmpfs", "ramfs", "overlay"))
# Errors that mean: there is no /proc, or it may not be read.
_NO_PROC = (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM)


def mounted_as(path: str) -> str:
    """The type of the file system that holds the path, such as "nfs4" or "ext4".

    "" if the system doesn't tell. OSError if it can't be found out now, for example for lack of a
    free descriptor.

    Linux lists mounts in /proc/self/mountinfo, see proc_pid_mountinfo(5). The mount is found there
    by its number, as btrfs gives each subvolume a device that isn't listed; if /proc has no such
    numbers, by its device.
    """
    if hasattr(os, "O_PATH"):
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)  # asks no server
        try:
            return _mount_of(os.fstat(descriptor).st_dev, f"/proc/self/fdinfo/{descriptor}")
        finally:
            os.close(descriptor)
    return _mount_of(os.stat(path).st_dev, os.devnull)


def lists_attributes(path: str) -> bool:
    """Whether an NFS client gets the attributes of a directory's entries with its listing.

    Not with the mount options ``nordirplus`` and ``rdirplus=none``, and not from a server of
    version 3 that has refused READDIRPLUS once: the client then no longer has that capability
    (``NFS_CAP_READDIRPLUS`` in include/linux/nfs_fs_sb.h). False where the system doesn't tell.
    """
    try:
        device = os.stat(path).st_dev
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
            mount = next(line for line in mounts if line.split()[2] == _number(device))
        fields, _, rest = mount.partition(" - ")
        options = rest.split()[2].split(",")
        if "nordirplus" in options or "rdirplus=none" in options:
            return False
        return not _is_version_3(options) or _READDIRPLUS & _capabilities(fields.split()[4]) != 0
    except (OSError, ValueError, IndexError, StopIteration):
        return False


# Of ``caps`` in /proc/self/mountstats.
_READDIRPLUS = 1


def _is_version_3(options: list[str]) -> bool:
    return "vers=3" in options


def _capabilities(mount_point: str) -> int:
    """Those of the NFS server that is mounted there, as the client knows them."""
    with open("/proc/self/mountstats", encoding="utf-8", errors="surrogateescape") as statistics:
        lines = iter(statistics)
        for line in lines:
            if f" mounted on {mount_point} with fstype nfs" in line:
                for line in lines:
                    name, _, values = line.strip().partition(":")
                    if name == "caps":
                        return int(values.split(",")[0].partition("=")[2], 16)
    return 0


def _number(device: int) -> str:
    return f"{os.major(device)}:{os.minor(device)}"


def _mount_of(device: int, information: str) -> str:
    """The type of the mount whose number this file tells, or else of a mount of this device."""
    found = ""
    try:
        with open(information, encoding="ascii") as lines:
            number = next((line.split()[1] for line in lines if line.startswith("mnt_id:")), "")
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
            for mount in mounts:
                fields, _, file_system = mount.partition(" - ")
                own, _, devices = fields.split()[:3]
                if own == number:
                    return file_system.split()[0]
                if devices == _number(device):
                    found = found or file_system.split()[0]
    except OSError as error:
        if error.errno not in _NO_PROC:
            raise
    return found
