"""Optuna: a study's journal in a dictionary, one entry for each record.

Optuna's journal file needs a lock for each record that is written, and over NFS a lock stays when
its holder is killed. Here nobody holds anything: the record with number n is created by ``add``, so
that of all who want that number one gets it, and the others take the next. The entries are numbered
without a gap, as a record is only added after the one before it was seen or written.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

from ..errors import CorruptValueError, described
from ..mapping import NfsDict

try:
    from optuna.storages.journal import BaseJournalBackend
    from optuna.storages.journal._base import BaseJournalSnapshot  # what JournalStorage looks for
except ImportError:
    raise ImportError(
        "nfsdict.integrations.optuna needs Optuna 4 or newer: pip install 'nfsdict[optuna]'"
    ) from None

log = logging.getLogger("nfsdict")

_SNAPSHOT = "snapshot"


class NfsDictJournalBackend(BaseJournalBackend, BaseJournalSnapshot):
    """The journal of Optuna's ``JournalStorage`` in a dictionary, without locks::

        d = NfsDict("sweep", base_dir="/shared/project", serializer="bytes")
        storage = JournalStorage(NfsDictJournalBackend(d))
        study = optuna.create_study(study_name="net", storage=storage, load_if_exists=True)

    Record n is the entry ``f"{n:020d}"``, as JSON; ``"snapshot"`` is the entry with Optuna's own
    summary of the records so far, which spares a new process from replaying all. A process that is
    killed leaves nothing that others wait for. A record that was acknowledged is found by whatever
    process on whatever host reads afterwards; if the dictionary is ``durable``, after a power cut
    too. Of several records that are appended in one call, those of others may come in between.

    Reading costs a read for each new record of other processes, and one miss. What was there when
    the dictionary was opened is in memory, unless that was lazily.

    Nothing but the journal may change these entries: a record that is removed hides all after it.

    Args:
        mapping: the dictionary, best with a store of its own. Its values are ``bytes``, so its
            serializer is ``"bytes"``, ``"pickle"``, ``"buffers"`` or ``signed`` around one of them.
            Optuna unpickles the snapshot whatever the serializer: ``signed`` keeps out what others
            have planted.

    Raises:
        ImportError: when the module is imported, Optuna isn't installed, or is older than 4.
        OSError: as of ``NfsDict``. After UncertainWriteError the record may be there.
        CorruptValueError: the file of a record is damaged; ``repair`` would hide all later ones, so
            restore it. A damaged snapshot is passed over.
        TypeError: a record that has no JSON; a serializer that takes no ``bytes``; ``mapping`` is
            no NfsDict.
    """

    def __init__(self, mapping: NfsDict[bytes]) -> None:
        if not isinstance(mapping, NfsDict):
            raise TypeError(f"mapping is an NfsDict, not {type(mapping).__name__}")
        self.mapping = mapping
        # All records below this number are known to exist.
        self._seen = 0

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """The records from this number on, each read when it is asked for."""
        number = log_number_from
        while (record := self._record(number)) is not None:
            number += 1
            self._seen = max(self._seen, number)
            yield json.loads(record)

    def _record(self, number: int) -> bytes | None:
        try:
            return self.mapping.get(_key(number))
        except CorruptValueError as error:
            reason = (
                f"{error.reason}; restore this file from a backup: if it is removed, or moved by "
                "repair(), all later records are hidden"
            )
            raise CorruptValueError(
                error.path, reason, error.signature, error.key, error.foreign
            ) from error

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append these records. Returns when all are in the store."""
        for record in [json.dumps(one, separators=(",", ":")).encode() for one in logs]:
            number = self._seen
            while not self.mapping.add(_key(number), record):
                number = self._first_free(number + 1)
            self._seen = max(self._seen, number + 1)

    def _first_free(self, number: int) -> int:
        """The first number from here on without a record, found in few lookups, however many others
        have appended."""
        step = 1
        while _key(number + step - 1) in self.mapping:
            number += step
            step *= 2
        while step > 1:  # the record before ``number`` exists, the last of these ``step`` doesn't
            step //= 2
            if _key(number + step - 1) in self.mapping:
                number += step
        return number

    def save_snapshot(self, snapshot: bytes) -> None:
        """Keep this summary. If it can't be written that is logged, as the records have it all."""
        try:
            self.mapping[_SNAPSHOT] = snapshot
        except OSError as error:
            log.warning("can't keep a snapshot of the journal: %s", described(error))

    def load_snapshot(self) -> bytes | None:
        """The summary that was written last by any process, if there is one that can be read."""
        try:
            return self.mapping.get(_SNAPSHOT, fresh=True)
        except CorruptValueError as error:
            log.warning("passing over a damaged snapshot of the journal: %s", error)
            return None


def _key(number: int) -> str:
    return f"{number:020d}"
