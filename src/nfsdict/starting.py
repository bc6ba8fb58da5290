"""Starting threads, whatever exceptions signal handlers raise meanwhile.

One that comes into ``Thread.start`` makes it fail with a KeyError, or the new thread with one, as
both remove what it noted in ``threading``. So for the main thread, where handlers run, another one
starts it.
"""

from __future__ import annotations

import sys
import threading
from _thread import allocate_lock, start_new_thread


def start_thread(thread: threading.Thread) -> None:
    """Start the thread, and wait until it has begun. RuntimeError if none can be started, as while
    the interpreter shuts down. After any other exception it may begin later."""
    if sys.is_finalizing():
        raise RuntimeError("can't start new thread at interpreter shutdown")
    if threading.get_ident() != threading.main_thread().ident:
        thread.start()
        return
    failed: list[BaseException] = []
    over = allocate_lock()
    over.acquire()

    def starting() -> None:
        try:
            thread.start()
        except BaseException as error:
            failed.append(error)
        finally:
            over.release()

    start_new_thread(starting, ())
    over.acquire()
    if failed:
        raise failed.pop()
