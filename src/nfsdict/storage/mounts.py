"""Mounts: what a mount's options do: which rules hold with them, and which promises they break.

Nothing else asks for the name of a file system.
"""

from __future__ import annotations

from typing import NamedTuple

from .file_systems import (
    CEPH_FUSE,
    CLUSTER,
    KINDS,
    NINEP_CACHED,
    UNKNOWN,
    Kind,
    Lookup,
    Stamps,
    of_type,
)
from .mountinfo import Mount, mount_of
from .mountstats import nfs_capabilities


def kind_of(mount: Mount, trust_stamps: bool = False) -> Kind:
    """The rules for this mount.

    ``trust_stamps``: the caller knows that the clocks of all clients are kept.
    """
    kind = of_type(mount.type)
    if mount.type in ("nfs", "nfs4") and mount.option("nocto") is not None:
        kind = kind._replace(lookup=Lookup.LISTING)
    if mount.type == "9p" and _cache_of_9p(mount):
        kind = NINEP_CACHED
    if any(one.breaks for one in findings(mount)):
        kind = kind._replace(rereads=False)
    if trust_stamps and kind.stamps in (Stamps.CLIENTS, Stamps.NONE):
        kind = kind._replace(stamps=Stamps.SERVER)
    return kind


def lists_attributes(mount: Mount) -> bool:
    """Whether an NFS client gets the attributes of a directory's entries with its listing.

    Not with the mount options ``nordirplus`` and ``rdirplus=none``, and not from a server of
    version 3 that has refused READDIRPLUS once: the client then no longer has that capability
    (``NFS_CAP_READDIRPLUS`` in include/linux/nfs_fs_sb.h). False where the system doesn't tell.
    OSError if it can't be asked now.
    """
    if mount.type not in ("nfs", "nfs4") or _no_attributes(mount):
        return False
    try:
        return mount.option("vers") != "3" or _READDIRPLUS & nfs_capabilities(mount.point) != 0
    except (FileNotFoundError, PermissionError, ValueError, IndexError):
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
    elif of_type(mount.type) == UNKNOWN:
        effect = (
            "nothing is known of this file system: each opening and refresh lists every directory "
            "and reads every file, and what its caches hide isn't seen"
        )
        found = [Finding(mount.type or "unknown type", effect, "", False)]
    effect = "a power cut can undo what was acknowledged, unless the disk's cache outlives it"
    if mount.option("nobarrier") is not None or mount.option("barrier") == "0":
        found.append(Finding("nobarrier", effect, "barrier", False))
    if mount.option("fsync_mode") == "nobarrier":
        found.append(Finding("fsync_mode=nobarrier", effect, "fsync_mode=posix", False))
    # Linux shows it as "fsync=volatile" where other ways to sync can be chosen.
    if mount.type == "overlay" and (
        mount.option("volatile") is not None or mount.option("fsync") == "volatile"
    ):
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
        if rules in (CLUSTER, CEPH_FUSE)
    },
}


# For how long an NFS client takes its attributes of a file or directory to be true.
_TIMES = ("actimeo", "acregmin", "acregmax", "acdirmin", "acdirmax")


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
    # It comes with softerr as well (fs/nfs/fs_context.c).
    if mount.option("softreval") is not None:
        effect = (
            "while the server is away, the client answers by what it remembers: what others wrote "
            "is missed, with no error"
        )
        found.append(Finding("softreval", effect, "nosoftreval", True))
    for option in ("nolock", "local_lock"):
        if mount.option(option) is not None:
            found.append(Finding(option, "no lock of the file system is used", "", False))
    if mount.option("lookupcache") in ("none", "pos", "positive"):
        effect = "more calls to the server, which nothing needs"
        found.append(Finding("lookupcache", effect, "lookupcache=all", False))
    times = [name for name in _TIMES if mount.option(name) not in (None, "0")]
    if times:
        effect = "no promise goes by attributes that the client remembers"
        found.append(Finding(times[0], effect, "", False))
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


def _cache_of_9p(mount: Mount) -> str:
    """The option that has a 9p mount keep what it has read; "" if there is none."""
    for word in ("loose", "fscache", "mmap"):  # as Linux before 6.4 shows it
        if mount.option(word) is not None:
            return word
    cache = mount.option("cache")
    return "" if cache in (None, "none", "0", "0x0", "0b00000000") else f"cache={cache}"


def _of_9p(mount: Mount) -> list[Finding]:
    cache = _cache_of_9p(mount)
    effect = "what others write isn't seen, and reads can fail"
    return [Finding(cache, effect, "cache=none", True)] if cache else []
