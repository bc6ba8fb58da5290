"""Threads and forks: one key's file and cache stay together, and no lock outlives its holder."""

from __future__ import annotations

import importlib
import os
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.aging import age
from support.forks import forking, in_child

KEYS = ["a", "b", "c", "d"]


@pytest.fixture
def opened(nfsdict, tmp_path):
    return lambda **options: nfsdict.NfsDict("s", tmp_path, durable=False, **options)


def run_threads(*functions):
    with ThreadPoolExecutor(len(functions)) as pool:
        for future in [pool.submit(function) for function in functions]:
            future.result()


def on_disk(store):
    other = type(store)("s", store.path.parent)
    return dict(other.items())


@pytest.mark.parametrize("lazy", [False, True])
def test_eight_threads_on_the_same_keys(opened, lazy):
    store = opened(lazy=lazy)
    barrier = threading.Barrier(8)

    def work(number):
        choose = random.Random(number)
        for turn in range(40):
            barrier.wait()
            key = choose.choice(KEYS)
            action = choose.randrange(8)
            value = (number, turn)
            if action <= 2:
                store[key] = value
            elif action == 3:
                store.update(dict.fromkeys(KEYS, value))
            elif action == 4:
                store.pop(key, None)
            elif action == 5:
                store.get(key, fresh=True)
            elif action == 6:
                store.setdefault(key, value)
            elif number == 0:
                store.sync()
            else:
                store.get(key)
            barrier.wait()
            if turn % 4 == 0 and number == 0:
                assert dict(store.items()) == on_disk(store)
            barrier.wait()

    def guarded(number):
        try:
            work(number)
        except BaseException:
            barrier.abort()
            raise

    run_threads(*(lambda number=number: guarded(number) for number in range(8)))
    assert dict(store.items()) == on_disk(store)


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("survey", ["sync", "refresh"])
def test_a_put_beside_a_survey_is_not_lost(opened, lazy, survey):
    store = opened(lazy=lazy)
    done = threading.Event()

    def look():
        while not done.is_set():
            getattr(store, survey)()

    def put():
        try:
            for number in range(150):
                key = str(number)
                store[key] = number
                assert key in set(store), "just put, and not listed"
                if number % 3 == 0:
                    del store[key]
                    assert key not in set(store), "just deleted, and listed again"
        finally:
            done.set()

    run_threads(look, put)
    expected = {str(number): number for number in range(150) if number % 3}
    assert dict(store.items()) == on_disk(store) == expected


@pytest.mark.parametrize("operation", ["put", "delete", "put back"])
def test_a_change_between_looking_and_taking_over(opened, monkeypatch, operation):
    """The same race, with the change made at the worst moment each time."""
    store = opened()
    store["old"] = 1
    if operation == "put back":
        del opened()["old"]
    Entries = importlib.import_module("nfsdict.entries").Entries
    read = Entries.read_entries

    def read_then_changed(self, digests, keep):
        entries = read(self, digests, keep)
        if operation == "delete":
            store.pop("old", None)
        else:
            store["old"] = 2
        return entries

    with monkeypatch.context() as patch:
        patch.setattr(Entries, "read_entries", read_then_changed)
        store.sync()
    assert dict(store.items()) == on_disk(store) == ({} if operation == "delete" else {"old": 2})


def test_one_winner_among_threads(opened):
    store = opened()
    with ThreadPoolExecutor(8) as pool:
        for turn in range(10):
            key = str(turn)
            won = list(pool.map(lambda n, key=key: store.add(key, n), range(8)))
            assert won.count(True) == 1
            taken = list(pool.map(lambda _, key=key: store.pop(key, None), range(8)))
            assert len([value for value in taken if value is not None]) == 1


@forking
def test_parent_and_child_both_go_on(opened):
    store = opened()
    store.update(a=1, b=2)

    def child():
        assert store == {"a": 1, "b": 2}
        store["a"] = "child"
        store.update({str(number): number for number in range(50)})
        del store["b"]
        store.sync()
        assert len(store) == 51
        store.close()
        assert list(store.path.glob("_index*")) == [], "the index is the parent's to flush"

    assert in_child(child) == 0
    store["c"] = "parent"
    assert store["a"] == 1
    assert store.get("a", fresh=True) == "child"
    store.sync()
    assert store == {"a": "child", "c": "parent", **{str(n): n for n in range(50)}}
    store.close()
    assert [file.name for file in store.path.glob("_index*")] == ["_index.nfsdict-pkl"]


@forking
def test_a_child_tells_release_021_of_its_own_changes(opened):
    store = opened()
    store["a"] = 1
    old_index = store.path / "_index.pkl"
    old_index.write_bytes(b"of a release 0.2.1 that ran meanwhile")

    def child():
        store["b"] = 2
        assert not old_index.exists()
        old_index.write_bytes(b"and once more")
        store.close()
        assert not old_index.exists()
        assert not list(store.path.glob("_index.nfsdict*")), "the parent's to write"

    assert in_child(child) == 0


@pytest.mark.parametrize("call", ["put", "add", "delete", "update"])
def test_an_interrupt_leaves_the_answer_to_the_disk(opened, monkeypatch, call):
    store = opened()
    store["k"] = "old"
    writers = {
        "write_file": importlib.import_module("nfsdict.storage.values"),
        "write_files": importlib.import_module("nfsdict.storage.files"),
    }

    def interrupted(function):
        def wrapper(*arguments):
            function(*arguments)
            raise KeyboardInterrupt

        return wrapper

    if call == "add":
        del store["k"]
    with monkeypatch.context() as patch:
        for name, module in writers.items():
            patch.setattr(module, name, interrupted(getattr(module, name)))
        patch.setattr(os, "unlink", interrupted(os.unlink))
        with pytest.raises(KeyboardInterrupt):
            {
                "put": lambda: store.__setitem__("k", "new"),
                "add": lambda: store.add("k", "new"),
                "delete": lambda: store.__delitem__("k"),
                "update": lambda: store.update(k="new"),
            }[call]()
    assert store.get("k") == (None if call == "delete" else "new")


@forking
def test_a_fork_while_another_thread_writes_and_surveys(opened, nfsdict, monkeypatch):
    store = opened()
    store["k"] = 1
    files = importlib.import_module("nfsdict.storage.values")
    Shards = importlib.import_module("nfsdict.storage.shards").Shards
    held = threading.Barrier(3)
    go_on = threading.Event()
    write_file, shards = files.write_file, Shards.present

    def slow_write(*arguments):
        held.wait()
        go_on.wait()
        return write_file(*arguments)

    def slow_shards(self):
        held.wait()
        go_on.wait()
        return shards(self)

    def child():
        files.write_file, Shards.present = write_file, shards
        store["k"] = 2
        store.sync()
        assert store == {"k": 2}
        store["k"] = 3

    with monkeypatch.context() as patch, ThreadPoolExecutor(2) as pool:
        patch.setattr(files, "write_file", slow_write)
        patch.setattr(Shards, "present", slow_shards)
        futures = [pool.submit(store.__setitem__, "k", 4), pool.submit(store.sync)]
        held.wait()
        try:
            status = in_child(child)
        finally:
            go_on.set()
        for future in futures:
            future.result()
    assert status == 0
    assert store["k"] == 4
    assert on_disk(store) == {"k": 4}


def test_a_lookup_that_a_refresh_overtakes_is_not_forgotten(nfsdict, tmp_path, monkeypatch):
    """What it saw, no plain read takes back: it asks again."""
    d, other = nfsdict.NfsDict("s", tmp_path), nfsdict.NfsDict("s", tmp_path)
    d["k"] = 1
    del other["k"]
    begun, go = threading.Event(), threading.Event()
    find, shards = d._entries.find_entry, d._storage.shards.present
    refresh = threading.Thread(target=d.refresh)

    def held():
        begun.set()
        assert go.wait(30)
        return shards()

    def slow(*arguments, **options):
        found = find(*arguments, **options)
        refresh.start()
        assert begun.wait(30)
        return found

    monkeypatch.setattr(d._storage.shards, "present", held)
    monkeypatch.setattr(d._entries, "find_entry", slow)
    assert d.get("k", fresh=True) is None
    monkeypatch.setattr(d._entries, "find_entry", find)
    assert d.get("k") is None
    go.set()
    refresh.join()
    assert "k" not in d


def test_an_interrupting_call_beside_lookups_that_end(nfsdict):
    """It notes a change without a lock, while other threads' lookups begin and end."""
    in_flight = importlib.import_module("nfsdict.in_flight").InFlight()
    in_flight.reads["k"] = reads = set()
    done = threading.Event()

    def look():
        others = [importlib.import_module("nfsdict.in_flight").Read("k", None) for _ in range(50)]
        while not done.is_set():
            reads.update(others)
            reads.difference_update(others)

    def change():
        try:
            for _ in range(5000):
                in_flight.overtake_interrupting("k")
        finally:
            done.set()

    run_threads(look, change)


def test_a_change_while_the_keys_are_counted(opened, monkeypatch):
    """By an interrupting call, which waits for no lock."""
    writer = opened()
    writer.update({str(number): number for number in range(100)})
    writer.close()
    age(writer.path)
    opened().pack()
    store = opened(lazy=True)
    assert len(store) == 100
    state = importlib.import_module("nfsdict.state")
    digest = state.digest
    store["new"] = 1
    new = iter(range(1000))

    def changing(key):
        other = f"other {next(new)}"
        store._state.record_interrupting(digest(other), other, there=False)
        store._cache[other] = 1
        return digest(key)

    with monkeypatch.context() as patch:
        patch.setattr(state, "digest", changing)
        len(store)
