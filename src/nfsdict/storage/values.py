"""Value files: one for each key, read, replaced and removed by the key's digest."""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import NamedTuple, Union

from ..content import Content, holds
from ..core import write_file
from ..errors import UncertainWriteError, failure
from ..layout import file_size, inode_of, mtime_of, private_path, signature_of
from .coherence import Coherence
from .files import Files, Found
from .passing import PAUSES, TRIES
from .reading import ValueReader
from .refusals import NO_FILE, NO_LINKS, REFUSED, TRANSIENT

log = logging.getLogger("nfsdict")

# Steps of a write, as the core numbers them. A write that failed at the first has left nothing; one
# that failed at the second may have left the new file under its name.
_WRITING, _PUBLISHING = 0, 1
# So many seconds no ``repair`` takes a private name for one that a crash left.
_YOUNG = 60.0

Outcome = Union[bytes, tuple[int, int], OSError]
"""What came of writing a file: its signature; or the step that failed and its errno, as the core's
``write_files`` gives them; or an error."""


class Prepared(NamedTuple):
    """Value files under temporary names."""

    files: list[tuple[str, Content]]
    """path and content of each"""
    made: list[tuple[str, bytes] | int]
    """the temporary path of each and its signature, or an errno; of the first ones only, while they
    are being written, and after an exception"""


def is_transient(result: bytes | OSError) -> bool:
    """Whether the write failed transiently: its shard is missing or stale, or another host has just
    removed the target."""
    if not isinstance(result, OSError) or isinstance(result, UncertainWriteError):
        return False
    return result.errno in TRANSIENT


class ValueFiles(ValueReader):
    """Value files, by digest. Safe for threads."""

    def __init__(self, rules: Coherence, files: Files, extension: str) -> None:
        super().__init__(rules, files, extension)
        self._mode = files.mode
        self._durable = files.durable
        # Whether a shard is synced after a put; None unless renames are known to be trusted.
        self._synced: bool | None = None
        self._sees_clock = False

    def _sync_known(self) -> bool | None:
        """Whether a shard is synced after a put; None unless renames are known to be trusted.

        Trusted: a refused rename has certainly done nothing.
        """
        if self._synced is None and self._rules.kind.trusted:
            self._sees_clock = self._rules.kind.stamps_writes
            self._synced = self._files.syncs()
        return self._synced

    def put(self, hexdigest: str, data: Content) -> bytes:
        """Replace this digest's file, atomically and durably. Returns the new signature.

        UncertainWriteError if it can't be known whether the new content is in place; after any
        other OSError it isn't. No temporary file stays behind.

        If a refused rename may have done something (see ``Kind.trusted``), the new content keeps a
        private name until a value is seen under the key. It stays there if the process is killed,
        or if no value lies under the key, which the UncertainWriteError says. ``repair`` gives it
        back, unless the key has a value by then. So a later ``repair`` may carry out a write that
        was never acknowledged, even if the key was deleted in between.
        """
        path = f"{self.directory}/{hexdigest[:2]}/{hexdigest}{self.extension}"
        synced = self._synced
        if synced is None:
            synced = self._sync_known()
        outcome: Outcome
        if synced is None:
            [outcome] = self._published([(path, data)])
        else:
            outcome = write_file(path, data, self._mode, self._durable, synced)
        if type(outcome) is bytes:
            if self._sees_clock:
                self._rules.clock.observe(mtime_of(outcome))
            return outcome
        [result] = self._retried([(path, data)], [outcome])
        if isinstance(result, OSError):
            raise result
        return result

    def write(self, entries: Iterable[tuple[str, Content]]) -> list[bytes | OSError]:
        """As ``put``, for many (digest, content). Returns each one's signature or error.

        Each directory is fsynced only once, if the digests are in order.
        """
        files = [(self.path_of(hexdigest), data) for hexdigest, data in entries]
        return self._retried(files, self._published(files))

    def to_prepare(self, entries: Iterable[tuple[str, Content]]) -> Prepared:
        """Many (digest, content), for ``prepare``."""
        return Prepared([(self.path_of(hexdigest), data) for hexdigest, data in entries], [])

    def prepare(self, prepared: Prepared) -> None:
        """Write the first half of these files: under temporary names.

        The caller then passes them to ``publish``, or to ``discard`` after an exception.
        """
        files, made = prepared
        self._files.prepare(files, made)
        again = [i for i, one in enumerate(made) if one in TRANSIENT]
        for shard in {os.path.dirname(files[i][0]) for i in again}:
            self._renew(shard)
        repeated: list[tuple[str, bytes] | int] = []
        try:
            self._files.prepare([files[i] for i in again], repeated)
        finally:
            for i, one in zip(again, repeated):
                made[i] = one

    def publish(self, prepared: Prepared) -> Sequence[bytes | OSError]:
        """Give these files their names. What couldn't be prepared is tried again. Results as of
        ``write``: the signature is the prepared file's own, unless it was written again."""
        files, made = prepared
        if not self._rules.kind.trusted:
            outcomes = [self._publish_prepared(*file, one) for file, one in zip(files, made)]
            return self._retried(files, self._synced_outcomes(files, outcomes))
        pairs = [(one[0], file[0]) for one, file in zip(made, files) if isinstance(one, tuple)]
        published = self._files.publish(pairs)
        if len(pairs) == len(files) and not any(published):
            return [one[1] for one in made if isinstance(one, tuple)]
        failed = iter(published)
        outcomes = [
            (next(failed) or one[1]) if isinstance(one, tuple) else (_WRITING, errno.ENOENT)
            for one in made
        ]
        return self._retried(files, outcomes)

    def discard(self, prepared: Prepared) -> None:
        """Remove the temporary files, those that are still there."""
        for one in prepared.made:
            if isinstance(one, tuple):
                with suppress(OSError):
                    self._files.sweep(one[0])

    @property
    def may_prepare(self) -> bool:
        """Whether files can be written in two halves: where a refused rename has done nothing."""
        return self._rules.kind.trusted

    def write_new(self, hexdigest: str, data: Content) -> bytes | OSError:
        """As ``write``, for one digest, by a hard link that replaces nothing.

        Returns FileExistsError if the digest has a file, and the link's own error if hard links are
        refused. Errors are returned, not raised.
        """
        files = [(self.path_of(hexdigest), data)]
        [result] = self._retried(files, self._published(files, exclusive=True), exclusive=True)
        return result

    def _published(
        self, files: list[tuple[str, Content]], exclusive: bool = False
    ) -> Sequence[Outcome]:
        """As ``Files.write_once``, but by way of private names if renames aren't trusted."""
        if exclusive or self._rules.kind.trusted:
            return self._files.write_once(files, exclusive)
        return self._synced_outcomes(files, [self._publish(*file) for file in files])

    def _synced_outcomes(
        self, files: list[tuple[str, Content]], outcomes: list[Outcome]
    ) -> list[Outcome]:
        """The outcomes, once the directories of the files that were replaced are synced."""
        done = [i for i, outcome in enumerate(outcomes) if isinstance(outcome, bytes)]
        for i, failed in self._files.sync_parents(
            [(i, os.path.dirname(files[i][0])) for i in done]
        ):
            outcomes[i] = failed
        return outcomes

    def _publish(self, path: str, data: Content) -> Outcome:
        private = private_path(path)
        [outcome] = self._files.write_once([(private, data)], sync=False)
        return self._replace(path, data, private, outcome)

    def _publish_prepared(self, path: str, data: Content, made: tuple[str, bytes] | int) -> Outcome:
        if isinstance(made, int):
            return _WRITING, errno.ENOENT
        temporary, written = made
        private = private_path(path)
        [failed] = self._files.publish([(temporary, private)])
        return self._replace(path, data, private, failed or written)

    def _replace(
        self, path: str, data: Content, private: str, outcome: bytes | tuple[int, int]
    ) -> Outcome:
        """Rename a private file, whose writing had this outcome, over the file at the path."""
        if not isinstance(outcome, bytes):
            with suppress(OSError):
                self._files.sweep(private)  # its rename may have been done, and the reply lost
            return _WRITING, outcome[1]
        begun = time.monotonic()
        number = errno.EIO
        there: Found | OSError | None = None
        # On SMB a file whose replacement was refused was gone 50 ms later, and the next rename
        # succeeded. On Windows somebody has the file open.
        for pause in PAUSES:
            try:
                os.replace(private, path)
                return self._signature_now(path, outcome)
            except OSError as error:
                number = error.errno or errno.EIO
            time.sleep(pause)
            there = self.lies_there(path)
            with suppress(OSError):
                if not self._files.is_there(private):
                    if isinstance(there, tuple) and holds(there[0], data):
                        return there[1]
                    if time.monotonic() < begun + _YOUNG:
                        # Our rename was carried out, and others replaced or removed the value.
                        return self._signature_now(path, outcome)
                    # A repair may have removed it, as the key had another value.
                    return UncertainWriteError(number, os.strerror(number), path)
        if isinstance(there, tuple) or (there and there.errno in NO_FILE):
            with suppress(OSError):
                self._files.sweep(private)
            return _WRITING, number
        told = f"{os.strerror(number)}; the new value is in {private}, repair() gives it back"
        return UncertainWriteError(number, told, path)

    def _signature_now(self, path: str, written: bytes) -> bytes:
        """The signature that a listing has of the file that was just put there, with this one. A
        client may make up the times of what it writes."""
        with suppress(OSError):
            now = signature_of(os.lstat(path))
            if (inode_of(now), file_size(now)) == (inode_of(written), file_size(written)):
                return self._rules.mounted.signed(now)
        return self._rules.mounted.signed(written)  # another host was faster

    def _retried(
        self,
        files: list[tuple[str, Content]],
        outcomes: Sequence[Outcome],
        exclusive: bool = False,
    ) -> list[bytes | OSError]:
        """Turn outcomes into signatures or errors, and retry what failed transiently."""
        results = [
            self._result(*file, outcome, exclusive) for file, outcome in zip(files, outcomes)
        ]
        pause = 0.005
        for number in range(TRIES):
            again = [i for i, result in enumerate(results) if is_transient(result)]
            self._note_retries(files, results, again, number)
            if again and number > 2:
                # The target is open on this host and was removed on another, which the client may
                # not notice, if it was within one tick of another change. It will be closed soon.
                time.sleep(pause)
                pause = min(2 * pause, 0.1)
            shards = [os.path.dirname(files[i][0]) for i in again]
            refused = {shard: self._renew(shard) for shard in dict.fromkeys(shards)}
            for i, shard in zip(again, shards):
                results[i] = refused[shard] or results[i]
            again = [i for i, shard in zip(again, shards) if not refused[shard]]
            if not again:
                break
            for i, outcome in zip(again, self._published([files[i] for i in again], exclusive)):
                results[i] = self._result(*files[i], outcome, exclusive)
        return results

    def _note_retries(
        self,
        files: list[tuple[str, Content]],
        results: list[bytes | OSError],
        again: list[int],
        number: int,
    ) -> None:
        """Count and log those that are tried again after an error that passes. That a shard isn't
        there yet is none."""
        for i in again:
            result = results[i]
            if isinstance(result, OSError) and result.errno != errno.ENOENT:
                self._rules.counters.retries += 1
                self._rules.counters.stale_handles += result.errno == errno.ESTALE
                told = files[i][0], result.strerror, number + 1
                log.info("%s: %s, so it is written again, try %d", *told)

    def _result(
        self, path: str, data: Content, outcome: Outcome, exclusive: bool
    ) -> bytes | OSError:
        """The signature of a write that succeeded, or the error for the step that failed."""
        if not isinstance(outcome, tuple):
            return outcome
        step, number = outcome
        refused = step == _PUBLISHING and number in REFUSED
        if step == _WRITING or (refused and self._rules.kind.trusted):
            return failure(number, path)
        # On SMB a link gives ENOENT while the file under the name is being removed.
        removing = step == _PUBLISHING and number == errno.ENOENT and self._rules.kind.lingers
        if exclusive and (refused or removing):
            # An ``add`` replaces nothing: if it was carried out, its file lies there.
            there = self.lies_there(path)
            if there is None or number in (errno.EEXIST, *NO_LINKS):
                return failure(number, path)  # the caller, ``Exclusive.add``, looks itself
            if isinstance(there, tuple) and not holds(there[0], data):
                return failure(errno.EEXIST, path)
        if step == _PUBLISHING and not exclusive:
            # The rename failed, or its reply was lost: the file under the name tells which.
            [content] = self._files.read_paths([path])
            if isinstance(content, tuple) and holds(content[0], data):
                return content[1]
        return UncertainWriteError(number, os.strerror(number), path)

    def _renew(self, shard: str) -> OSError | None:
        """Revalidate the shard directory; make it if it is missing. Returns the error, if any."""
        try:
            if self._rules.revalidate(shard) is None:
                self._files.make_directory(shard)
        except OSError as error:
            return error
        return None

    def remove(self, hexdigests: Iterable[str]) -> list[bool | OSError]:
        """Unlink these digests' files, durably. For each: whether there was a file, or the error.

        False too if the reply to our own unlink was lost: the file is gone, and nothing tells who
        removed it.
        """
        paths = [self.path_of(hexdigest) for hexdigest in hexdigests]
        outcomes: list[bool | OSError] = []
        for path in paths:
            try:
                outcomes.append(self._remove(path))
            except OSError as error:
                outcomes.append(error)
        # Also after False: another process's removal must be durable before this call returns.
        gone = [i for i, outcome in enumerate(outcomes) if not isinstance(outcome, OSError)]
        for i, failed in self._files.sync_parents([(i, os.path.dirname(paths[i])) for i in gone]):
            outcomes[i] = failed
        return outcomes

    def _remove(self, path: str) -> bool:
        try:
            self._rules.retry_stale(self._files.remove, path)
        except FileNotFoundError:
            if not self._rules.revalidate_parent(path):
                return False
            try:
                self._rules.retry_stale(self._files.remove, path)
            except FileNotFoundError:
                return False
        return True
