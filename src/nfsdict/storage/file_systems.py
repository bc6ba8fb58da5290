"""File systems: the rules by kind of file system, each with its reason.

A table. Who knows more of a file system changes a line here.
"""

from __future__ import annotations

import enum
import errno
import os
import sys
from typing import NamedTuple


class Lookup(enum.Enum):
    """How the system is made to look up what others changed of a directory's names."""

    OPEN = enum.auto()
    """It does so by itself, or when the directory is opened."""
    NFS = enum.auto()
    """When the directory is opened, but for two changes in one tick of the server's clock: see
    ``coherence``."""
    LISTING = enum.auto()
    """By a listing of the directory after its cached pages were dropped. Opening asks nobody."""
    NAME = enum.auto()
    """By such a listing, and then a look at the one name that passes the cache by: see
    ``directories.look_up_anew``."""


class Stamps(enum.Enum):
    """What the times of directories and files prove."""

    SERVER = enum.auto()
    """One clock sets all. A directory that has its times has its names; a file that has its
    signature has its content; both unless they are racy."""
    FILES = enum.auto()
    """One clock sets all, but a directory's times don't move with each change: they prove nothing.
    Signatures of files do."""
    CLIENTS = enum.auto()
    """Each client sets times by its own clock. One that is behind changes a directory without its
    times moving: they prove nothing, and no time is compared with another's, but for ages that a
    caller asks for. No number of an inode comes again soon, and what is replaced has another one:
    equal signatures, equal content."""
    NONE = enum.auto()
    """Nothing is known: they prove nothing, and each file is read whose content is to be known."""


STALE = frozenset({errno.ESTALE, errno.EBADF})
"""Errors of a handle that another host made stale: the call is repeated from the path."""


class Kind(NamedTuple):
    """The rules of one kind of file system."""

    lookup: Lookup
    stamps: Stamps
    trusted: bool = False
    """whether a refused rename or link has certainly done nothing"""
    lingers: bool = False
    """whether a file that was removed or renamed can keep its name, for as long as another process
    has it open, or for good"""
    asks_by_handles: bool = False
    """whether the client may answer for a name by a handle of another process of its host: see
    ``handles``"""
    syncs: bool = True
    """whether a directory must be fsynced after a change in it"""
    whole_seconds: bool = False
    """whether times of one file differ by how it is asked for them, but for the seconds"""
    passing: frozenset[int] = STALE
    """errors that pass: the call is tried again"""
    seconds: float = 0.1
    """for so long, about"""
    caches_content: bool = False
    """whether reading a file can give what was there before, or what another file has"""
    rereads: bool = True
    """if so, whether a file can be read past all caches"""
    fstats_by_name: bool = False
    """whether an open file has the attributes, its size among them, of the file that has its name
    by now"""
    stamps_writes: bool = False
    """whether a file that was just written shows the server's time"""
    renames_twice: bool = False
    """whether two hosts that rename one file can both hear that it is done: one of the two new
    names is there then"""
    waits_for_renames: bool = False
    """whether a look for the new name of a rename that failed may never return: its directory is
    listed instead, and no other file is renamed to it"""


# A server of its own that carries out the whole call or nothing. Directory operations are
# synchronous (fs/nfs/dir.c).
_NFS = Kind(Lookup.NFS, Stamps.SERVER, trusted=True, syncs=False)
# Version 3 gets the new attributes with the reply to a write. With a delegation of version 4 the
# client makes them up.
_NFS3 = _NFS._replace(stamps_writes=True)
# What this machine's kernel does alone, on a disk or in memory.
_DISK = Kind(Lookup.OPEN, Stamps.SERVER, trusted=True)
# No fsync does anything (mm/shmem.c).
_MEMORY = _DISK._replace(syncs=False)
# Directories get no later times with each change, and keep 2 s.
_FAT = _DISK._replace(stamps=Stamps.FILES)
# A ctime is the file's creation there, so no time shows a change that sets the others back. What a
# process has open can't be renamed, replaced or removed: EACCES, until it is closed.
_WINDOWS = Kind(Lookup.OPEN, Stamps.FILES, syncs=False, passing=STALE | {errno.EACCES}, seconds=0.5)
# Coherent among clients by locks or capabilities. Clients stamp what they write.
CLUSTER = Kind(Lookup.OPEN, Stamps.CLIENTS)
# Release 16.2.15 of ceph-fuse looks up a name only when no rename to it is under way, and takes one
# that failed to be under way for good (src/client/Client.cc, is_renaming).
CEPH_FUSE = CLUSTER._replace(waits_for_renames=True)
# Opening a directory asks nobody, missed names stay missed for a second, and what is read may be
# the pages of another file that had the same inode number. If the client has a rename's target
# open, it may remove that file and then refuse the rename (fs/smb/client/inode.c, cifs_rename2).
# A file's mtime is one in whole seconds by fstat and one in 100 ns by lstat. With leases an open
# was seen to give EINVAL. A file that others have open is removed when the last of them closes it.
# Until then it is listed, and can't be found. Samba knows the mark for that by the file's name: a
# process of it that closes a file before it has heard of its last rename leaves it there, unmarked
# (source3/smbd/close.c, is_delete_on_close_set).
_SMB = Kind(
    Lookup.NAME,
    Stamps.FILES,
    lingers=True,
    asks_by_handles=True,
    whole_seconds=True,
    passing=STALE | {errno.EINVAL},
    seconds=1.0,
    caches_content=True,
)
# Names and attributes are kept for a second, also by layers above the kernel that can't be told
# to ask. An open of a name that another client has just replaced gives ESTALE for that second. In 5
# of 400 races of four processes two clients that renamed one file were both told that it was done.
_GLUSTER = Kind(
    Lookup.NAME,
    Stamps.CLIENTS,
    seconds=3.0,
    caches_content=True,
    rereads=False,
    renames_twice=True,
)
# It keeps listings and attributes itself for 20 s, and fills them by each listing: the fewer, the
# better. Times are the server's, in whole seconds; a directory's don't move with each change. fstat
# asks for the attributes of a path, as on most of FUSE's file systems.
_SSHFS = Kind(Lookup.OPEN, Stamps.FILES, caches_content=True, rereads=False, fstats_by_name=True)
# What it is below isn't known. Without a cache each call asks the server. fstat asks by the handle
# that the name was looked up with, not the one that was opened, and servers go by its path
# (fs/9p/vfs_inode_dotl.c, v9fs_vfs_getattr_dotl).
_9P = Kind(Lookup.OPEN, Stamps.FILES, fstats_by_name=True)
NINEP_CACHED = _9P._replace(lookup=Lookup.NAME, caches_content=True, rereads=False)
UNKNOWN = Kind(
    Lookup.NAME,
    Stamps.NONE,
    lingers=True,
    caches_content=True,
    rereads=False,
    renames_twice=True,
)
"""the most careful rules. As no signature is believed there, it doesn't matter of which file one is
that comes with a content."""

_DISKS = ("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "jfs", "nilfs2", "bcachefs")
KINDS = {
    "nfs": _NFS3,
    "nfs4": _NFS,
    **dict.fromkeys((*_DISKS, "overlay"), _DISK),
    "tmpfs": _MEMORY,
    "ramfs": _DISK,
    **dict.fromkeys(("vfat", "exfat"), _FAT),
    **dict.fromkeys(("ceph", "lustre", "gpfs"), CLUSTER),
    **dict.fromkeys(("fuse.ceph", "fuse.ceph-fuse"), CEPH_FUSE),
    **dict.fromkeys(("cifs", "smb3"), _SMB),
    "fuse.glusterfs": _GLUSTER,
    "fuse.sshfs": _SSHFS,
    "9p": _9P,
}
"""by the type of the mount; all others are ``UNKNOWN``"""


def of_type(name: str) -> Kind:
    """The rules for mounts of this type, whatever their options."""
    if not name and sys.platform != "linux":
        # These have no table of mounts that can be read here. What was tried there are disks.
        return _WINDOWS if os.name == "nt" else _DISK._replace(trusted=False)
    return KINDS.get(name, UNKNOWN)
