"""zarr between two clients of a real server: chunks written at once, and consolidated metadata."""

from __future__ import annotations

import importlib

import pytest

from lab.laboratory import Lab
from support.needed import needed

CHUNKS = 20

# Each looks at every chunk in vain first, so that its client remembers that they are missing.
WORK = f"""
import sys
import zarr
from nfsdict import NfsDict
from nfsdict.integrations.zarr import NfsDictStore

chunks = NfsDict("arrays", sys.argv[1], "bytes", lazy=True, cache_bytes=0)
array = zarr.open_array(NfsDictStore(chunks), path="x", mode="r+")
print(array[:].tolist(), flush=True)
sys.stdin.readline()
for chunk in range(int(sys.argv[2]), {CHUNKS}, 2):
    array[3 * chunk : 3 * chunk + 3] = chunk
print("written", flush=True)
sys.stdin.readline()
print(array[:].tolist(), flush=True)
print(array.nchunks_initialized, flush=True)
"""


@pytest.fixture
def store(package):
    """The store of this client's directory."""
    needed("zarr")
    module = importlib.import_module("nfsdict.integrations.zarr")

    def store(base):
        chunks = package.NfsDict("arrays", base, "bytes", lazy=True, cache_bytes=0)
        return module.NfsDictStore(chunks)

    return store


@pytest.mark.nfs(version="4.2", timeout=240)
@pytest.mark.filterwarnings("ignore:Consolidated metadata:UserWarning")  # not in zarr 3's format
def test_two_clients_write_chunks_at_once_and_see_all(lab: Lab, store) -> None:
    zarr = needed("zarr")
    seen_before = zarr.open_group(store(lab.b), mode="a")
    assert list(seen_before.array_keys()) == []
    zarr.create_array(
        store(lab.a), name="x", shape=(3 * CHUNKS,), chunks=(3,), dtype="i4", fill_value=-1
    )
    workers = [lab.spawn(WORK, base, first) for first, base in enumerate((lab.a, lab.b))]

    def say(expected: list[str]) -> None:
        assert [worker.stdout.readline().strip() for worker in workers] == expected
        for worker in workers:
            worker.stdin.write("\n")
            worker.stdin.flush()

    say([str([-1] * 3 * CHUNKS)] * 2)
    say(["written"] * 2)
    everything = [number // 3 for number in range(3 * CHUNKS)]
    for worker in workers:
        output, errors = worker.communicate(timeout=120)
        assert output.splitlines() == [str(everything), str(CHUNKS)], errors

    assert list(seen_before.array_keys()) == ["x"]
    zarr.consolidate_metadata(store(lab.a))
    group = zarr.open_group(store(lab.b), mode="r", use_consolidated=True)
    assert list(group.metadata.consolidated_metadata.metadata) == ["x"]
    assert group["x"][:].tolist() == everything
