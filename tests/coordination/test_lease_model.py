"""The leases' protocol, explored: every interleaving of contenders that crash or stand still.

At most one of them holds the lease and lives; whenever all but one stop for good, that one gets it;
and when all are done, nothing is left. Without any one of the rules, that is not so.
"""

from __future__ import annotations

import pytest

from support.lease_model import RULES, Model


@pytest.mark.parametrize(
    ("contenders", "tries", "renewals", "states"), [(3, 1, 1, 600_000), (2, 2, 2, 30_000)]
)
def test_no_two_hold_it_somebody_gets_it_and_nothing_is_left(contenders, tries, renewals, states):
    assert Model(contenders, tries, renewals).explore() > states


def test_of_those_who_try_but_do_not_wait_one_holds_it():
    assert Model(2, 2, patient=False).explore() > 20_000


TWO, LEFT = "two hold it", "something is left"
BROKEN = {
    "lists again after its own file is made": (2, 1, TWO),
    "waits for a whole duration": (2, 1, TWO),
    "counts its duration from when it asked": (2, 1, TWO),
    "stays lost": (2, 1, TWO),
    "looks at all files": (3, 1, TWO),
    "uses no name twice": (2, 2, TWO),
    "steps back": (3, 1, LEFT),
    "looks again when it has stepped back": (2, 1, "all give up"),
    "removes its file when it is done": (2, 1, LEFT),
    "removes the files of the dead": (2, 1, LEFT),
}


@pytest.mark.parametrize("rule", sorted(RULES))
def test_every_rule_is_needed(rule):
    contenders, tries, wrong = BROKEN[rule]
    patient = wrong != "all give up"
    with pytest.raises(AssertionError, match=wrong):
        Model(contenders, tries, rules=RULES - {rule}, patient=patient).explore()
