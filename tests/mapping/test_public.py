"""The public face: what ``import nfsdict`` gives, and that every module stands on its own."""

from __future__ import annotations

import importlib.util
import inspect
import os
import pkgutil
import pydoc
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

PUBLIC = [
    "BACKEND",
    "ArchiveError",
    "BatchError",
    "CorruptValueError",
    "Diagnosis",
    "EntryInfo",
    "ExportReport",
    "Finding",
    "Lease",
    "LeaseInfo",
    "LeaseLostError",
    "NfsDict",
    "NfsDictError",
    "PackReport",
    "Packing",
    "ProgressUpdate",
    "PruneReport",
    "ReadOnlyError",
    "RepairReport",
    "Serializer",
    "Task",
    "TransferReport",
    "UncertainWriteError",
    "UnsafeMountWarning",
    "UntrustedPickleWarning",
    "VerifyReport",
    "WrongSerializerError",
    "__version__",
    "buffers",
    "diagnose",
    "json_format",
    "register_key",
    "signed",
]


def test_names(nfsdict):
    assert nfsdict.__all__ == PUBLIC
    namespace = {}
    exec("from nfsdict import *", namespace)
    assert set(namespace) - {"__builtins__"} == set(PUBLIC)


def test_version(nfsdict):
    assert nfsdict.__version__ == metadata.version("nfsdict")


def test_typed(nfsdict):
    package = Path(nfsdict.__file__).parent
    assert (package / "py.typed").read_bytes() == b""
    assert (package / "_core.pyi").exists()


@pytest.mark.parametrize(
    ("error", "bases"),
    [
        ("CorruptValueError", (KeyError,)),
        ("ReadOnlyError", (PermissionError,)),
        ("UncertainWriteError", (OSError,)),
        ("BatchError", (OSError,)),
        ("ArchiveError", (ValueError,)),
    ],
)
def test_errors(nfsdict, error, bases):
    for base in (*bases, nfsdict.NfsDictError):
        assert issubclass(getattr(nfsdict, error), base)


def modules(package):
    """Every module of the package, but for the one that runs when it is imported, and for those
    whose extra isn't installed; their own tests tell where it has to be."""
    found = {module.name for module in pkgutil.walk_packages(package.__path__, "nfsdict.")}
    found -= {"nfsdict.__main__"}
    return sorted(name for name in found if all(map(importlib.util.find_spec, _needed(name))))


def _needed(name):
    """The packages of an extra that this module needs."""
    if ".integrations." in name:
        return [name.rpartition(".")[2]]
    if name == "nfsdict.cli.completion":
        return ["argcomplete"]
    return ["jinja2", "matplotlib"] if name.startswith("nfsdict.upkeep.report.") else []


IMPORTS = """
import importlib, os, sys
import nfsdict  # all that is imported from elsewhere is imported once
for name in [name for name in sys.modules if name.split(".")[0] == "nfsdict"]:
    del sys.modules[name]
for name in sys.argv[1:]:
    child = os.fork()
    if not child:
        importlib.import_module(name)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        sys.exit(name)
"""


def test_every_module_is_imported_alone(package):
    names = modules(package)
    assert {"nfsdict.mapping", "nfsdict.storage.shards", "nfsdict._pure"} <= set(names)
    assert ("nfsdict._core" in names) or package.BACKEND == "pure"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", IMPORTS, *names], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# None of these for ``import nfsdict``: what the extras bring, and what takes long.
LATER = [
    *("tqdm", "numpy", "pandas", "optuna", "joblib", "zarr", "backports.zstd", "lz4"),
    *("asyncio", "argparse", "platformdirs", "tempfile", "shutil", "socket"),
]


def test_importing_it_imports_nothing_large(nfsdict):
    code = f"""{RESTS_ON}, sys
before = set(sys.modules)
import nfsdict
print([name for name in {LATER} if name in sys.modules and name not in before])"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def processor_seconds(code):
    """What a new process with bytecode at hand computes to run this."""
    process = subprocess.Popen([sys.executable, "-c", code])
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_utime + usage.ru_stime


# What it takes of Python's own library, whatever it is.
RESTS_ON = (
    "import dataclasses, hashlib, json, logging, pathlib, pickle, pickletools, random, typing"
)


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="PyPy starts in another way")
def test_importing_it_takes_little_more_than_what_it_rests_on(nfsdict, tmp_path, monkeypatch):
    """As a ratio, and the least of some runs: other processes can only add to what each takes."""
    monkeypatch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path))
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    programs = ["pass", RESTS_ON, "import nfsdict"]
    for program in programs:
        processor_seconds(program)
    runs = [[processor_seconds(program) for program in programs] for _ in range(7)]
    python, library, package = map(min, zip(*runs))
    assert package - python <= 2.4 * (library - python), (python, library, package)


@pytest.mark.parametrize("name", ["get", "setdefault", "pop", "update", "add"])
def test_help_tells_of_each_method(nfsdict, name):
    text = inspect.getdoc(getattr(nfsdict.NfsDict, name))
    assert text and len(text) > 50
    assert text.splitlines()[0] in pydoc.render_doc(nfsdict.NfsDict, renderer=pydoc.plaintext)


def test_every_public_method_has_a_docstring(nfsdict):
    inherited = ("keys", "fromkeys", "copy")
    for name in dir(nfsdict.NfsDict):
        if not name.startswith("_") and name not in inherited:
            assert inspect.getdoc(getattr(nfsdict.NfsDict, name)), name


def test_help_of_get_says_what_fresh_does(nfsdict, capsys):
    help(nfsdict.NfsDict.get)
    assert "``fresh``" in capsys.readouterr().out
