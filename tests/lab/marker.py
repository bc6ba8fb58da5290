"""The markers `nfs` and `shared`: what a test asks of the laboratory."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from _pytest import nodes

from .configuration import NFS, VERSIONS, Configuration
from .servers import SERVERS

TIMEOUT = 240  # seconds: for a test that hangs, on a machine that has other work
MARKERS = ("nfs", "shared")


def is_marked(test: nodes.Node) -> bool:
    """Whether a test runs in the laboratory."""
    return any(test.get_closest_marker(name) for name in MARKERS)


def configurations(test: nodes.Node) -> list[Configuration]:
    """Every combination that the markers of *test* ask for, a closer marker before a wider one.

    An argument that is a tuple or list stands for each of its values. Raises TypeError for an
    unknown argument, ValueError for a bad value.
    """
    found: list[Configuration] = []
    if test.get_closest_marker("nfs"):
        found += _combinations({"version": VERSIONS, **_arguments(test, "nfs")})
    if test.get_closest_marker("shared"):
        arguments = _arguments(test, "shared")
        for server in _values(arguments.pop("server", tuple(SERVERS))):
            found += _combinations({**_defaults(server), **arguments, "server": server})
    return list(dict.fromkeys(found))


def _defaults(server: str) -> dict[str, Any]:
    if server not in SERVERS:
        raise ValueError(f"server {server!r} is none of {', '.join(SERVERS)}")
    kind = SERVERS[server]
    return {
        "version": kind.VERSIONS,
        "export": kind.BELOW,
        "options": kind.OPTIONS,
        "server_options": kind.SERVER_OPTIONS,
    }


def _combinations(arguments: dict[str, Any]) -> Iterator[Configuration]:
    arguments.pop("timeout", None)
    if arguments.get("server", "knfsd") not in NFS:
        arguments["version"] = ""
    for combination in itertools.product(*map(_values, arguments.values())):
        yield Configuration(**dict(zip(arguments, combination)))


def _values(argument: Any) -> tuple[Any, ...]:
    return tuple(argument) if isinstance(argument, (tuple, list)) else (argument,)


def configuration(item: pytest.Item) -> Configuration:
    """The one that *item*, a test for each of `configurations`, is for."""
    assert isinstance(item, pytest.Function)
    value = item.callspec.params["lab"]
    assert isinstance(value, Configuration)
    return value


def time_limit(test: nodes.Node) -> float:
    """Seconds that the call and the tear-down of *test* may each take; longer is a hang."""
    limits = [_arguments(test, name).get("timeout") for name in MARKERS]
    return max((float(limit) for limit in limits if limit is not None), default=TIMEOUT)


def _arguments(test: nodes.Node, name: str) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    for marker in reversed(list(test.iter_markers(name))):
        if marker.args:
            raise TypeError(f"the {name} marker takes keyword arguments only")
        arguments.update(marker.kwargs)
    return arguments
