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
    is the same code over either. A case of which only one was asked for runs over that.
    """
    modules: dict[str, dict[object, list[pytest.Item]]] = {}
    for item in items:
        case = _case(item)
        if case is not None:
            modules.setdefault(str(item.path), {}).setdefault(case, []).append(item)
    left: set[pytest.Item] = set()
    for cases in modules.values():
        for number, twins in enumerate(cases.values()):
            kept = 0 if _is_of_one_core(twins[0]) else number % len(twins)
            left.update(twins[:kept] + twins[kept + 1 :])
    return left


def _is_of_one_core(item: pytest.Item) -> bool:
    return item.path.parent.name in COMPILED or item.path.name.startswith(COMPILED_NAMED)


def _case(item: pytest.Item) -> object:
    """What is the same for the items of which one is enough; None if this one is needed."""
    spec = getattr(item, "callspec", None)
    if not isinstance(item, pytest.Function) or spec is None or "nfsdict" not in spec.params:
        return None
    if item.path.parent.name in BOTH or item.path.stem in BOTH_NAMED:
        return None
    words = spec.id.split("-")
    words.remove(spec.params["nfsdict"])
    return item.originalname, *words
