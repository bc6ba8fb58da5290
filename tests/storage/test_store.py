"""The store: its system calls one by one, and what it makes of failing ones."""

from __future__ import annotations

import errno
import hashlib
import importlib
import os
import pickle
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

TEMPORARY = re.compile(r"\.nfsdict-[0-9a-f]{24}")


def digest(key):
    return hashlib.sha256(key.encode()).hexdigest()


@pytest.fixture
def module(nfsdict):
    return importlib.import_module("nfsdict.storage")


@pytest.fixture
def store(module, tmp_path):
    store = module.Storage(str(tmp_path / "store"), ".pkl", None, True)
    store.create(store.missing())
    return store


def put(store, key, data=b"value"):
    return store.values.put(digest(key), data)


def files(store):
    """All that is in the shards, by name."""
    return {path.name: path for path in Path(store.directory).glob("??/*")}


# --- the system calls, as strace tells them ------------------------

# One line of strace -y: name, the paths in it, and how it ended.
LINE = re.compile(r"(?:\d+ +)?(\w+)\((.*)\) += (-?\d+)(?:<[^>]*>)?(?: (E\w+).*)?$")
TRACED = "open,openat,write,writev,fsync,fdatasync,fstat,newfstatat,close,rename,renameat,renameat2"
MKDIRS = "link,linkat,mkdir,mkdirat,unlink,unlinkat,chmod,fchmod,fchmodat"

PROLOGUE = """
import os, sys
import nfsdict, nfsdict.storage.mounted as mounted
mounted.mount_of = lambda path: mounted.Mount("ext4")  # a tmpfs is not asked to fsync directories
durable = sys.argv[2] == "durable"
d = nfsdict.NfsDict("store", sys.argv[1], "bytes", lazy=True, durable=durable, workers=1)
"""


@pytest.fixture
def strace():
    """The command; where it is not installed the test is skipped, but not in CI."""
    if sys.platform != "linux":
        pytest.skip("strace is Linux's")
    command = shutil.which("strace")
    if command is None:
        if os.environ.get("CI"):
            pytest.fail("CI has to install strace")
        pytest.skip("no strace")
    return command


def run(command, script, base, durable):
    script = PROLOGUE + script
    done = subprocess.run(
        [*command, sys.executable, "-c", script, str(base), "durable" if durable else "fast"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def traced(strace, nfsdict, tmp_path):
    """What a script does in the store: lines "call path [flags] [ERROR]" after its mark."""
    (tmp_path / "base").mkdir()

    def calls(script, durable=True):
        output = tmp_path / "trace"
        command = [strace, "-f", "-y", "-s", "16", "-e", f"trace={TRACED},{MKDIRS}", "-o", output]
        run([str(part) for part in command], script + MARK, tmp_path / "base", durable)
        lines = output.read_text().splitlines()
        start, end = (i for i, line in enumerate(lines) if '"/mark"' in line)
        found = [told(line, str(tmp_path / "base" / "store")) for line in lines[start + 1 : end]]
        return [line for line in found if line]

    return calls


MARK = "\ntry: os.unlink('/mark')\nexcept OSError: pass\n"


def told(line, store):
    match = LINE.match(line)
    if not match or store not in line:
        return None
    name, arguments, _, error = match.groups()
    names = {"newfstatat": "fstat", "renameat2": "renameat", "writev": "write"}  # PyPy: write
    name = names.get(name, name)
    if name.endswith("at") and name != "fstat":  # below a descriptor
        arguments = re.sub(r'<([^>]*)>, "([^/"][^"]*)"', r'"\1/\2"', arguments)
    name = name[:-2] if name.endswith("at") and name != "fstat" else name
    paths = re.findall(re.escape(store) + r'[^">]*', arguments)
    shown = " ".join(shape(path[len(store) :]) for path in paths[: 2 if name == "rename" else 1])
    flags = ""
    if name == "open":
        [flags] = re.findall(r"O_RDONLY[A-Z_|]*|O_WRONLY[A-Z_|]*|O_RDWR[A-Z_|]*", arguments)
        flags = " " + "|".join(sorted(set(flags.split("|")) - {"O_LARGEFILE"}))
    return f"{name} {shown}{flags}{' ' + error if error else ''}"


def shape(path):
    path = TEMPORARY.sub("TEMPORARY", path)
    path = re.sub(r"[0-9a-f]{64}\.bin", "FILE", path).replace("//", "/").rstrip("/")
    return re.sub(r"^/[0-9a-f]{2}(?=/|$)", "/SHARD", path) or "STORE"


WRITTEN = [
    "open /SHARD/TEMPORARY O_CLOEXEC|O_CREAT|O_NOFOLLOW|O_WRONLY",
    "write /SHARD/TEMPORARY",
    "fsync /SHARD/TEMPORARY",
    "fstat /SHARD/TEMPORARY",
    "close /SHARD/TEMPORARY",
    "rename /SHARD/TEMPORARY /SHARD/FILE",
]
SHARD_SYNCED = [
    "open /SHARD O_CLOEXEC|O_DIRECTORY|O_RDONLY",
    "fsync /SHARD",
    "close /SHARD",
]
STORE_SYNCED = [line.replace("/SHARD", "STORE") for line in SHARD_SYNCED]


@pytest.fixture
def durably(nfsdict):
    """A durable write: the compiled core works below the shard's descriptor, which it syncs."""
    opened, *synced = SHARD_SYNCED
    if nfsdict.BACKEND == "compiled":
        return [opened, *WRITTEN, *synced]
    return WRITTEN + SHARD_SYNCED


def test_an_overwrite(traced, durably):
    assert traced("d['k'] = b'old'" + MARK + "d['k'] = b'new'") == durably


def test_a_write_that_need_not_last(traced):
    calls = traced("d['k'] = b'old'" + MARK + "d['k'] = b'new'", durable=False)
    assert calls == [line for line in WRITTEN if not line.startswith("fsync")]


def test_no_fsync_at_all_without_durable(traced):
    calls = traced(MARK + "d['k'] = b'1'; d.update(a=b'1', b=b'2'); del d['k']; d.clear()", False)
    assert [line for line in calls if "mkdir" in line]
    assert not [line for line in calls if "sync" in line]


def test_the_first_write_to_a_shard(traced, durably):
    """The shard is made only when missing, and its parent made durable before the file is."""
    calls = traced(MARK + "d['k'] = b'value'")
    assert calls[0] == "unlink /_index.bin ENOENT"
    made = calls.index("mkdir /SHARD")
    assert calls[1:made] == [
        durably[0] + " ENOENT",
        "open /SHARD O_CLOEXEC|O_DIRECTORY|O_RDONLY ENOENT",
    ]
    assert calls[made + 1 :] == STORE_SYNCED + durably


def test_no_mkdir_where_the_shard_is(traced):
    calls = traced("d['k'] = b'1'; del d['k']" + MARK + "d['k'] = b'2'")
    assert not [line for line in calls if "mkdir" in line]


def test_a_delete_lasts(traced):
    calls = traced("d['k'] = b'1'" + MARK + "del d['k']")
    assert calls[-4:] == ["unlink /SHARD/FILE", *SHARD_SYNCED]


def test_a_directory_is_made_durable_once_for_many(traced):
    # "1" and "12" are of one shard.
    calls = traced("d.update({'1': b'', '12': b''})" + MARK + "d.update({'1': b'1', '12': b'1'})")
    assert calls.count("fsync /SHARD/TEMPORARY") == 2
    assert calls.count("fsync /SHARD") == 1


def test_a_cached_read_makes_no_call(traced):
    script = "d['k'] = b'1'" + MARK + "for _ in range(9): d['k'], d.get('k'), 'k' in d"
    assert traced(script.replace("; d", "\nd")) == []


def test_a_miss_revalidates_and_looks_again(traced):
    calls = traced("d['k'] = b'1'; del d['k']" + MARK + "d.get('k')")
    assert calls == [
        "open /SHARD/FILE O_CLOEXEC|O_NOFOLLOW|O_NONBLOCK|O_RDONLY ENOENT",
        "open /SHARD O_CLOEXEC|O_DIRECTORY|O_RDONLY",
        "fstat /SHARD",
        "close /SHARD",
        "open /SHARD/FILE O_CLOEXEC|O_NOFOLLOW|O_NONBLOCK|O_RDONLY ENOENT",
    ]


def test_an_info_asks_for_one_file_and_the_manifest(traced):
    calls = traced("d['k'] = b'1'; d.info('k')" + MARK + "d.info('k')")
    assert calls == [
        "open /SHARD O_CLOEXEC|O_DIRECTORY|O_RDONLY",
        "fstat /SHARD",
        "close /SHARD",
        "fstat /SHARD/FILE",
        "open /_index.nfsdict-bin O_CLOEXEC|O_NOFOLLOW|O_NONBLOCK|O_RDONLY ENOENT",
    ]


def test_what_a_notebook_asks_makes_no_call(traced):
    script = "d['k'] = b'1'" + MARK + "d.path_of('k'), repr(d), d._ipython_key_completions_()"
    assert traced(script) == []


# --- the kernel fails ------------------------

WRITE = "writev" if hasattr(os, "writev") else "write"  # PyPy


@pytest.fixture
def failing(strace, nfsdict, tmp_path):
    """Overwrite a value while strace fails one call; what that raised, and what is there then."""

    def overwrite(call, number, when=1):
        base = tmp_path / "base"
        base.mkdir()
        run([], "d['k'] = b'old'; d.close()", base, True)
        inject = f"inject={call}:error={number}:when={when}"
        script = """
assert d["k"] == b"old"
try:
    d["k"] = b"new"
except OSError as error:
    told = type(error).__name__, error.errno, d["k"].decode()
print(*told)
os._exit(0)
"""
        # The output is the script's last write, so that the first one is the value's.
        command = [strace, "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", inject]
        told = run(command, script.replace("os._exit", "sys.stdout.flush(); os._exit"), base, True)
        left = [path.name for path in (base / "store").glob("*/*") if path.suffix != ".bin"]
        assert left == []
        [path] = (base / "store").glob("*/*.bin")
        return told.split(), path.read_bytes()

    return overwrite


@pytest.mark.parametrize(
    ("call", "number"),
    [(WRITE, "ENOSPC"), (WRITE, "EDQUOT"), ("fsync", "EIO"), ("fsync", "ENOSPC")],
)
def test_a_failed_write_keeps_the_old_value(failing, call, number):
    (_, told_number, cached), data = failing(call, number)
    assert int(told_number) == getattr(errno, number)
    assert cached == "old" and data.endswith(b"old")


def test_a_directory_that_fails_to_sync_leaves_the_outcome_unknown(failing):
    (kind, number, seen), data = failing("fsync", "EIO", when=2)
    assert (kind, int(number)) == ("UncertainWriteError", errno.EIO)
    assert seen == "new" and data.endswith(b"new")  # asked of the disk again


def test_a_rename_that_was_refused(failing):
    (kind, number, cached), data = failing("/rename", "EACCES")
    assert (kind, int(number)) == ("PermissionError", errno.EACCES)
    assert cached == "old" and data.endswith(b"old")


def test_a_rename_that_failed_and_may_have_worked(failing):
    (kind, number, seen), data = failing("/rename", "EIO")
    assert (kind, int(number)) == ("UncertainWriteError", errno.EIO)
    assert seen == "old" and data.endswith(b"old")


# --- stale handles, lost replies ------------------------


class Failing:
    """A call that first fails so often, for paths that end so."""

    def __init__(self, monkeypatch, where, name, number, times, ending):
        self.where, self.original = where, getattr(where, name)
        self.number, self.left, self.ending = number, times, ending
        self.calls = 0
        monkeypatch.setattr(where, name, self)

    def __call__(self, path, *arguments, **options):
        if str(path).endswith(self.ending):
            self.calls += 1
            if self.left > 0:
                self.left -= 1
                if self.where is not os:
                    return self.number  # as the core tells of errors
                raise OSError(self.number, os.strerror(self.number), path)
        return self.original(path, *arguments, **options)


@pytest.fixture
def fails(monkeypatch):
    def build(where, name, number, times, ending=""):
        return Failing(monkeypatch, where, name, number, times, ending)

    return build


@pytest.fixture
def reads_fail(module, monkeypatch):
    """``read_files`` gives this errno so often."""
    module = importlib.import_module("nfsdict.storage.files")

    def build(number, times):
        original = module.read_files
        calls = []

        def read_files(paths):
            calls.append(paths)
            return [number] * len(paths) if len(calls) <= times else original(paths)

        monkeypatch.setattr(module, "read_files", read_files)
        return calls

    return build


FOREVER = 10**9


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EBADF])
def test_stale_reads_are_tried_again(store, reads_fail, number):
    put(store, "k")
    reads_fail(number, 3)
    assert store.values.find(digest("k"))[0] == b"value"


def test_stale_reads_are_bounded(store, reads_fail):
    put(store, "k")
    calls = reads_fail(errno.ESTALE, FOREVER)
    with pytest.raises(OSError) as caught:
        store.values.find(digest("k"))
    assert caught.value.errno == errno.ESTALE
    assert 3 <= len(calls) <= 30


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.EMFILE, errno.ETIMEDOUT])
def test_an_error_is_never_absence(store, reads_fail, number):
    put(store, "k")
    reads_fail(number, FOREVER)
    with pytest.raises(OSError) as caught:
        store.values.find(digest("k"))
    assert caught.value.errno == number


def calls_of(store):
    """name of what to patch in os, the path's end, and what to do."""
    name = digest("k")
    shard = name[:2]
    return {
        "lstat": (f"{name}.pkl", lambda: store.values.look(name)),
        "unlink": (f"{name}.pkl", lambda: store.values.remove([name])),
        "list_changes": (shard, lambda: store.shards.list(shard)),
        "open": (
            digest("k")[:2],
            lambda: store.rules.revalidate(store.shards.path_of(digest("k")[:2])),
        ),
    }


def where_is(name):
    return os if hasattr(os, name) else importlib.import_module("nfsdict.storage.coherence")


@pytest.mark.parametrize("name", ["lstat", "unlink", "list_changes", "open"])
def test_stale_handles_elsewhere(store, fails, name):
    put(store, "k")
    ending, call = calls_of(store)[name]
    failing = fails(where_is(name), name, errno.ESTALE, 3, ending)
    result = call()
    assert failing.left == 0 and failing.calls >= 4
    if name == "list_changes":
        assert list(result.signatures) == [digest("k")]
    elif name == "unlink":
        assert result == [True] and files(store) == {}
    elif name == "open":
        assert result.st_mtime_ns == os.stat(store.shards.path_of(digest("k")[:2])).st_mtime_ns
    else:
        assert result == store.values.look(digest("k"))


def test_stamps_of_many(store, monkeypatch):
    put(store, "k")
    shard = digest("k")[:2]
    status = os.stat(os.path.dirname(store.values.path_of(digest("k"))))
    stamp = status.st_mtime_ns, status.st_ctime_ns
    others = ["00", "ff"]
    assert shard not in others
    assert store.shards.stamps(["00", shard, "ff"]) == [None, stamp, None]
    assert store.shards.stamps([]) == []
    module = importlib.import_module("nfsdict.storage.shards")
    monkeypatch.setattr(module, "read_stamps", lambda paths: [errno.ESTALE] * len(paths))
    assert store.shards.stamps(["00", shard]) == [None, stamp], "looked at anew"


def test_an_error_is_no_stamp(store, fails, monkeypatch):
    put(store, "k")
    shard = digest("k")[:2]
    module = importlib.import_module("nfsdict.storage.shards")
    monkeypatch.setattr(module, "read_stamps", lambda paths: [errno.EIO] * len(paths))
    fails(os, "open", errno.EIO, FOREVER, shard)
    with pytest.raises(OSError) as caught:
        store.shards.stamps([shard])
    assert caught.value.errno == errno.EIO


@pytest.mark.parametrize("name", ["lstat", "unlink", "list_changes", "open"])
def test_stale_handles_elsewhere_are_bounded(store, fails, name):
    put(store, "k")
    ending, call = calls_of(store)[name]
    failing = fails(where_is(name), name, errno.ESTALE, FOREVER, ending)
    try:
        [result] = call()
    except OSError as error:
        result = error
    assert result.errno == errno.ESTALE
    assert 3 <= failing.calls <= 30


@pytest.fixture
def writes(module, monkeypatch):
    """Replace what the core's writes give, one outcome for each call; afterwards they work."""
    module = importlib.import_module("nfsdict.storage.files")
    values = importlib.import_module("nfsdict.storage.values")

    def build(*outcomes):
        original = module.write_files
        left = list(outcomes)

        def write_files(files, *arguments):
            outcome = left.pop(0) if left else None
            if callable(outcome):
                return outcome(lambda: original(files, *arguments), files)
            return original(files, *arguments) if outcome is None else [outcome] * len(files)

        def write_file(target, data, *arguments):
            [outcome] = write_files([(target, data)], *arguments, False)
            return outcome

        monkeypatch.setattr(module, "write_files", write_files)
        monkeypatch.setattr(values, "write_file", write_file)
        return left

    return build


BEFORE, AT_RENAME, AT_SYNC = range(3)


def test_a_stale_shard_is_written_to_again(store, writes):
    left = writes((BEFORE, errno.ESTALE), (BEFORE, errno.ENOENT), (AT_RENAME, errno.ESTALE))
    put(store, "k")
    assert left == []
    assert store.values.find(digest("k"))[0] == b"value"


@pytest.mark.parametrize("number", [errno.EBUSY, errno.ETXTBSY], ids=errno.errorcode.get)
def test_a_target_that_is_open_here_and_removed_elsewhere_is_waited_for(store, writes, number):
    """For as long as another process of a busy host takes to close it (nfs_rename)."""
    closed = time.monotonic() + 0.5

    def busy(write, files):
        return write() if time.monotonic() > closed else [(AT_RENAME, number)] * len(files)

    writes(*[busy] * 100)
    put(store, "k")
    assert store.values.find(digest("k"))[0] == b"value"


def test_a_shard_that_stays_stale(store, writes):
    left = writes(*[(BEFORE, errno.ESTALE)] * 100)
    with pytest.raises(OSError) as caught:
        put(store, "k")
    assert caught.value.errno == errno.ESTALE
    assert 70 <= len(left) <= 97


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EIO])
def test_a_rename_whose_reply_was_lost(store, writes, number):
    put(store, "k", b"old")

    def lost(carry_out, files):
        carry_out()
        return [(AT_RENAME, number)] * len(files)

    writes(lost)
    signature = put(store, "k", b"content")
    assert store.values.find(digest("k")) == (b"content", signature)


def test_a_rename_that_failed_with_another_content_there(store, nfsdict, writes):
    put(store, "k", b"old")
    writes((AT_RENAME, errno.EIO))
    with pytest.raises(nfsdict.UncertainWriteError) as caught:
        put(store, "k", b"new")
    assert caught.value.errno == errno.EIO
    assert store.values.find(digest("k"))[0] == b"old"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_a_refused_rename_is_certain(store, nfsdict, writes, number):
    put(store, "k", b"old")
    writes((AT_RENAME, number))
    with pytest.raises(OSError) as caught:
        put(store, "k", b"new")
    assert caught.value.errno == number
    assert not isinstance(caught.value, nfsdict.UncertainWriteError)


def test_an_unlink_whose_reply_was_lost(store, monkeypatch):
    put(store, "k")
    unlink = os.unlink

    def lost(path):
        unlink(path)
        raise FileNotFoundError(errno.ENOENT, "", path)

    monkeypatch.setattr(os, "unlink", lost)
    assert store.values.remove([digest("k")]) == [False]
    assert files(store) == {}


def test_a_mkdir_whose_reply_was_lost(store, monkeypatch):
    mkdir = os.mkdir

    def lost(path, *arguments):
        mkdir(path, *arguments)
        raise FileExistsError(errno.EEXIST, "", path)

    monkeypatch.setattr(os, "mkdir", lost)
    put(store, "k")
    assert store.values.find(digest("k"))[0] == b"value"


def test_a_mkdir_of_what_another_host_is_just_making(store, monkeypatch):
    """GlusterFS: the name exists, and can't be found for a moment."""
    mkdir, refused = os.mkdir, []

    def being_made(path, *arguments):
        if len(refused) < 3:
            refused.append(path)
            raise FileExistsError(errno.EEXIST, "", path)
        mkdir(path, *arguments)

    monkeypatch.setattr(os, "mkdir", being_made)
    put(store, "k")
    assert store.values.find(digest("k"))[0] == b"value" and len(refused) == 3


@pytest.mark.parametrize("missed", [{1}, {2}, {1, 3}, {1, 2, 4}])
def test_a_directory_that_is_found_between_two_looks(store, monkeypatch, missed):
    """As on GlusterFS, while another host is making it."""
    mkdir, lstat, stat, looks = os.mkdir, os.lstat, os.stat, []

    def faster(path, *arguments):
        mkdir(path, *arguments)
        raise FileExistsError(errno.EEXIST, "", path)

    def not_at_first(original):
        def look(path, *arguments, **options):
            if str(path) == shard:
                looks.append(path)
                if len(looks) in missed:
                    raise FileNotFoundError(errno.ENOENT, "", path)
            return original(path, *arguments, **options)

        return look

    shard = os.path.dirname(store.values.path_of(digest("k")))
    with monkeypatch.context() as patch:
        patch.setattr(os, "mkdir", faster)
        patch.setattr(os, "lstat", not_at_first(lstat))
        patch.setattr(os, "stat", not_at_first(stat))
        store.files.make_directory(shard)
    assert Path(shard).is_dir()


def test_a_file_in_the_place_of_a_shard(store):
    shard = Path(store.values.path_of(digest("k"))).parent
    shard.write_bytes(b"stranger")
    with pytest.raises(OSError) as caught:
        put(store, "k")
    assert caught.value.errno in (errno.ENOTDIR, errno.EEXIST)
    assert shard.read_bytes() == b"stranger"


def test_one_of_many_fails(store):
    names = sorted(digest(key) for key in ("a", "b", "c"))
    blocked = Path(store.values.path_of(names[1]))
    blocked.mkdir(parents=True)
    first, second, third = store.values.write([(name, b"value") for name in names])
    assert isinstance(first, bytes) and isinstance(third, bytes)
    assert isinstance(second, IsADirectoryError)
    assert sorted(files(store)) == sorted(f"{name}.pkl" for name in names)


# --- absence ------------------------


def test_a_miss_is_looked_at_again_after_revalidation(store, module, monkeypatch):
    """Another host wrote it, and this client remembers that it was missing."""
    module = importlib.import_module("nfsdict.storage.files")
    put(store, "k")
    original, revalidated = module.read_files, []
    open_ = os.open

    def opened(path, *arguments, **options):
        revalidated.append(path)
        return open_(path, *arguments, **options)

    def remembered(paths):
        seen = os.path.dirname(paths[0]) in revalidated
        return original(paths) if seen else [errno.ENOENT] * len(paths)

    monkeypatch.setattr(module, "read_files", remembered)
    monkeypatch.setattr(os, "open", opened)
    assert store.values.find(digest("k"))[0] == b"value"
    revalidated.clear()
    assert store.values.find(digest("k"), fresh=True)[0] == b"value"
    assert len(revalidated) >= 1


@pytest.mark.parametrize("fresh", [False, True])
def test_a_store_that_is_gone_is_no_missing_key(nfsdict, tmp_path, fresh):
    d = nfsdict.NfsDict("s", tmp_path, lazy=True)
    shutil.rmtree(tmp_path / "s")
    with pytest.raises(FileNotFoundError):
        d.get("k", fresh=fresh)
    for call in (lambda: d["k"], lambda: "k" in d, lambda: d.pop("k", 1)):
        with pytest.raises(FileNotFoundError):
            call()
    with pytest.raises(FileNotFoundError):
        del d["k"]
    assert not (tmp_path / "s").exists()


def test_a_missing_shard_is_a_missing_key(store):
    assert store.values.find(digest("k")) is None
    assert store.values.find(digest("k"), fresh=True) is None
    assert store.values.look(digest("k")) is None
    assert store.values.remove([digest("k")]) == [False]


# --- temporary files ------------------------


def test_temporary_names_as_traced(traced, tmp_path):
    calls = traced("d['k'] = b'1'" + MARK + "for i in range(20): d['k'] = b'%d' % i")
    assert calls.count(WRITTEN[0]) == 20
    names = TEMPORARY.findall((tmp_path / "trace").read_text())
    assert len(set(names)) >= 21


# --- scans ------------------------


def test_scans_take_exact_names_alone(store, nfsdict, tmp_path):
    put(store, "k", pickle.dumps(("k", 1)))
    name = digest("k")
    shard = Path(store.values.path_of(digest("k"))).parent
    other = "00" if name[:2] != "00" else "01"
    strangers = [
        f"{name}.pkl.damaged-0123",
        f"{name}.json",
        f"{name}",
        f"x{name}.pkl",
        f"{name[:-1]}.pkl",
        f"{name.upper()}.pkl",
        f"{other}{name[2:]}.pkl",
        f"{name}.pkl\n",
        ".nfs0123456789",
        "tmpabcdefgh",
        "note.txt",
    ]
    for stranger in strangers:
        (shard / stranger).write_bytes(b"x")
    (shard / f"{name[:2]}{'0' * 62}.pkl").mkdir()
    (shard / f"{name[:2]}{'1' * 62}.pkl").symlink_to(shard / f"{name}.pkl")
    (shard / ".nfsdict-left").write_bytes(b"")
    for odd in ("0", "000", "0g", "AB", "zz", "lost+found"):
        (Path(store.directory) / odd).mkdir()

    assert store.shards.present() == [name[:2]]
    listing = store.shards.list(name[:2])
    assert list(listing.signatures) == [name]
    assert list(listing.temporary) == [str(shard / ".nfsdict-left")]
    assert len(listing.unrecognized) == len(strangers) + 2
    assert dict(nfsdict.NfsDict("store", tmp_path)) == {"k": 1}


def test_listing_a_shard_that_is_not_there(store):
    assert store.shards.list("00").signatures == {}
    assert store.shards.stamps(["00"]) == [None]


# --- directories and permissions ------------------------


@pytest.mark.parametrize(
    ("mode", "file", "directory"),
    [(None, 0o640, 0o750), (0o660, 0o660, 0o770), (0o644, 0o644, 0o755), (0o600, 0o600, 0o700)],
)
def test_permissions(module, tmp_path, mode, file, directory):
    before = os.umask(0o027)
    try:
        store = module.Storage(str(tmp_path / "a" / "b"), ".pkl", mode, True)
        store.create(store.missing())
        put(store, "k")
    finally:
        os.umask(before)
    path = Path(store.values.path_of(digest("k")))
    assert path.stat().st_mode & 0o7777 == file
    for made in (path.parent, tmp_path / "a" / "b", tmp_path / "a"):
        assert made.stat().st_mode & 0o777 == directory


def test_setgid_is_kept(module, tmp_path):
    os.chmod(tmp_path, 0o2770)
    store = module.Storage(str(tmp_path / "s"), ".pkl", 0o660, False)
    store.create(store.missing())
    put(store, "k")
    for made in (tmp_path / "s", Path(store.values.path_of(digest("k"))).parent):
        assert made.stat().st_mode & 0o7777 == 0o2770


def test_a_file_in_the_way(module, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for directory in (tmp_path / "file", tmp_path / "file" / "below"):
        store = module.Storage(str(directory), ".pkl", None, True)
        with pytest.raises(NotADirectoryError):
            store.create(store.missing())
