"""Claims: files that whoever creates them first holds, until they expire."""

from __future__ import annotations

import errno
import logging
import os
import stat
import time

from ..layout import signature_of
from ..opening import with_open
from .coherence import Coherence
from .files import Files
from .passing import TRIES

log = logging.getLogger("nfsdict")

PROMPT = 15
"""seconds within which who holds a claim acts by it: later it may be another one's. Claims are
broken at twice that age, or later"""


class Claims:
    """Each claim has one holder at a time, among all hosts. Ages in ns, by the server's clock.

    Where hosts set times by their own clocks, a claim is as old as it was seen here without a
    change: one that a crash has left stays until a process lives for longer than that. Safe for
    threads.
    """

    def __init__(self, rules: Coherence, files: Files) -> None:
        self._rules = rules
        self._files = files
        # Of claims that were met: their signatures, and when each was first seen.
        self._seen: dict[str, tuple[bytes, int]] = {}

    def try_claim(self, path: str) -> bool:
        """Whether this call made the claim. Its holder gives it up with ``Files.sweep``."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        for _ in range(TRIES):
            made: list[int] = []
            try:
                with_open(path, flags, made.append)
                return True
            except FileExistsError:
                return False
            except PermissionError as error:
                # SFTP has no error for a name that is there (draft-ietf-secsh-filexfer-02,
                # SSH_FX_FAILURE); sshfs makes EPERM of it.
                if error.errno != errno.EPERM:
                    raise
                if self._files.is_there(path):
                    return False
                refusal: OSError = error  # or its holder has just given it up
            except FileNotFoundError as error:
                # 9p's client finds the name, and then asks for the attributes of a file that its
                # holder has removed meanwhile (fs/9p/vfs_inode.c, v9fs_vfs_lookup).
                if self._rules.revalidate(os.path.dirname(path)) is None:
                    raise
                refusal = error
            except OSError:
                if not made:
                    raise
                return True  # only closing failed: the file exists, and has no content to lose
        raise refusal

    def break_old(self, claim: str, age: int) -> None:
        """Remove the claim if it is older than ``age``, or isn't a regular file.

        Only one process at a time checks the age and removes. If two did, the second could remove
        the claim that a new holder had made after the first removal. One that stood still for
        ``PROMPT`` removes nothing, as another may be at it by then.
        """
        if not self._old(claim, age):
            return
        log.info("%s: removing this claim, which a crash has left", claim)
        breaking = f"{claim}-breaking"
        asked = time.monotonic()
        if not self.try_claim(breaking):
            if self._old(breaking, age):
                self._files.sweep(breaking)  # its maker has crashed
        else:
            try:
                if self._old(claim, age) and time.monotonic() - asked < PROMPT:
                    self._files.sweep(claim)
            finally:
                if time.monotonic() - asked < PROMPT:  # else it may be another one's by now
                    self._files.sweep(breaking)

    def _old(self, claim: str, age: int) -> bool:
        # Without revalidation lstat may answer with the attributes of an earlier claim.
        self._rules.revalidate(os.path.dirname(claim))
        try:
            status = os.lstat(claim)
        except FileNotFoundError:
            return False
        if not stat.S_ISREG(status.st_mode):
            return True
        if not self._rules.mounted.one_clock:
            return self._seen_for(claim, signature_of(status)) > age
        # The ctime, as the mtime may be no time: an NFS server may keep there, until the client
        # has set it, the number by which it recognizes a repeated O_EXCL call (RFC 1813, 3.3.8).
        # If the client is lost, that number stays.
        return self._files.probe_clock() - status.st_ctime_ns > age

    def _seen_for(self, claim: str, signature: bytes) -> int:
        """For how long, in ns, the claim was seen with this signature."""
        now = time.monotonic_ns()
        seen = self._seen.get(claim)
        if seen is None or seen[0] != signature:
            seen = self._seen[claim] = (signature, now)
        return now - seen[1]
