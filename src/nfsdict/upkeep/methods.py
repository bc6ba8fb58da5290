"""The methods of ``NfsDict`` for who looks after a store. Each calls a room of this package."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from ..arguments import checked_seconds, plain
from ..core import digest
from ..errors import failure
from ..first_use import at_first_use
from ..layout import digest_of
from ..logs import told
from .moving import Moving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ..coordination.leases import Leases
    from ..entries import Entries
    from ..index.writer import IndexWriter
    from ..loads import Loads
    from ..locks import Locks
    from ..progress import Progress
    from ..repack import PackReport
    from ..scan import Scanner
    from ..state import StoreState
    from ..storage import Storage
    from .infos import EntryInfo, Infos
    from .limits import Limits, PruneReport
    from .prune import Prune
    from .repair import RepairReport
    from .verify import VerifyReport


class Upkeep(Moving):
    """Base class of ``NfsDict``, which sets the attributes.

    Each method imports the room that it calls: most processes call none of them."""

    _entries: Entries
    _loads: Loads
    _locks: Locks
    _progress: Progress
    _scanner: Scanner
    _state: StoreState
    _storage: Storage
    _workers: int
    _writer: IndexWriter

    if TYPE_CHECKING:

        @property
        def _leases(self) -> Leases: ...
        def sync(self) -> None: ...
        def _check_serializer(self) -> None: ...
        def _writable(self) -> None: ...

    # --- what is there -------------------------------------------------------------------------

    @at_first_use
    def _infos(self) -> Infos:
        from .infos import Infos

        return Infos(self._state, self._storage, self._entries, self._workers)

    @told("info")
    def info(self, key: str) -> EntryInfo:
        """Where the entry is, its size and when it was written, by the server's word.

        Its directory is looked up anew, and the value isn't read. The first call reads the tables
        of the packs, keys and signatures of the whole store, to tell whether one has the value;
        they stay in memory, and are read again when others have written the index. For many keys
        ask ``infos``.

        KeyError if there is no entry; a damaged one has an info, too. OSError if the server
        couldn't be asked.
        """
        found = self._infos.info(key) if isinstance(key, str) else hash(key) and None
        if found is None:
            self._check_serializer()
            raise KeyError(key)
        return found

    def infos(self, prefix: str = "") -> Iterator[EntryInfo]:
        """The infos of all entries whose keys begin with ``prefix``, in no order.

        The store's directories are listed one after another, several at a time, as the loop goes
        on, and no more than a few of them are in memory, beside the keys. No value is read of a key
        that this dictionary or the index on disk knows. The file of any other is read for its key:
        it is left out if it is damaged (logged) or can't be read. What others change meanwhile may
        be told or not. OSError if a directory can't be listed.
        """
        self._check_serializer()
        return self._infos.all(plain(prefix))

    def path_of(self, key: str) -> Path:
        """The path of the key's value file, whether there is one or not. Asks nobody."""
        from pathlib import Path

        return Path(self._storage.values.path_of(digest(plain(key))))

    def counters(self) -> dict[str, int]:
        """What this dictionary has done in this process since it was opened, as numbers that grow.

        ==================  ======================================================================
        reads               lookups whose value wasn't in memory, and was read from its file, or in
                            a loop from a pack
        fresh_reads         those of them that were asked with ``fresh=True``
        misses              lookups that found no file, or a damaged one
        puts                values written: by assignment, ``add``, ``update``, and what uses these
        deletes             entries removed: by ``del``, ``pop``, ``clear``
        scans               times that cache and index were brought up to date, as by ``refresh``
        packs_written       files of the index that were written, merged ones too
        retries             calls on files repeated after an error that passes
        stale_handles       those of them that met a stale handle
        lease_takeovers     leases taken over from a process that had died, or lost them
        ==================  ======================================================================

        Reads of cached values aren't counted: that would make them a quarter slower in the pure
        core, and have all threads write to one place in an interpreter without a GIL. Who wants a
        rate of hits counts the calls, and takes ``reads`` and ``misses`` from that. Nor is counted
        what a call does that has interrupted another one, as a signal handler's.

        Threads: reads, misses, puts, deletes and scans are exact. Of the others one is lost if two
        threads count it at the same moment. A forked child begins at 0, as does a copy.
        """
        return self._storage.counters.numbers()

    # --- limits --------------------------------------------------------------------------------

    @told("prune")
    def prune(
        self,
        *,
        max_age: float | None = None,
        max_items: int | None = None,
        max_bytes: int | None = None,
        min_free_inodes: int | None = None,
        prefix: str = "",
        dry_run: bool = False,
        time_limit: float | None = None,
    ) -> PruneReport:
        """Remove the entries that were written first, until all these limits are kept.

        What counts is when an entry was written, as its file's mtime tells, and the server's
        clock: no local clock is compared with it. It isn't when the entry was last read, as a read
        from memory or from a pack leaves no trace on the disk: this is no LRU. A copy (``cp -a``)
        is as old as its original. A time that is yet to come counts as none: such an entry stays.
        On file systems whose clients stamp files by their own clocks (CephFS, GlusterFS, Lustre,
        GPFS) ages are wrong by what the clocks differ. A read-only dictionary can't ask for the
        server's time, and goes by the latest change in the store, so it may find too few too old.

        An entry whose lease some process holds, as it works on it (``claim``, ``lease``), stays,
        and the next one in order is removed in its place. The limits are about
        the entries that are listed in the beginning, damaged ones included. An entry that is
        written anew while this runs isn't removed: each file is renamed, looked at again, and given
        back if it is another one. Should that happen, others find the new entry missing for that
        moment, and one who then makes an entry of that key by ``add`` or assigns to it has the last
        word. Where the file system has neither hard links nor a rename that replaces nothing, or
        on NFS with ``nordirplus``, giving back can also overwrite what is assigned in that moment.

        Costs an NFS server one or two listings of each directory, three more for each 256 entries
        that are removed there, and two calls for each entry removed. Where a listing brings no
        attributes of files, up to four more for each. Memory is taken for a few directories at a
        time and 10 MiB, and with ``prefix`` for all keys. The directories are worked on several at
        a time, each from its oldest entry. If all that is to be removed is younger than 3 s, it
        waits for so long, as a younger signature doesn't tell a file from the next one.

        One process prunes a store at a time: it holds the lease of the name "nfsdict: prune". After
        an exception, such as KeyboardInterrupt, or a time limit, what was removed is removed, and
        calling again goes on. If the process is killed, up to 256 entries of each directory that
        it was at have private names, from where ``repair`` gives them back; the next call can begin
        at once on the same Linux host, else a minute later.

        Other hosts learn of the removals as of any, by ``refresh``. Here the keys are gone, and
        ``refresh`` and watches don't report them.

        Args:
            max_age: remove entries written more than so many seconds ago.
            max_items: remove until there are at most so many entries.
            max_bytes: remove until their files have at most so many bytes, as ``infos`` tells them.
            min_free_inodes: remove until the file system has room for so many files more. Nothing
                on one that doesn't count them. What others create or remove meanwhile isn't seen.
            prefix: only entries whose keys begin with it count, for all limits. Keys that the index
                doesn't know are read from their files; one that is damaged tells none, and stays.
            dry_run: remove nothing, and report what would be. Needs no lease.
            time_limit: begin no more removals after so many seconds. The listings before the first
                one, about which entries are the oldest, aren't cut short.

        Raises:
            ValueError, TypeError: no limit is given, or one that is none.
            ReadOnlyError: this dictionary is read-only, unless ``dry_run``.
            OSError: a directory can't be listed. EBUSY: another process prunes the store. Entries
                that can't be removed are in the report. Where leases can't be looked at or taken,
                nothing is removed, as some process may work on any entry.
            LeaseLostError: the lease couldn't be renewed in time.
        """
        from .limits import Limits

        limits = Limits(max_age, max_items, max_bytes, min_free_inodes, prefix, time_limit)
        return self._pruning(limits, dry_run).run()

    def _pruning(self, limits: Limits, dry_run: bool) -> Prune:
        from .prefixed import Prefixed
        from .prune import Prune

        if not dry_run:
            self._writable()
        self._not_interrupting()
        self._check_serializer()
        return Prune(
            limits,
            dry_run,
            self._state,
            self._writer,
            self._storage,
            Prefixed(plain(limits.prefix), self._state, self._storage, self._entries),
            self._leases,
            self._progress,
            self._workers,
        )

    # --- checks and repairs --------------------------------------------------------------------

    @told("verify")
    def verify(self) -> VerifyReport:
        """Read and check every value file, and compare it with the index; see ``VerifyReport``.

        Changes nothing on disk. OSError if a directory can't be listed.
        """
        from .verify import verify

        self._check_serializer()
        report = verify(self._storage, self._entries, self._workers, self._progress)
        shards = {digest_of(path)[:2] for path in report.contradicted}
        if shards and not self._locks.interrupted:
            with self._locks.guard:
                self._state.distrust(shards)
        return report

    @told("repair")
    def repair(self, grace: float = 3600.0) -> RepairReport:
        """Remove old temporary files, move damaged value files aside, rebuild the index.

        A temporary file is removed when it is older than ``grace`` seconds by the server's clock,
        so that a write under way keeps its own; if it holds a value that a ``pop`` or a write left
        there, the value is given back to its key (see ``pop``). The same goes for leases that
        weren't renewed for so long, and for twice their durations. A damaged file gets
        ``.damaged-…`` after its name, which no scan takes. Files that can't be read here but may be
        whole stay. EBUSY if other processes go on writing the index. A ``grace`` of -1 spares
        nothing.
        """
        from .repair import repair

        grace = checked_seconds("grace", grace, -1)
        self._writable()
        self._not_interrupting()
        self._check_serializer()
        self._writer.invalidate_legacy_index()
        done = repair(self._storage, self._entries, self._workers, self._progress, grace)
        self._writer.discard_index()
        self.sync()
        self._writer.flush()
        return done

    @told("pack")
    def pack(self) -> PackReport:
        """Write the index now, with all small values, into one file (a pack).

        Openings do that by themselves when it pays. The next opening of the whole store then reads
        that file instead of one for each key. Every directory is listed, so that files that were
        written in place are packed anew. Takes 3 s more if something was changed within the last
        3 s, as so young signatures prove nothing. Values that an ``update`` of 2,000 keys or more
        has written aren't read again. Where a process was killed while it wrote the index, it takes
        a minute more. OSError if the file can't be written, or the index that is there can't be
        read; EBUSY if other processes go on writing it, or if what another ``pack`` of this
        dictionary calls, as a progress function, calls this one.
        """
        from ..repack import Repack

        self._writable()
        self._not_interrupting()
        return Repack(
            self._scanner,
            self._state,
            self._writer,
            self._storage,
            self._entries,
            self._loads,
            self._progress,
            self._workers,
        )()

    def _not_interrupting(self) -> None:
        if self._locks.interrupted:
            raise failure(errno.EBUSY, self._storage.directory)
