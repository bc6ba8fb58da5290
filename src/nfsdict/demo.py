"""The main job on real input: the standard library, written by four processes, one of them killed.

Each process takes every fourth source file of the running Python and stores it. Once one of them
has had half of its writes acknowledged it is killed with SIGKILL and started again; it goes on with
what is missing. A fresh process then opens the store and compares every value with its file.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Union

from . import BACKEND, NfsDict, __version__

NAME = "demo"
PROCESSES = 4
SHOWN = 10  # mismatches printed one by one
Location = Union[str, "os.PathLike[str]"]


class Written(NamedTuple):
    """What the processes did."""

    seconds: float
    killed: int  # the killed process's exit status, the signal's number negated
    acknowledged: int  # its writes up to then
    share: int  # the writes it was given
    found: int  # its files that the store already had when it was started again
    resumed: int  # its files that it wrote after that


def run(directory: Location | None = None, root: Location | None = None) -> int:
    """Run the demo, print a short table, and return 0, or 1 if anything isn't as it should be.

    The store is made in `directory` and stays there; FileExistsError if there is one already.
    Without `directory` a temporary one is used and removed. `root` is the tree of sources to store,
    by default the running Python's standard library.
    """
    if directory is None:
        with tempfile.TemporaryDirectory(prefix="nfsdict-demo-") as temporary:
            return run(temporary, root)
    place = Path(directory) / NAME
    if place.exists():
        raise FileExistsError(f"{place} is there already; remove it or name another directory")
    root = root or sysconfig.get_path("stdlib")
    files = list(sources(root))
    if len(files) < 2 * PROCESSES:
        raise FileNotFoundError(f"too few Python sources in {root} to show anything")

    os.makedirs(directory, exist_ok=True)  # if that fails, better here than in each process
    print(f"nfsdict {__version__}, {BACKEND} core, {platform.python_implementation()}", end=" ")
    print(f"{platform.python_version()}\nsources     {root}\nstore       {place}\n")
    written = write(directory, root, files)
    report = read_back(directory, root)
    lost = max(0, written.acknowledged - written.found)
    mismatches = report["mismatches"]

    size = sum(Path(root, file).stat().st_size for file in files) / 1e6
    print(f"{'':25}{'keys':>8}{'MB':>8}{'seconds':>9}{'keys/s':>9}")
    for step, keys, seconds in (
        (f"written, {PROCESSES} processes", len(files), written.seconds),
        ("opened by a fresh process", report["keys"], report["opened"]),
        ("compared with the files", report["keys"], report["compared"]),
    ):
        print(f"{step:25}{keys:8,}{size:8.1f}{seconds:9.2f}{keys / seconds:9,.0f}")
    print(
        f"\nkilled      one process by signal {-written.killed}, "
        f"after {written.acknowledged} of its {written.share} writes"
        f"\nresumed     {written.found} found there, {written.resumed} written"
        f"\nlost        {lost} acknowledged writes"
        f"\nmismatches  {len(mismatches)}"
    )
    for mismatch in mismatches[:SHOWN]:
        print(f"  {mismatch}")
    return 1 if lost or mismatches else 0


def sources(root: Location) -> Iterator[str]:
    """The Python sources below `root`, relative, without packages installed by others; sorted."""
    for directory, directories, files in os.walk(root):
        directories[:] = sorted({*directories} - {"site-packages", "dist-packages", "__pycache__"})
        for file in sorted(files):
            path = Path(directory, file)
            if path.suffix == ".py" and path.is_file():
                yield path.relative_to(root).as_posix()


def describe(root: Location, key: str) -> dict[str, Any]:
    """The value to store for the file `key`: its text and facts about it."""
    data = Path(root, key).read_bytes()
    return {
        # Some files of the test suite are in other encodings: their bytes must come back too.
        "text": data.decode("utf-8", "surrogateescape"),
        "size": len(data),
        "lines": data.count(b"\n"),
        "sha256": hashlib.sha256(data).hexdigest(),
    }


def write(directory: Location, root: Location, files: Sequence[str]) -> Written:
    """Store `files` from four processes at once, killing the first half-way and resuming it.

    ChildProcessError if a process fails by itself.
    """
    share = len(files[::PROCESSES])
    started = time.perf_counter()
    processes: list[subprocess.Popen[bytes]] = []
    try:
        # The process to be killed stops at three quarters of its share, so that it can't finish
        # before the signal comes, however late that is. Usually it is still writing then.
        processes.append(spawn("write", directory, root, "0", str(share * 3 // 4)))
        processes += [spawn("write", directory, root, str(i)) for i in range(1, PROCESSES)]
        doomed = processes[0]
        assert doomed.stdout is not None
        acknowledged = len(doomed.stdout.read(share // 2))  # a byte for each write
        if acknowledged < share // 2:
            raise ChildProcessError(f"a process ended by itself, status {doomed.wait()}")
        doomed.kill()
        acknowledged += len(doomed.stdout.read())

        processes.append(spawn("write", directory, root, "0"))
        for process in processes[1:]:
            resumed = process.communicate()[0].count(b".")
            if process.returncode:
                raise ChildProcessError(f"a process ended with status {process.returncode}")
    finally:
        for process in processes:
            with process:  # closes its pipes and waits
                process.kill()
    return Written(
        seconds=time.perf_counter() - started,
        killed=doomed.returncode,
        acknowledged=acknowledged,
        share=share,
        found=share - resumed,
        resumed=resumed,
    )


def read_back(directory: Location, root: Location) -> dict[str, Any]:
    """What a fresh process finds: `keys`, seconds `opened` and `compared`, and `mismatches`."""
    with spawn("check", directory, root) as checker:
        output = checker.communicate()[0]
    # Status 1 means mismatches, but also an uncaught exception, which leaves no output.
    if not output:
        raise ChildProcessError(f"the checking process ended with status {checker.returncode}")
    report: dict[str, Any] = json.loads(output)
    return report


def check(store: Mapping[str, Any], root: Location, files: Sequence[str]) -> list[str]:
    """What is wrong with `store`, one line for each key that isn't what its file says."""
    expected = set(files)
    mismatches = [f"no such file: {key!r}" for key in sorted(store.keys() - expected)]
    for key in files:
        try:
            value = store[key]
        except KeyError as error:  # absent or damaged
            mismatches.append(f"not to be had: {key!r}: {error}")
        else:
            if value != describe(root, key):
                mismatches.append(f"different: {key!r}")
    return mismatches


def spawn(*arguments: Location) -> subprocess.Popen[bytes]:
    """A process of this Python with this core that carries out `child` with `arguments`."""
    return subprocess.Popen(
        [sys.executable, "-m", "nfsdict.demo", *arguments],
        env={**os.environ, "NFSDICT_BACKEND": BACKEND},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


def child(action: str, directory: str, root: str, number: str = "0", stop: str = "") -> int:
    """One of the demo's processes: write share `number`, at most `stop` files of it; or check.

    It reports on standard output: when writing, a full stop for each acknowledged write, together
    fewer bytes than a pipe holds; when checking, what it found, as JSON.
    """
    files = list(sources(root))
    if action == "check":
        started = time.perf_counter()
        with NfsDict[Any](NAME, directory) as store:
            keys = len(store)
            opened = time.perf_counter()
            mismatches = check(store, root, files)
            done = time.perf_counter()
        report = {"keys": keys, "opened": opened - started, "compared": done - opened}
        print(json.dumps({**report, "mismatches": mismatches}))
        return 1 if mismatches else 0

    written = 0
    with NfsDict[Any](NAME, directory, lazy=True) as store:
        for key in files[int(number) :: PROCESSES]:
            if key in store:
                continue
            store[key] = describe(root, key)
            written += 1
            print(".", end="", flush=True)
            if stop and written == int(stop):
                sys.stdin.read()  # until this process is killed, or its parent has ended
    return 0


if __name__ == "__main__":
    sys.exit(child(*sys.argv[1:]))
