"""The methods of ``NfsDict`` that move a store's entries elsewhere, or here."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Any

from ..arguments import check_file

if TYPE_CHECKING:
    from ..bulk import Bulk
    from ..entries import Entries
    from ..one_key import OneKey
    from ..progress import Progress
    from ..storage import Storage
    from .archive import Archive
    from .reading import ExportReport, Reading
    from .transfer import Source
    from .writing import TransferReport, Writing


class Moving:
    """A base class of ``NfsDict``, which sets the attributes."""

    _storage: Storage
    _entries: Entries
    _bulk: Bulk
    _one_key: OneKey
    _progress: Progress
    _workers: int
    _arguments: tuple[Any, ...]

    if TYPE_CHECKING:

        def _writable(self) -> None: ...
        def _not_interrupting(self) -> None: ...
        def _check_serializer(self) -> None: ...

    def export_to(self, file: IO[bytes], *, jsonl: bool = False) -> ExportReport:
        """Write all entries to a file, while others go on writing.

        The file gets a tar of the value files, whose last member says how many they are and their
        digest, so that ``import_from`` sees whether it is whole. ``nfsdict.upkeep.archive``
        describes it; ``tar -x`` in an empty directory makes a store of it. Each entry is one that
        the key had during the call, read and checked whole. The entries don't belong to one moment:
        a key that others add or remove meanwhile is there or isn't. Entries that can't be read or
        decoded here are left out, and the report names them. Reads ahead 24 MiB, or one larger
        value.

        Args:
            file: a binary file that is opened for writing and buffered, such as a pipe. It isn't
                closed. After an exception it is cut short.
            jsonl: write a line ``{"key": …, "value": …}`` for each entry instead. For stores of
                JSON. Nothing shows then whether lines are missing at the end.

        Raises:
            ValueError: ``jsonl``, and the store isn't of JSON; an extension of more than 33
                characters.
            TypeError: ``file`` is no open file.
            OSError: a directory can't be listed, or the file not be written.
        """
        from . import transfer  # ``tarfile`` and what it takes would lengthen each import

        check_file(file, "write", "wb")
        self._check_serializer()
        write = transfer.export_lines if jsonl else transfer.export
        return write(self._reading(), self._storage.extension, file)

    def import_from(
        self, file: IO[bytes] | Archive, *, keep_existing: bool = False, jsonl: bool = False
    ) -> TransferReport:
        """Take over the entries that ``export_to`` has written, of a store of the same serializer.

        Each is decoded, its key compared with its name, and written as ``update`` does, in batches
        of 16 MiB. Entries whose files have the same content are left as they are, so an import that
        was interrupted can be run again for little. Values aren't kept in memory. Unpickling runs
        code: import pickles from people only whom you would let write to the store.

        Args:
            file: a binary file that is opened for reading. If it is seekable it is read through
                first, and if it isn't whole nothing is taken over. Of a pipe that is cut short or
                damaged the batches before that are, and nothing of the one that was under way.
            keep_existing: leave keys alone that have an entry, as ``add`` does, also if others
                create it meanwhile.
            jsonl: the file has lines ``{"key": …, "value": …}``. For stores of JSON.

        Raises:
            ArchiveError: (a ValueError) the file is no archive, not whole, or of another
                serializer; it says how many entries were taken over.
            TypeError: ``file`` is no open file.
            BatchError: some entries couldn't be written. Later ones aren't then.
            ReadOnlyError, OSError: as of ``update``.
        """
        from . import transfer
        from .archive import Archive

        if not isinstance(file, Archive):
            check_file(file, "__next__" if jsonl else "read", "rb")
        writing = self._writing(keep_existing)
        if jsonl and not isinstance(file, Archive):
            return transfer.import_lines(writing, self._entries, self._storage.extension, file)
        return transfer.import_archive(writing, self._entries, self._storage.extension, file)

    def copy_from(self, source: Source, *, keep_existing: bool = False) -> TransferReport:
        """Take over the entries of another dictionary or mapping.

        Written as by ``import_from``. A store is read file by file, whatever its dictionary has in
        memory, while others go on writing; if it has the same serializer its files are copied byte
        by byte. Of any other mapping, such as an open ``shelve``, each value is got by its key.
        Entries that can't be read, or that this serializer can't write, are left out, and the
        report names them. It counts those whose values JSON changes, as it does tuples.

        Args:
            source: an ``NfsDict``, or an object with ``keys()`` and ``__getitem__``.
            keep_existing: as for ``import_from``.

        Raises:
            TypeError: the source is no mapping.
            ValueError: the source is this store itself.
            BatchError, ReadOnlyError, OSError: as of ``import_from``.
        """
        from . import transfer

        if not (hasattr(source, "keys") and hasattr(source, "__getitem__")):
            raise TypeError(f"the source is neither an NfsDict nor a mapping: {type(source)!r}")
        writing = self._writing(keep_existing)
        if not isinstance(source, Moving):
            return transfer.copy_mapping(writing, self._entries, source)
        if source._storage.directory == self._storage.directory:
            raise ValueError(f"source and destination are the same: {self._storage.directory}")
        source._check_serializer()
        same = source._arguments[2] == self._arguments[2]
        return transfer.copy_store(writing, self._entries, source._reading(), same)

    def _reading(self) -> Reading:
        from .reading import Reading

        return Reading(self._storage, self._entries, self._progress, self._workers)

    def _writing(self, keep_existing: bool) -> Writing:
        from .writing import Writing

        self._writable()
        self._not_interrupting()
        self._check_serializer()
        return Writing(
            self._storage,
            self._bulk,
            self._one_key,
            self._progress,
            self._workers,
            keep_existing,
        )
