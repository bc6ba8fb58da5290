"""An interrupt at any moment of a call on files leaves no descriptor open, nor do two of them; one
of a write by the pure core leaves no file, and none makes the bound of the cache count wrong."""

from __future__ import annotations

import contextlib
import dis
import importlib
import os
import sys
from functools import partial

import pytest

pytestmark = [
    pytest.mark.skipif(
        sys.implementation.name != "cpython", reason="traces single instructions of CPython"
    ),
    # What an interrupt has kept from its owner: a directory's listing, the file of a pack's reader.
    # Python closes it as it is dropped, and warns.
    pytest.mark.filterwarnings("ignore:.*unclosed:pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:.*unclosed:ResourceWarning"),
]


@pytest.fixture
def pure():
    return importlib.import_module("nfsdict._pure")


@pytest.fixture
def opening(pure):
    return importlib.import_module("nfsdict.opening")


def descriptors():
    return set(os.listdir("/proc/self/fd"))


counts_descriptors = pytest.mark.skipif(
    not os.path.isdir("/proc/self/fd"), reason="counts descriptors by /proc"
)


# Where CPython looks for no signals; it loses the frame of an exception that a trace raises there.
ENTERS_HANDLER = dis.opmap.get("PUSH_EXC_INFO")


class Interrupt(BaseException):
    pass


def interrupted_at(nth, modules, call):
    """Whether the call was interrupted, before its nth instruction in these modules."""
    files = {module.__file__ for module in modules}
    left = [nth]

    def trace(frame, event, argument):
        if frame.f_code.co_filename not in files:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode" and frame.f_code.co_code[frame.f_lasti] != ENTERS_HANDLER:
            left[0] -= 1
            if left[0] == 0:
                raise Interrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except Interrupt:
        return True
    finally:
        sys.settrace(before)
    return False


@counts_descriptors
@pytest.mark.parametrize("exclusive", [False, True], ids=["rename", "link"])
@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("mode", [None, 0o666])
def test_nothing_is_left(pure, opening, tmp_path, exclusive, durable, mode):
    target = tmp_path / "target"
    arguments = ([(str(target), b"content")], mode, durable, False, exclusive)
    nth = 0
    while True:
        nth += 1
        target.unlink(missing_ok=True)
        before = descriptors()
        interrupted = interrupted_at(nth, [pure, opening], lambda: pure.write_files(*arguments))
        assert descriptors() == before, nth
        assert [path.name for path in tmp_path.iterdir()] in ([], ["target"]), nth
        if target.exists():
            assert target.read_bytes() == b"content"
        if not interrupted:
            break
    assert target.exists() and nth > 50


def everywhere(modules, call):
    """Interrupt the call before each of its instructions in these modules. It keeps nothing open,
    also when it ends. How many these were."""
    nth = 0
    while True:
        nth += 1
        before = descriptors()
        interrupted = interrupted_at(nth, modules, call)
        assert descriptors() == before, nth
        if not interrupted:
            return nth


READING = {
    "files": lambda core, file, _: core.read_files([file]),
    "aligned": lambda core, file, _: core.read_aligned([file]),
    "stamps": lambda core, _, directory: core.read_stamps([directory]),
    "listing": lambda core, _, directory: core.list_directory(directory, 2),
    "changes": lambda core, _, directory: core.list_changes(directory, 0, [], b"", ".pkl"),
    "publishing": lambda core, file, _: core.publish_files([(file, file)], True),
}


@counts_descriptors
@pytest.mark.parametrize("call", READING.values(), ids=READING)
def test_the_pure_core_leaves_none_open(pure, opening, tmp_path, call):
    (tmp_path / "file").write_bytes(b"content")
    arguments = str(tmp_path / "file"), str(tmp_path)
    assert everywhere([pure, opening], lambda: call(pure, *arguments)) > 20


class First(BaseException):
    """What came before the interrupt."""


def interrupted(call):
    with contextlib.suppress(First):
        call()


def raises(*_):
    raise First


@counts_descriptors
def test_a_second_interrupt_leaves_none_open(opening, tmp_path):
    """As long as it is dealt with the first one, and however it goes on."""
    path = str(tmp_path)

    def call():
        interrupted(lambda: opening.with_open(path, os.O_RDONLY, raises))

    assert everywhere([opening], call) > 20


@counts_descriptors
@pytest.mark.parametrize("call", ["fsync", "writev"])
def test_a_second_interrupt_of_the_pure_core_leaves_none_open(
    pure, opening, tmp_path, monkeypatch, call
):
    class System:
        def __getattr__(self, name):
            return raises if name == call else getattr(os, name)

    monkeypatch.setattr(pure, "os", System())
    files = [(str(tmp_path / "target"), b"content")]

    def write():
        interrupted(lambda: pure.write_files(files, None, True, False, False))

    assert everywhere([pure, opening], write) > 50


def write_pack(files, path):
    writer = files.PackFileWriter(path, 0o660, True, None)
    try:
        writer.write(bytes(2 << 20))
        writer.publish(f"{path}/pack")
    except BaseException:
        writer.abandon()
        raise


def read_pack(files, path):
    reader = files.PackFileReader(f"{path}/file")
    try:
        reader.read_at(0, 7)
    finally:
        reader.close()


def spool(module, path):
    spooled = module.Spool(path)
    spooled.append(bytes(1 << 20))
    spooled.read_at(0, 7)
    spooled.remove()


def renewed(leases, path):
    leases._write("new", b"content")
    os.unlink(leases._path("new"))


def claimed(claims, path):
    claims.try_claim(f"{path}/claim")
    os.unlink(f"{path}/claim")


def search(storage, seen, path):
    storage.rules._read_names(path, "file", seen.Known.NAMES, True)


CALLS = {
    "bits": lambda storage, module, path: module("files").give_bits(path, 0o770),
    "fsync": lambda storage, module, path: storage.files.sync_directory(path),
    "clock": lambda storage, module, path: storage.files.probe_clock(),
    "links": lambda storage, module, path: storage.files.can_link(),
    "names": lambda storage, module, path: storage.rules.names(path, ((0, 0), []), True),
    "revalidation": lambda storage, module, path: storage.rules.revalidate(path),
    "search": lambda storage, module, path: search(storage, module("seen"), path),
    "content": lambda storage, module, path: module("directories").forget_content(f"{path}/file"),
    "mount": lambda storage, module, path: module("mountinfo").mount_of(path),
    "claim": lambda storage, module, path: claimed(storage.removal._exclusive._claims, path),
    "removal": lambda storage, module, path: storage.removal._opened(f"{path}/file", None),
    "leases": lambda storage, module, path: renewed(storage.leases, path),
    "probe": lambda storage, module, path: module("probes").Directory(path).write("file", b"1"),
    "packs": lambda storage, module, path: write_pack(module("index_files"), path),
    "reading": lambda storage, module, path: read_pack(module("index_files"), path),
    "spool": lambda storage, module, path: spool(module("spool"), path),
}


@counts_descriptors
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_storage_leaves_none_open(pure, opening, tmp_path, call):
    def module(name):
        return importlib.import_module(f"nfsdict.storage.{name}")

    (tmp_path / "file").write_bytes(b"content")
    store = importlib.import_module("nfsdict.storage").Storage(str(tmp_path), ".pkl", 0o660, True)
    store.files.make_directory(f"{tmp_path}/{store.leases.directory.rpartition('/')[2]}")
    synchronous = module("mounted").Mounted.synchronous
    loaded = [sys.modules[name] for name in sorted(sys.modules) if name.startswith("nfsdict.stor")]
    module("mounted").Mounted.synchronous = lambda self, path: False
    try:
        assert everywhere([*loaded, opening], lambda: call(store, module, str(tmp_path))) > 20
    finally:
        module("mounted").Mounted.synchronous = synchronous


def test_the_bound_of_the_cache_counts_on(pure):
    """The next value is held, whatever the interrupted call has left."""
    module = importlib.import_module("nfsdict.cache_bound")
    nth, interrupted = 0, True
    while interrupted:
        nth += 1
        cache = {}
        bound = module.CacheBound(cache, 10)
        bound.hold("a", "a's", 5)
        bound.hold("b", "b's", 5)
        interrupted = interrupted_at(nth, [module], partial(bound.hold, "c", "c's", 10))
        held = {key: value for key, value in cache.items() if isinstance(value, str)}
        assert held in ({"a": "a's", "b": "b's"}, {"b": "b's"}, {}, {"c": "c's"}), nth
        bound.hold("d", "d's", 10)
        held = {key: value for key, value in cache.items() if isinstance(value, str)}
        assert held == {"d": "d's"} and bound.room == 0, nth
    assert nth > 50
