"""What it costs to list a large shard over NFS, with the attributes of its files and without.

It runs in the laboratory's guest (see tests/lab). Eight directories of so many empty files with
value files' names are listed, cold (the client was just mounted) and warm (it knows all files; its
pages of the directory are dropped, as for each listing). Once by the core, which asks for the
attributes of each entry, and once for names and inode numbers alone. Calls and bytes in both
directions are from /proc/self/mountstats.

Only attributes prove that a file is still the same: the inode's number comes again.
"""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial
from pathlib import Path

from in_guest import run_in_guest
from lab.configuration import Configuration
from lab.laboratory import Bench, Lab
from nfsdict.core import list_directory
from timing import table

VERSIONS = ("3", "4.2")
SHARDS = 8


def traffic(mount: str) -> tuple[int, int]:
    """Calls and bytes of this mount so far."""
    here = operations = False
    calls = size = 0
    for line in Path("/proc/self/mountstats").read_text().splitlines():
        if line.startswith("device "):
            here, operations = f" mounted on {mount} with fstype nfs" in line, False
        elif here and "per-op statistics" in line:
            operations = True
        elif here and operations and ":" in line:
            numbers = [int(number) for number in line.split(":")[1].split()]
            calls += numbers[0]
            size += numbers[3] + numbers[4]
    return calls, size


def attributes(path: Path) -> int:
    found = list_directory(str(path), 1)
    assert isinstance(found, tuple)
    return len(found[2])


def names(path: Path) -> int:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        return len(os.listdir(descriptor))
    finally:
        os.close(descriptor)


def rows_of(lab: Lab, files: int) -> list[list[str]]:
    rows = []
    for options in ("", "nordirplus"):
        for listed in (attributes, names):
            cells = []
            lab.remount("a", options)
            for _ in ("cold", "warm"):
                before = traffic("/mnt/a")
                for number in range(SHARDS):
                    assert listed(lab.a / f"{number:02x}") == files
                calls, size = (now - then for now, then in zip(traffic("/mnt/a"), before))
                cells += [f"{calls / SHARDS:.0f}", f"{size / SHARDS / 1024:.0f} KiB"]
            version = f"v{lab.configuration.version}"
            rows.append([version, options or "defaults", listed.__name__, *cells])
    return rows


def inside(files: int) -> None:
    bench = Bench()
    rows = []
    for version in VERSIONS:
        with bench.lab(Configuration(version=version, size_mb=512)) as lab:
            for number in range(SHARDS):
                shard = lab.server / f"{number:02x}"
                shard.mkdir()
                for file in range(files):
                    (shard / f"{number:02x}{file:062x}.pkl").touch()
            rows += rows_of(lab, files)
    print(table(["NFS", "mounted", "listed", "cold: calls", "bytes", "warm: calls", "bytes"], rows))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=4000, help="in a directory (%(default)s)")
    options = parser.parse_args()
    return run_in_guest(partial(inside, options.files), 1200)


if __name__ == "__main__":
    sys.exit(main())
