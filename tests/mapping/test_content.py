"""Contents: the same however they are parted."""

from __future__ import annotations

import importlib
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

LARGE = os.urandom(300_000)


@pytest.fixture(scope="session")
def content(nfsdict):
    return importlib.import_module("nfsdict.content")


def parted(data, cuts):
    ends = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [data[start:end] for start, end in zip(ends, ends[1:])]


sizes = st.one_of(st.integers(0, 300), st.sampled_from([65_535, 65_536, 65_537, 131_072, 300_000]))
cuts = st.lists(st.one_of(st.integers(0, 300_000), st.sampled_from([1, 65_536, 131_072])))


@given(size=sizes, cuts=cuts)
def test_a_content_is_the_same_however_it_is_parted(content, size, cuts):
    data = LARGE[:size]
    parts = parted(data, cuts)
    assert content.whole(parts) == content.whole(data) == data
    assert content.size_of(parts) == content.size_of(data) == size
    assert content.fingerprint(parts) == content.fingerprint(data)
    assert content.holds(data, parts) and content.holds(data, data)


@given(size=sizes.filter(bool), cuts=cuts, at=st.integers(0, 299_999))
def test_another_content_is_told_from_it(content, size, cuts, at):
    data = LARGE[:size]
    changed = bytearray(data)
    changed[at % size] ^= 1
    for other in (bytes(changed), data + b"x", data[:-1], b"x" + data):
        for parts in (parted(other, cuts), other):
            assert content.fingerprint(parts) != content.fingerprint(data)
            assert not content.holds(data, parts)


@pytest.mark.parametrize("serializer", ["pickle", "bytes", "buffers"])
@pytest.mark.parametrize("signed", [False, True])
def test_parts_are_what_dumps_gives(nfsdict, serializer, signed):
    serializers = importlib.import_module("nfsdict.serializers")
    format = serializers.serializer_named(
        nfsdict.signed(serializer, key=bytes(16)) if signed else serializer
    )
    for size in (0, 10, 65_400, 65_500, 65_535, 65_536, 300_000):
        pair = ("key", LARGE[:size])
        parts = format.parts(pair)
        assert isinstance(parts, bytes if size < 65_000 else (bytes, list))
        data = format.dumps(pair)
        assert (parts if isinstance(parts, bytes) else b"".join(parts)) == data
        assert format.loads(data) == pair
    large = format.parts(("key", LARGE))
    assert isinstance(large, list)
    assert serializer != "bytes" or any(part is LARGE for part in large)
