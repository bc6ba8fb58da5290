"""Mount: what holds the directory, how it is mounted, and which options break what."""

from __future__ import annotations

import shlex

from ..storage import mounts
from ..storage.mountinfo import Mount
from .report import Finding, Verdict
from .semantics import ELSEWHERE

# Options that a line of /etc/fstab keeps; what else the system shows was agreed upon when it was
# mounted, or is a default.
_KEPT = frozenset(
    ("ro", "vers", "sec", "xprtsec", "proto", "port", "soft", "softerr", "nolock", "noresvport")
).union(
    ("nconnect", "nosuid", "nodev", "noexec", "context", "trans", "version", "aname", "access"),
    ("username", "domain", "uid", "gid", "file_mode", "dir_mode", "seal", "sign", "multiuser"),
    ("cruid", "noperm", "forceuid", "forcegid", "noserverino", "iocharset", "mfsymlinks"),
)
# The same of sshfs alone. GlusterFS sets them itself.
_KEPT_OF_FUSE = ("allow_other", "default_permissions")
# The types that such a line has for those that the system shows. Others have options that nobody
# can tell from here, and can be mounted anew as they are.
_FSTAB_TYPES = {
    **{"nfs": "nfs", "nfs4": "nfs", "cifs": "cifs", "smb3": "cifs", "9p": "9p"},
    **{"fuse.glusterfs": "glusterfs", "fuse.sshfs": "fuse.sshfs"},
}


def mount(path: str) -> tuple[Mount, list[Finding]]:
    """The mount that holds the path, and what is known of it. OSError if it can't be told now."""
    mount, known = mounts.examine(path)
    return mount, [_file_system(mount), *(_option(mount, one) for one in known)]


def _file_system(mount: Mount) -> Finding:
    if not mount.type:
        seen = "this system doesn't tell how it is mounted."
        breaks = "nothing that is known: options aren't looked at."
        return Finding("mount", "file system", "WARN", seen, breaks, "compare two hosts: --peer.")
    version = mount.option("vers")
    told = f"{mount.type}{f' version {version}' if version else ''}"
    seen = f"{told}, {mount.source} at {mount.point}, options {','.join(mount.options)}."
    figures = {
        "type": mount.type,
        "source": mount.source,
        "point": mount.point,
        "options": list(mount.options),
    }
    return Finding("mount", "file system", "OK", seen, figures=figures)


def _option(mount: Mount, known: mounts.Finding) -> Finding:
    """One line of the table of mount options."""
    effect = f"{known.effect}."
    of_type = known.option in (mount.type, "unknown type")
    if not known.breaks and not known.mount_with and not of_type:
        return Finding("mount", known.option, "OK", effect)
    seen, breaks = effect, "no promise that is known."
    # Options of FUSE aren't shown: it may be mounted well.
    certain = known.breaks and not mount.type.startswith("fuse.")
    if known.breaks:
        seen = "it is mounted so." if certain else "whether it is mounted so isn't shown."
        breaks = effect
    advice = _mend(mount, known.mount_with) if known.mount_with else ELSEWHERE
    verdict: Verdict = "FAIL" if certain else "WARN"
    return Finding("mount", known.option, verdict, seen, breaks, advice)


def _mend(mount: Mount, mount_with: str) -> str:
    """How to mount it with these options: the line of /etc/fstab, where it can be told."""
    options, _, _ = mount_with.partition(", ")
    kind = _FSTAB_TYPES.get(mount.type)
    if options == "rw" and _is_read_only_itself(mount):
        return f"mount it with rw: mount -o remount,bind,rw {shlex.quote(mount.point)}"
    if kind is None:
        return f"mount it with {mount_with}: mount -o remount,{options} {shlex.quote(mount.point)}"
    if _is_bound(mount):
        part = f"{mount.point} is {mount.root} of it, bound there; it may have options of its own."
        return f"mount {mount.source} as a whole with {mount_with}: {part}"
    words = _KEPT.union(_KEPT_OF_FUSE if mount.type == "fuse.sshfs" else ())
    kept = [
        option
        for option in dict.fromkeys(mount.options)
        if option.partition("=")[0] in words and not (option == "ro" and options == "rw")
    ]
    source, point = _escaped(mount.source), _escaped(mount.point)
    line = f"{source} {point} {kind} {','.join([*kept, *options.split(',')])} 0 0"
    return f"mount it with {mount_with}; in /etc/fstab: {line}"


def _is_read_only_itself(mount: Mount) -> bool:
    """Whether it is this mount that is read-only, and not its file system: its options are told
    before those."""
    return mount.options[:1] == ("ro",) and "rw" in mount.options


def _is_bound(mount: Mount) -> bool:
    """Whether it is a bind mount of a part of a file system, which has the options of the whole.

    Linux's SMB client mounts a part by itself, and tells of it in the source. NFS shows a part as
    a source, which can be mounted so.
    """
    return mount.root != "/" and not mount.source.endswith(mount.root)


def _escaped(path: str) -> str:
    """As fstab(5) has it."""
    return "".join(f"\\{ord(one):03o}" if one in " \t\n\\" else one for one in path)
