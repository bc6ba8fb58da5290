"""Exclusive: create once, take once. Of any number of callers on any hosts exactly one wins.

The server decides who gets a name, in one call (``link`` or ``rename``).
"""

from __future__ import annotations

import errno
import logging
import os
import time
from contextlib import suppress
from typing import Any

from ..content import Content
from ..errors import UncertainWriteError, failure
from ..layout import (
    claim_path,
    damaged_path,
    digest_of,
    inode_of,
    is_private,
    named_path,
    private_path,
    same_but_for_ctime,
    signature_of,
)
from .claims import PROMPT, Claims
from .coherence import Coherence
from .files import Files, Found
from .passing import PAUSES, TRIES
from .refusals import NO_LINKS, REFUSED
from .values import Prepared, ValueFiles

log = logging.getLogger("nfsdict")

# Errors of systems and file systems whose rename takes no flags.
_NO_FLAGS = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
_NOREPLACE = 1
# Of a claim by which an ``add`` makes two calls: whoever holds one for longer has crashed.
_CLAIM_SECONDS = 2 * PROMPT
_STILL_OPEN = (
    "No entry, but its name isn't free while a process, most likely of this host, keeps the file "
    "open that was removed: end that process, or try again later"
)


# The module; None before it was asked for, False where it can't be had.
_ctypes: Any = None


def _load_ctypes() -> None:
    """For ``rename_exclusively``, before anything is taken: the thread that puts it back could wait
    for a lock of the import system, which the thread that waits for it may hold."""
    global _ctypes
    if _ctypes is None:
        _ctypes = False
        with suppress(ImportError):  # a Python that was built without libffi
            import ctypes  # takes time to load, and few programs need it

            if hasattr(ctypes, "CDLL"):  # else this call has interrupted the program's own import
                _ctypes = ctypes


def rename_exclusively(source: str, target: str) -> None:
    """rename(2) with RENAME_NOREPLACE: FileExistsError where there is a target already.

    OSError with ENOSYS where the C library has no such call, or can't be called; EINVAL where the
    file system refuses it: NFS does, FAT, SMB and most local ones don't.
    """
    library = _ctypes and _ctypes.CDLL(None, use_errno=True)
    call = getattr(library, "renameat2", None)
    if call is None:
        raise failure(errno.ENOSYS, source)
    current = _ctypes.c_int(-100)  # AT_FDCWD
    names = map(os.fsencode, (source, target))
    if call(current, next(names), current, next(names), _ctypes.c_uint(_NOREPLACE)):
        raise failure(_ctypes.get_errno(), target)


class Exclusive:
    """Operations on value files in which exactly one caller wins. Safe for threads."""

    def __init__(self, rules: Coherence, files: Files, values: ValueFiles, claims: Claims) -> None:
        self._rules = rules
        self._files = files
        self._values = values
        self._claims = claims
        self._links: bool | None = None  # the answer of _has_links, once it is known

    def add(self, hexdigest: str, data: Content) -> bytes | None:
        """Create this digest's file and return its signature; None if the digest has a file.

        Of any number of callers on any hosts exactly one gets a signature: ``link`` fails if the
        name exists (open(2), at O_EXCL, recommends it on NFS). Raises what ``ValueFiles.put``
        raises; and OSError with EBUSY where the digest has no file, but the name isn't free, as the
        file that was removed is still open somewhere.
        """
        lost: OSError
        for number in range(TRIES):
            if not self._has_links():
                return self._add_by_claim(hexdigest, data)
            result = self._values.write_new(hexdigest, data)
            if isinstance(result, bytes):
                return result
            if result.errno in NO_LINKS and not isinstance(result, UncertainWriteError):
                self._links = False
                self._tell_of_claims()
                continue
            if not isinstance(result, FileExistsError):
                raise result
            lost = result
            # The client may remember a file that another host has removed.
            if self._values.look(hexdigest):
                return None
            if self._rules.kind.asks_by_handles and number < len(PAUSES):
                time.sleep(PAUSES[number])
        if self._rules.kind.asks_by_handles:
            raise OSError(errno.EBUSY, _STILL_OPEN, self._values.path_of(hexdigest))
        raise lost

    def _has_links(self) -> bool:
        """Whether hard links are made here, and are links.

        Where that isn't known of the file system, two files in the store's directory tell, once:
        sshfs makes links that look like copies, so that nobody can tell who has made one. OSError
        if it can't be told now: of two that ``add`` in different ways both may win.
        """
        if self._links is None:
            self._links = self._rules.kind.trusted or self._files.can_link()
            if not self._links:
                self._tell_of_claims()
        return self._links

    def _tell_of_claims(self) -> None:
        log.info("%s: hard links are refused, so add goes by claims", self._files.directory)

    def _add_by_claim(self, hexdigest: str, data: Content) -> bytes | None:
        """``add`` where hard links are refused, or copies: the holder of the key's claim looks, and
        gives the file that it wrote before its name.

        Only one ``add`` wins. But what another process puts under the same key between this look
        and the rename is overwritten. A claim older than ``_CLAIM_SECONDS`` by the server's clock
        counts as left by a crash. If a holder stood still for ``PROMPT``, as when it was suspended
        or the server unreachable, also before it learnt that it has the claim, another one may have
        won as well: UncertainWriteError.
        """
        prepared = self._values.to_prepare([(hexdigest, data)])
        result: bytes | OSError | None = None
        try:
            if not self._values.look(hexdigest):
                self._values.prepare(prepared)
                result = self._publish_by_claim(hexdigest, prepared)
        finally:
            if result is None:
                self._values.discard(prepared)
        if isinstance(result, OSError):
            raise result
        return result

    def _publish_by_claim(self, hexdigest: str, prepared: Prepared) -> bytes | OSError | None:
        path = self._values.path_of(hexdigest)
        claim = claim_path(path)
        asked = self._wait_for_claim(hexdigest, claim)
        if asked is None:
            return None
        try:
            if self._values.look(hexdigest):
                return None
            [result] = self._values.publish(prepared)
        finally:
            late = time.monotonic() - asked > PROMPT
            if not late:  # else it may be another one's by now, and runs out by itself
                self._files.sweep(claim)
        if late and isinstance(result, bytes):
            told = "this add stood still, so another one may have created the entry meanwhile"
            return UncertainWriteError(errno.ETIMEDOUT, told, path)
        return result

    def _wait_for_claim(self, hexdigest: str, claim: str) -> float | None:
        """Make the claim. The moment before the server was asked for it, by ``monotonic``, as the
        claim may be older than the reply; None if this digest has a file.
        """
        if not self._files.is_there(os.path.dirname(claim)):
            self._files.make_directory(os.path.dirname(claim))
        pause = 0.001
        while True:
            asked = time.monotonic()
            if self._claims.try_claim(claim):
                return asked
            if self._values.look(hexdigest):
                return None
            time.sleep(pause)
            pause = min(2 * pause, 0.1)
            self._claims.break_old(claim, _CLAIM_SECONDS * 1_000_000_000)

    def _rename(self, source: str, target: str) -> None:
        """Rename a file to a name that nobody else uses. FileNotFoundError if another host has done
        so first, also where the system says that both have (see ``Kind.renames_twice``)."""
        os.rename(source, target)
        if self._rules.kind.renames_twice:
            self._rules.look_up_anew(target)
            if not self._files.is_there(target):
                raise failure(errno.ENOENT, source)

    def _has_arrived(self, target: str) -> bool:
        """Whether a rename to this name, which told of an error, was carried out."""
        if self._rules.kind.waits_for_renames:
            directory, name = os.path.split(target)
            return name in os.listdir(directory)
        return self._files.is_there(target)

    def take(self, hexdigest: str, private: str) -> bool:
        """Rename the file of this digest to a private name. False if the digest has no file.

        Of any number of callers on any hosts exactly one gets the file. It then calls
        ``read_taken``, and in the end ``discard`` or ``give_back``. After UncertainWriteError the
        file may be under the private name; ``repair`` gives it back from there.
        """
        _load_ctypes()
        path = self._values.path_of(hexdigest)
        for _ in range(2):
            try:
                self._rules.retry_stale(lambda path: self._rename(path, private), path)
                return True
            except FileNotFoundError:
                found = self._rules.revalidate_parent(path)
                if self._has_arrived(private):
                    return True  # our rename was carried out and its reply lost
                if not found or self._rules.kind.waits_for_renames:
                    return False
            except OSError as error:
                refused = error.errno in REFUSED
                if refused and self._rules.kind.trusted:
                    raise failure(error.errno or errno.EIO, path) from error
                if self._has_arrived(private):
                    return True
                if refused and self._files.is_there(path):
                    raise failure(error.errno or errno.EIO, path) from error
                raise UncertainWriteError(error.errno, error.strerror, path) from error
        return False

    def read_taken(self, private: str) -> Found | None:
        """The content of a file that was taken, None if it is gone. OSError if it can't be read, as
        with ESTALE if the client goes on with a file that was replaced: see ``coherence``."""
        if not self._rules.refresh_dentry(private):
            raise failure(errno.ESTALE, named_path(private))
        [content] = self._files.read_paths([private])
        if isinstance(content, OSError):
            number = content.errno or errno.EIO
            raise failure(number, named_path(private))
        return content

    def discard(self, private: str) -> None:
        """Remove a file that was taken, durably. OSError if it is still there.

        FileNotFoundError if it was gone already: another process's ``repair`` gave it back, or our
        own unlink was carried out and its reply lost. If only the fsync fails, the file may come
        back after a power cut. That is logged and not raised, as its only taker needs the value.
        """
        self._sweep_other_names(private)
        try:
            self._files.remove(private)
        except FileNotFoundError:
            raise
        except OSError:
            if self._files.is_there(private):
                raise
        for _, uncertain in self._files.sync_parents([(private, os.path.dirname(private))]):
            log.warning(
                "%s may come back after a power cut: %s; if repair() gives it back, delete its key",
                private,
                uncertain,
            )

    def _sweep_other_names(self, private: str) -> None:
        """Remove other private names of this file.

        A crash in the middle of ``give_back`` leaves them. If they stayed, a later ``repair`` would
        give the file back by such a name, though it was taken since.
        """
        try:
            status = self._files.lstat(private)
        except OSError:
            return  # the caller's unlink raises the error
        if status.st_nlink < 2:
            return
        shard = os.path.dirname(private)
        for name, _, signature, _ in self._rules.list(shard)[2]:
            other = os.path.join(shard, name)
            if (
                inode_of(signature) == status.st_ino
                and is_private(other)
                and named_path(other) == named_path(private)
                and other != private
            ):
                self._files.sweep(other)

    def give_back(self, private: str, mine: str | None = None) -> bool:
        """Put a file that was taken back under its key. If the key has a newer file, that stays.

        False, with nothing done, if the private name is gone: another process gave the file back,
        or its taker has finished. Of several who give it back exactly one goes on, as each first
        renames the file, to its own ``mine``. After an interruption, call again with the same name.
        """
        path = named_path(private)
        mine = mine or private_path(path)
        try:
            self._rules.retry_stale(lambda path: self._rename(path, mine), private)
        except FileNotFoundError:
            if not self._has_arrived(mine):
                return False
        self._put_back(mine, path)
        return True

    def _put_back(self, private: str, path: str) -> None:
        """Give the private file its path, in one call if the file system has one for that.

        With two calls (link and unlink) a crash between them leaves the private name beside the
        path. A later ``repair`` would then bring the entry back, though it was removed since. A
        taker removes such names (``discard``); over NFS a ``del`` or a put doesn't.
        """
        _load_ctypes()
        if self._rules.refresh_dentry(private):
            try:
                rename_exclusively(private, path)
            except FileExistsError:
                self._files.sweep(private)
            except OSError as error:
                if error.errno not in _NO_FLAGS:
                    raise
                self._put_back_by_link(private, path)
        else:  # a link would bring back the file that was replaced; a rename goes by the name
            self._put_back_by_rename(private, path)
        if self._files.durable:
            self._files.sync_directory(os.path.dirname(path))

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
            self._put_back_by_rename(private, path)
            return
        self._files.sweep(private)

    def _put_back_by_rename(self, private: str, path: str) -> None:
        """A put between the look and the rename is lost, as in ``_add_by_claim``."""
        if not self._values.look(digest_of(path)):
            os.rename(private, path)
        self._files.sweep(private)

    def quarantine(self, path: str, signature: bytes) -> str | None:
        """Rename a value file to a name beside it that no scan takes, and return that path.

        Scans of release 0.2.1 don't take it either. Returns None if the file has another signature,
        as it was replaced then. If it was replaced between the look and the rename, it is put back.
        """
        if self._values.look(digest_of(path)) != signature:
            return None
        aside = damaged_path(path)
        try:
            os.rename(path, aside)
        except FileNotFoundError:
            return None
        known = self._rules.refresh_dentry(aside)
        now = self._rules.mounted.signed(signature_of(self._files.lstat(aside)))
        if known and same_but_for_ctime(now, signature):
            return aside
        self._put_back(aside, path)
        return None
