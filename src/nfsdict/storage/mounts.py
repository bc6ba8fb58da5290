"""Mounts: which file system holds a path, and what is known of that kind."""

from __future__ import annotations

import errno
import os

NFS = ("nfs", "nfs4")
# Where an fsync of a directory does nothing.
NO_SYNC_NEEDED = (*NFS, "tmpfs")
# Where a rename or link that is refused has done nothing: NFS, whose server carries it out or not,
# and what this machine's kernel does itself, on a disk or in memory. Not so on SMB, where a rename
# over a file that the same client has open is refused after the old file was unlinked (Linux's
# client, fs/smb/client/inode.c, cifs_rename2). Not known of others, as of what FUSE brings.
_DISKS = ("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "jfs", "nilfs2", "bcachefs")
TRUSTED = frozenset((*NFS, *_DISKS, "vfat", "exfat", "tmpfs", "ramfs", "overlay"))
# Where there is no /proc, or none that may be read.
_NO_PROC = (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM)


def mounted_as(path: str) -> str:
    """The type of the file system that holds the path ("nfs4", "ext4"), "" where the system doesn't
    tell. OSError if it can't be found out now, as without a free descriptor.

    On Linux, see proc_pid_mountinfo(5): by the mount's number, as btrfs gives each subvolume a
    device that isn't found there, or by the device where /proc has no such numbers.
    """
    if hasattr(os, "O_PATH"):
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)  # asks no server
        try:
            return _mount_of(os.fstat(descriptor).st_dev, f"/proc/self/fdinfo/{descriptor}")
        finally:
            os.close(descriptor)
    return _mount_of(os.stat(path).st_dev, os.devnull)


def _mount_of(device: int, information: str) -> str:
    """The type of the mount with the number in this file, or of one of this device."""
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
                if devices == f"{os.major(device)}:{os.minor(device)}":
                    found = found or file_system.split()[0]
    except OSError as error:
        if error.errno not in _NO_PROC:
            raise
    return found
