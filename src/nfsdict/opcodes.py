"""Opcodes: tell from a pickle's bytes whether it is whole, without running code that it names."""

from __future__ import annotations

import pickletools
import re
import sys

_MARK = pickletools.markobject
_FRAME_HEADER = 9  # the opcode, and the length of the frame after it
_PUTS = ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE")
_PAIRS = ("DICT", "SETITEMS")
_GETS = ("GET", "BINGET", "LONG_BINGET")


def pickle_flaw(data: bytes) -> str | None:
    """The reason why no pickler can have made these bytes, or None if there is none.

    The opcodes must run to a STOP that is the last byte, and stack and memo must hold what each
    opcode takes. This costs more than unpickling, so it is only for bytes that couldn't be
    unpickled, or must not be. None too if a limit of this process keeps from telling: on memory, on
    nesting, or on the digits of an integer, which protocol 0 writes as text.
    """
    try:
        _check(data)
    except (MemoryError, RecursionError):
        return None
    except IndexError:
        return "no pickle: an opcode takes more than there is"
    except Exception as error:  # pickletools raises ValueError, and others for some arguments
        if _digits_refused(data):
            return None
        return f"no pickle: {error}"
    return None


def _digits_refused(data: bytes) -> bool:
    """Whether there are more digits in a row than Python converts."""
    limit = sys.get_int_max_str_digits() if hasattr(sys, "get_int_max_str_digits") else 0
    return limit > 0 and re.search(rb"[0-9]{%d}" % (limit + 1), data) is not None


def _check(data: bytes) -> None:
    stack: list[object] = []
    memo: set[object] = set()
    at = 0
    for opcode, argument, position in pickletools.genops(data):
        at, taken = position or 0, opcode.stack_before
        if opcode.name == "FRAME" and (argument or 0) > len(data) - at - _FRAME_HEADER:
            raise ValueError("a frame runs past the end")
        if opcode.name in _GETS and argument not in memo:
            raise ValueError("it refers to what it doesn't hold")
        if opcode.name in _PUTS:
            stack[-1]
            memo.add(len(memo) if opcode.name == "MEMOIZE" else argument)
        if _MARK in taken:
            count = 0
            while stack.pop() is not _MARK:
                count += 1
            if opcode.name in _PAIRS and count % 2:
                raise ValueError("a key without a value")
            taken = taken[: taken.index(_MARK)]
        for _ in taken:
            if stack.pop() is _MARK and opcode.name != "POP":
                raise ValueError("an opcode takes a mark for an object")
        stack.extend(opcode.stack_after)
    if at != len(data) - 1:
        raise ValueError("bytes follow the end")
