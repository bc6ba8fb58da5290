"""Makes histories: random calls of one process on a few keys, with when each began and ended."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
import threading
import time
import warnings
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Union

from .linearizability import Call, linearizable, with_gaps

if TYPE_CHECKING:
    from nfsdict import NfsDict

KINDS = ["put", "put", "fresh", "fresh", "fresh", "get", "get", "add", "setdefault", "del", "pop"]
# Where hard links aren't made ``add`` is create-once among those who ``add``, and not beside puts.
WITHOUT_ADD = [kind for kind in KINDS if kind not in ("add", "setdefault")]
UNKNOWN = "unknown"
Result = Union[str, bool, None]


class Made(NamedTuple):
    """One call of a process, as it was made."""

    key: str
    kind: str
    value: str
    result: Result
    start: int
    end: int


History = list[Made]


def work(
    base: str,
    who: str,
    seconds: float,
    keys: int,
    options: dict[str, Any],
    least: int,
    kinds: list[str],
) -> None:
    """Work on the store, once all others are ready too, and print what was done."""
    import nfsdict

    # The options of FUSE can't be seen, whatever they are.
    warnings.simplefilter("ignore", nfsdict.UnsafeMountWarning)
    d = nfsdict.NfsDict("store", base, lazy=True, durable=False, **options)
    print("ready", flush=True)
    sys.stdin.readline()
    json.dump(made(d, who, seconds, keys, least, kinds), sys.stdout)


def made(
    d: NfsDict[str],
    who: str,
    seconds: float,
    keys: int,
    least: int = 0,
    kinds: list[str] = KINDS,
) -> History:
    """Calls for so long, and at least so many, of these kinds."""
    choose = random.Random(who)
    done: History = []
    limit = time.monotonic() + seconds
    number = 0
    while time.monotonic() < limit or number < least:
        number += 1
        key, kind = f"key {choose.randrange(keys)}", choose.choice(kinds)
        value = f"{who} {number}"
        start = time.monotonic_ns()
        try:
            result = act(d, kind, key, value)
        except OSError as error:
            result = UNKNOWN
            print(f"{kind} {key}: {error!r}", file=sys.stderr)
        done.append(Made(key, kind, value, result, start, time.monotonic_ns()))
    return done


def act(d: NfsDict[str], kind: str, key: str, value: str) -> Result:
    if kind == "put":
        d[key] = value
        return None
    if kind == "del":
        try:
            del d[key]
        except KeyError:
            return False
        return True
    calls: dict[str, Callable[[], Result]] = {
        "fresh": lambda: d.get(key, fresh=True),
        "get": lambda: d.get(key),
        "add": lambda: d.add(key, value),
        "setdefault": lambda: d.setdefault(key, value),
        "pop": lambda: d.pop(key, None),
    }
    return calls[kind]()


def calls_of(done: History, alone: bool) -> tuple[dict[str, list[Call]], list[str]]:
    """One process's calls by key, as they are to be linearizable; and which reads went wrong.

    A key that this process has read or written is read from its memory, and must be as it was seen
    last: read your writes, and monotonic reads. Other reads ask the store. A plain one that misses
    is linearizable; one that finds something may find what the client remembers, which is judged
    by nobody here. Where threads share the dictionary (not ``alone``), neither are reads of memory.
    """
    by_key: dict[str, list[Call]] = defaultdict(list)
    cached: dict[str, Result] = {}
    wrong = []

    def see(key: str, value: Result) -> None:
        if value is None:
            cached.pop(key, None)
        else:
            cached[key] = value

    for key, kind, value, result, start, end in done:
        if result == UNKNOWN:
            kind = "add" if kind == "setdefault" else "get" if kind == "fresh" else kind
            by_key[key].append(Call(kind, value, None, start, math.inf))
            cached.pop(key, None)
        elif kind in ("get", "setdefault") and (key in cached or not alone) and result != value:
            if alone and result != cached[key]:
                wrong.append(f"{key} was {cached[key]!r}, then {kind} gave {result!r}")
        elif kind == "setdefault":
            kept = result == value
            by_key[key].append(
                Call("add", value, True, start, end)
                if kept
                else Call("get", None, result, start, end)
            )
            see(key, result)
        elif kind == "get" and result is not None:
            see(key, result)
        elif kind in ("get", "fresh"):
            by_key[key].append(Call("get", None, result, start, end))
            see(key, result)
        else:
            by_key[key].append(Call(kind, value, result, start, end))
            if kind == "put" or (kind == "add" and result):
                see(key, value)
            elif kind in ("del", "pop"):
                see(key, None)
    return by_key, wrong


def check(histories: list[History], alone: bool = True, gaps: bool = False) -> int:
    """AssertionError with the history if it isn't linearizable. The number of calls.

    With ``gaps`` a put may make the key absent for a moment before it, see test_nfs_gaps.py.
    """
    by_key: dict[str, list[Call]] = defaultdict(list)
    for done in histories:
        called, wrong = calls_of(done, alone)
        assert not wrong, wrong
        for key, some in called.items():
            by_key[key] += some
    for key, calls in by_key.items():
        possible = with_gaps(calls) if gaps else calls
        assert linearizable(possible), f"{key}\n" + explained(possible)
    return sum(map(len, by_key.values()))


def explained(calls: list[Call]) -> str:
    """The shortest beginning that is wrong."""
    calls = sorted(calls, key=lambda call: call.end)
    first, last = 0, len(calls)
    while first < last:
        middle = (first + last) // 2
        begun = [one for one in calls if one.start <= calls[middle].end]
        ended = [
            one if one.end <= calls[middle].end else one._replace(end=math.inf) for one in begun
        ]
        if linearizable(ended):
            first = middle + 1
        else:
            last = middle
    until = calls[first].end
    shown = [one for one in calls if one.start <= until and one.kind != "gap"]
    return "\n".join(map(str, shown[-40:]))


def of_processes(
    bases: list[str],
    seconds: float,
    keys: int,
    options: dict[str, Any],
    least: int = 0,
    kinds: list[str] = KINDS,
) -> list[History]:
    """One history for each process, of at least so many calls; all of them begin at once."""
    here = str(Path(__file__).parents[1])
    processes = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                f"import sys; sys.path.insert(0, {here!r}); from support import history;"
                f" history.work({base!r}, 'p{who}', {seconds}, {keys}, {options!r},"
                f" {least}, {kinds!r})",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for who, base in enumerate(bases)
    ]
    ready = [process.stdout.readline() for process in processes if process.stdout]
    for process in processes:
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # what it had to say comes below
            process.stdin.write("\n")
            process.stdin.flush()
    outputs = [process.communicate() for process in processes]
    assert ready == ["ready\n"] * len(bases), outputs
    assert not any(errors for _, errors in outputs), [errors for _, errors in outputs]
    return [[Made(*one) for one in json.loads(output)] for output, _ in outputs]


def of_threads(d: NfsDict[str], count: int, seconds: float, keys: int) -> list[History]:
    """One history for each thread; all use this dictionary."""
    histories: list[History] = []
    threads = [
        threading.Thread(target=lambda who=who: histories.append(made(d, f"t{who}", seconds, keys)))
        for who in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(histories) == count
    return histories
