"""Forked children of the test's process."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable

import pytest

# Python 3.12 and newer warn of what is tested: a fork beside other threads.
forking = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


def in_child(function: Callable[[], object]) -> int:
    """The exit status of a forked child that runs this; a deadlock ends in a signal's."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            signal.alarm(30)
            function()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
