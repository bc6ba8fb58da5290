"""Whether SHA-256 in C pays: the core's key -> path against the same in Cython with hashlib.

The compiled core carries a SHA-256 of its own because hashlib makes an object for each hash and
hands its digest back as a str. This builds the core's ``value_path`` once more, in a temporary
directory, with hashlib in the place of that SHA-256 and all else equal, and times both. Keys are
of one length at a time. Needs a C compiler, Cython and setuptools.
"""

from __future__ import annotations

import argparse
import importlib
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType

import core
from timing import measure, statement

MODULE = "hashlib_path"
SOURCE = """
# cython: language_level=3, boundscheck=False, wraparound=False
import hashlib
from libc.string cimport memcpy

cdef extern from "Python.h":
    object PyUnicode_New(Py_ssize_t size, Py_UCS4 maximum)
    void* PyUnicode_DATA(object text)

cdef object sha256 = hashlib.sha256

def value_path(str directory not None, key, str extension not None, /):
    cdef str name = sha256(str.encode(key, "utf-8", "surrogatepass")).hexdigest()
    cdef Py_ssize_t before = len(directory), after = len(extension)
    cdef object path = PyUnicode_New(before + 68 + after, 127)
    cdef char* whole = <char*> PyUnicode_DATA(path)
    memcpy(whole, PyUnicode_DATA(directory), before)
    whole[before] = whole[before + 3] = c"/"
    memcpy(whole + before + 1, PyUnicode_DATA(name), 2)
    memcpy(whole + before + 4, PyUnicode_DATA(name), 64)
    memcpy(whole + before + 68, PyUnicode_DATA(extension), after)
    return path
"""
LOOP = "for key in keys: path('/some/where/store', key, '.pkl')"


def build(directory: str) -> ModuleType:
    source = Path(directory) / f"{MODULE}.pyx"
    source.write_text(SOURCE.lstrip())
    command = [sys.executable, "-m", "Cython.Build.Cythonize", "--build", "--inplace"]
    subprocess.run([*command, str(source)], check=True, stdout=subprocess.DEVNULL)
    sys.path.insert(0, directory)
    return importlib.import_module(MODULE)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lengths", type=int, nargs="+", default=[8, 24, 55, 120, 1000])
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    compiled = core.load("compiled").core
    with tempfile.TemporaryDirectory(prefix="nfsdict-sha256-") as directory:
        contenders = {"Cython, hashlib": build(directory).value_path}
        contenders["core"] = compiled.value_path
        operations = {}
        for length in options.lengths:
            keys = [f"{number:0{length}d}" for number in range(2000)]
            paths = {path("/store", keys[7], ".pkl") for path in contenders.values()}
            assert len(paths) == 1
            operations[f"{length} bytes"] = {
                name: statement(LOOP, 20, keys=keys, path=path) for name, path in contenders.items()
            }
        title = f"key -> path, SHA-256 by {compiled.SHA256_IMPLEMENTATION} on {platform.machine()}"
        measure(title, operations, 20 * 2000, options.rounds)


if __name__ == "__main__":
    main()
