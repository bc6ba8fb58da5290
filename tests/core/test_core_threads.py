"""Threads in the core at once: what one reads, others replace and remove, with and without a GIL.

Without a GIL the first test crashes, or sees other keys' values, if the read cache hands out
references that it doesn't own. With a GIL it can't; then the counts of references show that what is
handed out is owned once.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import repeat
from operator import eq

import pytest

from support.proof import FACTOR

READERS = 4
TURNS = 400_000 * FACTOR
KEYS = ["a", "é"]


def run_threads(functions):
    """Run them, all at once; the first error of one is raised."""
    start = threading.Barrier(len(functions))

    def run(function):
        start.wait()
        return function()

    with ThreadPoolExecutor(len(functions)) as pool:
        for future in [pool.submit(run, function) for function in functions]:
            future.result()


def test_importing_it_leaves_the_gil_as_it_is(nfsdict):
    environment = {name: text for name, text in os.environ.items() if name != "PYTHON_GIL"}
    told = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-c",
            "import nfsdict, sys; print(nfsdict.BACKEND, "
            "getattr(sys, '_is_gil_enabled', lambda: True)())",
        ],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    has_gil = not sysconfig.get_config_var("Py_GIL_DISABLED")
    assert told.split() == [nfsdict.BACKEND, str(has_gil)]


# --- the read cache --------------------------------------------------------------------------


def value_of(key):
    """A new object, of which each part shows whose value it is."""
    return [key] * 8


def cache_of(core):
    class Cache(core.ReadCache):
        def _lookup(self, key, fresh, /):
            return value_of(key)

        def _exists(self, key, /):
            return True

    return Cache()


@pytest.mark.parametrize("change", ["replaced", "removed", "unloaded"])
def test_reads_beside_changes(nfsdict, core, change):
    """In loops that run in C, so that the threads meet as often as can be."""
    cache = cache_of(core)

    def keys():
        return repeat("k", TURNS)

    def read(call):
        assert all(map(eq, map(call, keys()), repeat(value_of("k"))))

    def replace():
        values = map(list, repeat(("k",) * 8))
        deque(map(cache._cache.__setitem__, keys(), values), maxlen=0)

    def remove():
        deque(map(cache._cache.pop, keys(), repeat(None)), maxlen=0)

    def unload():
        deque(map(cache._cache.__setitem__, keys(), repeat(core.MISSING)), maxlen=0)

    def look():
        assert all(map(cache.__contains__, keys()))

    changed = {"replaced": replace, "removed": remove, "unloaded": unload}[change]
    run_threads([lambda: read(cache.__getitem__), replace, lambda: read(cache.get), changed, look])


@pytest.mark.skipif(not hasattr(sys, "getrefcount"), reason="no counts of references")
def test_a_read_hands_out_one_reference(nfsdict, core):
    cache = cache_of(core)
    values = [object() for _ in KEYS]
    cache._cache.update(zip(KEYS, values))
    cache._cache.update(unloaded=core.MISSING)
    watched = [*values, core.MISSING, cache._cache, cache]

    def read():
        for _ in range(1000):
            for key in [*KEYS, "unloaded", "gone"]:
                cache[key], cache.get(key), cache.get(key, fresh=True), key in cache

    before = list(map(sys.getrefcount, watched))
    run_threads([read] * READERS)
    assert list(map(sys.getrefcount, watched)) == before


# --- lists that others change ----------------------------------------------------------------


class Changing(str):
    """A path that runs code, as another thread might, when the core takes its bytes."""

    def encode(self, *arguments):
        self.change()
        return super().encode(*arguments)


@pytest.mark.parametrize("call", ["read_files", "read_stamps"])
def test_paths_that_go_while_they_are_read(nfsdict, core, tmp_path, call):
    """All that is left of them, or IndexError."""
    file = tmp_path / "é"
    file.touch()
    for left in range(3):
        paths = [Changing(file) for _ in range(1000)]
        paths[0].change = lambda paths=paths, left=left: paths.__delitem__(slice(left, None))
        for path in paths[1:]:
            path.change = lambda: None
        with suppress(IndexError):
            assert len(getattr(core, call)(paths)) <= 1000


def test_each_file_gets_its_own_content_whatever_becomes_of_the_list(nfsdict, core, tmp_path):
    names = [f"é{number}" for number in range(8)]
    files = []
    for name in names:
        path = Changing(tmp_path / name)
        path.change = files.reverse
        files.append((path, name.encode()))
    core.write_files(files, None, False, False, False)
    written = {file.name: file.read_bytes().decode() for file in tmp_path.iterdir()}
    assert written == {name: name for name in names}


def test_shards_whose_keys_go_while_they_are_encoded(nfsdict, core):
    """Threads clear and fill the list of keys. What comes out is a table, or an error."""
    keys = []
    all_keys = [f"é{number}" for number in range(500)]
    done = threading.Event()

    def change():
        while not done.is_set():
            keys.clear()
            keys.extend(all_keys)

    def encode():
        try:
            for _ in range(200 * FACTOR):
                shard = (0, 0), keys, bytes(32 * 500), bytes(4 * 500), 0, 0
                with suppress(Exception):
                    core.encode_table([shard] + [((0, 0), [], b"", b"", 0, 0)] * 255)
        finally:
            done.set()

    run_threads([encode, change])
