"""Where a refused rename may have done something, as on SMB: no value is lost to one.

There a rename over a file that the same client has open is refused, and the old file is gone some
50 ms later. The package is told that it is on such a file system, and ``os.replace`` does as that.
"""

from __future__ import annotations

import errno
import importlib
import os
import signal
import types
from pathlib import Path

import pytest

pytestmark = pytest.mark.filterwarnings("ignore:.*is not safe with:UserWarning")

REFUSALS = [errno.EACCES, errno.EPERM, errno.EIO, errno.ENOSPC, errno.EROFS]
KINDS = ["cifs", "smb3", "fuse.sshfs", ""]


@pytest.fixture
def files(nfsdict):
    return importlib.import_module("nfsdict.storage.values")


@pytest.fixture(autouse=True)
def mounted(nfsdict, monkeypatch):
    """Say what it is mounted as."""
    module = importlib.import_module("nfsdict.storage.mounted")

    def mounted(kind):
        monkeypatch.setattr(module, "mount_of", lambda path: module.Mount(kind))

    mounted("cifs")
    return mounted


@pytest.fixture
def quick(files, monkeypatch):
    monkeypatch.setattr(files, "PAUSES", (0.001, 0.001))


@pytest.fixture
def smb(files, monkeypatch):
    """Have so many renames over files fail, and the old files vanish so many seconds later. Until
    then they can't be replaced either. Seconds pass where the package waits for them."""
    original, vanishing, now = os.replace, {}, [0.0]

    def sleep(seconds):
        now[0] += seconds
        for target in [target for target, moment in vanishing.items() if moment <= now[0]]:
            os.unlink(target)
            del vanishing[target]

    def smb(times, number=errno.EACCES, after=0.05, done=False):
        failed = []

        def replace(source, target):
            if (len(failed) >= times and target not in vanishing) or "taken" not in source:
                return original(source, target)
            failed.append(target)
            if done:
                original(source, target)
            elif after is not None and os.path.exists(target):
                vanishing.setdefault(target, now[0] + after)
            raise OSError(number, os.strerror(number), source)

        clock = types.SimpleNamespace(sleep=sleep, monotonic=lambda: now[0])
        monkeypatch.setattr(files, "time", clock)
        monkeypatch.setattr(os, "replace", replace)
        return failed

    return smb


FOREVER = 10**9


def value_file(d, key):
    digest = importlib.import_module("nfsdict.core").digest
    return d.path / digest(key)[:2] / f"{digest(key)}.pkl"


def left(d):
    return sorted(d.path.glob("**/.nfsdict-*"))


@pytest.mark.parametrize("kind", KINDS)
def test_an_old_value_that_vanishes_is_replaced(opened, smb, mounted, kind):
    mounted(kind)
    d = opened(durable=False)
    d["a"] = "old"
    failed = smb(1)
    d["a"] = "new"
    assert len(failed) == 9  # at once, 1 ms later, and so on to 49 ms; 75 ms later it is gone
    assert d.get("a", fresh=True) == "new" == opened()["a"]
    assert left(d) == []


def test_many_that_vanish(opened, smb):
    d = opened(durable=False)
    d.update(a=1, b=2, c=3)
    smb(2)
    d.update(a=4, b=5, c=6)
    assert dict(opened()) == {"a": 4, "b": 5, "c": 6} and left(d) == []


@pytest.mark.parametrize("number", REFUSALS)
def test_one_that_vanished_for_good_is_given_back_by_repair(nfsdict, opened, smb, number):
    d = opened(durable=False)
    d.update(a="old", b=1)
    smb(FOREVER, number)
    with pytest.raises(nfsdict.UncertainWriteError) as caught:
        d["a"] = "new"
    [private] = left(d)
    assert caught.value.errno == number and caught.value.filename == str(value_file(d, "a"))
    assert str(private) in str(caught.value) and "repair" in str(caught.value)
    assert d.get("a") is None and dict(opened()) == {"b": 1}
    assert d.verify().temporary.keys() == {str(private)}
    d.repair()
    assert left(d) == [private], "it is young"
    assert d.repair(grace=-1).removed == [str(private)]
    assert dict(d) == dict(opened()) == {"a": "new", "b": 1} and left(d) == []


@pytest.mark.parametrize("number", REFUSALS)
def test_a_value_that_stays_is_the_old_one(nfsdict, opened, smb, quick, number):
    d = opened(durable=False)
    d.update(a="old", b=1)
    smb(FOREVER, number, after=None)
    with pytest.raises(OSError) as caught:
        d["a"] = "new"
    assert not isinstance(caught.value, nfsdict.UncertainWriteError)
    assert caught.value.errno == number and caught.value.filename == str(value_file(d, "a"))
    with pytest.raises(nfsdict.BatchError) as failed:
        d.update(a="new", b="new")
    assert failed.value.failed.keys() == {"a", "b"}
    assert d["a"] == d.get("a", fresh=True) == "old" and left(d) == []


def test_where_looking_fails_too_it_is_uncertain(nfsdict, opened, smb, quick, monkeypatch):
    d = opened(durable=False)
    d["a"] = "old"
    smb(FOREVER, after=0.001)

    def failing(self, paths):
        raise OSError(errno.ESTALE, "the directory")

    with monkeypatch.context() as patch:
        patch.setattr(type(d._storage.files), "read_paths", failing)
        with pytest.raises(nfsdict.UncertainWriteError):
            d["a"] = "new"
    assert d.get("a") is None and len(left(d)) == 1
    d.repair(grace=-1)
    assert d["a"] == opened()["a"] == "new"


def test_what_is_no_file_is_no_value(opened, smb, quick):
    d = opened(durable=False)
    value_file(d, "a").mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        d["a"] = "new"
    assert left(d) == []


@pytest.mark.parametrize("number", REFUSALS)
def test_a_rename_that_was_carried_out(opened, smb, quick, number):
    d = opened(durable=False)
    d["a"] = "old"
    smb(1, number, done=True)
    d["a"] = "new"
    assert d.get("a", fresh=True) == "new" and left(d) == []


@pytest.mark.parametrize("number", [*REFUSALS, errno.ENOENT])
@pytest.mark.parametrize("meanwhile", ["replaced", "removed"])
def test_a_rename_that_was_carried_out_before_others_changed_it(
    opened, smb, quick, monkeypatch, number, meanwhile
):
    d, other = opened(durable=False), opened(durable=False)
    d["a"] = "old"
    smb(1, number, done=True)
    change_after_a_refusal(other, monkeypatch, meanwhile)
    d["a"] = "new"
    d.refresh()
    assert dict(d) == dict(opened()) == ({"a": "theirs"} if meanwhile == "replaced" else {})
    assert left(d) == []


def test_after_a_long_sleep_a_repair_may_have_dropped_it(nfsdict, opened, smb, files, monkeypatch):
    monkeypatch.setattr(files, "PAUSES", (3600.0,))
    d, other = opened(durable=False), opened(durable=False)
    d["a"] = "old"
    smb(1, done=True)
    change_after_a_refusal(other, monkeypatch, "replaced")
    with pytest.raises(nfsdict.UncertainWriteError):
        d["a"] = "new"
    assert dict(opened()) == {"a": "theirs"} and left(d) == []


def change_after_a_refusal(other, monkeypatch, how):
    """Have another process replace or remove the value when a refused put looks what lies there."""
    original = type(other._values).lies_there

    def lies_there(self, path):
        monkeypatch.setattr(type(other._values), "lies_there", original)
        if how == "replaced":
            other["a"] = "theirs"
        else:
            del other["a"]
        return original(self, path)

    monkeypatch.setattr(type(other._values), "lies_there", lies_there)


def test_a_missing_shard_is_made(opened):
    d = opened(durable=False)
    d["a"] = 1
    d.update({str(number): number for number in range(20)})
    assert len(opened()) == 21 and left(d) == []


# --- repair ----------------------------------------------------------------------------------


def test_repair_gives_nothing_back_where_a_value_is(opened, files, smb):
    d = opened(durable=False)
    d["a"] = "old"
    private = Path(d._values.private_path_of(value_file(d, "a").name[:64]))
    private.write_bytes(value_file(d, "a").read_bytes())
    d["a"] = "new"
    d.repair(grace=-1)
    assert dict(opened()) == {"a": "new"} and left(d) == []


# --- who is killed ---------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["before", "destroyed", "after", "at the second"])
@pytest.mark.parametrize("begin", [{}, {"a": "old"}], ids=["new", "over"])
def test_whoever_is_killed_loses_nothing(opened, begin, moment):
    opened(durable=False).update(begin, b=1)
    d = opened(lazy=True, durable=False)
    child = os.fork()
    if not child:
        original, calls = os.replace, []

        def replace(source, target):
            if "taken" not in os.fspath(source):
                return original(source, target)
            calls.append(target)
            if moment == "after":
                original(source, target)
            elif moment != "before" and os.path.exists(target):
                os.unlink(target)
            if moment == "at the second" and len(calls) < 2:
                raise OSError(errno.EACCES, "refused")
            os.kill(os.getpid(), signal.SIGKILL)

        os.replace = replace
        d["a"] = "new"
        os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    held = {"after": {"a": "new"}, "before": begin}.get(moment, {})
    assert dict(opened()) == {**held, "b": 1}
    d = opened(durable=False)
    d.repair(grace=-1)
    assert dict(d) == dict(opened()) == {"a": "new", **held, "b": 1} and left(d) == []


# --- add and pop -----------------------------------------------------------------------------


@pytest.fixture
def link_refused(nfsdict, monkeypatch):
    """An ``add`` whose link is refused with EACCES, while this lies there."""
    files = importlib.import_module("nfsdict.storage.files")
    original = files.write_files

    def refused(content):
        def write_files(targets, mode, durable, synced, exclusive):
            if not exclusive:
                return original(targets, mode, durable, synced, exclusive)
            [(target, data)] = targets
            if not os.path.isdir(os.path.dirname(target)):
                return original(targets, mode, durable, synced, exclusive)
            if content is not None:
                Path(target).write_bytes(data if content == "ours" else content)
            return [(1, errno.EACCES)]

        monkeypatch.setattr(files, "write_files", write_files)

    return refused


def test_an_add_that_was_refused(opened, link_refused):
    d = opened(durable=False)
    link_refused(None)
    with pytest.raises(PermissionError):
        d.add("a", 1)
    assert dict(opened()) == {}


def test_an_add_that_lost_to_another(nfsdict, opened, link_refused):
    d = opened(durable=False)
    loaded = d._entries.dumps(("a", "another's"))
    link_refused(b"".join(loaded) if isinstance(loaded, list) else loaded)
    assert d.add("a", 1) is False
    assert dict(opened()) == {"a": "another's"}


def test_an_add_while_the_key_is_being_removed(opened, monkeypatch, nfsdict):
    """Linking gives ENOENT for a moment, and nothing was done."""
    module = importlib.import_module("nfsdict.storage.files")
    original, failed = module.write_files, []

    def write_files(targets, mode, durable, synced, exclusive):
        if exclusive and len(failed) < 3 and os.path.isdir(os.path.dirname(targets[0][0])):
            failed.append(targets)
            return [(1, errno.ENOENT)]
        return original(targets, mode, durable, synced, exclusive)

    monkeypatch.setattr(module, "write_files", write_files)
    d = opened(durable=False)
    d["b"] = 1
    assert d.add("a", 1) is True and d.add("a", 2) is False
    assert dict(opened()) == {"a": 1, "b": 1} and len(failed) == 3 and left(d) == []


def test_an_add_of_which_nobody_knows_whose_it_is(nfsdict, opened, link_refused):
    d = opened(durable=False)
    link_refused("ours")
    with pytest.raises(nfsdict.UncertainWriteError):
        d.add("a", 1)
    assert dict(opened()) == {"a": 1}


@pytest.mark.parametrize("done", [True, False])
def test_a_pop_whose_rename_is_refused(opened, monkeypatch, done):
    opened(durable=False)["a"] = 1
    d = opened(lazy=True, durable=False)
    original, path = os.rename, str(value_file(d, "a"))

    def refused(source, target):
        if source == path:
            if done:
                original(source, target)
            raise PermissionError(errno.EACCES, "refused", source)
        original(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", refused)
        if done:
            assert d.pop("a") == 1
        else:
            with pytest.raises(PermissionError):
                d.pop("a")
    assert dict(opened()) == ({} if done else {"a": 1}) and left(d) == []


# --- where two renames of one file can both be "done", as on GlusterFS ---------------------------


@pytest.fixture(params=["fuse.glusterfs", "fuse.strange", ""])
def overtaken(request, mounted, monkeypatch):
    """Have another host do this when a file is first renamed to a private name, and say that it was
    done."""
    mounted(request.param)
    original = os.rename

    def overtaken(other):
        met = []

        def rename(source, target):
            if "-taken-" in target and source not in met:
                met.append(source)
                other(source)
            else:
                original(source, target)

        monkeypatch.setattr(os, "rename", rename)
        return met

    return overtaken


def test_a_pop_that_another_host_was_faster_than(opened, overtaken):
    opened(durable=False).update(a=1, b=2)
    d = opened(lazy=True, durable=False)
    met = overtaken(os.unlink)
    assert d.pop("a", None) is None
    with pytest.raises(KeyError):
        d.pop("b")
    assert len(met) == 2 and dict(opened()) == {} and left(d) == []


def test_a_pop_whose_file_was_given_back_meanwhile(opened, overtaken):
    d = opened(durable=False)
    d["a"] = 1
    met = overtaken(lambda source: None)
    assert d.pop("a") == 1
    assert len(met) == 1 and dict(opened()) == {} and left(d) == []


def test_a_repair_that_another_hosts_repair_was_faster_than(opened, overtaken):
    d = opened(durable=False)
    d["a"] = 1
    private = Path(d._values.private_path_of(value_file(d, "a").stem))
    value_file(d, "a").rename(private)
    met = overtaken(lambda source: os.link(source, value_file(d, "a")) or os.unlink(source))
    report = d.repair(grace=-1)
    assert report.failed == {} and met != []
    assert dict(opened()) == {"a": 1} and left(d) == []


@pytest.mark.parametrize("again", [False, True])
def test_ceph_fuse_is_not_asked_for_the_name_that_a_failed_rename_had(
    opened, mounted, monkeypatch, again
):
    """It would never answer. That the key was put again meanwhile changes nothing: another host had
    taken what was there before."""
    d = opened(durable=False)
    d["a"] = 1
    mounted("fuse.ceph-fuse")
    mine = opened(lazy=True, durable=False)
    file, failed = value_file(d, "a"), []
    lstat = os.lstat

    def rename(source, target):
        failed.append(target)
        file.unlink()
        if again:
            d["a"] = 2
        raise FileNotFoundError(errno.ENOENT, "no such file", source)

    def never_returns(path, **options):
        assert path not in failed
        return lstat(path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", rename)
        patch.setattr(os, "lstat", never_returns)
        assert mine.pop("a", None) is None
    assert len(failed) == 1 and dict(opened()) == ({"a": 2} if again else {})


# --- where they are trusted ------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ext4", "xfs", "nfs4", "tmpfs", "overlay"])
def test_elsewhere_no_private_name_is_needed(opened, mounted, monkeypatch, kind):
    mounted(kind)
    d = opened(durable=False)
    monkeypatch.setattr(type(d._values), "private_path_of", None)
    d["a"] = 1
    d.update(a=2, b=3)
    assert dict(opened()) == {"a": 2, "b": 3}
