"""cache_bytes: so many bytes of values are kept in memory, and all keys stay listed."""

from __future__ import annotations

import pickle

import pytest

SIZE = 10_000


def held(d):
    return {key for key, value in d._cache.items() if repr(value) != "MISSING"}


@pytest.fixture
def filled(opened):
    d = opened(durable=False)
    d.update({f"key {n}": bytes([n]) * SIZE for n in range(20)})
    return d


def test_the_oldest_loaded_goes_out(opened, filled, reads):
    d = opened(lazy=True, cache_bytes=4 * (SIZE + 200))
    reads.clear()
    for n in range(20):
        assert d[f"key {n}"] == bytes([n]) * SIZE
    assert held(d) == {"key 16", "key 17", "key 18", "key 19"}
    assert len(reads) == 20
    d["key 16"]
    d["key 3"]  # a hit leaves no trace: the oldest loaded goes
    assert held(d) == {"key 17", "key 18", "key 19", "key 3"}
    assert len(d) == 20 and "key 0" in d
    assert dict(d.items()) == dict(filled)


def test_of_nothing_is_kept(opened, filled, reads):
    d = opened(lazy=True, cache_bytes=0)
    d["new"] = "value"
    reads.clear()
    assert d["new"] == d["new"] == "value"
    assert len(reads) == 2
    assert held(d) == set() and len(d) == 21
    d.update({"key 0": "other", "more": 1})
    d.sync()
    assert held(d) == set()
    assert d["key 0"] == "other" and d.pop("more") == 1 and d.setdefault("new") == "value"
    assert dict(d) == dict(opened())


@pytest.mark.parametrize("packed", [False, True])
def test_an_eager_one_loads_up_to_it(opened, filled, packed):
    if packed:
        filled.pack()
    d = opened(cache_bytes=5 * (SIZE + 200))
    assert 3 <= len(held(d)) <= 5
    assert len(d) == 20
    d.sync()
    assert 3 <= len(held(d)) <= 5
    assert dict(d) == dict(filled)


def test_what_is_written_counts(opened):
    d = opened(durable=False, cache_bytes=3 * (SIZE + 200))
    for n in range(10):
        d[f"key {n}"] = bytes(SIZE)
    assert held(d) == {"key 7", "key 8", "key 9"}
    d["large"] = bytes(10 * SIZE)  # it alone would be too much
    assert held(d) == {"key 7", "key 8", "key 9"}
    assert d["large"] == bytes(10 * SIZE)
    del d["key 8"]
    d["key 0"]
    assert held(d) == {"key 7", "key 9", "key 0"}


def test_what_others_replaced_is_read_again(opened, filled):
    d = opened(cache_bytes=5 * (SIZE + 200))
    kept = sorted(held(d))[0]
    opened()[kept] = "replaced"
    opened()["added"] = 1
    assert d.refresh() == {kept, "added"}
    assert d[kept] == "replaced" and d["added"] == 1
    assert d.refresh() == set()


def test_it_goes_along_with_a_copy(opened):
    d = pickle.loads(pickle.dumps(opened(cache_bytes=0)))
    d["k"] = 1
    assert held(d) == set()


def test_it_is_no_negative_number(opened):
    with pytest.raises(ValueError, match="cache_bytes"):
        opened(cache_bytes=-1)
