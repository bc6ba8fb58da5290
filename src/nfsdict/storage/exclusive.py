"""Exclusive: create once, take once. Of any number of callers on any hosts exactly one wins."""

from __future__ import annotations

import errno
import logging
import os
import stat
import time
from contextlib import suppress

from ..content import Content
from ..errors import UncertainWriteError
from .nfs import TEMPORARY, TRIES, failure
from .values import NO_LINKS, PRIVATE, REFUSED, Files, Found

log = logging.getLogger("nfsdict")

# What systems and file systems without flags for rename answer.
_NO_FLAGS = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
_NOREPLACE = 1
_CLAIM_NS = 600_000_000_000
# Of a claim on the index: to be wrong about one costs but time.
INDEX_CLAIM_NS = 60_000_000_000


def rename_exclusively(source: str, target: str) -> None:
    """rename(2) with RENAME_NOREPLACE: FileExistsError where there is a target already.

    OSError with ENOSYS where the C library has no such call, EINVAL where the file system refuses
    it: NFS does, FAT, SMB and most local ones don't.
    """
    import ctypes  # takes time to load, and is needed nearly nowhere

    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        raise failure(errno.ENOSYS, source)
    current = ctypes.c_int(-100)  # AT_FDCWD
    names = map(os.fsencode, (source, target))
    if call(current, next(names), current, next(names), ctypes.c_uint(_NOREPLACE)):
        raise failure(ctypes.get_errno(), target)


class Exclusive(Files):
    """What one caller wins. A contest over a name is decided by the server, in one call."""

    def add(self, name: str, data: Content) -> bytes | None:
        """Give this digest its file and return the signature, unless it has one: then None.

        Of any number of callers on any hosts exactly one gets a signature: ``link`` fails where
        there is a name (open(2), at O_EXCL, recommends it on NFS). Errors as of ``put``.
        """
        files: list[tuple[str, Content]] = [(self.path_of(name), data)]
        lost: OSError
        for _ in range(TRIES):
            [result] = self.retry_writes(files, self.write_once(files, True), True)
            if isinstance(result, bytes):
                return result
            if result.errno in NO_LINKS and not isinstance(result, UncertainWriteError):
                return self._add_by_claim(name, data)
            if not isinstance(result, FileExistsError):
                raise result
            lost = result
            # The client may remember a file that another host has removed.
            if self.look(name):
                return None
        raise lost

    def _add_by_claim(self, name: str, data: Content) -> bytes | None:
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

    def _break_claim(self, claim: str, age: int = _CLAIM_NS) -> None:
        """Remove the claim if it is older than this, or no file.

        One at a time looks and removes, or else what the second one removes is the claim of
        somebody who came after the first.
        """
        if not self._old(claim, age):
            return
        breaking = f"{claim}-breaking"
        if not self._create(breaking):
            if self._old(breaking, age):
                self.sweep(breaking)  # who made it has crashed
        else:
            try:
                if self._old(claim, age):
                    self.sweep(claim)
            finally:
                self.sweep(breaking)

    def _old(self, claim: str, age: int) -> bool:
        # Revalidated, for stat may answer with the attributes of an earlier claim.
        self._revalidate(os.path.dirname(claim))
        try:
            status = os.lstat(claim)
        except FileNotFoundError:
            return False
        # The mtime of a file made with O_EXCL is, until the client has set it, a number that
        # tells a repeated call from another's (RFC 1813, 3.3.8). A lost client leaves it so.
        return not stat.S_ISREG(status.st_mode) or self.clock() - status.st_ctime_ns > age

    def take(self, name: str, private: str) -> bool:
        """Rename the file of this digest to a private name. Whether it had one.

        Of any number of callers on any hosts exactly one gets it. The caller goes on with
        ``read_taken``, and ends with ``discard`` or ``give_back``. After UncertainWriteError the
        file may be under the private name, from where ``repair`` gives it back.
        """
        path = self.path_of(name)
        for _ in range(2):
            try:
                self.retry_stale(lambda path: os.rename(path, private), path)
                return True
            except FileNotFoundError:
                found = self.revalidate_parent(path)
                if self._is_there(private):
                    return True  # it was carried out, the reply was lost
                if not found:
                    return False
            except OSError as error:
                refused = error.errno in REFUSED
                if refused and self._trusted():
                    raise
                if self._is_there(private):
                    return True
                if refused and self._is_there(path):
                    raise
                raise UncertainWriteError(error.errno, error.strerror, path) from error
        return False

    def read_taken(self, private: str) -> Found | None:
        """The content of a file that was taken, None if it is gone. OSError if it can't be read."""
        self.refresh_dentry(private)
        [content] = self.read([private])
        if isinstance(content, OSError):
            number = content.errno or errno.EIO
            raise failure(number, self.path_of(self._digest_of_taken(private)))
        return content

    def discard(self, private: str) -> None:
        """Remove a file that was taken, durably. OSError if it is still there.

        FileNotFoundError if it was gone: somebody's repair gave it back meanwhile, or our own
        call was carried out and its reply lost. One that may come back after a power cut is logged:
        its value has but this one taker.
        """
        self._sweep_other_names(private)
        try:
            os.unlink(private)
        except FileNotFoundError:
            raise
        except OSError:
            if self._is_there(private):
                raise
        for _, uncertain in self.sync_parents([(private, os.path.dirname(private))]):
            log.warning("%s may come back after a power cut: %s", private, uncertain)

    def _sweep_other_names(self, private: str) -> None:
        """Remove other private names of this file. A crash between giving it back and the end of
        that has left them, and a later repair would give back by them what has been taken since."""
        try:
            status = os.lstat(private)
        except OSError:
            return  # what follows tells
        if status.st_nlink < 2:
            return
        shard = os.path.dirname(private)
        prefix = PRIVATE + self._digest_of_taken(private)
        for name, _, signature, _ in self.retry_stale(self._listed, shard)[2]:
            path = os.path.join(shard, name)
            same = int.from_bytes(signature[:8], "little") == status.st_ino
            if same and name.startswith(prefix) and path != private:
                self.sweep(path)

    def give_back(self, private: str, mine: str | None = None) -> bool:
        """Put a file that was taken back under its key, unless a newer one is there.

        False, and nothing done, if the file is gone: somebody else gave it back, or its taker has
        finished. Of these exactly one goes on, for it is renamed first, to ``mine``: who was
        interrupted calls this again with the same name.
        """
        name = self._digest_of_taken(private)
        mine = mine or self.private_name(name)
        try:
            self.retry_stale(lambda path: os.rename(path, mine), private)
        except FileNotFoundError:
            if not self._is_there(mine):
                return False
        self._put_back(mine, self.path_of(name))
        return True

    def _put_back(self, private: str, path: str) -> None:
        """In one call where the file system can: a crash between two leaves a private name of a
        file that is back, by which a later ``repair`` would revive what was removed since. A taker
        sweeps that (``discard``); over NFS a ``del`` or a put doesn't."""
        self.refresh_dentry(private)
        try:
            rename_exclusively(private, path)
        except FileExistsError:
            self.sweep(private)
        except OSError as error:
            if error.errno not in _NO_FLAGS:
                raise
            self._put_back_by_link(private, path)
        if self._durable:
            self._sync_directory(os.path.dirname(path))

    def _put_back_by_link(self, private: str, path: str) -> None:
        try:
            os.link(private, path)
        except FileExistsError:
            pass
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            # Neither flags nor links: a put between look and rename is lost here, as to ``add``.
            if not self.look(self.digest_of(path)):
                os.rename(private, path)
        self.sweep(private)

    @staticmethod
    def _digest_of_taken(private: str) -> str:
        return os.path.basename(private)[len(PRIVATE) :][:64]

    @staticmethod
    def taken(path: str) -> bool:
        """Whether a temporary file is one that was taken, and holds a value."""
        return os.path.basename(path).startswith(PRIVATE)

    def taken_here(self, path: str) -> bool:
        """Whether a file that was taken is of this extension: others are left to their own."""
        name = os.path.basename(path)
        return name[len(PRIVATE) + 64 : -len("-") - 24] == self.extension
