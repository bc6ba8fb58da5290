"""Optuna's journal in a dictionary: its own tests of a storage, many processes, kills, costs."""

from __future__ import annotations

import importlib
import pickle
import subprocess
import sys
import threading

import pytest

from support.needed import needed
from support.processes import processes
from support.trials import TRIALS, WORK, check, work_with_two_killed

optuna = needed("optuna")
StorageTestCase = importlib.import_module("optuna.testing.pytest_storages").StorageTestCase


@pytest.fixture
def backend(nfsdict):
    """A journal in this dictionary."""
    return importlib.import_module("nfsdict.integrations.optuna").NfsDictJournalBackend


@pytest.fixture
def storage(opened, backend):
    return optuna.storages.JournalStorage(backend(opened(serializer="bytes", durable=False)))


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
class TestStorage(StorageTestCase):
    """Optuna's own, each of which takes the fixture ``storage``."""


@pytest.fixture(params=["bytes", "pickle", "buffers"])
def mapping(opened, request):
    return opened(serializer=request.param, durable=False)


def key(number):
    return f"{number:020d}"


def records(*numbers):
    return [{"record": number} for number in numbers]


def test_a_record_is_an_entry(mapping, backend):
    journal = backend(mapping)
    journal.append_logs(records(0, 1))
    journal.append_logs([])
    journal.append_logs(records(2))
    assert mapping.pop(key(2)) == b'{"record":2}'
    assert list(mapping) == [key(0), key(1)]
    assert list(journal.read_logs(0)) == records(0, 1)
    assert list(journal.read_logs(1)) == records(1)
    assert list(journal.read_logs(7)) == []


def test_what_is_read_is_nobody_elses(mapping, backend):
    """Optuna keeps and changes what it reads, and what it wrote is the caller's."""
    mine = [{"attribute": [1]}]
    journal = backend(mapping)
    journal.append_logs(mine)
    mine[0]["attribute"].append(2)
    [read] = journal.read_logs(0)
    assert read == {"attribute": [1]}
    read["attribute"].append(3)
    assert list(journal.read_logs(0)) == [{"attribute": [1]}]


def test_what_is_no_json_is_refused_and_nothing_is_written(mapping, backend):
    with pytest.raises(TypeError, match="JSON"):
        backend(mapping).append_logs([{"record": 0}, {"record": object()}])
    assert dict(mapping) == {}


def test_a_serializer_without_bytes_is_refused(opened, backend):
    with pytest.raises(TypeError, match="bytes"):
        backend(opened(serializer="json")).append_logs(records(0))


def test_what_is_no_dictionary_is_refused(backend):
    with pytest.raises(TypeError, match="NfsDict, not dict"):
        backend({})


def test_a_read_only_journal_is_read(opened, backend, nfsdict):
    backend(opened(serializer="bytes")).append_logs(records(0))
    journal = backend(opened(serializer="bytes", read_only=True))
    assert list(journal.read_logs(0)) == records(0)
    with pytest.raises(nfsdict.ReadOnlyError):
        journal.append_logs(records(1))


def test_a_damaged_record_is_an_error(mapping, opened, backend, nfsdict):
    journal = backend(mapping)
    journal.append_logs(records(0, 1, 2))
    for path in mapping.path.glob("??/*"):
        if key(1).encode() in path.read_bytes():
            path.write_bytes(b"")
    other = backend(pickle.loads(pickle.dumps(mapping)))
    reading = other.read_logs(0)
    assert next(reading) == {"record": 0}
    with pytest.raises(nfsdict.CorruptValueError, match=f"{key(1)}.*restore this file"):
        next(reading)


def test_a_snapshot_is_what_any_process_has_saved_last(mapping, backend):
    one, other = backend(mapping), backend(pickle.loads(pickle.dumps(mapping)))
    assert one.load_snapshot() is None
    for number, (saves, loads) in enumerate([(one, other), (other, one)]):
        saves.save_snapshot(b"%d" % number)
        assert loads.load_snapshot() == b"%d" % number


def test_a_snapshot_that_is_damaged_or_cant_be_written_is_done_without(
    mapping, backend, monkeypatch, caplog
):
    journal = backend(mapping)
    journal.save_snapshot(b"summary")
    [path] = mapping.path.glob("??/*")
    path.write_bytes(b"")
    assert journal.load_snapshot() is None
    assert "damaged snapshot" in caplog.text

    def full(self, key, value):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(mapping), "__setitem__", full)
    journal.save_snapshot(b"summary")
    assert "No space left" in caplog.text


def test_a_new_process_begins_with_the_snapshot(opened, backend, monkeypatch):
    monkeypatch.setattr(optuna.storages.journal._storage, "SNAPSHOT_INTERVAL", 3)
    d = opened(serializer="bytes", durable=False)
    study = optuna.create_study(storage=optuna.storages.JournalStorage(backend(d)))
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=4)
    d.update({key(number): b"not read again" for number in range(9)})
    again = optuna.storages.JournalStorage(backend(opened(serializer="bytes")))
    assert [trial.params for trial in again.get_all_trials(0)] == [
        trial.params for trial in study.trials
    ]


@pytest.fixture
def counted(nfsdict, tmp_path):
    """Opens the test's store; ``asked`` are the keys that it has looked up on disk, or created."""

    class Counted(nfsdict.NfsDict):
        asked = ()

        def _lookup(self, key, fresh):
            self.asked += (key,)
            return super()._lookup(key, fresh)

        def _exists(self, key):
            self.asked += (key,)
            return super()._exists(key)

        def add(self, key, value):
            self.asked += (key,)
            return super().add(key, value)

    return lambda **options: Counted("s", tmp_path, "bytes", durable=False, **options)


@pytest.mark.parametrize("before", [10, 1000])
def test_reading_costs_what_is_new(counted, backend, before):
    writer = backend(counted())
    writer.append_logs(records(*range(before)))
    d = counted()
    reader = backend(d)
    assert len(list(reader.read_logs(0))) == before
    assert d.asked == (key(before),)  # what was there when it was opened is in memory
    d.asked = ()
    writer.append_logs(records(*range(5)))
    assert list(reader.read_logs(before)) == records(*range(5))
    assert d.asked == tuple(map(key, range(before, before + 6)))
    d.asked = ()
    reader.append_logs(records(6))
    assert list(reader.read_logs(before + 5)) == records(6)
    assert d.asked == (key(before + 5), key(before + 6))


def test_who_appends_finds_the_end_in_few_steps(counted, backend):
    """As after a snapshot, with which nothing is read."""
    for number in [0, 1, 2, 3, 4, 5, 6, 7, 8, 1000]:
        d = counted(lazy=True)
        d.clear()
        d.update({key(each): b'{"record":0}' for each in range(number)})
        d = counted(lazy=True)
        backend(d).append_logs(records(1))
        assert len(d.asked) <= 2 + 2 * number.bit_length()
        assert list(backend(d).read_logs(number)) == records(1)


def test_threads_append_with_one_backend(mapping, backend):
    journal = backend(mapping)
    threads = [
        threading.Thread(
            target=lambda first=first: [journal.append_logs(records(first + n)) for n in range(20)]
        )
        for first in range(0, 160, 20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(one["record"] for one in journal.read_logs(0)) == list(range(160))


def test_processes_do_all_trials_although_two_are_killed(nfsdict, opened, backend, tmp_path):
    with processes() as start:
        command = [sys.executable, "-W", "error", "-c", WORK, str(tmp_path), str(TRIALS)]
        done = work_with_two_killed(
            lambda number: start(command, stdin=subprocess.PIPE, text=True), 60
        )
    d = nfsdict.NfsDict("journal", tmp_path, "bytes")
    storage = optuna.storages.JournalStorage(backend(d))
    study = optuna.load_study(study_name="study", storage=storage)
    check(study.trials, set(d), done)
