"""Over which of the two cores a test runs, where not everything runs over both."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

# What the cores do themselves: folders, and modules.
BOTH = {"core", "index"}
BOTH_NAMED = {"test_contract", "test_machine", "test_failing_calls"}
# What uses a dictionary by methods that other tests try over both cores: the command, other
# packages, what hosts compute once (PyPy has that over the pure core), and work on whole stores.
COMPILED = {"integrations", "coordination"}
COMPILED_NAMED = ("test_cli", "test_prune", "test_transfer", "test_migrate")


def of_one_too_many(items: Iterable[pytest.Item]) -> set[pytest.Item]:
    """The items to leave out, so that most tests run over one core.

    Of the cases of a module the first runs over the compiled core, the next over the pure one, and
    so on. The cores are held to each other by tests that run over both, and the rest of the package
    is the same code over either.
    """
    left = set()
    numbers: dict[str, dict[tuple[object, ...], int]] = {}
    for item in items:
        core, case = _core_and_case(item)
        if core is None or item.path.parent.name in BOTH or item.path.stem in BOTH_NAMED:
            continue
        cases = numbers.setdefault(str(item.path), {})
        number = cases.setdefault(case, len(cases))
        only_compiled = item.path.parent.name in COMPILED or item.path.name.startswith(
            COMPILED_NAMED
        )
        if core != ("compiled" if only_compiled or number % 2 == 0 else "pure"):
            left.add(item)
    return left


def _core_and_case(item: pytest.Item) -> tuple[object, tuple[object, ...]]:
    """The core, if the item has one, and what is the same with the other one."""
    spec = getattr(item, "callspec", None)
    if not isinstance(item, pytest.Function) or spec is None or "nfsdict" not in spec.params:
        return None, ()
    ids = sorted(name for name in spec.params if name != "nfsdict")
    return spec.params["nfsdict"], (item.originalname, *(spec.indices[name] for name in ids))
