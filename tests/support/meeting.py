"""Code for the processes of a race: to begin each round together, and to do without hard links.

Put before a script that has ``who``, ``processes`` and ``board``, the path of a file of 8 bytes for
each process. Each counts its rounds there, in memory that all map; one that has ended keeps nobody.
"""

from __future__ import annotations

MEET = """
import atexit, mmap, os
memory = mmap.mmap(os.open(board, os.O_RDWR), 8 * processes)
come = memoryview(memory).cast("q")

def meet():
    come[who] += 1
    while min(come) < come[who]:
        os.sched_yield()

def leave():
    come[who] = 1 << 62

atexit.register(leave)
"""

WITHOUT_LINKS = """
import errno, os
import nfsdict.storage.files
original = nfsdict.storage.files.write_files

def write_files(files, mode, durable, synced, exclusive):
    if not exclusive:
        return original(files, mode, durable, synced, exclusive)
    there = os.path.isdir(os.path.dirname(files[0][0]))
    return [(1, errno.EPERM) if there else (0, errno.ENOENT)]

nfsdict.storage.files.write_files = write_files
"""
