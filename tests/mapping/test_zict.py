"""zict's own checks of a mapping, over every way that a store is opened."""

from __future__ import annotations

import pytest
from zict.tests import utils_test


@pytest.mark.parametrize("serializer", ["pickle", "bytes"])
@pytest.mark.parametrize("options", [{}, {"lazy": True}, {"cache_bytes": 0}, {"workers": 1}])
def test_mapping(opened, serializer, options):
    utils_test.check_mapping(opened(serializer=serializer, durable=False, **options))


@pytest.mark.parametrize("serializer", ["pickle", "bytes"])
@pytest.mark.parametrize("options", [{}, {"lazy": True}, {"cache_bytes": 0}])
def test_updates_under_stress(opened, serializer, options):
    d = opened(serializer=serializer, durable=False, **options)
    utils_test.stress_test_mapping_updates(d)


def test_threads(opened):
    utils_test.check_different_keys_threadsafe(opened(durable=False))
    utils_test.check_same_key_threadsafe(opened(name="same", durable=False))


@pytest.mark.parametrize("options", [{}, {"lazy": True}])
def test_keys_and_values_that_are_refused(opened, options):
    utils_test.check_bad_key_types(opened(**options))
    utils_test.check_bad_value_types(opened(name="bytes", serializer="bytes", **options))
