"""The public face: what ``import nfsdict`` gives, and that every module stands on its own."""

from __future__ import annotations

import importlib.util
import inspect
import math
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
    *("tqdm", "numpy", "pandas", "optuna", "joblib", "zarr", "backports.zstd", "lz4", "zict"),
    *("matplotlib", "jinja2", "argcomplete", "asyncio", "argparse", "platformdirs", "tempfile"),
    *("shutil", "socket", "sqlite3", "inspect", "dataclasses", "datetime", "pathlib", "hmac"),
]


def test_importing_it_imports_nothing_large(nfsdict):
    # The pure core takes hashlib, which on PyPy comes with much.
    code = f"""import pickle, logging, sys, hashlib
before = set(sys.modules)
import nfsdict
print([name for name in {LATER} if name in sys.modules and name not in before])"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def processor_seconds(code):
    """What a new process computes to run this, from its start to its end."""
    process = subprocess.Popen([sys.executable, "-c", code])
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_utime + usage.ru_stime


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="PyPy starts in another way")
def test_importing_it_takes_60_ms_at_most(nfsdict, tmp_path, monkeypatch):
    """More than Python itself, with the bytecode at hand. The least of many runs counts, as other
    processes can only add to what one computes, and on a busy machine nearly always do."""
    monkeypatch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path))
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    processor_seconds("import nfsdict")  # writes the bytecode
    python = package = math.inf
    for _ in range(400):
        python = min(python, processor_seconds("pass"))
        package = min(package, processor_seconds("import nfsdict"))
        if package - python <= 0.060:
            return
    pytest.fail(f"{1000 * (package - python):.0f} ms")


LATE_NAMES = """
import pickle, sys
import nfsdict
assert set(nfsdict.__all__) <= set(dir(nfsdict))
assert "nfsdict.upkeep.verify" not in sys.modules
import nfsdict.signed, nfsdict.buffers  # modules of the same names
assert callable(nfsdict.signed) and callable(nfsdict.buffers)
report = nfsdict.TransferReport(1, 2)
assert pickle.loads(pickle.dumps(report)) == report
try:
    nfsdict.nothing
except AttributeError as error:
    print(error)
"""


def test_names_that_are_imported_when_they_are_asked_for(nfsdict):
    done = subprocess.run([sys.executable, "-c", LATE_NAMES], capture_output=True, text=True)
    expected = (0, "module 'nfsdict' has no attribute 'nothing'\n", "")
    assert (done.returncode, done.stdout, done.stderr) == expected


AT_ONCE = """
import sys, threading
import nfsdict

def at_once(call):
    together, found = threading.Barrier(8), []
    def run():
        together.wait()
        found.append(call())
    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found

opened = at_once(lambda: nfsdict.NfsDict("store", sys.argv[1]))
d = opened[0]
parts = at_once(lambda: (d._leases, d._compute, d._claims, d._infos, d._background))
print(len(opened), len(parts), len(set(parts)))
"""


def test_threads_that_open_at_once_share_what_is_made_at_first_use(nfsdict, tmp_path):
    """Modules are imported then, too."""
    done = subprocess.run(
        [sys.executable, "-c", AT_ONCE, tmp_path], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("8 8 1\n", "")


AT_EXIT = """
import atexit, sys
import nfsdict
atexit.register(lambda: print(lease.held))
lease = nfsdict.NfsDict("store", sys.argv[1]).lease("key")
"""


def test_what_a_program_does_at_exit_is_done_under_its_leases(nfsdict, tmp_path):
    """They are released after that, whenever the first one was taken."""
    done = subprocess.run(
        [sys.executable, "-c", AT_EXIT, tmp_path], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("True\n", "")


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


def test_the_class_can_be_looked_through(nfsdict):
    assert {"_leases", "get", "prune"} <= set(dict(inspect.getmembers(nfsdict.NfsDict)))


def test_help_of_get_says_what_fresh_does(nfsdict, capsys):
    help(nfsdict.NfsDict.get)
    assert "``fresh``" in capsys.readouterr().out
