"""The fixtures of a test inside the guest."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .laboratory import Bench, Lab


@pytest.fixture(scope="session")
def lab_bench() -> Bench:
    return Bench()


@pytest.fixture
def lab(request: pytest.FixtureRequest, lab_bench: Bench) -> Iterator[Lab]:
    """The laboratory, as the test's marker asks for it."""
    with lab_bench.lab(request.param) as lab:
        yield lab
