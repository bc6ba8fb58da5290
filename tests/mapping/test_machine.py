"""Two dictionaries on one store, against two plain dicts: what lies on disk, and what is cached."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from support.aging import age

# 1 and 12 are of one shard, the others of one each.
KEYS = ["", "a", "b", "é\0", "1", "12"]
UNLOADED = object()

keys = st.sampled_from(KEYS)
values = st.one_of(st.integers(0, 3), st.text(max_size=2), st.none())
several = st.dictionaries(keys, values, max_size=4)
either = st.sampled_from([0, 1])


class One:
    """A dictionary, and what it has to know: {key: value or UNLOADED}."""

    def __init__(self, dictionary, lazy):
        self.dictionary = dictionary
        self.lazy = lazy
        self.known = {}
        self.listed = False


class TwoOnOneStore(RuleBasedStateMachine):
    def __init__(self, nfsdict):
        super().__init__()
        self.nfsdict = nfsdict

    @initialize(first=st.booleans(), second=st.booleans(), workers=st.sampled_from([1, 3]))
    def start(self, first, second, workers):
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name, "store")
        self.workers = workers
        self.disk = {}
        self.ones = [self.opened(first), self.opened(second)]

    def teardown(self):
        for one in getattr(self, "ones", ()):
            one.dictionary.close()
        if hasattr(self, "folder"):
            self.folder.cleanup()

    def opened(self, lazy):
        one = One(
            self.nfsdict.NfsDict(
                "store", self.folder.name, lazy=lazy, durable=False, workers=self.workers
            ),
            lazy,
        )
        if not lazy:
            self.list(one)
        return one

    # --- the model ---------------------------------------------------------------------------

    def list(self, one, reread=False):
        """It looks at the whole store, if it has not yet."""
        if one.listed and not reread:
            return
        loaded = {key for key, value in one.known.items() if value is not UNLOADED}
        if reread:
            loaded = set()
        one.known = {
            key: value if not one.lazy or key in loaded else UNLOADED
            for key, value in self.disk.items()
        }
        one.listed = True

    def value(self, one, key, fresh=False):
        """What a lookup has to give; UNLOADED stands for a KeyError."""
        value = one.known.get(key, UNLOADED)
        if fresh or value is UNLOADED:
            value = self.disk.get(key, UNLOADED)
            if value is UNLOADED:
                one.known.pop(key, None)
            else:
                one.known[key] = value
        return value

    def put(self, one, changes):
        one.known.update(changes)
        self.disk.update(changes)

    def drop(self, one, key):
        one.known.pop(key, None)
        self.disk.pop(key, None)

    # --- one key -----------------------------------------------------------------------------

    @rule(number=either, key=keys, value=values)
    def set(self, number, key, value):
        one = self.ones[number]
        one.dictionary[key] = value
        self.put(one, {key: value})

    @rule(number=either, key=keys)
    def get(self, number, key):
        one = self.ones[number]
        expected = self.value(one, key)
        assert one.dictionary.get(key, UNLOADED) == expected
        if expected is UNLOADED:
            with pytest.raises(KeyError):
                one.dictionary[key]
        else:
            assert one.dictionary[key] == expected

    @rule(number=either, key=keys)
    def get_fresh(self, number, key):
        one = self.ones[number]
        expected = self.value(one, key, fresh=True)
        assert one.dictionary.get(key, UNLOADED, fresh=True) == expected

    @rule(number=either, key=keys)
    def contains(self, number, key):
        one = self.ones[number]
        expected = key in one.known or key in self.disk
        assert (key in one.dictionary) == expected
        if expected:
            one.known.setdefault(key, UNLOADED)

    @rule(number=either, key=keys)
    def delete(self, number, key):
        one = self.ones[number]
        if key in one.known or key in self.disk:
            del one.dictionary[key]
        else:
            with pytest.raises(KeyError):
                del one.dictionary[key]
        self.drop(one, key)

    @rule(number=either, key=keys)
    def pop(self, number, key):
        one = self.ones[number]
        expected = self.disk.get(key, UNLOADED)  # whoever takes it, takes what lies there
        assert one.dictionary.pop(key, UNLOADED) == expected
        self.drop(one, key)

    @rule(number=either, key=keys, value=values)
    def add(self, number, key, value):
        one = self.ones[number]
        added = key not in self.disk
        assert one.dictionary.add(key, value) == added
        if added:
            self.put(one, {key: value})
        else:
            one.known.pop(key, None)
            assert one.dictionary.get(key, UNLOADED, fresh=True) == self.value(one, key)

    @rule(number=either, key=keys, value=values)
    def setdefault(self, number, key, value):
        one = self.ones[number]
        expected = self.value(one, key)
        if expected is UNLOADED:
            expected = value
            self.put(one, {key: value})
        assert one.dictionary.setdefault(key, value) == expected

    # --- many keys ---------------------------------------------------------------------------

    @rule(number=either, changes=several)
    def update(self, number, changes):
        one = self.ones[number]
        one.dictionary.update(changes)
        self.put(one, changes)

    @rule(number=either)
    def popitem(self, number):
        one = self.ones[number]
        self.list(one)
        if not self.disk:  # it looks at the disk before it says so
            with pytest.raises(KeyError):
                one.dictionary.popitem()
            one.known.clear()
            return
        key, value = one.dictionary.popitem()
        assert value == self.disk[key]
        # Those that it tried before are gone, and it knows; the model needn't know which.
        one.dictionary.sync()
        self.drop(one, key)
        self.list(one, reread=True)

    @rule(number=either)
    def clear(self, number):
        one = self.ones[number]
        one.dictionary.clear()
        one.known.clear()
        self.disk.clear()

    @rule(number=either)
    def keys(self, number):
        one = self.ones[number]
        self.list(one)
        assert len(one.dictionary) == len(one.known)
        assert sorted(one.dictionary) == sorted(one.known)

    @rule(number=either)
    def items(self, number):
        one = self.ones[number]
        self.list(one)
        expected = {key: self.value(one, key) for key in list(one.known)}
        found = {key: value for key, value in expected.items() if value is not UNLOADED}
        assert dict(one.dictionary.items()) == found

    @rule(number=either)
    def sync(self, number):
        one = self.ones[number]
        one.dictionary.sync()
        self.list(one, reread=True)

    # --- the store ---------------------------------------------------------------------------

    @rule(number=either)
    def close(self, number):
        self.ones[number].dictionary.close()

    @rule(number=either, lazy=st.booleans())
    def reopen(self, number, lazy):
        self.ones[number].dictionary.close()
        self.ones[number] = self.opened(lazy)

    @rule()
    def delete_index(self):
        (self.path / "_index.nfsdict-pkl").unlink(missing_ok=True)

    @rule(data=st.binary(max_size=30), whole=st.booleans())
    def damage_index(self, data, whole):
        index = self.path / "_index.nfsdict-pkl"
        if index.exists():
            old = index.read_bytes()
            index.write_bytes(data if whole else old[:-1] + data)

    @rule()
    def time_passes(self):
        """All is so old that stamps prove something."""
        age(Path(self.folder.name))

    @invariant()
    def nothing_but_the_files(self):
        if hasattr(self, "disk"):
            names = [path.name for path in self.path.glob("??/*")]
            assert len(names) == len(self.disk)
            assert not [name for name in names if not name.endswith(".pkl")]


def test_two_on_one_store(nfsdict):
    run_state_machine_as_test(
        partial(TwoOnOneStore, nfsdict),
        settings=settings(max_examples=60, stateful_step_count=30, deadline=None),
    )
