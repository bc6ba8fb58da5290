"""Coherence: how another host's changes are seen, by the rules that ``mounts`` has for a store.

What a Linux NFS client does, and what is done about it here, in ``files`` and in ``values``:

- The client remembers for up to a minute that a name was missing. So a miss counts only after the
  directory was revalidated. Opening the directory does that (close-to-open consistency, nfs(5)).
- A file or a directory that another host replaced or removed gives ESTALE, or EBADF while reading
  after an NFSv4 server's restart. The call is then repeated from the path, after revalidating the
  file's directory: without that NFSv4.1 and later go on using the stale handle.
- While another client holds a delegation or an oplock of a file, the server has a lease on it.
  Opening the file on the server with O_NONBLOCK then gives EAGAIN (open(2)), until the holder gives
  the lease back. Without O_NONBLOCK an open of a FIFO would wait for ever. So the file is opened
  again after pauses.
- If the reply to a call is lost, the client repeats the call. The second one then fails, though the
  first was carried out: mkdir with EEXIST, rename and unlink with ENOENT. A look at the disk tells.
- A write can fail as late as fsync or close.
- A directory's fsync does nothing on Linux's NFS client, whose directory operations are
  synchronous (fs/nfs/dir.c); opening the directory for it costs a GETATTR. It is left out there,
  and on tmpfs, where no fsync does anything (mm/shmem.c).
- Client and server have different clocks. Times on files are compared only with other times on
  files, see ``clock``.
- On NFSv3 the client notices changes of a directory by its mtime and ctime. Two changes in one tick
  of the server's clock look like one: if any process of the client's host missed a name or listed
  the directory between them, the client goes on believing the result, whatever is revalidated.
  Touching the directory (utime, chmod, a file made and removed there) doesn't help, as the client
  takes its own changes for the only ones. Dropping the directory's cached pages does
  (posix_fadvise): the client then reads it anew by READDIRPLUS, and the answer also replaces what
  the client remembered of the names in it (fs/nfs/dir.c, nfs_prime_dcache). That is done for every
  listing on NFS, and before a miss counts: as long as another change may bear the directory's
  present ctime, and once after that. ``seen`` keeps which directories were read so. A file that is
  found is opened, and the server says if its handle is stale; what lstat finds counts only if a
  reading had its name.
  NFSv4 has a change attribute in place of the times. Linux's server makes it from the ctime if the
  file system keeps no version (tmpfs; ext4 before Linux 6.1). So the same is done there.
- When the client renames a name, it moves what it remembers of the file along. But the server goes
  by the name: if another host had replaced the file, the server has renamed the new one
  (fs/nfs/dir.c, nfs_rename). So the directory is read anew, as above, before the renamed file is
  read. Mounted with ``nordirplus`` that doesn't help: if the replaced file is gone its handle is
  stale, but if it lives on by a hard link, as in a backup, the client goes on with it. The numbers
  of inodes tell, which a listing brings in any case.
- The client asks for the attributes of all entries with the first page of a listing, and takes them
  over for the directories that it knows. So one listing of the root gives the stamps of all shards,
  if its cached pages were dropped after the call began, and unless the mount forbids READDIRPLUS.
  Another process of the host that is listing at that moment is waited for, not asked again: so the
  root is listed twice. A page from which that process is copying isn't dropped: the client's count
  of the listings that it has asked for tells, and of the bytes that they brought.
- Mounted with ``nocto`` the client asks nothing when a directory is opened, so nothing revalidates
  it. A listing after its cached pages were dropped does. So every miss lists, as above, and no
  directory is asked for its stamp by itself.

Elsewhere: systems that are coherent by themselves are asked as a local disk is. Others (see
``file_systems.Lookup``) get a listing whose pages were dropped, and a call that has the system look
up the one name past its cache (``directories.look_up_anew``; ``handles`` too). Where a directory's
times prove nothing (``file_systems.Stamps``) every look lists.
"""

from __future__ import annotations

import errno
import os
import time
from contextlib import suppress
from typing import Callable, TypeVar

from ..core import list_changes, list_directory
from ..counters import Counters
from ..errors import failure
from ..layout import NO_STAMP, Stamp, stamp_of
from ..opening import with_open
from .clock import ServerClock
from .directories import (
    DIRECTORY_FLAGS,
    check_absent,
    drop_pages,
    inodes_in,
    is_directory,
    look_up_anew,
    read_anew,
    unlike_known,
)
from .file_systems import Kind, Lookup
from .handles import corrected
from .mounted import Mounted
from .passing import TRIES, retry_stale
from .seen import Contains, Known, Seen

T = TypeVar("T")
Names = tuple[Stamp, list[str]]
"""A directory's stamp, and the names in it."""
NO_NAMES: Names = (NO_STAMP, [])
"""where nothing is known of a directory"""

Listed = tuple[int, int, list[tuple[str, int, bytes, int]]]
"""A directory's mtime and ctime in ns, and its entries; see the core's ``list_directory``."""

Changes = tuple[int, int, list[tuple[str, int, bytes, int]], list[int]]
"""The same without the files that are known, and the positions of keys that have another file or
none; see the core's ``list_changes``."""

L = TypeVar("L", Listed, Changes)

# Where a directory that is read a second time by one opening is read anew. FUSE leaves that to the
# file system: sshfs gives the names once for each opening, and then none.
_REREAD = (Lookup.NFS, Lookup.LISTING)
# How often a directory's pages are dropped and it is listed, for one listing: see ``_read_names``.
_LISTINGS = {Lookup.OPEN: 0, Lookup.NFS: 1, Lookup.LISTING: 2, Lookup.NAME: 1}
# So many names fit into what a program takes at a time, for which attributes are asked for surely.
_WITH_ATTRIBUTES = 1000


class Coherence:
    """Reads one store so that every change that another host has finished is seen.

    ``clock`` learns the server's time, ``mounted`` knows the file system. Where the system is
    coherent by itself the same methods cost no more than opening the directory. Safe for threads.
    """

    def __init__(self, directory: str, trust_stamps: bool = False) -> None:
        self._directory = directory
        self.mounted = Mounted(directory, trust_stamps)
        self.clock = ServerClock()
        self.counters = Counters()
        self._seen = Seen()

    @property
    def kind(self) -> Kind:
        """The rules of the store's file system."""
        return self.mounted.kind

    def settles(self, time_ns: int, moment: int) -> bool:
        """Whether a directory has no later names while its stamp, the later time of which this is,
        stays. ``moment``: the clock's ``lower_bound`` from before the names were listed."""
        mounted = self.mounted
        return mounted.asks_stamps and mounted.opening_asks and self.clock.is_past(time_ns, moment)

    # --- revalidation --------------------------------------------------------------------------

    def revalidate(self, path: str) -> os.stat_result | None:
        """Make the client ask the server for the directory's attributes: one GETATTR on NFS.

        None if there is no such directory, or the path is a link that leads nowhere;
        ``check_absent`` tells the two apart. ``stat``, or ``fstat`` of a descriptor kept open,
        would answer from the attribute cache.
        """
        if os.name == "nt":
            return os.stat(path) if is_directory(path) else None
        if self.kind.lookup is Lookup.NAME:
            look_up_anew(path)

        def status(descriptor: int) -> os.stat_result:
            if self.kind.lookup is Lookup.LISTING:
                read_anew(descriptor)
            return os.fstat(descriptor)

        try:
            found = self.retry_stale(lambda path: with_open(path, DIRECTORY_FLAGS, status), path)
        except FileNotFoundError:
            return None
        self.clock.observe(found.st_ctime_ns)
        return found

    def retry_stale(self, call: Callable[[str], T], path: str) -> T:
        """See ``passing.retry_stale``."""
        return retry_stale(self, call, path)

    def look_up_anew(self, path: str) -> None:
        """Have the path looked up anew, after a call that met a stale handle."""
        if path != self._directory:
            self.revalidate(os.path.dirname(path))
        if self.kind.lookup is Lookup.NAME:
            look_up_anew(path)

    def list_changes(
        self, directory: str, keys: list[str], signatures: bytes, extension: str
    ) -> Changes:
        """As ``list``, without files that still have the signature that is known of their key."""
        if self.kind.whole_seconds:  # which the core doesn't compare
            listed = self.list(directory)
            return (*listed[:2], *unlike_known(listed[2], keys, signatures, extension))
        return self._list(
            directory,
            lambda path: list_changes(path, self._listings, keys, signatures, extension),
        )

    def list(self, directory: str) -> Listed:
        """The directory's mtime, ctime and entries. OSError if it can't be listed."""
        found = self._list(directory, lambda path: list_directory(path, self._listings))
        if not self.kind.whole_seconds:
            return found
        inodes = self.retry_stale(inodes_in, directory) if self.kind.asks_by_handles else {}
        right = corrected(directory, found[2], inodes)
        return (*found[:2], [(*one[:2], self.mounted.signed(one[2]), one[3]) for one in right])

    def list_twice(self, directory: str, *, attributes: bool = False) -> Listed:
        """The directory's entries as the server has them after this call began.

        On NFS by one GETATTR and two listings, where a listing brings attributes
        (``lists_attributes``). Those count with ``attributes``; they may still be old ones where
        ``lists_attributes`` is False afterwards.

        The client asks for attributes with the first listing page of a directory at least, goes on
        while they are used, and takes them over for what it knows (fs/nfs/dir.c,
        nfs_use_readdirplus and nfs_prime_dcache). Another process of this host may be listing at
        this moment: that one is waited for and proves nothing, so the directory is listed again.

        A page that another process is just copying names from can't be dropped, which nothing
        tells. Then the client asks less than twice, or, if it was one page of several, gets too few
        bytes for all attributes, as its statistics show. So all is done again, after a pause.
        """
        if self.kind.lookup not in _REREAD:
            for _ in range(self._listings):
                self._list_anew(directory, 1)
            return self._list_anew(directory, self._listings)
        for number in range(TRIES):
            before = self.mounted.listings()
            found = self._list_anew(directory, 2)
            after = self.mounted.listings()
            if before is None or after is None:
                return found
            count = min(len(found[2]), _WITH_ATTRIBUTES) if attributes else 0
            size = 2 * count * self.mounted.size_of_attributes()
            if after.asked >= before.asked + 2 and after.received >= before.received + size:
                return found
            time.sleep(0.001 * number)
        if attributes:
            self.mounted.distrust_listings("the server's replies are too small for attributes")
        return found

    def prefetch(self, directory: str) -> None:
        """On NFS, have the client read the directory, if it may: saves calls of first lookups."""
        if self.kind.lookup in _REREAD:
            with suppress(OSError):
                self._list_anew(directory, 1)

    @property
    def _listings(self) -> int:
        return _LISTINGS[self.kind.lookup]

    def _list_anew(self, directory: str, times: int) -> Listed:
        return self.retry_stale(
            lambda path: self._checked(list_directory(path, times), path), directory
        )

    def _list(self, directory: str, list_once: Callable[[str], L | int]) -> L:
        def list_by_clock(path: str) -> L:
            begun = self.clock.lower_bound()
            found = self._checked(list_once(path), path)
            if self.kind.lookup is Lookup.NFS:
                if self.clock.is_past(found[1], begun):
                    self._seen.note_listed(path, found[1])
                else:
                    found = self._checked(list_once(path), path)  # see _read_names
            return found

        try:
            return self.retry_stale(list_by_clock, directory)
        except FileNotFoundError:
            if self.kind.lookup is not Lookup.NAME:
                raise
            look_up_anew(directory)  # another host may have just made it
            return self.retry_stale(list_by_clock, directory)

    def _checked(self, found: L | int, directory: str) -> L:
        """What the core has listed; OSError if it has an errno."""
        if isinstance(found, int):
            raise failure(found, directory)
        self.clock.observe(found[1])
        return found

    def names(self, directory: str, known: Names, strict: bool) -> Names:
        """The directory's stamp, and if ``strict`` all names that are there during this call: see
        ``list_twice``. ``known`` again while the directory has its stamp. Not retried."""
        if os.name == "nt":  # no directory can be opened there
            return stamp_of(os.stat(directory)), os.listdir(directory)

        again = self.kind.lookup in _REREAD

        def read(descriptor: int) -> Names:
            stamp = stamp_of(os.fstat(descriptor))
            self.clock.observe(stamp.ctime)
            if stamp == known[0]:
                return known
            if not self._listings:
                return stamp, os.listdir(descriptor)
            names: list[str] = []
            for _ in range(2 if strict and again else 1):  # see _read_names
                # Only names: if others change the directory, each stat would ask the server.
                drop_pages(descriptor)
                names = os.listdir(descriptor)
            return stamp, names

        if strict and self._listings and not again:
            with_open(directory, DIRECTORY_FLAGS, read)
        return with_open(directory, DIRECTORY_FLAGS, read)

    def refresh_dentry(self, path: str) -> bool:
        """Make the client read its dentry for this existing name anew. False if it goes on taking
        the name for another file than the server has there."""
        directory, name = os.path.split(path)
        if self.kind.lookup is Lookup.NAME:
            look_up_anew(path)
        for _ in range(TRIES if self._listings else 0):
            if any(found == name for found, *_ in self.list(directory)[2]):
                break
        inode = self.inodes(directory).get(name)
        with suppress(FileNotFoundError):
            return inode is None or inode == self.retry_stale(os.lstat, path).st_ino
        return True

    def inodes(self, directory: str) -> dict[str, int]:
        """The inodes' numbers by name, by the server's word, where a client may take a name that it
        has renamed for another file, as listings bring nothing else; empty elsewhere."""
        if self.kind.lookup not in _REREAD or self.mounted.lists_attributes():
            return {}
        return self.retry_stale(inodes_in, directory)

    def revalidate_parent(self, path: str, need: Known = Known.LISTED) -> bool:
        """After a miss: revalidate the file's directory. True if the caller has to look again."""
        return self.parent_may_contain(path, need) is not Contains.NO

    def parent_may_contain(self, path: str, need: Known) -> Contains:
        """Revalidate the file's directory. NO, MAYBE or UNREAD: see ``may_contain``.

        FileNotFoundError if the whole store is gone, as when its file system was unmounted: that
        isn't the absence of a key.
        """
        shard, name = os.path.split(path)
        found = self.may_contain(shard, name, need, strict=True)
        if found is Contains.NO_DIRECTORY:
            # The client may also remember wrongly, from within one tick, that the shard is missing.
            there = self.may_contain(self._directory, os.path.basename(shard))
            if there is Contains.NO_DIRECTORY:
                raise failure(errno.ENOENT, self._directory)
            if there is Contains.MAYBE:
                found = self.may_contain(shard, name, need, strict=True)
        return Contains.NO if found is Contains.NO_DIRECTORY else found

    def may_contain(
        self, directory: str, name: str, need: Known = Known.LISTED, strict: bool = False
    ) -> Contains:
        """Revalidate the directory. Whether it may contain this name.

        Over NFS it is read where less is known of it at its present ctime than the caller needs:
        LISTED for a miss to count, NAMES for what lstat finds to count, NOTHING to open what is
        found, as the server knows whether that file still exists. Elsewhere ``need`` changes
        nothing. With ``strict`` only answers count that the server gave after this call began.
        """
        if not self._listings:
            if self.revalidate(directory) is not None:
                return Contains.MAYBE
        else:
            try:
                return self.retry_stale(
                    lambda path: self._read_names(path, name, need, strict), directory
                )
            except FileNotFoundError:
                pass
        check_absent(directory)
        return Contains.NO_DIRECTORY

    def forget(self) -> None:
        """Forget what was seen, as another directory has the store's path now."""
        self._seen.forget()

    def _read_names(self, directory: str, name: str, need: Known, strict: bool) -> Contains:
        """``may_contain`` where a listing may be needed. FileNotFoundError without a directory."""
        begun = self.clock.lower_bound()

        def read(descriptor: int) -> Contains:
            path = os.path.join(directory, name)
            if self.kind.lookup is Lookup.NAME:
                read_anew(descriptor)
                look_up_anew(path)
                return Contains.MAYBE
            ctime = os.fstat(descriptor).st_ctime_ns
            self.clock.observe(ctime)
            passed = self.kind.lookup is Lookup.NFS and self.clock.is_past(ctime, begun)
            if not passed:
                self._seen.note_racy(directory, ctime)
            known, names = self._seen.known(directory, ctime)
            if passed and known >= need:
                if names is None or name in names:
                    return Contains.UNREAD if known is Known.NOTHING else Contains.MAYBE
                if not os.path.lexists(path):
                    return Contains.NO
            # If another process of this host is just reading the directory, the client doesn't drop
            # that reading but waits for it. It may have begun before this call, and then it proves
            # nothing, whether it has the name or not. Only the second drop makes the client ask.
            # Once the ctime has passed, that reading would have to be under way since then. So the
            # directory is read again only if the client finds a name that isn't in it.
            found = read_anew(descriptor)
            if passed:
                if name not in found and os.path.lexists(path):
                    found = read_anew(descriptor)
                self._seen.note_names(directory, ctime, found)
            elif strict or name not in found:
                found = read_anew(descriptor)
            return Contains.MAYBE if name in found else Contains.NO

        return with_open(directory, DIRECTORY_FLAGS, read)
