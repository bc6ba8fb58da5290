"""What a test asks of the laboratory: the arguments of its `nfs` marker."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest
from _pytest import nodes

VERSIONS = ("3", "4.0", "4.1", "4.2")
EXPORTS = ("tmpfs", "ext4")
TIMEOUT = 60  # seconds


@dataclasses.dataclass(frozen=True, order=True)
class Configuration:
    """Server, network and mounts as one test finds them.

    The order is that in which changing them costs most, so that sorted tests change little.
    """

    export: str = "tmpfs"  # the file system on the server
    size_mb: int = 256  # of that file system
    root_squash: bool = False
    version: str = "4.2"  # of NFS
    options: str = ""  # mount options for both clients, besides vers= and nosharecache
    delegations: bool = True  # whether the server may grant them (on v4)
    rtt_ms: float = 0  # added to each round trip between client and server

    def __post_init__(self) -> None:
        if self.version not in VERSIONS:
            raise ValueError(f"NFS version {self.version!r} is none of {', '.join(VERSIONS)}")
        if self.export not in EXPORTS:
            raise ValueError(f"export {self.export!r} is none of {', '.join(EXPORTS)}")

    def __str__(self) -> str:
        """A test id: the version, and whatever else is not the default."""
        words = [f"v{self.version}"]
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name == "version" or value == field.default:
                continue
            if field.name in ("export", "options"):
                words.append(value.replace(",", "+"))
            else:
                words.append(f"{field.name}={value}")
        return "-".join(words)


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
