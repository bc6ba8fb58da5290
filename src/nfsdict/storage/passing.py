"""Errors that pass: stale handles and leases. The call is repeated from the path."""

from __future__ import annotations

import errno
import logging
import os
import stat
import time
from typing import Callable, Protocol, TypeVar

from ..counters import Counters
from ..opening import with_open
from .directories import READ_FLAGS
from .file_systems import Kind

T = TypeVar("T")

log = logging.getLogger("nfsdict")

_LEASED = (errno.EAGAIN, errno.EWOULDBLOCK)
# The holder of a lease has 45 s to give it back (/proc/sys/fs/lease-break-time), an NFS client that
# holds a delegation the server's lease time, 90 s by default. Twice that, as another holder may
# follow.
_LEASE_SECONDS = 180
# A file that is replaced without pause can be stale at each try. So many in a row are no accident.
TRIES = 20
PAUSES = tuple(0.001 * 1.5**number for number in range(16))
"""seconds to wait between tries of what other hosts, or the server, will let be done soon: 1.3 in
all"""


class Rules(Protocol):
    """The rules of a store: see ``coherence``."""

    counters: Counters

    @property
    def kind(self) -> Kind: ...

    def look_up_anew(self, path: str) -> None: ...


def retry_stale(rules: Rules, call: Callable[[str], T], path: str) -> T:
    """The call's result for this path; the call is repeated while it meets a stale handle, or
    another error that passes (see ``Kind.passing``).

    Before each repetition the path is looked up anew: until then the client of NFSv4.1 and later
    goes on using the stale handle. If the file is under a lease, this waits for it.
    """
    number = 0
    while True:
        try:
            result = call(path)
            break
        except OSError as error:
            if number == TRIES - 1 or not passes(rules, error.errno, path, number):
                raise
            number += 1
    if number:
        tell_of_retries(number, path)
    return result


def tell_of_retries(times: int, path: str) -> None:
    """Log that a call was repeated so many times."""
    log.info("%s: tried again %d times after an error that passes, as a stale handle", path, times)


def passes(rules: Rules, number: int | None, path: str, tries: int) -> bool:
    """Whether to try again after this errno and so many earlier tries. Prepares for that."""
    stale = number in rules.kind.passing
    if not stale and not _lease_ended(number, path):
        return False
    rules.counters.retries += 1
    if not stale:
        return True
    rules.counters.stale_handles += 1
    # Looked up within one tick of a change the path may stay stale, so later tries first wait for
    # the tick to pass.
    if tries > 2:
        time.sleep(rules.kind.seconds / TRIES)
    rules.look_up_anew(path)
    return True


def _lease_ended(number: int | None, path: str) -> bool:
    """If this errno means that the file is under a lease, wait until the lease has ended.

    True if the caller may try again. False for other errnos, if the file isn't a regular one, and
    after ``_LEASE_SECONDS``. Opening the file with O_NONBLOCK makes the system ask the holder for
    the lease. Other errors end the wait: the caller's next try meets them.
    """
    if number not in _LEASED:
        return False
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return False
    except OSError:
        return True
    begun = time.monotonic()
    pause = 0.001
    while time.monotonic() < begun + _LEASE_SECONDS:
        time.sleep(pause)
        pause = min(2 * pause, 0.1)
        try:
            with_open(path, READ_FLAGS, os.fstat)
        except OSError as error:
            if error.errno in _LEASED:
                continue
        waited = time.monotonic() - begun
        log.info("%s: waited %.1f s for another client's lease on it", path, waited)
        return True
    return False
