"""Counts the calls that a client's mount has sent, by operation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# By which a client tells its server that it is alive, and after a lost lease that it is again. They
# come by the clock, on a machine that has other work.
OF_THE_CLIENT = {
    *("RENEW", "SEQUENCE", "GET_LEASE_TIME", "SETCLIENTID", "SETCLIENTID_CONFIRM"),
    *("EXCHANGE_ID", "CREATE_SESSION", "DESTROY_SESSION", "RECLAIM_COMPLETE"),
}


class Rpcs(dict[str, int]):
    """Calls by operation (`LOOKUP`, `OPEN`, ..., as nfsstat(8) names them), without 0s."""

    @property
    def total(self) -> int:
        return sum(self.values())


def sent(mount: Path) -> Rpcs:
    """Every call that the mount at *mount* completed so far, from /proc/self/mountstats.

    The kernel keeps these numbers for each mount, so they are exact, and reading them sends
    nothing. Recalls belong to no mount and are not among them, nor are calls about the client's
    own lease.
    """
    counts = Rpcs()
    here = operations = False
    for line in Path("/proc/self/mountstats").read_text().splitlines():
        if line.startswith("device "):
            here = f" mounted on {mount} with fstype nfs" in line
            operations = False
        elif here and line.strip() == "per-op statistics":
            operations = True
        elif here and operations and ":" in line:
            name, numbers = line.split(":")
            if name.strip() not in OF_THE_CLIENT:
                counts[name.strip()] = int(numbers.split()[0])
    if not counts:
        raise ValueError(f"no NFS mount at {mount}")
    return counts


@contextmanager
def counted(mount: Path) -> Iterator[Rpcs]:
    """The calls that *mount* sends inside the `with`; filled in when it is left."""
    difference = Rpcs()
    before = sent(mount)
    try:
        yield difference
    finally:  # a call that fails is counted too
        for name, number in sent(mount).items():
            if number != before.get(name, 0):
                difference[name] = number - before.get(name, 0)
