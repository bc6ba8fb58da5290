"""Undoing: what is done after an exception, though signal handlers raise others meanwhile.

Each of those cuts short what it comes into, an ``except`` as well. So what has to be done is called
again, as often as handlers are likely to come in quick succession.
"""

from __future__ import annotations

from typing import Callable

_AGAIN = 5


def insist(act: Callable[[], object], again: int = _AGAIN) -> None:
    """Call this, and ``again`` so many times, whatever is raised meanwhile; the last exception goes
    on. It has to be quick, and to go on where it was cut short: what is done already stays done.

    An exception may also come as this call begins. So callers repeat it in a ``finally``.
    """
    try:
        if again:
            insist(act, again - 1)
    finally:
        act()
