"""Mounts: the rules by kind of file system, each with its reason, and what mount options break.

A table. Who knows more of a file system changes a line here; nothing else asks for its name.
"""

from __future__ import annotations

import enum
import errno
import os
import sys
from typing import NamedTuple

from .mountinfo import Mount, mount_of
from .mountstats import nfs_capabilities


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
_CLUSTER = Kind(Lookup.OPEN, Stamps.CLIENTS)
# Release 16.2.15 of ceph-fuse looks up a name only when no rename to it is under way, and takes one
# that failed to be under way for good (src/client/Client.cc, is_renaming).
_CEPH_FUSE = _CLUSTER._replace(waits_for_renames=True)
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
# better. Times are the server's, in whole seconds; a directory's don't move with each change.
_SSHFS = Kind(Lookup.OPEN, Stamps.FILES, caches_content=True, rereads=False)
# What it is below isn't known. Without a cache each call asks the server.
_9P = Kind(Lookup.OPEN, Stamps.FILES)
_9P_CACHED = _9P._replace(lookup=Lookup.NAME, caches_content=True, rereads=False)
UNKNOWN = Kind(
    Lookup.NAME,
    Stamps.NONE,
    lingers=True,
    caches_content=True,
    rereads=False,
    renames_twice=True,
)
"""the most careful rules"""

_DISKS = ("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "jfs", "nilfs2", "bcachefs")
KINDS = {
    "nfs": _NFS3,
    "nfs4": _NFS,
    **dict.fromkeys((*_DISKS, "overlay"), _DISK),
    "tmpfs": _MEMORY,
    "ramfs": _DISK,
    **dict.fromkeys(("vfat", "exfat"), _FAT),
    **dict.fromkeys(("ceph", "lustre", "gpfs"), _CLUSTER),
    **dict.fromkeys(("fuse.ceph", "fuse.ceph-fuse"), _CEPH_FUSE),
    **dict.fromkeys(("cifs", "smb3"), _SMB),
    "fuse.glusterfs": _GLUSTER,
    "fuse.sshfs": _SSHFS,
    "9p": _9P,
}
"""by the type of the mount; all others are ``UNKNOWN``"""


def kind_of(mount: Mount, trust_stamps: bool = False) -> Kind:
    """The rules for this mount.

    ``trust_stamps``: the caller knows that the clocks of all clients are kept.
    """
    kind = _of_type(mount.type)
    if mount.type in ("nfs", "nfs4") and mount.option("nocto") is not None:
        kind = kind._replace(lookup=Lookup.LISTING)
    if mount.type == "9p" and _caches_9p(mount):
        kind = _9P_CACHED
    if any(one.breaks for one in findings(mount)):
        kind = kind._replace(rereads=False)
    if trust_stamps and kind.stamps in (Stamps.CLIENTS, Stamps.NONE):
        kind = kind._replace(stamps=Stamps.SERVER)
    return kind


def _of_type(name: str) -> Kind:
    if not name and sys.platform != "linux":
        # These have no table of mounts that can be read here. What was tried there are disks.
        return _WINDOWS if os.name == "nt" else _DISK._replace(trusted=False)
    return KINDS.get(name, UNKNOWN)


def lists_attributes(mount: Mount) -> bool:
    """Whether an NFS client gets the attributes of a directory's entries with its listing.

    Not with the mount options ``nordirplus`` and ``rdirplus=none``, and not from a server of
    version 3 that has refused READDIRPLUS once: the client then no longer has that capability
    (``NFS_CAP_READDIRPLUS`` in include/linux/nfs_fs_sb.h). False where the system doesn't tell.
    """
    if mount.type not in ("nfs", "nfs4") or _no_attributes(mount):
        return False
    try:
        return mount.option("vers") != "3" or _READDIRPLUS & nfs_capabilities(mount.point) != 0
    except (OSError, ValueError, IndexError):
        return False


# Of ``nfs_capabilities``.
_READDIRPLUS = 1


def _no_attributes(mount: Mount) -> str:
    """The option by which listings bring no attributes, or "" if there is none."""
    if mount.option("nordirplus") is not None:
        return "nordirplus"
    return "rdirplus=none" if mount.option("rdirplus") == "none" else ""


# --- what options break --------------------------------------------------------------------------


class Finding(NamedTuple):
    """What a mount's options do to a store."""

    option: str
    """as it stands there; or what isn't there and should be"""
    effect: str
    """a sentence: which promise it breaks, or what it costs"""
    mount_with: str
    """the options to mount with in its place; "" if nothing has to be done, or no option mends"""
    breaks: bool
    """whether a promise is broken; else it costs time, can make a call hang, or does nothing"""


def examine(path: str) -> tuple[Mount, list[Finding]]:
    """The mount that holds this path, and what can be told of it. OSError as of ``mount_of``."""
    mount = mount_of(path)
    return mount, findings(mount)


def findings(mount: Mount) -> list[Finding]:
    """What can be told of this mount without asking its server, the worst first."""
    found: list[Finding] = []
    if mount.type in ("nfs", "nfs4"):
        found = _of_nfs(mount)
    elif mount.type in ("cifs", "smb3"):
        found = _of_smb(mount)
    elif mount.type == "9p":
        found = _of_9p(mount)
    elif mount.type in _BY_TYPE:
        found = [_BY_TYPE[mount.type]]
    elif _of_type(mount.type) == UNKNOWN:
        effect = (
            "nothing is known of this file system: each opening and refresh lists every directory "
            "and reads every file, and what its caches hide isn't seen"
        )
        found = [Finding(mount.type or "unknown type", effect, "", False)]
    if mount.option("nobarrier") is not None or mount.option("barrier") == "0":
        effect = "a power cut can undo what was acknowledged, unless the disk's cache outlives it"
        found.append(Finding("nobarrier", effect, "barrier", False))
    if mount.type == "overlay" and mount.option("volatile") is not None:
        effect = "a power cut can undo what was acknowledged, as no fsync does anything"
        found.append(Finding("volatile", effect, "", True))
    if mount.option("ro") is not None:
        found.append(Finding("ro", "nothing can be written: open with read_only=True", "rw", False))
    return sorted(found, key=lambda one: not one.breaks)


_CLOCKS = (
    "each host stamps what it writes by its own clock: so no stamp is believed, and each opening "
    "and refresh lists every directory; trust_stamps=True says that the hosts' clocks are kept"
)
_GLUSTER_ADVICE = (
    "by default, changes of others are seen up to a second late, and reads can fail with ESTALE; "
    "the options of FUSE can't be seen from here"
)
_SSHFS_ADVICE = (
    "by default, names, sizes and contents of others are seen up to 20 s late, and a whole file "
    "can look cut short; the options of FUSE can't be seen from here"
)
_BY_TYPE = {
    "fuse.glusterfs": Finding(
        "entry-timeout, attribute-timeout",
        _GLUSTER_ADVICE,
        "entry-timeout=0,attribute-timeout=0, and the volume with performance.stat-prefetch, "
        "quick-read, open-behind, io-cache and write-behind off",
        True,
    ),
    "fuse.sshfs": Finding(
        "dir_cache, attr_timeout, entry_timeout",
        _SSHFS_ADVICE,
        "dir_cache=no,attr_timeout=0,entry_timeout=0",
        True,
    ),
    **{
        kind: Finding(kind, _CLOCKS, "", False)
        for kind, rules in KINDS.items()
        if rules in (_CLUSTER, _CEPH_FUSE)
    },
}


def _of_nfs(mount: Mount) -> list[Finding]:
    found = []
    silent = _no_attributes(mount)
    nocto = mount.option("nocto") is not None
    if nocto and silent:
        effect = "names that others made, replaced or removed are missed for up to a minute"
        found.append(Finding(f"nocto,{silent}", effect, "cto,rdirplus", True))
    elif nocto:
        effect = "each miss, each fresh read and each write to a new directory lists the directory"
        found.append(Finding("nocto", effect, "cto", False))
    elif silent and mount.option("vers") == "3":
        # The client notices changes by times alone, and such a listing gives it no new names.
        effect = (
            "a name that others made within one tick of the server's clock after it was missed "
            "here is missed for up to a minute"
        )
        found.append(Finding(silent, effect, "rdirplus", True))
    elif silent:
        effect = "an opening and a refresh ask for each of 256 directories"
        found.append(Finding(silent, effect, "rdirplus", False))
    for option in ("soft", "softerr"):
        if mount.option(option) is not None:
            effect = "calls fail with an error while the server is away; none of ours is lost"
            found.append(Finding(option, effect, "", False))
    for option in ("nolock", "local_lock"):
        if mount.option(option) is not None:
            found.append(Finding(option, "no lock of the file system is used", "", False))
    if mount.option("lookupcache") in ("none", "pos", "positive"):
        effect = "more calls to the server, which nothing needs"
        found.append(Finding("lookupcache", effect, "lookupcache=all", False))
    zero = [f"{name}=0" for name in ("actimeo", "acdirmax") if mount.option(name) == "0"]
    noac = mount.option("noac") is not None
    if noac or zero:
        option, better = ("noac", "ac") if noac else (zero[0], "actimeo=60")
        effect = "more calls to the server, which nothing needs"
        found.append(Finding(option, effect, better, False))
    return found


def _of_smb(mount: Mount) -> list[Finding]:
    found = []
    times = [mount.option(name) for name in ("actimeo", "acregmax", "acdirmax")]
    if not any(time is not None for time in times) or set(times) - {None, "0"}:
        effect = (
            "a second long, names and values of others are missed, and a value can be another "
            "key's, which is not served"
        )
        found.append(Finding("actimeo", effect, _SMB_OPTIONS, True))
    # Older clients have no such option, and close at once with actimeo=0.
    if mount.option("closetimeo") not in (None, "0"):
        effect = "a value that is read again and again stays the old one for as long"
        found.append(Finding("closetimeo", effect, _SMB_OPTIONS, True))
    cache = mount.option("cache")
    if cache not in (None, "strict", "none"):  # loose, ro, singleclient
        effect = "what others write isn't seen while a file is cached"
        found.append(Finding(f"cache={cache}", effect, f"cache=strict,{_SMB_OPTIONS}", True))
    if mount.option("nolease") is None:
        # Seen with Samba 4.17, which then hasn't answered the call to open a file whose lease it
        # was asking back, nor its holder anything.
        effect = "reading a value that another host takes at that moment can hang in the system"
        found.append(Finding("lease", effect, _SMB_OPTIONS, False))
    return found


_SMB_OPTIONS = "actimeo=0,closetimeo=0,nolease"


def _caches_9p(mount: Mount) -> bool:
    return mount.option("cache") not in (None, "none", "0", "0x0", "0b00000000")


def _of_9p(mount: Mount) -> list[Finding]:
    if not _caches_9p(mount):
        return []
    effect = "what others write isn't seen, and reads can fail"
    return [Finding(f"cache={mount.option('cache')}", effect, "cache=none", True)]
