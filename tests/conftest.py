"""The package under test, with each core in turn."""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Iterator
from types import ModuleType

import hypothesis
import pytest

from nfsdict.backend import VARIABLE, expects_extension
from support import aging, cores
from support.proof import FACTOR

pytest_plugins = ["lab.plugin"]

os.umask(0o022)  # what may be written by whom is part of some tests, and of none by accident

# Time is no promise of these tests, and they run on machines that have other work.
hypothesis.settings.register_profile(
    "nfsdict", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("nfsdict")


# Asked before a test sets the variable.
BOTH = expects_extension()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--both-cores",
        action="store_true",
        help="run every test over both cores, as NFSDICT_PROOF above 1 does; by default most run"
        " over one",
    )


@pytest.hookimpl(trylast=True)  # of what other options chose
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if FACTOR == 1 and not config.getoption("--both-cores"):
        left = cores.of_one_too_many(items)
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in left]


@pytest.fixture(scope="session", params=["compiled", "pure"] if BOTH else ["pure"])
def nfsdict(request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    """The package with this core, and so in the processes that a test starts.

    Where an extension is expected, a missing one is an error here, for "compiled" is asked for.
    Import modules of the package in tests and fixtures only, by ``importlib.import_module``:
    those imported earlier belong to another core.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, request.param)
        _forget()
        package = importlib.import_module("nfsdict")
        assert request.param == package.BACKEND
        yield package
        _forget()


@pytest.fixture
def core(nfsdict):
    """The core that runs."""
    return importlib.import_module("nfsdict.core")


@pytest.fixture(scope="module")
def twins():
    """The modules that meet the contract: both on CPython, where a missing one is an error."""
    names = ["_core", "_pure"] if BOTH else ["_pure"]
    return [importlib.import_module(f"nfsdict.{name}") for name in names]


@pytest.fixture
def opened(nfsdict, tmp_path):
    """Open the test's store, whatever the options."""

    def opened(**options):
        return nfsdict.NfsDict(**{"name": "s", "base_dir": tmp_path, **options})

    return opened


@pytest.fixture(autouse=True)
def real_time():
    """What a test has called old is as new as it is for the next one."""
    yield
    aging.forget()


# --- what is done to get there ---------------------------------------------------------------


@pytest.fixture
def lists(nfsdict, monkeypatch):
    """The shards that were listed, in order of the calls."""
    Shards = importlib.import_module("nfsdict.storage.shards").Shards
    calls = []
    original = Shards.list
    monkeypatch.setattr(
        Shards,
        "list",
        lambda self, shard, *known: calls.append(shard) or original(self, shard, *known),
    )
    return calls


@pytest.fixture
def reads(nfsdict, monkeypatch):
    """Names of the value files that were read."""
    files = importlib.import_module("nfsdict.storage.files")
    calls = []
    original = files.read_files

    def read_files(paths):
        names = map(os.path.basename, paths)
        calls.extend(name for name in names if not name.startswith("_"))
        return original(paths)

    monkeypatch.setattr(files, "read_files", read_files)
    return calls


# --- in the laboratory -----------------------------------------------------------------------


@pytest.fixture
def package():
    """The package as it is installed, with the core that it finds."""
    return importlib.import_module("nfsdict")


@pytest.fixture
def a(package, lab):
    """Opens the test's store on client A; the first time there is none yet."""
    return lambda **options: _open(package, lab.a, options)


@pytest.fixture
def b(package, lab):
    """The same on client B."""
    return lambda **options: _open(package, lab.b, options)


def _open(package, base, options):
    with warnings.catch_warnings():
        # The options of FUSE can't be seen, whatever they are.
        warnings.simplefilter("ignore", package.UnsafeMountWarning)
        return package.NfsDict("store", base, **options)


def _forget() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "nfsdict"]:
        del sys.modules[name]
