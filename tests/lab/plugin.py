"""The pytest plugin: the markers `nfs` and `shared`, the option `--shared`, and what `lab` is."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path
from typing import NoReturn

import pytest

from . import fixtures
from .guest import obstacle
from .inside import Inside
from .marker import configuration, configurations, is_marked
from .replay import RUN, Guests
from .servers import SERVERS

ALL = "all"
USUAL = "knfsd"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--shared",
        metavar="SERVERS",
        help="the servers (comma-separated, or 'all') on which tests run in the laboratory, by"
        f" default {USUAL}: {', '.join(SERVERS)}. If one that is named, or with CI=true {USUAL},"
        " cannot be started here, that is an error; else its tests are skipped.",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "nfs(version=('3', '4.0', '4.1', '4.2'), export='tmpfs', size_mb=256, root_squash=False,"
        " options='', delegations=True, rtt_ms=0, timeout=240): run in a guest with Linux's NFS"
        " server and two clients, once for each combination of the values of arguments that are"
        " tuples; export is 'tmpfs', 'ext4' or 'xfs', options are mount options, timeout is in"
        " seconds.",
    )
    config.addinivalue_line(
        "markers",
        f"shared(server={tuple(SERVERS)}, options=..., server_options=..., ...): the same with each"
        " of these servers, with the options with which it keeps all promises; arguments as of"
        " nfs. A test may have both markers.",
    )
    directory = os.environ.get(RUN)
    if directory:
        config.pluginmanager.register(fixtures)
        config.pluginmanager.register(Inside(config, Path(directory)))
    else:
        config.pluginmanager.register(Outside())


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marked = is_marked(metafunc.definition)
    if marked != ("lab" in metafunc.fixturenames):
        name = metafunc.definition.nodeid
        raise pytest.UsageError(f"{name}: the markers nfs, shared and the fixture lab go together")
    if marked:
        values = configurations(metafunc.definition)
        metafunc.parametrize("lab", values, indirect=True, ids=map(str, values))


def pytest_itemcollected(item: pytest.Item) -> None:
    """Every test of the laboratory can be chosen, or left out, by the marker `shared`."""
    if is_marked(item) and not item.get_closest_marker("shared"):
        item.add_marker("shared")


def _chosen(config: pytest.Config) -> set[str]:
    """The servers on which tests run."""
    option = config.getoption("shared") or USUAL
    names = set(SERVERS) if option == ALL else set(option.split(","))
    if not names <= set(SERVERS):
        raise pytest.UsageError(f"--shared: {', '.join(SERVERS)} are servers, {option} is not")
    return names


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
        servers = {item: configuration(item).server for item in items if is_marked(item)}
        chosen = _chosen(config)
        others = [item for item, server in servers.items() if server not in chosen]
        if others:
            config.hook.pytest_deselected(items=others)
            items[:] = [item for item in items if item not in servers or servers[item] in chosen]
        reasons = {server: obstacle([server]) for server in chosen.intersection(servers.values())}
        missing = "; ".join(filter(None, reasons.values()))
        if missing and (config.getoption("shared") or os.environ.get("CI") == "true"):
            raise pytest.UsageError(missing)
        for item, server in servers.items():
            reason = reasons.get(server)
            if reason is not None:
                item.add_marker(pytest.mark.skip(reason=reason))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        """Let pytest run all other tests as if there were no more, and the marked ones in guests,
        fewest changes of the set-up first."""
        items = session.items
        marked = [item for item in items if is_marked(item) and not item.get_closest_marker("skip")]
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
