"""Trust: warn if others can put pickles into a store, as these run code when they are read; and if
its mount breaks a promise."""

from __future__ import annotations

import os
import stat
import warnings

from .buffers import Buffers
from .errors import UnsafeMountWarning
from .serializers import Pickle, Serializer
from .storage import Storage


class UntrustedPickleWarning(UserWarning):
    """A store of pickles is opened that others can write to: they can run code in this process.

    Issued once for each store and process, before anything is read. Turned into an error
    (``warnings.simplefilter("error", UntrustedPickleWarning)``), it keeps such stores from being
    opened. Only the owner and permission bits of the store's own directory are checked: not access
    control lists, nor the directories above or below it.
    """


_warned: dict[tuple[str, type[Warning]], object] = {}


def _warn_once(storage: Storage, text: str, category: type[Warning]) -> None:
    """Warn the caller's caller's caller, unless it was done for this store."""
    mine = object()
    if _warned.setdefault((storage.directory, category), mine) is not mine:
        return
    try:
        warnings.warn(text, category, stacklevel=4)
    except category:
        # The filter makes it an error, also for the next opening.
        del _warned[storage.directory, category]
        raise


def warn_of_mount(storage: Storage) -> None:
    """Warn the caller's caller if the options of the store's mount break a promise, as far as they
    are shown."""
    mounted = storage.rules.mounted
    broken = [one for one in mounted.findings() if one.breaks]
    if broken:
        which = "it is mounted with"
        if not mounted.shows_options:
            which = "are the default, and whether it is mounted so can't be seen"
        told = "; ".join(f"{one.option}: {one.effect}" for one in broken)
        options = ",".join(dict.fromkeys(one.mount_with for one in broken if one.mount_with))
        mend = f"Mount it with {options}" if options else "Keep stores on another file system"
        _warn_once(
            storage,
            f"{storage.directory} is not safe with the options that {which}. {told}. "
            f"{mend}. If you know better: "
            "warnings.simplefilter('ignore', nfsdict.UnsafeMountWarning)",
            UnsafeMountWarning,
        )


def warn_of_writers(storage: Storage, serializer: Serializer, mode: int | None) -> None:
    """Warn the caller's caller if these are pickles, and others can write to the store.

    The group counts as others, unless ``mode`` asks for its write bit or only the owner is in it.
    """
    pickles = isinstance(serializer, (Pickle, Buffers))
    status = storage.files.status() if pickles and os.name != "nt" else None
    if status is None:
        return
    if status.st_mode & stat.S_IWOTH:
        who, stop = "everybody", "o-w"
    elif not status.st_mode & stat.S_IWGRP or (mode or 0) & stat.S_IWGRP or _alone(status):
        return
    else:
        who, stop = "its group", "g-w"
    _warn_once(
        storage,
        f"{who} can write to {storage.directory}, and reading a pickle runs the code that its "
        "writer chose. Use serializer=nfsdict.signed(key=...), 'json' or 'bytes', or "
        f"chmod -R {stop} the directory. If you trust them all"
        + (", open it with their mode, such as 0o660" if stop == "g-w" else "")
        + ": warnings.simplefilter('ignore', nfsdict.UntrustedPickleWarning)",
        UntrustedPickleWarning,
    )


def _alone(status: os.stat_result) -> bool:
    """Whether only the owner is in the group, as far as its name and member list tell.

    Systems that give each user such a group have a umask that lets it write.
    """
    import grp
    import pwd

    try:
        owner, group = pwd.getpwuid(status.st_uid).pw_name, grp.getgrgid(status.st_gid)
    except KeyError:
        return False
    return owner == group.gr_name and not set(group.gr_mem) - {owner}
