"""The pytest plugin: the marker `nfs`, the option `--nfs`, and the fixture `lab`'s parameters."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path
from typing import NoReturn

import pytest

from . import fixtures
from .guest import obstacle
from .inside import Inside
from .marker import configuration, configurations
from .replay import RUN, Guests


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--nfs", action="store_true", help="NFS tests that cannot run are an error, not skipped"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "nfs(version=('3', '4.0', '4.1', '4.2'), export='tmpfs', size_mb=256, root_squash=False,"
        " options='', delegations=True, rtt_ms=0, timeout=60): run in a guest with an NFS server"
        " and two clients, once for each combination of the values of arguments that are tuples;"
        " export is 'tmpfs' or 'ext4', options are mount options, timeout is in seconds.",
    )
    directory = os.environ.get(RUN)
    if directory:
        config.pluginmanager.register(fixtures)
        config.pluginmanager.register(Inside(config, Path(directory)))
    else:
        config.pluginmanager.register(Outside())


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marked = metafunc.definition.get_closest_marker("nfs") is not None
    if marked != ("lab" in metafunc.fixturenames):
        name = metafunc.definition.nodeid
        raise pytest.UsageError(f"{name}: the marker nfs and the fixture lab go together")
    if marked:
        values = configurations(metafunc.definition)
        metafunc.parametrize("lab", values, indirect=True, ids=map(str, values))


class Outside:
    """Keeps marked tests from running here, and runs them in guests, beside others and after."""

    def __init__(self) -> None:
        self._guests: Guests | None = None

    @pytest.fixture
    def lab(self) -> NoReturn:
        """The laboratory; there is one only inside a guest."""
        raise RuntimeError("outside of a guest there is no laboratory")

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        marked = [item for item in items if item.get_closest_marker("nfs")]
        reason = obstacle() if marked else None
        if reason is None:
            return
        if config.getoption("nfs") or os.environ.get("CI") == "true":
            raise pytest.UsageError(reason)
        for item in marked:
            item.add_marker(pytest.mark.skip(reason=reason))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        """Let pytest run all other tests as if there were no more, and the marked ones in guests,
        fewest changes of the set-up first."""
        items = session.items
        marked = [
            item
            for item in items
            if item.get_closest_marker("nfs") and not item.get_closest_marker("skip")
        ]
        if not marked or session.config.option.collectonly:
            return (yield)
        session.items = [item for item in items if item not in marked]
        self._guests = Guests(session, sorted(marked, key=configuration))
        try:
            try:
                result = yield  # raises what ends the session early
            finally:
                session.items = items
            self._guests.rest()
        finally:
            self._guests.close()
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self) -> Generator[None, object, object]:
        """Look after the guests between two tests."""
        result = yield
        if self._guests is not None:
            self._guests.beside()
        return result
