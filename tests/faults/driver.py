"""Runs in a process with the shim preloaded: makes each call of each operation fail, or kill.

    python driver.py fail|kill METHOD PART/PARTS FACTOR BASE

Prints what was wrong, a line each, and in the end how many cases there were. METHOD is how
multiprocessing starts the process that does it. Of the cases each PART takes its share. Unless
FACTOR is above 1, of the calls after an operation's eighth only each eighth fails in every way, and
each fourth in one. With MOUNTED_AS in the environment the package is told that it is on such a file
system, renames do as on SMB, and only writes are tried.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import multiprocessing
import os
import pickle
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import nfsdict
from nfsdict import bulk, repack
from nfsdict.index import stack, writer
from nfsdict.storage import index_files, mounted, mounts
from nfsdict.upkeep.prune import Prune

sys.path.append(str(Path(__file__).parents[1]))
from support.aging import age

BEFORE, AFTER, FOR_GOOD, KILL, SHORT = 1, 2, 4, 8, 16
BEGIN = {"a": 1, "b": 2, "c": 3}
# What may have been carried out when its reply is lost, which a soft mount reports as EIO.
CHANGES = ("open", "openat", "mkdir", "rename", "link", "unlink", "close")
CREATES = ("open", "openat", "mkdir", "rename", "link", "write", "writev", "fsync", "close")
PATIENCE = 1000  # an operation that makes more calls than that never ends


class Operation(NamedTuple):
    act: Callable[[Any], Any]
    """on an open dictionary, or on the store's place"""
    changes: dict[str, Any]
    """what it makes of the store; None: gone"""
    result: Any = None
    ready: Callable[[Any], Any] = lambda d: None
    """done before"""
    opens: bool = False
    """done on the store's place; what it gives is an open dictionary"""


def new_shard() -> str:
    """A key whose directory isn't there."""
    used = {digest(key)[:2] for key in BEGIN}
    return next(str(n) for n in range(1000) if digest(str(n))[:2] not in used)


def near(key: str) -> str:
    """A key that isn't there, in this one's directory."""
    return next(str(n) for n in range(100_000) if digest(str(n))[:2] == digest(key)[:2])


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


NEAR, FAR = near("a"), new_shard()
LARGE = "large" * 20_000  # written in parts
ANY = object()


def everything(d: Any) -> Any:
    return len(d)


def pack(base: Path) -> None:
    """And all is so old that the index proves it."""
    age(base)
    opened(base).pack()


def load(d: Any) -> None:
    """In two halves, as many keys are written."""
    with mock.patch.object(bulk, "_LOAD", 1):
        d.update({"a": "new", NEAR: "new", FAR: "new"})


def load_and_wait(d: Any) -> None:
    len(d)
    load(d)
    age(Path(d.path).parent)


def make_old(d: Any) -> None:
    """One older than the other."""
    for number, key in enumerate(BEGIN):
        os.utime(d.path_of(key), (number, number))
    len(d)


def prune(d: Any) -> None:
    """Its lease is left out: it has tests of its own."""
    with mock.patch.object(Prune, "_only_one"):
        report = d.prune(max_items=2)
    if not report.complete:
        raise nfsdict.UncertainWriteError(errno.EIO, str(report))


def count_and_put(d: Any) -> None:
    """So that there is news for the index."""
    len(d)
    d[NEAR] = "new"


OPERATIONS = {
    "open": Operation(lambda base: opened(base, lazy=False), {}, ANY, opens=True),
    "open with a pack": Operation(
        lambda base: opened(base, lazy=False), {}, ANY, lambda base: pack(base), opens=True
    ),
    "open lazily with a pack": Operation(
        lambda base: opened(base), {}, ANY, lambda base: pack(base), opens=True
    ),
    "read": Operation(lambda d: d["a"], {}, 1),
    "items": Operation(lambda d: dict(d.items()), {}, ANY),
    "fresh": Operation(lambda d: d.get("a", fresh=True), {}, 1, lambda d: d["a"]),
    "miss": Operation(lambda d: d.get(NEAR), {}, None),
    "in": Operation(lambda d: "a" in d, {}, True),
    "put new": Operation(lambda d: d.__setitem__(NEAR, "new"), {NEAR: "new"}),
    "put over": Operation(
        lambda d: d.__setitem__("a", "new"), {"a": "new"}, None, lambda d: d["a"]
    ),
    "put over, in parts": Operation(lambda d: d.__setitem__("a", LARGE), {"a": LARGE}),
    "put in a new shard": Operation(lambda d: d.__setitem__(FAR, "new"), {FAR: "new"}),
    "delete": Operation(lambda d: d.__delitem__("a"), {"a": None}, None, lambda d: d["a"]),
    "add": Operation(lambda d: d.add(NEAR, "new"), {NEAR: "new"}, True),
    "add in a new shard": Operation(lambda d: d.add(FAR, "new"), {FAR: "new"}, True),
    "add what is there": Operation(lambda d: d.add("a", "new"), {}, False),
    "setdefault": Operation(lambda d: d.setdefault(NEAR, "new"), {NEAR: "new"}, "new"),
    "pop": Operation(lambda d: d.pop("a"), {"a": None}, 1),
    "pop a miss": Operation(lambda d: d.pop(NEAR, None), {}, None),
    "update": Operation(
        lambda d: d.update({"a": "new", NEAR: "new", FAR: "new"}),
        {"a": "new", NEAR: "new", FAR: "new"},
    ),
    "update with many": Operation(load, {"a": "new", NEAR: "new", FAR: "new"}),
    "pack what was written": Operation(
        lambda d: d.pack(), {"a": "new", NEAR: "new", FAR: "new"}, ANY, load_and_wait
    ),
    "clear": Operation(lambda d: d.clear(), dict.fromkeys(BEGIN), None, everything),
    "prune": Operation(prune, {"a": None}, None, make_old),
    "sync": Operation(lambda d: d.sync(), {}),
    "refresh": Operation(lambda d: d.refresh(), {}, ANY, everything),
    "pack": Operation(lambda d: d.pack(), {}, ANY, everything),
    "close": Operation(lambda d: d.close(), {NEAR: "new"}, None, count_and_put),
    "verify": Operation(lambda d: d.verify().damaged, {}, {}),
    "repair": Operation(lambda d: d.repair(grace=-1).quarantined, {}, {}),
}
UNCERTAIN = (nfsdict.UncertainWriteError, nfsdict.BatchError)


def opened(base: Path, lazy: bool = True) -> Any:
    return nfsdict.NfsDict("store", base, lazy=lazy, workers=1)


def scan(base: Path) -> dict[str, Any]:
    return dict(pickle.loads(path.read_bytes()) for path in base.glob("store/??/*.pkl"))


def temporary(base: Path) -> list[str]:
    return [path.name for path in base.glob("store/**/.nfsdict-*")]


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


class Faults:
    """The shim."""

    def __init__(self) -> None:
        self._shim = ctypes.CDLL(None)
        self._shim.faults_names.restype = ctypes.c_char_p

    def arm(self, base: Path, nth: int, number: int, how: int) -> None:
        self._shim.faults_arm(os.fsencode(base / "store"), ctypes.c_long(nth), number, how)

    def disarm(self) -> int:
        return int(self._shim.faults_disarm())

    def names(self) -> list[str]:
        text: bytes = self._shim.faults_names()
        return text.decode().split()


class Trial:
    """One operation on a store of its own."""

    def __init__(self, faults: Faults, base: Path, operation: Operation) -> None:
        self._faults = faults
        self._base = base
        self._operation = operation
        shutil.rmtree(base, ignore_errors=True)
        for key, value in BEGIN.items():
            name = digest(key)
            path = base / "store" / name[:2] / f"{name}.pkl"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(pickle.dumps((key, value)))
        self._on = base if operation.opens else opened(base)
        operation.ready(self._on)

    def run(self, nth: int, number: int, how: int) -> list[str]:
        """The calls that were made."""
        before = descriptors()
        self._faults.arm(self._base, nth, number, how)
        try:
            self.result, self.error = self._operation.act(self._on), None
        except Exception as error:
            self.result, self.error = None, error
        finally:
            self._faults.disarm()
        self.leaked = descriptors() - before
        return self._faults.names()

    def end(self) -> None:
        if self._on is not self._base:
            self._on.close()

    def wrong(self, failed: str) -> Iterator[str]:
        """What the failure of this call, or of all that followed, did that it must not."""
        operation, error = self._operation, self.error
        after = {**BEGIN, **operation.changes}
        after = {key: value for key, value in after.items() if value is not None}
        if error is None and operation.result is not ANY and self.result != operation.result:
            yield f"gave {self.result!r}"
        if error is not None and not isinstance(error, OSError):
            yield f"raised {error!r}"
        if self.leaked:
            yield f"{self.leaked} descriptors more"
        held = scan(self._base)
        taken = [name for name in temporary(self._base) if "taken" in name]
        for key in {**BEGIN, **after, **held}:
            allowed = {BEGIN.get(key), after.get(key)}
            if error is None:
                allowed = {after.get(key)}
            elif operation is OPERATIONS["put over"] and not isinstance(error, UNCERTAIN):
                allowed = {BEGIN.get(key)}
            if held.get(key) not in allowed and not (taken and error):
                yield f"{key!r} is {held.get(key)!r} then"
        if plain(failed) == "open":
            # A claim whose making has failed, or hasn't, may be somebody else's; it ends by itself.
            for claim in self._base.glob("store/.nfsdict-claim*"):
                claim.unlink()
        excused = failed == "for good" or plain(failed) == "unlink"
        if not excused and not isinstance(error, UNCERTAIN) and temporary(self._base):
            yield f"left {temporary(self._base)}"
        if operation.opens:
            # A file that can't be read doesn't tell its key, until it is asked for by it.
            if error is None and {key: self.result[key] for key in held} != held:
                yield f"opened as {dict(self.result)}"
            return
        yield from self._afterwards(held, after)

    def _afterwards(self, held: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
        """Without failures: cache and disk agree, and what was tried can be done."""
        d = self._on
        taken = [name for name in temporary(self._base) if "taken" in name]
        for claim in self._base.glob("store/.nfsdict-claim*"):
            claim.unlink()
        for key in {**BEGIN, **after}:
            remembered, there = d.get(key), d.get(key, fresh=True)
            if remembered != there or there != held.get(key):
                yield f"{key!r}: {remembered!r} in memory, {there!r} on disk"
        try:
            self._operation.act(d)
        except KeyError:
            if self._operation.changes.get("a", ...) is not None:
                yield "KeyError at the next attempt"
        if dict(opened(self._base, lazy=False)) != scan(self._base):
            yield "the index contradicts the files"
        d.repair(grace=-1)
        again = opened(self._base, lazy=False)
        if taken:
            written = {key for key, value in self._operation.changes.items() if value is not None}
            tried, after = after, dict(again)  # what couldn't be taken to the end is back
            for key in {**BEGIN, **after} if self.error else ():
                # And so may be what was written and couldn't get its name.
                if after.get(key) != BEGIN.get(key) and not (
                    key in written and after.get(key) == tried.get(key)
                ):
                    yield f"{key!r} is {after.get(key)!r} after a repair"
        if dict(again) != after or dict(d) != after or scan(self._base) != after:
            # An add that had won before loses now.
            yield f"{dict(again)} after the next attempt"
        if temporary(self._base):
            yield f"{temporary(self._base)} after a repair"


def plain(call: str) -> str:
    """Without what only tells variants apart."""
    return call.removesuffix("64").removesuffix("at") if call not in ("stat", "fstat") else call


def cases(call: str) -> Iterator[tuple[int, int]]:
    """Errors and manners for this call."""
    yield errno.EIO, BEFORE
    yield errno.EIO, BEFORE | FOR_GOOD
    yield errno.ESTALE, BEFORE
    yield errno.ESTALE, BEFORE | FOR_GOOD
    if call in ("read", "pread", "pread64", "write", "writev"):
        yield errno.EINTR, BEFORE
        yield 0, SHORT
        yield 0, SHORT | FOR_GOOD
    if plain(call) == "open":
        for number in (errno.EINTR, errno.EACCES, errno.EMFILE):
            yield number, BEFORE
        yield errno.EACCES, BEFORE | FOR_GOOD
        yield errno.EMFILE, BEFORE | FOR_GOOD
    if plain(call) in CHANGES:
        yield errno.EIO, AFTER
        yield errno.EIO, AFTER | FOR_GOOD
    if plain(call) in CREATES:
        yield errno.ENOSPC, BEFORE
        yield errno.ENOSPC, BEFORE | FOR_GOOD


def told(number: int, how: int) -> str:
    what = "is cut short" if how & SHORT else f"fails with {errno.errorcode[number]}"
    return what + " after" * bool(how & AFTER) + " for good" * bool(how & FOR_GOOD)


def fail(base: Path, part: int, parts: int, factor: int) -> int:
    faults = Faults()
    case = count = 0
    for name, operation in OPERATIONS.items():
        trial = Trial(faults, base, operation)
        calls = trial.run(0, 0, 0)
        for problem in trial.wrong(""):
            print(f"{name}, nothing failing: {problem} [{trial.error!r}]")
        trial.end()
        nth, most = 1, len(calls)
        while nth <= most < PATIENCE:
            call = calls[nth - 1] if nth <= len(calls) else ""
            ways = list(cases(call))
            if factor == 1 and nth > 8 and nth % 8:
                ways = ways[: 0 if nth % 4 else 1]
            for number, how in ways:
                case += 1
                if case % parts != part:
                    continue
                count += 1
                trial = Trial(faults, base, operation)
                made = trial.run(nth, number, how)
                if not how & FOR_GOOD:
                    most = max(most, len(made))
                hit = made[nth - 1] if nth <= len(made) else "no call"  # not always the same one
                for problem in trial.wrong("for good" if how & FOR_GOOD else hit):
                    fault = told(number, how)
                    print(f"{name}, call {nth} ({hit}) {fault}: {problem} [{trial.error!r}]")
                repeated = how & SHORT or (number == errno.EINTR and hit == call)
                if trial.error and repeated:
                    print(f"{name}, call {nth} ({hit}) wasn't repeated: {trial.error!r}")
                trial.end()
            nth += 1
        assert most < PATIENCE, f"{name} has no end"
    return count


def kill(base: Path, part: int, parts: int, factor: int) -> int:
    faults = Faults()
    count = 0
    for name, operation in OPERATIONS.items():
        if not operation.changes and name not in ("close", "pack", "repair"):
            continue
        for when in (BEFORE, AFTER):
            nth = 1 + part
            while True:
                trial = Trial(faults, base, operation)
                child = os.fork()
                if not child:
                    trial.run(nth, 0, KILL | when)
                    os._exit(0)
                status = os.waitpid(child, 0)[1]
                if not os.WIFSIGNALED(status):
                    break
                assert os.WTERMSIG(status) == signal.SIGKILL
                count += 1
                for problem in killed(base, operation):
                    print(
                        f"{name}, killed {'after' if when == AFTER else 'before'} {nth}: {problem}"
                    )
                trial.end()
                nth += parts * (5 if factor == 1 and nth > 12 else 1)
    return count


def killed(base: Path, operation: Operation) -> Iterator[str]:
    held = scan(base)
    after = {**BEGIN, **operation.changes}
    taken = [name for name in temporary(base) if "taken" in name]
    for key in {**after, **held}:
        if held.get(key) not in (BEGIN.get(key), after.get(key)) and not taken:
            yield f"{key!r} is {held.get(key)!r}"
    d = opened(base, lazy=False)
    if dict(d) != held:
        yield f"opened as {dict(d)}, not {held}"
    young = [name for name in temporary(base) if "claim" not in name]
    # A minute later, or the claim on the index that was left there counts.
    with mock.patch.object(index_files, "INDEX_CLAIM_NS", -1):
        d.repair()
    if temporary(base) != young:
        yield f"a repair has taken {set(young) - set(temporary(base))} from who may be writing it"
    d.repair(grace=-1)
    if temporary(base):
        yield f"left {temporary(base)}"
    for key in {**after, **dict(d)}:
        if d.get(key) not in (BEGIN.get(key), after.get(key)):
            yield f"{key!r} is {d.get(key)!r} after a repair"
    if dict(d) != scan(base):
        yield "memory and disk differ after a repair"


def as_on_smb(source: str, target: str) -> None:
    """A file that is there is removed, which Linux's client does if it has it open, and the rename
    is refused."""
    try:
        os.unlink(target)
    except FileNotFoundError:
        os.rename(source, target)
    else:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), source)


def main(what: str, part: str, factor: str, base: str) -> None:
    # A tmpfs is made to sync directories, too.
    mounted.kind_of = lambda *mount: mounts.kind_of(*mount)._replace(syncs=True)
    writer._PAYS = 1
    stack._PATIENCE = 20, 0.0
    kind = os.environ.get("MOUNTED_AS")
    if kind:
        mounted.mount_of = lambda path: mounted.Mount(kind)
        os.replace = as_on_smb  # type: ignore[assignment]
        for name in [name for name in OPERATIONS if not name.startswith(("put", "update"))]:
            del OPERATIONS[name]
    repack.time.sleep = lambda seconds: None  # type: ignore[attr-defined]
    number, _, parts = part.partition("/")
    run = {"fail": fail, "kill": kill}[what]
    print(f"cases: {run(Path(base), int(number), int(parts), int(factor))}", flush=True)


if __name__ == "__main__":
    what, method, *arguments = sys.argv[1:]
    process = multiprocessing.get_context(method).Process(target=main, args=(what, *arguments))
    process.start()
    process.join()
    sys.exit(process.exitcode)
