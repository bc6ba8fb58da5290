"""Calls that could hang, in threads: a hang is a failure of the test, and not of the test run."""

from __future__ import annotations

import threading
from typing import Callable


def within(seconds: float, *functions: Callable[[], object]) -> None:
    """Run them at once, each in a thread, and wait for each so long. None may raise."""
    errors = []

    def guarded(function: Callable[[], object]) -> None:
        try:
            function()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(f,), daemon=True) for f in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds)
        assert not thread.is_alive(), "it hangs"
    assert errors == []
