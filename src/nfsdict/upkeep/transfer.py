"""Transfer: a store's entries into an archive, out of one, or from another store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from typing import IO, Any, Protocol

from ..arguments import plain
from ..bulk import Item
from ..content import Content, Data
from ..core import MISSING, digest
from ..entries import Entries, Entry
from ..errors import ArchiveError, CorruptValueError, contained, described
from ..kinds import argument_for
from ..layout import mtime_of
from .archive import Archive, ArchiveWriter
from .json_lines import entries_in, line_of
from .reading import ExportReport, Reading
from .writing import TransferReport, Writing

_JSON = (".json", ".json.signed")


class Source(Protocol):
    """Entries to be copied: a dictionary, or what has these two methods."""

    def keys(self) -> Iterable[str]: ...

    def __getitem__(self, key: str, /) -> Any: ...


def export(reading: Reading, extension: str, file: IO[bytes]) -> ExportReport:
    """Write an archive of all entries to the binary file. Nobody is held up by it."""
    writer = ArchiveWriter(file, extension)

    def keep(hexdigest: str, entry: Entry) -> tuple[str, Data, int]:
        return hexdigest, entry.data, mtime_of(entry.signature) // 1_000_000_000

    failed: dict[str, str] = {}
    total = 0
    for hexdigest, data, seconds in reading.over(keep, failed):
        writer.add(hexdigest, data, seconds)
        total += len(data)
    return ExportReport(writer.end().entries, total, failed)


def export_lines(reading: Reading, extension: str, file: IO[bytes]) -> ExportReport:
    """Write all entries to the binary file as JSON lines. ValueError if the store isn't of JSON."""
    _check_json(extension)
    failed: dict[str, str] = {}
    entries = total = 0
    for line in reading.over(lambda _, entry: line_of(entry.key, entry.value), failed):
        file.write(line)
        entries += 1
        total += len(line)
    return ExportReport(entries, total, failed)


def import_archive(
    writing: Writing, entries: Entries, extension: str, file: IO[bytes] | Archive
) -> TransferReport:
    """Take over the entries of an archive; nothing from one that is seen to be damaged before."""
    archive = file if isinstance(file, Archive) else Archive(file)
    if archive.extension != extension:
        raise ArchiveError(
            f"the archive has {archive.extension} files, this dictionary {extension} files: import "
            f"it with {argument_for(archive.extension)}, into another store, and copy that"
        )
    total = archive.check()

    def items() -> Iterator[Item]:
        for hexdigest, data in archive:
            try:
                entry = entries.load_foreign(hexdigest, data)
            except CorruptValueError as error:
                writing.failed[hexdigest + extension] = error.reason
            except Exception as error:  # a pickle runs anybody's code
                writing.failed[hexdigest + extension] = described(error)
            else:
                yield Item(hexdigest, entry.key, MISSING, data)

    return _taken(writing, items(), total)


def import_lines(
    writing: Writing, entries: Entries, extension: str, lines: Iterable[bytes]
) -> TransferReport:
    """Take over entries from JSON lines."""
    _check_json(extension)

    def items() -> Iterator[Item]:
        for key, value in entries_in(lines):
            try:
                item = _item(entries, key, value)
            except ValueError as error:  # NaN, which is read and not written
                writing.failed[key] = described(error)
            else:
                yield item

    return _taken(writing, items(), None)


def _check_json(extension: str) -> None:
    if extension not in _JSON:
        raise ValueError(
            f"JSON lines are for stores of JSON, and this one has {extension} files: copy it to a "
            "store of JSON, if that has all its values"
        )


def _taken(writing: Writing, items: Iterable[Item], total: int | None) -> TransferReport:
    try:
        writing.take(items, total)
    except ArchiveError as error:
        done = writing.report()
        count = done.written + done.same + done.kept
        raise ArchiveError(f"{error}; {count} entries were taken over before that") from error
    return writing.report()


def copy_store(
    writing: Writing, entries: Entries, source: Reading, same_serializer: bool
) -> TransferReport:
    """Take over the entries of another store. Of one of the same serializer the files' bytes."""

    def item(hexdigest: str, entry: Entry) -> Item:
        if not same_serializer:
            return _item(entries, entry.key, entry.value)
        data: Content = entry.data if isinstance(entry.data, bytes) else [entry.data]
        return Item(hexdigest, entry.key, MISSING, data)

    writing.take(source.over(item, writing.failed), 0)  # reading shows its progress
    return writing.report()


def copy_mapping(writing: Writing, entries: Entries, source: Source) -> TransferReport:
    """Take over the entries of a mapping."""
    keys = source.keys()

    def items() -> Iterator[Item]:
        for key in keys:
            try:
                item = _item(entries, plain(key), contained(source.__getitem__, key))
            except Exception as error:  # decoding and serializing run anybody's code
                writing.failed[str(key)] = described(error)
            else:
                yield item

    writing.take(items(), len(keys) if isinstance(keys, Sized) else None)
    return writing.report()


def _item(entries: Entries, key: str, value: Any) -> Item:
    data = entries.dumps((key, entries.freeze(value)))
    return Item(digest(key), key, MISSING, data, entries.changes(value))
