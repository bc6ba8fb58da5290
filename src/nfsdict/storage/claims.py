"""Claims: files that whoever creates them first holds, until they expire."""

from __future__ import annotations

import os
import stat
from contextlib import suppress

from .files import Files
from .nfs import NfsRules


class Claims:
    """One holder at a time, on any hosts. Ages in ns, by the server's clock."""

    def __init__(self, rules: NfsRules, files: Files) -> None:
        self._rules = rules
        self._files = files

    def try_claim(self, path: str) -> bool:
        """Whether this call made the claim. It is given up by ``Files.sweep``."""
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            return False
        with suppress(OSError):  # it is there, and has nothing to be written
            os.close(descriptor)
        return True

    def break_old(self, claim: str, age: int) -> None:
        """Remove the claim if it is older than this, or no file.

        One at a time looks and removes, or else what the second one removes is the claim of
        somebody who came after the first.
        """
        if not self._old(claim, age):
            return
        breaking = f"{claim}-breaking"
        if not self.try_claim(breaking):
            if self._old(breaking, age):
                self._files.sweep(breaking)  # who made it has crashed
        else:
            try:
                if self._old(claim, age):
                    self._files.sweep(claim)
            finally:
                self._files.sweep(breaking)

    def _old(self, claim: str, age: int) -> bool:
        # Revalidated, for stat may answer with the attributes of an earlier claim.
        self._rules.revalidate(os.path.dirname(claim))
        try:
            status = os.lstat(claim)
        except FileNotFoundError:
            return False
        # The mtime of a file made with O_EXCL is, until the client has set it, a number that
        # tells a repeated call from another's (RFC 1813, 3.3.8). A lost client leaves it so.
        if not stat.S_ISREG(status.st_mode):
            return True
        return self._files.probe_clock() - status.st_ctime_ns > age
