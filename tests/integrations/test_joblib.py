"""joblib's Memory over a dictionary: its own tests, and what they don't try."""

from __future__ import annotations

import importlib
import os
import pickle
import subprocess
import sys
import time
from datetime import timedelta

import pytest

from support.needed import needed

joblib = needed("joblib")
np = needed("numpy")
theirs = importlib.import_module("joblib.test.test_memory")

# Those of joblib's tests that look at its files, or are about its own store.
LEFT_OUT = {
    "test_memory_integration": "removes the directory under an open store, which is an error here",
    "test_parallel_call_cached_function_defined_in_jupyter": "lists the store's directory",
    "test_memory_pickle_dump_load": "passes an option that no store has",
    "test_memory_numpy_check_mmap_mode": "np.memmap; writes into output.pkl",
    "test_memorized_result_forwards_mmap_mode": "np.memmap",
    "test_func_dir": "looks for directory and func_code.py, removes output.pkl",
    "test_persistence": "looks for the directory of a result",
    "test_call_and_shelve_lazily_load_stored_result": "when output.pkl was read",
    "test__get_items": "sizes and times of files",
    "test_memory_clear": "lists the store's directory",
    "test_memory_recomputes_after_an_error_while_loading_results": "writes into output.pkl",
    "test_filesystem_store_backend_repr": "of joblib's own store",
    "test_memory_objects_repr": "the name of joblib's own store",
    "TestAutoGitignore": "a file that joblib's own store makes",
}
for name, test in vars(theirs).items():
    if name.startswith(("test_", "Test")) and name not in LEFT_OUT:
        globals()[name] = test


@pytest.fixture(autouse=True)
def backend(nfsdict, monkeypatch, tmp_path):
    """Where nobody asks for another one, the store of each ``Memory`` is a dictionary."""
    monkeypatch.chdir(tmp_path)  # one of joblib's tests writes there
    module = importlib.import_module("nfsdict.integrations.joblib")
    monkeypatch.setitem(joblib.memory._STORE_BACKENDS, "local", module.NfsDictStoreBackend)
    # It waits so that what is written meanwhile bears a later time; nothing is in these tests.
    prune = importlib.import_module("nfsdict.upkeep.prune").Prune
    monkeypatch.setattr(prune, "_await_later", lambda self, time_ns: None)
    yield module.NfsDictStoreBackend
    for name, imported in list(sys.modules.items()):  # from files that joblib's tests have written
        if str(getattr(imported, "__file__", "")).startswith(str(tmp_path.parent)):
            del sys.modules[name]


def test_what_is_left_out_is_there():
    assert LEFT_OUT.keys() <= vars(theirs).keys()


# --- what those don't try ----------------------------------------------------------------------


@pytest.fixture
def memory(backend, tmp_path):
    """Opens a ``Memory`` of the same store each time."""
    return lambda **options: joblib.Memory(
        str(tmp_path / "cache"), **{"backend": "nfsdict", "verbose": 0, **options}
    )


calls = []


def double(x, y=0):
    calls.append((x, y))
    return [x * 2, y]


def triple(x):
    calls.append(x)
    return x * 3


def fails_at_once(x):
    raise ZeroDivisionError


@pytest.fixture(autouse=True)
def anew():
    calls.clear()
    joblib.memory._FUNCTION_HASHES.clear()


@pytest.fixture
def warnings(monkeypatch):
    """What joblib has warned of."""
    warnings = []
    monkeypatch.setattr(
        joblib.memory.MemorizedFunc, "warn", lambda self, text: warnings.append(text)
    )
    return warnings


def mapping_of(memory):
    return memory.store_backend.mapping


def entry(memory, name, x=1):
    """The key of what is kept of ``double`` or its result."""
    f = memory.cache(double)
    names = [name, f.func_id] if name == "func_code.py" else [name, f.func_id, f._get_args_id(x)]
    return "/".join(names)


def test_a_result_is_an_entry(memory, nfsdict, tmp_path):
    m = memory()
    assert m.cache(double)(1) == m.cache(double)(1) == memory().cache(double)(1) == [2, 0]
    assert calls == [(1, 0)]
    d = nfsdict.NfsDict("joblib", tmp_path / "cache", "buffers")
    assert d[entry(m, "output.pkl")] == [2, 0]
    assert d[entry(m, "metadata.json")]["input_args"] == {"x": "1", "y": "0"}
    assert len(d) == 3


def test_who_changes_a_result_changes_his_own(memory):
    f = memory().cache(double)
    for _ in range(3):
        result = f(1)
        assert result == [2, 0]
        result.append("mine")


@pytest.mark.parametrize(
    "options",
    [{}, {"compress": True}, {"mmap_mode": "r"}, {"mmap_mode": "c"}],
    ids=["no options", "compress", "mmap_mode r", "mmap_mode c"],
)
def test_arrays_come_by_buffers(memory, options):
    array = np.arange(100_000.0)
    m = memory(**options)
    f = m.cache(triple)
    assert np.array_equal(f(array), array * 3)
    again = f(array)
    assert np.array_equal(again, array * 3) and len(calls) == 1
    assert again.flags.writeable is (options.get("mmap_mode") != "r")
    if again.flags.writeable:
        again[:] = 0
        assert np.array_equal(f(array), array * 3), "each has his own"
    [size] = [info.size for info in mapping_of(m).infos() if info.key.startswith("output.pkl")]
    assert (size < array.nbytes) is bool(options.get("compress"))


def test_options_are_those_of_a_dictionary(memory, nfsdict):
    serializer = nfsdict.signed(nfsdict.buffers(), key=b"0" * 32)
    m = memory(backend_options={"serializer": serializer, "durable": False})
    assert m.cache(double)(1) == [2, 0]
    [info] = [info for info in mapping_of(m).infos() if info.key.startswith("output.pkl")]
    assert info.path.name.endswith(serializer.extension)
    with pytest.raises(TypeError, match="durabel"):
        memory(backend_options={"durabel": False})
    with pytest.raises(TypeError, match="compress"):  # joblib's own error
        memory(backend_options={"compress": 9})
    with pytest.raises(ValueError, match="mmap_mode"):
        memory(mmap_mode="r+")


@pytest.mark.parametrize("name", ["output.pkl", "func_code.py"])
def test_what_is_damaged_is_computed_again(memory, name, warnings):
    m = memory()
    m.cache(double)(1)
    mapping_of(m).info(entry(m, name)).path.write_bytes(b"garbage")
    joblib.memory._FUNCTION_HASHES.clear()
    f = m.cache(double)
    assert f(1) == f(1) == [2, 0] and len(calls) == 2
    assert ["damaged value file" in warning for warning in warnings] == (
        [True] if name == "output.pkl" else []
    )


def test_damaged_metadata_are_none(memory):
    m = memory()
    f = m.cache(double, cache_validation_callback=lambda metadata: not metadata)
    f(1)
    mapping_of(m).info(entry(m, "metadata.json")).path.write_bytes(b"garbage")
    assert f(1) == [2, 0] and len(calls) == 1


def test_what_cant_be_written_is_warned_of(memory, monkeypatch):
    m = memory()
    f = m.cache(double)
    f(0)

    def full(self, key, value):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(mapping_of(m)), "__setitem__", full)
    with pytest.warns(joblib._store_backends.CacheWarning, match="No space left"):
        assert f(1) == [2, 0]
    lambdas = m.cache(lambda_maker)
    monkeypatch.undo()
    with pytest.warns(joblib._store_backends.CacheWarning, match="pickle"):
        assert lambdas(1)() == 1


def lambda_maker(x):
    return lambda: x


def test_an_exception_is_not_kept(memory):
    m = memory()
    with pytest.raises(ZeroDivisionError):
        m.cache(fails_at_once)(1)
    assert not any(key.startswith("output.pkl") for key in mapping_of(m))


def test_clear_removes_what_others_have_written(memory):
    one, other = memory(), memory()
    f, g = one.cache(double), one.cache(triple)
    f(1), g(1)
    other.cache(double)(2)
    other.cache(triple)(2)
    f.clear(warn=False)
    keys = set(mapping_of(memory()))
    assert [key for key in keys if key.endswith("/double") or "/double/" in key] == [
        entry(one, "func_code.py")
    ]
    assert len(keys) == 1 + 5
    one.clear(warn=False)
    assert set(mapping_of(memory())) == set()
    assert other.cache(triple)(2) == 6


def test_a_result_that_another_process_has_removed_is_computed_again(memory, warnings):
    f = memory().cache(double)
    f(1)
    memory().cache(double).call_and_shelve(1).clear()
    assert not f.check_call_in_cache(1)
    assert f.call_and_shelve(1).get() == [2, 0] and len(calls) == 2
    assert not warnings


def test_metadata_that_another_process_has_removed_are_not_missed(memory):
    f = memory().cache(double, cache_validation_callback=joblib.expires_after(days=1))
    f(1)
    memory().reduce_size(items_limit=0)
    assert f(1) == [2, 0] and len(calls) == 2


def test_reduce_size_removes_what_was_written_first(memory):
    m = memory()
    f = m.cache(double)
    for x in range(4):
        f(x)
        time.sleep(0.02)  # file systems stamp by a clock that ticks
    memory().reduce_size(items_limit=2)
    again = memory()
    for g in f, again.cache(double):
        assert [g.check_call_in_cache(x) for x in range(4)] == [False, False, True, True]
    assert len(mapping_of(again)) == 2 * 2 + 1
    again.reduce_size(age_limit=timedelta(days=1))
    again.reduce_size(bytes_limit="1M")
    assert len(mapping_of(again)) == 2 * 2 + 1
    again.reduce_size(bytes_limit=0)
    assert list(mapping_of(memory())) == [entry(m, "func_code.py")]


@pytest.fixture
def found(memory):
    """Which of these calls of ``double`` has a result on the disk."""

    def found(*arguments):
        f = memory().cache(double)
        return [x for x in arguments if f.check_call_in_cache(x)]

    return found


def test_age_and_bytes_are_those_of_results(memory, found):
    m = memory()
    f = m.cache(double)
    f(0), f(1)
    d = mapping_of(m)
    for key in d:  # the code, too
        os.utime(d.path_of(key), (1, 1))
    f(2)
    [size] = {info.size for info in d.infos("output.pkl/")}
    memory().reduce_size(age_limit=timedelta(hours=1))
    assert found(0, 1, 2) == [2]
    assert sorted(mapping_of(memory())) == sorted(
        [entry(m, "func_code.py"), entry(m, "metadata.json", 2), entry(m, "output.pkl", 2)]
    )
    assert f(2) == [4, 0] and len(calls) == 3, "the code is known, so the result counts"
    f(3)
    memory().reduce_size(bytes_limit=2 * size)
    assert found(2, 3) == [2, 3]


@pytest.mark.parametrize(
    ("limits", "error"),
    [
        ({"items_limit": -1}, ValueError),
        ({"items_limit": 1.5}, TypeError),
        ({"bytes_limit": "5X"}, ValueError),
        ({"age_limit": 3}, TypeError),
    ],
)
def test_what_is_no_limit_removes_nothing(memory, found, limits, error):
    m = memory()
    m.cache(double)(0)
    with pytest.raises(error):
        m.reduce_size(**limits)
    assert found(0) == [0]


def test_one_process_reduces_a_store_at_a_time(memory, found):
    m = memory()
    m.cache(double)(0)
    told = pytest.warns(joblib._store_backends.CacheWarning, match="prunes this store")
    with mapping_of(memory()).lease("nfsdict: prune"), told:
        m.reduce_size(items_limit=0)
    assert found(0) == [0]
    m.reduce_size(items_limit=0)
    assert found(0) == []


def test_a_result_that_cant_be_removed_is_warned_of(memory, found, monkeypatch):
    m = memory()
    f = m.cache(double)
    f(0), f(1)
    removal = importlib.import_module("nfsdict.storage.removal")
    stuck = mapping_of(m).path_of(entry(m, "output.pkl", 0)).stem
    remove = removal.Removal.remove_unchanged

    def refused(self, shard, victims, fates):
        if stuck in victims:
            fates[stuck] = PermissionError(13, "Permission denied")
        remove(self, shard, {name: victims[name] for name in victims if name != stuck}, fates)

    monkeypatch.setattr(removal.Removal, "remove_unchanged", refused)
    with pytest.warns(joblib._store_backends.CacheWarning, match=f"{stuck}.*Permission denied"):
        m.reduce_size(items_limit=0)
    assert found(0, 1) == [0]
    assert entry(m, "metadata.json", 0) in mapping_of(memory())


def test_what_a_killed_one_has_left_of_a_call_goes_with_the_next(memory, found):
    m = memory()
    f = m.cache(double)
    f(0), f(1)
    d = mapping_of(m)
    del d[entry(m, "output.pkl", 0)]
    d.path_of(entry(m, "metadata.json", 1)).write_bytes(b"garbage")
    d["somebody's"] = 1
    memory().reduce_size(items_limit=1)
    assert found(0, 1) == [1]
    assert entry(m, "metadata.json", 0) not in mapping_of(memory())
    m.reduce_size(items_limit=0)  # it knows the key of the damaged one
    assert found(0, 1) == []
    assert set(mapping_of(memory())) == {entry(m, "func_code.py"), "somebody's"}


def test_a_result_written_meanwhile_keeps_what_is_told_of_it(memory, found, monkeypatch):
    m = memory()
    m.cache(double)(0)
    infos = type(mapping_of(m)).infos

    def then_written(self, prefix=""):
        yield from infos(self, prefix)
        memory().cache(double)(0)

    monkeypatch.setattr(type(mapping_of(m)), "infos", then_written)
    m.reduce_size(items_limit=0)
    assert found(0) == [0] and len(calls) == 2
    assert mapping_of(memory())[entry(m, "metadata.json", 0)]["input_args"] == {"x": "0", "y": "0"}


def test_damage_is_cleared(memory, found):
    m = memory()
    f = m.cache(double)
    shelved = f.call_and_shelve(0)
    f(1)
    for x in range(2):
        mapping_of(m).path_of(entry(m, "output.pkl", x)).write_bytes(b"garbage")
    shelved.clear()
    f.clear(warn=False)
    assert found(0, 1) == []


@pytest.mark.parametrize("options", [{}, {"compress": 3, "backend_options": {"durable": False}}])
def test_a_memory_is_pickled(memory, options):
    m = pickle.loads(pickle.dumps(memory(**options)))
    shelved = pickle.loads(pickle.dumps(m.cache(double).call_and_shelve(1)))
    assert shelved.get() == m.cache(double)(1) == [2, 0]
    assert calls == [(1, 0)]
    assert repr(m.store_backend).startswith("NfsDictStoreBackend(location=")


PROGRAM = """
import sys, time
import joblib
import nfsdict.integrations.joblib

memory = joblib.Memory(sys.argv[1], backend="nfsdict", verbose=0)

@memory.cache
def slow(x):
    print("computed", x)
    return x + 1

print([slow(x) for x in range(5)])
"""


def test_processes_share_results(nfsdict, tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    outputs = [
        subprocess.run(
            [sys.executable, "-W", "error", "program.py", str(tmp_path)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        for _ in range(2)
    ]
    assert outputs[0] == [*(f"computed {x}" for x in range(5)), "[1, 2, 3, 4, 5]"]
    assert outputs[1] == ["[1, 2, 3, 4, 5]"]
