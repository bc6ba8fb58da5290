"""zarr's own tests of a store, and its state machines, on NfsDictStore."""

from __future__ import annotations

import importlib

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test
from zarr.core.buffer import cpu
from zarr.core.sync import sync
from zarr.testing.stateful import ZarrHierarchyStateMachine, ZarrStoreStateMachine
from zarr.testing.store import StoreTests


@pytest.fixture
def store_class(nfsdict):
    return importlib.import_module("nfsdict.integrations.zarr").NfsDictStore


@pytest.fixture
def mapping(opened):
    return opened(serializer="bytes", lazy=True, cache_bytes=0, durable=False)


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.mark.anyio
class TestStore(StoreTests):
    buffer_cls = cpu.Buffer

    @pytest.fixture(autouse=True)
    def store_cls(self, store_class):
        type(self).store_cls = store_class

    @pytest.fixture
    def store_kwargs(self, mapping):
        return {"mapping": mapping}

    # Theirs are coroutines, which tests that are none can't take.
    @pytest.fixture
    def store(self, open_kwargs):
        return sync(self.store_cls.open(**open_kwargs))

    @pytest.fixture
    def store_not_open(self, store_kwargs):
        return self.store_cls(**store_kwargs)

    async def set(self, store, key, value):
        store.mapping[key] = value.to_bytes()

    async def get(self, store, key):
        return self.buffer_cls.from_bytes(store.mapping[key])

    def test_store_repr(self, store):
        assert str(store) == f"nfsdict://{store.mapping.path}"
        assert repr(store) == f"NfsDictStore('{store}')"

    def test_store_supports_writes(self, store):
        assert store.supports_writes and store.supports_deletes

    def test_store_supports_listing(self, store):
        assert store.supports_listing


# Hypothesis draws such types too. What zarr says of them is nothing about a store.
@pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning")
@pytest.mark.parametrize("machine", [ZarrStoreStateMachine, ZarrHierarchyStateMachine])
def test_state_machines(store_class, mapping, machine):
    store = store_class(mapping)
    run_state_machine_as_test(
        lambda: machine(store), settings=settings(max_examples=10, stateful_step_count=15)
    )
