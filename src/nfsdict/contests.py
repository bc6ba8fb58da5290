"""Contests: create once, take once. Of any number of callers on any hosts exactly one wins."""

from __future__ import annotations

import errno
import logging
import os
import time
from contextlib import suppress

from .directories import TRIES
from .errors import UncertainWriteError
from .files import REFUSED, TEMPORARY, Content, Files

log = logging.getLogger("nfsdict")

_TAKEN = TEMPORARY + "taken-"
# What file systems without hard links answer.
_NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK)
_CLAIM_NS = 600_000_000_000


class Contests(Files):
    """What one caller wins. A contest over a name is decided by the server, in one call."""

    def add(self, name: str, data: bytes) -> bytes | None:
        """Give this digest its file and return the signature, unless it has one: then None.

        Of any number of callers on any hosts exactly one gets a signature: ``link`` fails where
        there is a name (open(2), at O_EXCL, recommends it on NFS). Errors as of ``put``.
        """
        files = [(self.path_of(name), data)]
        lost: OSError
        for _ in range(TRIES):
            [result] = self._mended(files, self._tried(files, True), True)
            if isinstance(result, bytes):
                return result
            if result.errno in _NO_LINKS and not isinstance(result, UncertainWriteError):
                return self._add_by_claim(name, data)
            if not isinstance(result, FileExistsError):
                raise result
            lost = result
            # The client may remember a file that another host has removed.
            if self.look(name):
                return None
        raise lost

    def _add_by_claim(self, name: str, data: bytes) -> bytes | None:
        """``add`` where hard links are refused: whoever creates the claim file may look and put.

        Create-once among those who add; a ``put`` of the same key between look and put is lost to
        it. A claim older than ``_CLAIM_NS`` by the server's clock is taken for one that a crash has
        left: an ``add`` that stands still for longer, its server gone, may win beside another.
        """
        path = self.path_of(name)
        claim = os.path.join(os.path.dirname(path), f"{TEMPORARY}claim-{name}")
        pause = 0.001
        while not self._create(claim):
            if self.look(name):
                return None
            time.sleep(pause)
            pause = min(2 * pause, 0.1)
            self._break_claim(claim)
        try:
            return None if self.look(name) else self.put(name, data)
        finally:
            self.sweep(claim)

    @staticmethod
    def _create(path: str) -> bool:
        """Whether this call made the file."""
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            return False
        with suppress(OSError):  # it is there, and has nothing to be written
            os.close(descriptor)
        return True

    def _break_claim(self, claim: str) -> None:
        """Remove the claim if it is too old. One at a time looks and removes, or else what the
        second one removes is the claim of somebody who came after the first."""
        if not self._old(claim):
            return
        breaking = f"{claim}-breaking"
        if not self._create(breaking):
            if self._old(breaking):
                self.sweep(breaking)  # who made it has crashed
        else:
            try:
                if self._old(claim):
                    self.sweep(claim)
            finally:
                self.sweep(breaking)

    def _old(self, claim: str) -> bool:
        # Revalidated, for stat may answer with the attributes of an earlier claim.
        self._revalidate(os.path.dirname(claim))
        try:
            # The mtime of a file made with O_EXCL is, until the client has set it, a number that
            # tells a repeated call from another's (RFC 1813, 3.3.8). A lost client leaves it so.
            return self.clock() - os.stat(claim).st_ctime_ns > _CLAIM_NS
        except FileNotFoundError:
            return False

    def take(self, name: str) -> str | None:
        """Rename the file of this digest to a private name, which is returned, None if it has no
        file. Of any number of callers on any hosts exactly one gets it.

        The caller goes on with ``read_taken``, and ends with ``discard`` or ``give_back``. After
        UncertainWriteError the file may be under the private name, from where ``repair`` gives it
        back.
        """
        path = self.path_of(name)
        shard = os.path.dirname(path)
        private = os.path.join(shard, f"{_TAKEN}{name}-{os.urandom(12).hex()}")
        for _ in range(2):
            try:
                self._again(lambda path: os.rename(path, private), path)
                return private
            except FileNotFoundError:
                found = self._look_again(path)
                if self._is_there(private):
                    return private  # it was carried out, the reply was lost
                if not found:
                    return None
            except OSError as error:
                if error.errno in REFUSED:
                    raise
                if self._is_there(private):
                    return private
                raise UncertainWriteError(error.errno, error.strerror, path) from error
        return None

    def read_taken(self, private: str) -> Content | OSError | None:
        """The content of a file that was taken; see ``read``. OSError if that can't be told."""
        self._relearn(private)
        [content] = self.read([private])
        return content

    def discard(self, private: str) -> None:
        """Remove a file that was taken, durably. OSError if it is still there.

        One that may come back after a power cut is logged: its value has but this one taker.
        """
        try:
            self.sweep(private)
        except OSError:
            if self._is_there(private):
                raise
        for _, uncertain in self._settle([(private, os.path.dirname(private))]):
            log.warning("%s may come back after a power cut: %s", private, uncertain)

    def give_back(self, private: str) -> None:
        """Put a file that was taken back under its key, unless a newer one is there.

        Nothing if the file is gone: somebody else gave it back, or its taker has finished.
        """
        self._put_back(private, self.path_of(os.path.basename(private)[len(_TAKEN) :][:64]))

    def _put_back(self, private: str, path: str) -> None:
        self._relearn(private)
        try:
            os.link(private, path)
        except FileExistsError:
            pass
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if not self.look(self.digest_of(path)):
                os.rename(private, path)
        self.sweep(private)
        if self._durable:
            self._sync_directory(os.path.dirname(path))

    @staticmethod
    def taken(path: str) -> bool:
        """Whether a temporary file is one that was taken, and holds a value."""
        return os.path.basename(path).startswith(_TAKEN)
