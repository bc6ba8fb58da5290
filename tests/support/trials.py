"""Processes that share a study of Optuna, of which some are killed."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any

PROCESSES, TRIALS = 6, 50

# Creates the study or finds it, says so, waits for a line, and tells of each trial that is done.
WORK = """
import sys
import optuna
from nfsdict import NfsDict
from nfsdict.integrations.optuna import NfsDictJournalBackend

optuna.logging.set_verbosity(optuna.logging.ERROR)
d = NfsDict("journal", sys.argv[1], serializer="bytes")
storage = optuna.storages.JournalStorage(NfsDictJournalBackend(d))
study = optuna.create_study(
    study_name="study",
    storage=storage,
    load_if_exists=True,
    sampler=optuna.samplers.RandomSampler(),
)

def told(study, trial):
    print(trial.number, trial.params["x"], flush=True)

print("ready", flush=True)
sys.stdin.readline()
study.optimize(lambda trial: trial.suggest_float("x", -1, 1), int(sys.argv[2]), callbacks=[told])
"""


def work_with_two_killed(
    start: Callable[[int], subprocess.Popen[str]], seconds: float
) -> dict[int, float]:
    """Have processes 0 to 5 do their trials, and kill two on the way.

    ``start`` starts ``WORK`` in the process of that number. Returns the parameter of each trial of
    which a process has told that it was done.
    """
    started = [start(number) for number in range(PROCESSES)]
    outputs: list[list[str]] = [[] for _ in started]
    for process in started:
        assert _line(process) == "ready"
    for process in started:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for victim, after in ((0, 5), (1, 20)):
        outputs[victim] += [_line(started[victim]) for _ in range(after)]
        started[victim].kill()
    for number, process in enumerate(started):
        assert process.stdout is not None
        output = process.stdout.read()  # ``communicate`` wouldn't get what is read ahead
        whole, _, _ = output.rpartition("\n")  # the last word of a killed one may be torn
        outputs[number] += whole.splitlines()
        _, errors = process.communicate(timeout=seconds)
        assert number < 2 or (process.returncode == 0 and len(outputs[number]) == TRIALS), errors
    told = [line.split() for output in outputs for line in output]
    done = {int(number): float(x) for number, x in told}
    assert len(done) == len(told), "two processes had a trial of the same number"
    assert len(told) >= 4 * TRIALS + 25
    return done


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def check(trials: list[Any], keys: set[str], done: dict[int, float]) -> None:
    """All trials are there, and so is each record of the journal."""
    assert [trial.number for trial in trials] == list(range(len(trials)))
    finished = {trial.number: trial.params["x"] for trial in trials if trial.state.is_finished()}
    assert done.items() <= finished.items()
    # Of a killed process: a trial that it was at, and one that it had no time to tell of.
    assert len(trials) - len(done) <= 4
    assert len(trials) - len(finished) <= 2
    records = keys - {"snapshot"}
    assert records == {f"{number:020d}" for number in range(len(records))}
