"""Semantics: calls on files and directories that a store relies on, each tried."""

from __future__ import annotations

import errno
import stat
import time
from collections.abc import Iterator
from typing import Callable, NamedTuple, Union

from ..errors import described
from ..storage.file_systems import Kind, Stamps
from ..storage.probes import Directory, is_in_group, is_root, takes_from_owner, umask
from .report import Finding, Verdict, named

Judgement = Union[tuple[Verdict, str], tuple[Verdict, str, str, str]]
"""What was seen; and what that breaks and what to do, where it isn't what its probe always has."""
ELSEWHERE = "keep stores on another file system, see docs/which-mount.md."
_BY_ERRNO = {
    errno.ENOSPC: "make room, or have the quota raised.",
    errno.EDQUOT: "make room, or have the quota raised.",
    errno.EFBIG: "raise the limit of this process's file sizes (`ulimit -f`).",
    errno.EMFILE: "raise the limit of this process's open files (`ulimit -n`).",
    errno.ENAMETOOLONG: "keep stores at a shorter path, or on another file system.",
}
# How long a stamp gets to move: the coarsest clock of a file system known ticks every 2 s (FAT).
_TICKS = (0.02, 0.2, 2.1)
# Seconds after a refused rename in which SMB may still take the old file away.
_VANISHES = 0.1
# What one host can't try: see ``storage.handles``.
_HELD = (
    "`add`, `setdefault` and `get_or_create` of a key whose file is held open on this host by who "
    "doesn't use nfsdict, and that another host removed: OSError (EBUSY) until it is closed.",
    "don't keep value files open, and let backups run on the server, see docs/which-mount.md.",
)
# A lease file's name is the longest that a store can have; that of a value that is being taken the
# longest of which it can't do without.
_LONGEST, _NEEDED = 201, 120


def advice_for(number: int | None) -> str:
    """What to do about this errno: the file system isn't to blame for all of them."""
    return _BY_ERRNO.get(number or 0, ELSEWHERE)


class Probe(NamedTuple):
    """One thing that is tried, and what it breaks if it isn't as it has to be."""

    name: str
    run: Callable[[Directory, Kind], Judgement]
    breaks: str
    advice: str = ELSEWHERE


def semantics(directory: Directory, kind: Kind) -> Iterator[Finding]:
    """Try all, in directories of their own. ``kind``: the rules that a store goes by there."""
    for number, probe in enumerate(PROBES):
        about = probe.breaks, probe.advice
        try:
            verdict, seen, *own = probe.run(directory.subdirectory(f"semantics-{number}"), kind)
        except OSError as error:
            verdict, seen, own = "FAIL", f"the probe itself failed, {described(error)}.", []
        if verdict == "OK":
            yield Finding("semantics", probe.name, verdict, seen)
        else:
            yield Finding("semantics", probe.name, verdict, seen, *(own or about))


def exclusive_create(directory: Directory, _: Kind) -> Judgement:
    first, second = directory.create("name"), directory.create("name")
    if first:
        return "FAIL", f"a file can't be created ({named(first)})."
    if not second:
        return "FAIL", "O_EXCL created a file that was there already."
    if second != errno.EEXIST:
        return "WARN", f"a second create was refused, but with {named(second)}."
    return "OK", "of two creates of one name the second was refused."


def link(directory: Directory, _: Kind) -> Judgement:
    directory.write("one", b"one")
    number = directory.link("one", "other")
    if number:
        return "WARN", f"hard links are refused ({named(number)})."
    one, other = directory.status("one"), directory.status("other")
    if one is None or other is None:
        return "FAIL", "of a file and its new hard link one is missing."
    if one.st_ino != other.st_ino or other.st_nlink != 2:
        return "WARN", "a hard link shows as another file: another inode, or one link."
    return "OK", "a hard link is the same file."


def link_over_a_name(directory: Directory, _: Kind) -> Judgement:
    directory.write("there", b"there")
    directory.write("new", b"new")
    number = directory.link("new", "there")
    if not number or directory.read("there") != b"there":
        return "FAIL", "a hard link took the place of a file that was there."
    if number != errno.EEXIST:
        return "OK", f"a link over a name was refused, with {named(number)}."
    return "OK", "a link over a name was refused."


def rename_over_an_open_file(directory: Directory, kind: Kind) -> Judgement:
    directory.write("name", b"old")
    directory.write("new", b"new")
    with directory.opened("name") as file:
        file.read()
        number = directory.rename("new", "name")
        content = file.read()
        if number:
            time.sleep(_VANISHES)
            gone = directory.status("name") is None
            seen = f"it was refused ({named(number)})"
            seen += ", and the old file went away." if gone else "."
            return ("FAIL", seen) if kind.trusted else ("WARN", f"{seen} It is tried again then.")
    if directory.read("name") != b"new" or directory.status("new") is not None:
        return "FAIL", "after it the name hasn't the new content."
    if content not in (b"old", errno.ESTALE):
        return "FAIL", "the open file got the new content, or none."
    return "OK", "the name has the new file, who had the old one open reads that."


def unlink_of_an_open_file(directory: Directory, kind: Kind) -> Judgement:
    directory.write("name", b"old")
    with directory.opened("name") as file:
        file.read()
        if kind.lingers:  # as a store does there, for which it is enough that the name is free
            number = directory.rename("name", "removed")
            directory.unlink("removed")
        else:
            number = directory.unlink("name")
        if number:
            return "FAIL", f"it was refused ({named(number)})."
        if directory.status("name") is not None:
            return "FAIL", "the name stays until the file is closed."
        directory.write("name", b"new")
        content = file.read()
    if directory.read("name") != b"new":
        return "FAIL", "a new file of that name lost its content."
    if content not in (b"old", errno.ESTALE):
        return "FAIL", "the open file got the new one's content, or none."
    if kind.asks_by_handles:
        seen = "the name is free at once, if the file is renamed first, as a store does."
        return "WARN", f"{seen} If another host removes it, this host takes it for there.", *_HELD
    return "OK", "the name is free at once, who had the file open reads it."


def directory_stamps(directory: Directory, kind: Kind) -> Judgement:
    directory.write("first", b"")
    changes = {
        "create": lambda: directory.create("second"),
        "rename": lambda: directory.rename("second", "third"),
        "unlink": lambda: directory.unlink("third"),
    }
    still = [name for name, change in changes.items() if not _moves(directory, change)]
    if still:
        seen = f"a directory's mtime or ctime doesn't move on {', '.join(still)}"
        if believes_stamps(kind):
            return "FAIL", f"{seen}."
        return "WARN", f"{seen}; but here no stamp is believed."
    return "OK", "create, rename and unlink move a directory's mtime and ctime."


def believes_stamps(kind: Kind) -> bool:
    """Whether a store there takes a directory's times for proof that it is unchanged."""
    return kind.stamps is Stamps.SERVER


def _moves(directory: Directory, change: Callable[[], int]) -> bool:
    """Whether the change moves both times, after a wait for the clock to have ticked."""
    time.sleep(_TICKS[0])
    before = directory.stamp()
    time.sleep(_TICKS[0])
    change()
    after = directory.stamp()
    if after.mtime != before.mtime and after.ctime != before.ctime:
        return True
    # The clock may tick more slowly: a file that is made and removed shows it.
    for pause in _TICKS[1:]:
        before = directory.stamp()
        time.sleep(pause)
        directory.create("tick")
        directory.unlink("tick")
        after = directory.stamp()
        if after.mtime != before.mtime and after.ctime != before.ctime:
            return True
    return False


def directory_fsync(directory: Directory, _: Kind) -> Judgement:
    directory.create("name")
    number = directory.sync()
    if number in (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP):
        return "WARN", f"this file system has none ({named(number)})."
    if number:
        return "FAIL", f"it was refused ({named(number)})."
    return "OK", "it was carried out."


def no_follow(directory: Directory, _: Kind) -> Judgement:
    directory.write("name", b"")
    number = directory.symlink("name", "link")
    if number:
        return "OK", f"there are no symbolic links here ({named(number)})."
    if not directory.open_unfollowed("link"):
        return "FAIL", "O_NOFOLLOW followed a symbolic link."
    return "OK", "O_NOFOLLOW refuses a symbolic link."


def case_folding(directory: Directory, _: Kind) -> Judgement:
    directory.create("name")
    if directory.status("NAME") is None:
        return "OK", "names are told apart by case."
    return "OK", "names fold case: stores whose names differ in case alone are one."


def longest_name(directory: Directory, _: Kind) -> Judgement:
    if not directory.create("n" * _LONGEST):
        return "OK", f"a name of {_LONGEST} bytes was taken, the longest that a store can need."
    number = directory.create("n" * _NEEDED)
    if not directory.has_room_for("n" * _LONGEST):
        seen = f"the path is too long: with a name of {_LONGEST} bytes this system doesn't take it."
        breaks = "leases and values." if number else "leases."
        return "FAIL" if number else "WARN", seen, breaks, advice_for(errno.ENAMETOOLONG)
    if number:
        return "FAIL", f"a name of {_NEEDED} bytes was refused ({named(number)})."
    return "WARN", f"a name of {_LONGEST} bytes was refused, one of {_NEEDED} taken."


def modes(directory: Directory, _: Kind) -> Judgement:
    mask = umask()
    directory.create("name", 0o666)
    first = _mode(directory, "name")
    directory.change_mode("name", 0o660)
    second = _mode(directory, "name")
    if second != 0o660:
        return "WARN", f"chmod to 660 leaves {second:o}."
    if takes_from_owner(mask):
        seen = f"umask {mask:03o} keeps this user from what he makes himself."
        return "WARN", seen, "he can't use a store that he makes.", "set another umask."
    if first != 0o666 & ~mask:
        return "WARN", f"with umask {mask:03o} a new file has {first:o}: an ACL, or the mount."
    return "OK", f"umask {mask:03o} and chmod decide on a file's bits."


def _mode(directory: Directory, name: str) -> int:
    status = directory.status(name)
    return -1 if status is None else stat.S_IMODE(status.st_mode)


def setgid(directory: Directory, _: Kind) -> Judgement:
    inner = directory.subdirectory("inner")
    group = directory.other_group()
    number = directory.give_to_group("inner", group) if group is not None else errno.EPERM
    made = inner.status()
    if directory.change_mode("inner", 0o2770) or not _mode(directory, "inner") & stat.S_ISGID:
        if made is not None and made.st_mode & stat.S_ISGID and not is_in_group(made.st_gid):
            seen = f"chmod takes the setgid bit away, as this user isn't in group {made.st_gid}."
            breaks = (
                "with `mode=` new directories lose the bit; without it they keep group and bit."
            )
            return "WARN", seen, breaks, "have this user join the group, or leave out `mode=`."
        return "WARN", "a directory doesn't take the setgid bit."
    inner.create("file")
    inner.subdirectory("directory")
    file, new = inner.status("file"), inner.status("directory")
    if file is None or new is None or not new.st_mode & stat.S_ISGID:
        return "WARN", "a directory made in one with setgid doesn't get the bit."
    if number:
        return "OK", "new directories get the bit (this process has no second group to try)."
    if {file.st_gid, new.st_gid} != {group}:
        return "WARN", "what is made in a directory with setgid doesn't get its group."
    return "OK", "what is made in a directory with setgid gets its group and the bit."


def root_squash(directory: Directory, _: Kind) -> Judgement:
    directory.create("name")
    status = directory.status("name")
    owner = -1 if status is None else status.st_uid
    if not is_root():
        return "OK", f"not run as root, so it doesn't show; files belong to user {owner}."
    if owner:
        return "OK", f"root is squashed: its files belong to user {owner}."
    return "OK", "root is root here."


PROBES = (
    Probe(
        "exclusive create",
        exclusive_create,
        "`add` and `get_or_create` may have two winners where links are refused, too.",
    ),
    Probe(
        "link",
        link,
        "`add` is create-once only among those who `add`; a put at the same moment may be lost. "
        "Giving a popped value back may overwrite a put.",
        "don't let `add` and assignment meet in one key, or " + ELSEWHERE,
    ),
    Probe("link over a name", link_over_a_name, "`add`: two callers win, and a value is lost."),
    Probe(
        "rename over an open file",
        rename_over_an_open_file,
        "a put of a key that someone on this host reads: it fails, or the key is without a value "
        "between two tries, and after a kill then until `repair()`.",
    ),
    Probe(
        "unlink of an open file",
        unlink_of_an_open_file,
        "`del` and `pop` of a key that someone on this host reads.",
    ),
    Probe(
        "directory stamps",
        directory_stamps,
        "openings and `refresh` miss what others changed, or list every directory each time.",
    ),
    Probe(
        "fsync of a directory",
        directory_fsync,
        "a power cut may undo acknowledged writes, unless the server makes renames durable.",
        "ask whoever runs the server, or " + ELSEWHERE,
    ),
    Probe("O_NOFOLLOW", no_follow, "links that others plant among the values are followed."),
    Probe("case folding", case_folding, ""),
    Probe(
        "longest name",
        longest_name,
        f"leases need names of up to {_LONGEST} bytes, values {_NEEDED}.",
    ),
    Probe(
        "modes and umask",
        modes,
        "`mode=` and the umask don't decide on who may read and write a store.",
        "share such a store only with those whom the mount lets in anyway.",
    ),
    Probe(
        "setgid",
        setgid,
        "new directories of a store that a group shares get another group.",
        "check a shared store's groups, or mount so that the directory decides (`grpid`).",
    ),
    Probe("root squash", root_squash, ""),
)
