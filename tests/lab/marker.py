"""The marker `nfs`: what a test asks of the laboratory."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from _pytest import nodes

from .configuration import VERSIONS, Configuration

TIMEOUT = 60  # seconds


def configurations(test: nodes.Node) -> list[Configuration]:
    """Every combination that the markers of *test* ask for, a closer marker before a wider one.

    An argument that is a tuple or list stands for each of its values; without `version` a test
    runs on all of them. Raises TypeError for an unknown argument, ValueError for a bad value.
    """
    arguments = {"version": VERSIONS, **_arguments(test)}
    arguments.pop("timeout", None)
    values = [v if isinstance(v, (tuple, list)) else (v,) for v in arguments.values()]
    return [
        Configuration(**dict(zip(arguments, combination)))
        for combination in itertools.product(*values)
    ]


def configuration(item: pytest.Item) -> Configuration:
    """The one that *item*, a test for each of `configurations`, is for."""
    assert isinstance(item, pytest.Function)
    value = item.callspec.params["lab"]
    assert isinstance(value, Configuration)
    return value


def time_limit(test: nodes.Node) -> float:
    """Seconds that the call and the tear-down of *test* may each take; longer is a hang."""
    return float(_arguments(test).get("timeout", TIMEOUT))


def _arguments(test: nodes.Node) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    for marker in reversed(list(test.iter_markers("nfs"))):
        if marker.args:
            raise TypeError("the nfs marker takes keyword arguments only")
        arguments.update(marker.kwargs)
    return arguments
