"""Processes that a test starts."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

Start = Callable[..., "subprocess.Popen[Any]"]


@contextmanager
def processes() -> Iterator[Start]:
    """A function that starts a command, as ``Popen`` does, with pipes for its output and errors.

    Each gets Ctrl-C as from a terminal: a shell's background jobs, and their children, ignore it.
    In the end all are killed, and what they have started.
    """
    started: list[subprocess.Popen[Any]] = []

    def start(command: Sequence[str | os.PathLike[str]], **options: Any) -> subprocess.Popen[Any]:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            **options,
        )
        started.append(process)
        return process

    try:
        yield start
    finally:
        for process in started:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
