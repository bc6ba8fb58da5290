"""Memory: how often a large value is in it, and how much of a store at a time."""

from __future__ import annotations

import sys

import pytest

from memory import peaks

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or sys.implementation.name != "cpython",
    reason="the peak of memory is Linux's, and PyPy frees when it likes",
)

# --- one large value ------------------------

SIZE = 64  # MiB
SLACK = 8

SIGNED = "nfsdict.signed({!r}, key=bytes(32))"
SERIALIZERS = {
    "pickle": repr("pickle"),
    "bytes": repr("bytes"),
    "signed pickle": SIGNED.format("pickle"),
    "signed bytes": SIGNED.format("bytes"),
}


@pytest.mark.parametrize("name", SERIALIZERS)
def test_a_large_value_is_copied_once(nfsdict, tmp_path, name):
    """A put has what the pickle is beside the value, a get the file beside it."""
    script = f"""
import os
d = nfsdict.NfsDict("s", base, {SERIALIZERS[name]}, lazy=True, durable=False)
d["warm"] = b"up"
value = os.urandom({SIZE} * MIB)
peak(lambda: d.__setitem__("a", value))
peak(lambda: d.update(b=value))
peak(lambda: d.add("c", value))
del d
d = nfsdict.NfsDict("s", base, {SERIALIZERS[name]}, lazy=True, durable=False)
d["warm"]
for key in "abc":
    assert len(peak(lambda: d[key])) == {SIZE} * MIB
    assert d.pop(key) == value
"""
    *puts, first, second, third = peaks(script, tmp_path)
    for most, after in puts:
        assert most < (SIZE if "pickle" in name else 0) + SLACK
        assert after < SLACK
    for most, after in (first, second, third):
        assert most < 2 * SIZE + SLACK
        assert after < SIZE + SLACK
