"""The public face: what ``import nfsdict`` gives, and that every module stands on its own."""

from __future__ import annotations

import inspect
import pkgutil
import pydoc
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

PUBLIC = [
    "BACKEND",
    "BatchError",
    "CorruptValueError",
    "Diagnosis",
    "EntryInfo",
    "Finding",
    "Lease",
    "LeaseInfo",
    "LeaseLostError",
    "NfsDict",
    "NfsDictError",
    "PackReport",
    "Packing",
    "ReadOnlyError",
    "RepairReport",
    "Serializer",
    "Task",
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
    ],
)
def test_errors(nfsdict, error, bases):
    for base in (*bases, nfsdict.NfsDictError):
        assert issubclass(getattr(nfsdict, error), base)


def modules(package):
    """Every module of the package, but for the one that runs when it is imported."""
    found = {module.name for module in pkgutil.walk_packages(package.__path__, "nfsdict.")}
    return sorted(found - {"nfsdict.__main__"})


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


def test_importing_it_imports_nothing_large(nfsdict):
    code = (
        "import sys, nfsdict; "
        "print([name for name in ('tqdm', 'argparse', 'numpy', 'asyncio') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


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
