"""The mapping contract, over every way that a store comes to be open."""

from __future__ import annotations

import itertools

import pytest

from support.mapping_contract import check_mapping


def fresh(open_store):
    def make(entries):
        store = open_store()
        store.update(entries)
        return store

    return make


def one_by_one(open_store):
    def make(entries):
        store = open_store(lazy=True, workers=1)
        for key, value in entries.items():
            store[key] = value
        return store

    return make


def reopened(open_store, **options):
    def make(entries):
        with open_store() as store:
            store.update(entries)
        return type(store)(store.path.name, store.path.parent, open_store.serializer, **options)

    return make


def lazy(open_store):
    return reopened(open_store, lazy=True)


def populated_without_an_index(open_store):
    """As another host, or release 0.2.1, would leave it: value files alone."""

    def make(entries):
        writer = open_store()
        writer.update(entries)
        assert not list(writer.path.glob("_*"))
        return type(writer)(writer.path.name, writer.path.parent, open_store.serializer)

    return make


def populated_while_open(open_store):
    """What others wrote before the first listing is part of a lazy dictionary."""

    def make(entries):
        writer = open_store()
        store = type(writer)(writer.path.name, writer.path.parent, open_store.serializer, lazy=True)
        writer.update(entries)
        return store

    return make


@pytest.mark.parametrize("serializer", ["pickle", "json"])
@pytest.mark.parametrize(
    "way",
    [fresh, one_by_one, reopened, lazy, populated_without_an_index, populated_while_open],
    ids=lambda way: way.__name__,
)
def test_contract(nfsdict, tmp_path, serializer, way):
    names = map(str, itertools.count())

    def open_store(**options):
        return nfsdict.NfsDict(next(names), tmp_path, serializer, **options)

    open_store.serializer = serializer
    check_mapping(way(open_store))
