"""A process that writes until it is killed, and tells what it has begun and done."""

from __future__ import annotations

from typing import Optional

WRITER = """
import sys, nfsdict
base, who = sys.argv[1:]
d = nfsdict.NfsDict("store", base)
number = 0
while True:
    number += 1
    key = f"{who} {number % 20}"
    kind = number % 7
    print("begin", key, number, flush=True)
    if kind == 1:
        d.pop(key, None)
        number_then = ""
    elif kind == 2:
        d.update({key: number, f"{who} more {number}": number})
        number_then = number
    elif kind == 3:
        d.setdefault(key, number)
        number_then = d.get(key, fresh=True)
    else:
        d[key] = number
        number_then = number
        if kind == 4:
            d.close()
        elif kind == 5:
            d.refresh()
    print("done", key, number_then, flush=True)
"""


Told = tuple[dict[str, Optional[int]], dict[str, int]]


def told(output: str) -> Told:
    """Of each key what the last call that returned has left there; and what was under way: of a
    ``pop`` and of a ``setdefault`` a number that tells which of them it is, see ``WRITER``."""
    known: dict[str, int | None] = {}
    under_way: dict[str, int] = {}
    for line in output.split("\n")[:-1]:  # the kill may have torn the last one
        parts = line.rsplit(" ", 1) if line.count(" ") else [line]
        word, _, key = parts[0].partition(" ")
        if word == "begin":
            under_way[key] = int(parts[1])
        elif word == "done":
            del under_way[key]
            known[key] = int(parts[1]) if parts[1] else None
    return known, under_way
