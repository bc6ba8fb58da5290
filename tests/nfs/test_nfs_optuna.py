"""Optuna's journal between two clients of a real server: all trials, and what reading costs."""

from __future__ import annotations

import importlib

import pytest

from lab.laboratory import Lab
from support.needed import needed
from support.trials import TRIALS, WORK, check, work_with_two_killed

SECONDS = 240


@pytest.fixture
def backend(package):
    """A journal in this dictionary."""
    needed("optuna")
    return importlib.import_module("nfsdict.integrations.optuna").NfsDictJournalBackend


@pytest.mark.nfs(version="4.2", timeout=SECONDS)
def test_processes_on_two_clients_do_all_trials_although_two_are_killed(
    lab: Lab, package, backend
) -> None:
    done = work_with_two_killed(
        lambda number: lab.spawn(WORK, (lab.a, lab.b)[number % 2], TRIALS), SECONDS
    )
    optuna = needed("optuna")
    for client in (lab.a, lab.b):
        d = package.NfsDict("journal", client, "bytes")
        study = optuna.load_study(
            study_name="study", storage=optuna.storages.JournalStorage(backend(d))
        )
        check(study.trials, set(d), done)


@pytest.mark.nfs(version=("3", "4.2"))
def test_reading_costs_what_is_new(lab: Lab, package, backend) -> None:
    writer = backend(package.NfsDict("journal", lab.a, "bytes"))
    reader = backend(package.NfsDict("journal", lab.b, "bytes"))
    costs, read = [], 0
    for new in (10, 200, 10):
        writer.append_logs([{"record": number} for number in range(new)])
        with lab.rpcs("b") as calls:
            assert len(list(reader.read_logs(read))) == new
        costs.append(calls.total)
        read += new
    assert max(costs[0], costs[2]) <= 6 * 10 + 10
