"""The methods of ``NfsDict`` for who looks after a store. Each calls a room of this package."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..arguments import plain
from ..core import digest
from ..entries import Entries
from ..errors import failure
from ..index.writer import IndexWriter
from ..layout import digest_of
from ..loads import Loads
from ..locks import Locks
from ..repack import PackReport, Repack
from ..scan import Scanner
from ..state import StoreState
from ..storage import Storage
from .infos import EntryInfo, Infos
from .repair import RepairReport, repair
from .verify import VerifyReport, verify


class Upkeep:
    """Base class of ``NfsDict``, which sets the attributes."""

    _entries: Entries
    _infos: Infos
    _loads: Loads
    _locks: Locks
    _scanner: Scanner
    _state: StoreState
    _storage: Storage
    _workers: int
    _writer: IndexWriter

    if TYPE_CHECKING:

        def sync(self) -> None: ...
        def _check_serializer(self) -> None: ...
        def _writable(self) -> None: ...

    # --- what is there -------------------------------------------------------------------------

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
        return Path(self._storage.values.path_of(digest(plain(key))))

    # --- checks and repairs --------------------------------------------------------------------

    def verify(self) -> VerifyReport:
        """Read and check every value file, and compare it with the index; see ``VerifyReport``.

        Changes nothing on disk. OSError if a directory can't be listed.
        """
        self._check_serializer()
        report = verify(self._storage, self._entries, self._workers)
        shards = {digest_of(path)[:2] for path in report.contradicted}
        if shards and not self._locks.interrupted:
            with self._locks.guard:
                self._state.distrust(shards)
        return report

    def repair(self, grace: float = 3600.0) -> RepairReport:
        """Remove old temporary files, move damaged value files aside, rebuild the index.

        A temporary file is removed when it is older than ``grace`` seconds by the server's clock,
        so that a write under way keeps its own; if it holds a value that a ``pop`` or a write left
        there, the value is given back to its key (see ``pop``). The same goes for leases that
        weren't renewed for so long, and for twice their durations. A damaged file gets
        ``.damaged-…`` after its name, which no scan takes. Files that can't be read here but may be
        whole stay. EBUSY if other processes go on writing the index.
        """
        self._writable()
        self._not_interrupting()
        self._check_serializer()
        self._writer.invalidate_legacy_index()
        done = repair(self._storage, self._entries, self._workers, grace)
        self._writer.discard_index()
        self.sync()
        self._writer.flush()
        return done

    def pack(self) -> PackReport:
        """Write the index now, with all small values, into one file (a pack).

        Openings do that by themselves when it pays. The next opening of the whole store then reads
        that file instead of one for each key. Every directory is listed, so that files that were
        written in place are packed anew. Takes 3 s more if something was changed within the last
        3 s, as so young signatures prove nothing. Values that an ``update`` of 2,000 keys or more
        has written aren't read again. OSError if the file can't be written; EBUSY if
        other processes go on writing the index.
        """
        self._writable()
        self._not_interrupting()
        return Repack(
            self._scanner,
            self._state,
            self._writer,
            self._storage,
            self._entries,
            self._loads,
            self._workers,
        )()

    def _not_interrupting(self) -> None:
        if self._locks.interrupted:
            raise failure(errno.EBUSY, self._storage.directory)
