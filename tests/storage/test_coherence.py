"""The rules by kind of file system, on a local disk that the package takes for another one."""

from __future__ import annotations

import copy
import errno
import importlib
import os
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.aging import age
from support.layout import value_file

pytestmark = pytest.mark.filterwarnings("ignore:.*is not safe with:UserWarning")

# Where a directory's times prove nothing, for one reason or another.
UNSTAMPED = ["ceph", "lustre", "gpfs", "fuse.glusterfs", "fuse.sshfs", "vfat", "cifs", "9p"]
SAFE_SMB = ("actimeo=0", "closetimeo=0")
KEYS = {str(number): number for number in range(9)}


@pytest.fixture
def on(nfsdict, monkeypatch):
    """Say what the store is mounted as."""
    module = importlib.import_module("nfsdict.storage.mounted")

    def on(kind, *options):
        monkeypatch.setattr(module, "mount_of", lambda path: module.Mount(kind, options))

    return on


@pytest.fixture
def files(nfsdict):
    return importlib.import_module("nfsdict.storage.files")


@pytest.fixture
def lookups(nfsdict, monkeypatch):
    """The names that were looked up past the cache."""
    calls = []
    module = importlib.import_module("nfsdict.storage.coherence")
    original = module.look_up_anew
    monkeypatch.setattr(
        module, "look_up_anew", lambda path: calls.append(Path(path).name) or original(path)
    )
    return calls


@pytest.fixture
def opened(nfsdict, tmp_path):
    """Open the test's store, whatever the options."""
    return lambda **options: nfsdict.NfsDict("store", tmp_path, durable=False, **options)


def left(d):
    return sorted(d.path.glob("**/.nfsdict-*"))


@pytest.fixture
def readings(nfsdict, monkeypatch):
    """How often a directory is read by each opening of it."""
    module = importlib.import_module("nfsdict.storage.coherence")
    counts, original, with_open, listdir = [], module.list_directory, module.with_open, os.listdir

    def list_directory(path, times):
        counts.append(times)
        return original(path, times)

    def opening(path, flags, call):
        def counted(descriptor):
            counts.append(0)
            return call(descriptor)

        return with_open(path, flags, counted)

    def listed(path):
        if isinstance(path, int):
            counts[-1] += 1
        return listdir(path)

    monkeypatch.setattr(module, "list_directory", list_directory)
    monkeypatch.setattr(module, "with_open", opening)
    monkeypatch.setattr(os, "listdir", listed)
    return counts


@pytest.mark.parametrize("kind", ["fuse.sshfs", "fuse.strange", "fuse.glusterfs", "cifs", "nfs4"])
def test_a_directory_is_read_once_by_each_opening_where_a_second_time_gives_nothing(
    opened, on, readings, kind
):
    """As sshfs does without its cache. NFS's client reads it anew."""
    on(kind)
    d = opened(lazy=True)
    with d.lease("a", 30):
        del readings[:]
        assert [lease.key for lease in d.leases()] == ["a"]
    assert (max(readings) > 1) == (kind == "nfs4")


# --- names -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["cifs", "fuse.glusterfs", "fuse.strange", ""])
def test_a_miss_looks_the_name_up_past_the_cache(opened, on, lookups, kind):
    on(kind)
    d = opened(lazy=True)
    d.update(a=0, b=1)
    del d["a"]
    del lookups[:]
    for call in (lambda: d.get("a"), lambda: "a" in d, lambda: d.get("a", fresh=True)):
        assert not call()
        assert value_file(d.path.parent, "a").name in lookups
        del lookups[:]
    d["a"] = 2
    assert d.get("a", fresh=True) == opened()["a"] == 2 and left(d) == []
    assert d.pop("a") == 2 and dict(opened()) == {"b": 1}


@pytest.mark.parametrize("kind", ["ext4", "nfs", "nfs4", "ceph", "fuse.sshfs", "9p"])
def test_elsewhere_opening_the_directory_is_enough(opened, on, lookups, kind):
    on(kind)
    d = opened()
    d["b"] = 1
    assert "a" not in d and d.get("b", fresh=True) == 1
    assert lookups == []


def test_the_look_makes_nothing(nfsdict, tmp_path):
    look = importlib.import_module("nfsdict.storage.directories").look_up_anew
    (tmp_path / "there").write_text("x")
    for name in ("there", "missing", "no/directory"):
        look(str(tmp_path / name))
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    assert (tmp_path / "there").read_text() == "x"


@pytest.mark.parametrize("kind", ["nfs4", "nfs"])
def test_nocto_lists_at_each_miss(nfsdict, opened, on, monkeypatch, kind):
    module = importlib.import_module("nfsdict.storage.coherence")
    original, listed = module.read_anew, []
    monkeypatch.setattr(module, "read_anew", lambda *call: listed.append(call) or original(*call))
    on(kind, "nocto")
    d = opened(lazy=True)
    d["b"] = 1
    time.sleep(0.2)  # past the clock's tick, after which ordinary options list no more
    del listed[:]
    for _ in range(3):
        assert d.get("b", fresh=True) == 1
    assert len(listed) >= 3


def test_a_late_listing_does_not_overrule_what_the_client_finds(opened, on, monkeypatch):
    """Another process of the host had asked for it before the key was put, and it came just now."""
    module = importlib.import_module("nfsdict.storage.coherence")
    original, late = module.read_anew, []
    monkeypatch.setattr(module, "read_anew", lambda *call: late.pop() if late else original(*call))
    on("nfs")
    d = opened(lazy=True)
    opened(lazy=True).update(dict.fromkeys("abc", 1))
    assert "a" in d  # it learns the server's time
    time.sleep(0.2)
    late.append([])
    assert "b" in d and not late
    assert d.get("b", fresh=True) == 1


@pytest.mark.parametrize("kind", ["nfs", "nfs4"])
def test_a_taken_file_that_the_client_takes_for_another_one_goes_back(
    nfsdict, opened, on, monkeypatch, kind
):
    """As with ``nordirplus`` where another host has replaced it, and the replaced one lives on."""
    module = importlib.import_module("nfsdict.storage.coherence")
    original = module.inodes_in

    def another(path):
        return {name: one + name.startswith(".nfsdict-") for name, one in original(path).items()}

    on(kind, "nordirplus")
    d = opened()
    d.update(KEYS)
    monkeypatch.setattr(module, "inodes_in", another)
    with pytest.raises(OSError, match="tale") as caught:
        d.pop("1")
    assert caught.value.errno == errno.ESTALE
    report = d.prune(max_items=0)
    assert (report.removed, report.replaced, report.failed) == (0, len(KEYS), {})
    monkeypatch.undo()
    assert dict(opened()) == KEYS and not list(d.path.glob("??/.nfsdict-*"))


# --- stamps ------------------------------------------------------------------------------------


@pytest.fixture
def behind(nfsdict, monkeypatch):
    """Directories keep the times that they have now, as where who changes them has a clock that is
    behind."""
    shards = importlib.import_module("nfsdict.storage.shards")
    coherence = importlib.import_module("nfsdict.storage.coherence")
    original = shards.read_stamps
    frozen = {}

    def stamp(path):
        if path not in frozen:
            [frozen[path]] = original([path])
        return frozen[path]

    def listing(call):
        def listed(path, *arguments):
            found = call(path, *arguments)
            return found if isinstance(found, int) else (*stamp(path), *found[2:])

        return listed

    def freeze(d):
        for path in (d.path, *d.path.glob("??")):
            stamp(str(path))
        monkeypatch.setattr(shards, "read_stamps", lambda paths: list(map(stamp, paths)))
        for name in ("list_directory", "list_changes"):
            monkeypatch.setattr(coherence, name, listing(getattr(coherence, name)))

    return freeze


def settled(opened, tmp_path):
    """Make a store whose index is on disk, and nothing of it racy."""
    opened().update(KEYS)
    age(tmp_path)
    opened().pack()


@pytest.mark.parametrize("how", ["eager", "lazy", "refresh", "watch"])
@pytest.mark.parametrize("kind", [*UNSTAMPED, "fuse.strange"])
def test_no_stamp_is_believed(opened, on, behind, tmp_path, kind, how):
    on(kind, *SAFE_SMB)
    settled(opened, tmp_path)
    here, there = opened(), opened(lazy=True)
    behind(here)
    there["0"] = "replaced"
    del there["1"]
    there["2 new"] = 2
    wanted = {**KEYS, "0": "replaced", "2 new": 2}
    del wanted["1"]
    if how == "eager":
        here = opened()
    elif how == "lazy":
        here = opened(lazy=True)
    elif how == "refresh":
        assert here.refresh() == {"0", "1", "2 new"}
    else:
        watch = here.watch(interval=0.01)
        assert next(watch) == {"0", "1", "2 new"}
        watch.close()
    assert dict(here) == wanted


@pytest.mark.parametrize("new", ["shorter", "a longer new value"])
@pytest.mark.parametrize("kind", ["9p", "fuse.sshfs"])
def test_a_file_that_is_replaced_while_it_is_read_is_read_again(
    opened, on, files, monkeypatch, tmp_path, kind, new
):
    """fstat goes by its name there: the old bytes come with the size and signature of the new."""
    on(kind)
    here, there = opened(lazy=True), opened(lazy=True)
    there["k"] = "the old value"
    path, original = value_file(tmp_path, "k"), files.read_files

    def replaced_meanwhile(paths):
        [(old, _)] = original(paths)
        monkeypatch.setattr(files, "read_files", original)
        there["k"] = new
        age(tmp_path)
        [(_, signature)] = original(paths)
        return [(bytes(old)[: path.stat().st_size], signature)]

    monkeypatch.setattr(files, "read_files", replaced_meanwhile)
    assert here.get("k", fresh=True) == new
    here.refresh()
    assert here["k"] == new


def test_stamps_are_believed_where_one_clock_sets_them(opened, on, behind, tmp_path):
    """What the test above breaks: the same store is served as it was."""
    on("ext4")
    settled(opened, tmp_path)
    behind(opened())
    opened(lazy=True)["0"] = "replaced"
    assert dict(opened()) == KEYS


@pytest.mark.parametrize("kind", [*UNSTAMPED])
def test_the_packs_are_used_for_files_that_are_the_same(opened, on, reads, tmp_path, kind):
    on(kind, *SAFE_SMB)
    settled(opened, tmp_path)
    del reads[:]
    assert dict(opened()) == KEYS and reads == []
    opened(lazy=True)["0"] = "replaced"
    assert dict(opened()) == {**KEYS, "0": "replaced"}
    names = {name.lower() for name in reads}  # on SMB some letters are capitals
    assert names == {value_file(tmp_path, "0").name}


def test_where_nothing_is_known_a_refresh_reads_what_is_cached(opened, on, reads, tmp_path):
    """A file's number may be its name's, and its times those of any clock."""
    on("fuse.strange")
    settled(opened, tmp_path)
    d = opened()
    del reads[:]
    assert d.refresh() == set()
    assert len(reads) == len(KEYS)


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize("kind", ["ceph", "fuse.glusterfs", "lustre", "gpfs", "fuse.strange"])
def test_trust_stamps(opened, on, lists, tmp_path, kind, trust):
    on(kind)
    opened(trust_stamps=trust).update(KEYS)
    age(tmp_path)
    opened(trust_stamps=trust).pack()
    del lists[:]
    d = opened(trust_stamps=trust)
    assert dict(d) == KEYS
    assert bool(lists) is not trust
    del lists[:]
    assert dict(copy.copy(d)) == KEYS and bool(lists) is not trust


@pytest.mark.parametrize("kind", ["fuse.sshfs", "vfat"])
def test_no_trust_makes_a_directorys_times_move(opened, on, lists, tmp_path, kind):
    on(kind)
    opened(trust_stamps=True).update(KEYS)
    age(tmp_path)
    opened(trust_stamps=True).pack()
    del lists[:]
    assert dict(opened(trust_stamps=True)) == KEYS and lists


# --- clocks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [-60, 60])
@pytest.mark.parametrize("kind", ["ceph", "fuse.glusterfs", "lustre", "gpfs"])
def test_a_clock_that_differs_costs_nothing(opened, on, files, reads, monkeypatch, kind, seconds):
    """Ours, against the hosts that wrote: nothing is missed, and what is unchanged isn't read."""
    on(kind)
    original = files.Files.probe_clock
    monkeypatch.setattr(files.Files, "probe_clock", lambda self: original(self) + seconds * 10**9)
    opened().update(KEYS)
    opened().pack()
    del reads[:]
    there = opened()
    assert dict(there) == KEYS and reads == []
    here = opened()
    for number in range(5):
        there["0"] = ("replaced", number)
        assert here.refresh() == {"0"} and here["0"] == ("replaced", number)
        assert opened()["0"] == ("replaced", number)
    del there["1"]
    assert here.refresh() == {"1"} and "1" not in opened()


@pytest.mark.parametrize("seconds", [-3600, 0, 3600])
@pytest.mark.parametrize("kind", ["ceph", "fuse.strange"])
def test_a_claim_is_as_old_as_it_was_seen(nfsdict, opened, on, files, monkeypatch, kind, seconds):
    on(kind)
    d = opened()
    claims = d._storage.exclusive._claims
    module = importlib.import_module("nfsdict.storage.claims")
    original, now = files.Files.probe_clock, [time.monotonic_ns()]
    monkeypatch.setattr(files.Files, "probe_clock", lambda self: original(self) + seconds * 10**9)
    monkeypatch.setattr(module.time, "monotonic_ns", lambda: now[0])
    claim = d.path / "claim"
    assert claims.try_claim(str(claim))
    for passed in (0, 50, 9):
        now[0] += passed * 10**9
        claims.break_old(str(claim), 60 * 10**9)
        assert claim.exists()
    claim.unlink()
    claim.write_text("of another holder")
    now[0] += 2 * 10**9
    claims.break_old(str(claim), 60 * 10**9)
    assert claim.exists()
    now[0] += 61 * 10**9
    claims.break_old(str(claim), 60 * 10**9)
    assert not claim.exists()


# --- signatures --------------------------------------------------------------------------------


def cut(signature):
    """As SMB's client tells it of a file that it has open: in whole seconds."""
    inode, size, *times = struct.unpack("<QQqq", signature)
    return struct.pack("<QQqq", inode, size, *(one - one % 10**9 for one in times))


def test_times_in_whole_seconds_and_finer_ones_are_the_same(opened, on, files, monkeypatch, reads):
    """An open file tells other times than its directory's listing."""
    on("cifs", *SAFE_SMB)
    original = files.read_files
    monkeypatch.setattr(
        files,
        "read_files",
        lambda paths: [
            one if isinstance(one, int) else (one[0], cut(one[1])) for one in original(paths)
        ],
    )
    writer = opened()
    writer.update(KEYS)
    lazy = opened(lazy=True, cache_bytes=0)
    lazy["0"] = 0
    assert len(lazy) == len(KEYS)
    time.sleep(4.1)  # the seconds that are racy, and the one that the times are cut by
    assert lazy.refresh() == set()
    assert writer.refresh() == {"0"}, "replaced, if by an equal one"
    opened().pack()
    del reads[:]
    assert dict(opened()) == KEYS and reads == []
    d = opened()
    d["0"] = "new"
    assert d.refresh() == set() and opened()["0"] == "new"


# --- contents ----------------------------------------------------------------------------------


@pytest.fixture
def shown(files, monkeypatch):
    """Have so many readings of these files show other bytes."""
    original = files.read_files

    def shown(path, data, times):
        reads = []

        def read_files(paths):
            found = original(paths)
            for at, one in enumerate(paths):
                if one == str(path) and not isinstance(found[at], int):
                    reads.append(one)
                    if len(reads) <= times:
                        found[at] = (data(found[at][0]), found[at][1])
            return found

        monkeypatch.setattr(files, "read_files", read_files)
        return reads

    return shown


def whole(d, key):
    """The bytes of this key's file."""
    return value_file(d.path.parent, key).read_bytes()


CACHING = [("cifs", *SAFE_SMB), ("cifs",), ("fuse.sshfs",), ("fuse.glusterfs",), ("fuse.strange",)]


@pytest.mark.parametrize("mount", CACHING, ids="-".join)
@pytest.mark.parametrize("shows", ["another key", "cut short", "nothing"])
def test_what_a_cache_shows_is_read_again(opened, on, shown, caplog, mount, shows):
    on(*mount)
    writer = opened()
    writer.update(a="one", b="two")
    other = whole(writer, "b")
    data = {
        "another key": lambda data: other,
        "cut short": lambda data: data[:-3],
        "nothing": lambda data: b"",
    }[shows]
    for call in (
        lambda: opened(lazy=True)["a"],
        lambda: opened()["a"],
        lambda: opened(lazy=True).get("a", fresh=True),
        lambda: "one" if opened(lazy=True).verify().ok else None,
    ):
        reads = shown(value_file(writer.path.parent, "a"), data, 1)
        assert call() == "one" and len(reads) == 2
    assert caplog.messages == []


@pytest.mark.parametrize("mount", CACHING, ids="-".join)
def test_what_goes_on_being_shown_is_not_served(nfsdict, opened, on, shown, mount):
    on(*mount)
    writer = opened()
    writer.update(a="one", b="two")
    shown(value_file(writer.path.parent, "a"), lambda data: whole(writer, "b"), 10**9)
    with pytest.raises(nfsdict.CorruptValueError):
        opened(lazy=True)["a"]
    assert dict(opened()) == {"b": "two"}


@pytest.mark.parametrize("mount", CACHING, ids="-".join)
def test_repair_moves_what_is_certainly_damaged(opened, on, mount):
    on(*mount)
    d = opened()
    d.update(a="one", b="two")
    path = value_file(d.path.parent, "a")
    path.write_bytes(path.read_bytes()[:-3])
    certain = mount == CACHING[0]
    report = d.verify()
    assert not report.ok
    assert (set(report.damaged), set(report.unreadable)) == (
        ({str(path)}, set()) if certain else (set(), {str(path)})
    )
    assert set(d.repair().quarantined) == ({str(path)} if certain else set())
    assert path.exists() is not certain


def test_elsewhere_nothing_is_read_twice(nfsdict, opened, on, shown, caplog):
    on("nfs4")
    writer = opened()
    writer["a"] = "one"
    reads = shown(value_file(writer.path.parent, "a"), lambda data: data[:-3], 1)
    with pytest.raises(nfsdict.CorruptValueError):
        opened(lazy=True)["a"]
    assert len(reads) == 1 == len(caplog.messages)


@pytest.mark.parametrize(
    ("kind", "number", "tries"),
    [
        ("cifs", errno.EINVAL, 3),
        ("fuse.glusterfs", errno.ESTALE, 15),
        ("fuse.strange", errno.ESTALE, 3),
    ],
)
def test_errors_that_pass(opened, on, files, monkeypatch, kind, number, tries):
    on(kind)
    opened()["a"] = 1
    original, calls = files.read_files, []

    def read_files(paths):
        if "pkl" not in paths[0].lower():
            return original(paths)
        calls.append(paths)
        return [number] * len(paths) if len(calls) <= tries else original(paths)

    d = opened(lazy=True)
    monkeypatch.setattr(files, "read_files", read_files)
    monkeypatch.setattr(importlib.import_module("nfsdict.storage.passing"), "time", NoTime)
    assert d["a"] == 1
    # On SMB by the name in capitals first, which this disk doesn't find.
    assert len(calls) == tries + (2 if kind == "cifs" else 1)


class NoTime:
    monotonic = time.monotonic
    slept = 0.0

    @classmethod
    def sleep(cls, seconds):
        cls.slept += seconds


def test_an_error_that_does_not_pass_is_raised(opened, on, files, monkeypatch):
    on("ext4")
    opened()["a"] = 1
    d = opened(lazy=True)
    monkeypatch.setattr(files, "read_files", lambda paths: [errno.EINVAL] * len(paths))
    with pytest.raises(OSError) as caught:
        d["a"]
    assert caught.value.errno == errno.EINVAL


# --- removals ----------------------------------------------------------------------------------


@pytest.fixture
def lingers(monkeypatch, files):
    """Have so many removals of files with values succeed, and leave the files, as SMB's server
    does while another host has them open."""
    original, removals, most = os.unlink, [], [0]

    def unlink(path, **how):
        if len(Path(path).parent.name) == 2 and os.path.getsize(path):
            removals.append(path)
            if len(removals) <= most[0]:
                return
        original(path, **how)

    def lingers(times):
        most[0] = times
        return removals

    monkeypatch.setattr(files, "time", NoTime)
    monkeypatch.setattr(os, "unlink", unlink)
    return lingers


def left_in_shards(d):
    return sorted(d.path.glob("??/.nfsdict-*"))


TAKES = {
    "pop": lambda d: d.pop("0"),
    "del": lambda d: d.__delitem__("0"),
    "prune": lambda d: d.prune(prefix="0", max_items=0),
    "undone": lambda d: undone_beside_a_put(d),
}


def undone_beside_a_put(d):
    """A ``pop`` is undone after somebody has put a new value, which stays; that is removed then."""
    exclusive, digest = d._storage.exclusive, value_file(d.path.parent, "0").name[:64]
    private = d._storage.values.private_path_of(digest)
    assert exclusive.take(digest, private)
    d["0"] = "new"
    assert exclusive.give_back(private) and d["0"] == "new"
    del d["0"]


@pytest.mark.parametrize("how", TAKES)
@pytest.mark.parametrize("kind", ["cifs", "fuse.strange"])
def test_a_file_that_stays_a_while_is_removed(opened, on, lingers, kind, how):
    on(kind)
    d = opened()
    d.update(KEYS)
    removals = lingers(3)
    TAKES[how](d)
    assert left_in_shards(d) == []
    assert len(removals) == 3 + (2 if how == "undone" else 1)  # that has two files to remove
    assert "0" not in opened()


@pytest.mark.parametrize("how", TAKES)
@pytest.mark.parametrize("kind", ["cifs", "fuse.strange"])
def test_what_was_taken_is_never_given_back(opened, on, lingers, kind, how):
    """Though its file stays for good, whenever ``repair`` is called."""
    on(kind)
    d = opened()
    d.update(KEYS)
    lingers(10**9)
    TAKES[how](d)
    assert opened().repair(grace=-1).failed == {} and left_in_shards(d) != []
    lingers(0)
    assert opened().repair(grace=-1).failed == {}
    assert "0" not in opened() and left_in_shards(d) == []


def test_a_value_whose_removal_is_refused_stays(opened, on, monkeypatch):
    """It lies under its key again: nothing was handed out."""
    on("cifs")
    d = opened()
    d.update(KEYS)
    rename = os.rename

    def refused(source, target, **how):
        if ".nfsdict-taken-" in source and ".nfsdict-taken-" not in target:
            raise OSError(errno.EACCES, "refused")
        rename(source, target, **how)

    monkeypatch.setattr(os, "rename", refused)
    with pytest.raises(OSError, match="refused"):
        d.pop("0")
    assert d["0"] == opened()["0"] == 0 and left(d) == []


@pytest.mark.parametrize("change", ["removed", "replaced"])
def test_a_fresh_read_does_not_believe_what_another_process_has_open(
    opened, on, monkeypatch, change
):
    """By its handle a client of which nothing is known may read a file that another host has
    removed or replaced. Of SMB's: test_handles.py."""
    on("fuse.strange")
    d, other = opened(), opened()
    d["a"] = "old"
    read_paths = type(d._storage.files).read_paths

    def read(self, paths):
        [content] = read_paths(self, paths)
        monkeypatch.undo()
        if change == "removed":
            del other["a"]
        else:
            other["a"] = "new, and longer"
        return [content]

    monkeypatch.setattr(type(d._storage.files), "read_paths", read)
    assert d.get("a", fresh=True) == (None if change == "removed" else "new, and longer")


def test_elsewhere_a_file_is_removed_at_once(opened, on, lingers, monkeypatch):
    on("nfs4")
    d = opened()
    d.update(KEYS)
    removals, renames, rename = lingers(0), [], os.rename
    monkeypatch.setattr(os, "rename", lambda *names: renames.append(names) or rename(*names))
    assert d.pop("0") == 0
    assert len(removals) == len(renames) == 1


# --- links -------------------------------------------------------------------------------------


@pytest.fixture
def copies(monkeypatch):
    """A hard link "succeeds" and is a copy, as sshfs shows it."""

    def link(source, target):
        with open(target, "xb") as file:
            file.write(Path(source).read_bytes())

    original = os.link
    monkeypatch.setattr(
        os,
        "link",
        lambda source, target, **how: (original if source.startswith("/proc") else link)(
            source, target
        ),
    )


@pytest.mark.parametrize("kind", ["fuse.sshfs", "fuse.strange", "cifs"])
def test_where_links_are_copies_claims_decide(opened, on, copies, monkeypatch, kind):
    on(kind)
    d = opened()
    monkeypatch.setattr(type(d._values), "write_new", None)
    assert d.add("a", 1) is True and d.add("a", 2) is False
    assert opened(lazy=True).add("a", 3) is False and opened(lazy=True).setdefault("a", 4) == 1
    assert dict(opened()) == {"a": 1} and left(d) == []


@pytest.mark.parametrize("kind", ["fuse.sshfs", "cifs"])
def test_where_links_are_links_they_decide(opened, on, monkeypatch, kind):
    on(kind)
    d = opened()
    tried = []
    original = type(d._storage.files).can_link
    monkeypatch.setattr(
        type(d._storage.files), "can_link", lambda self: tried.append(1) or original(self)
    )
    monkeypatch.setattr(type(d._storage.exclusive), "_add_by_claim", None)
    assert d.add("a", 1) is True and d.add("a", 2) is False and d.add("b", 1) is True
    assert tried == [1] and left(d) == []


def test_on_trusted_file_systems_nothing_is_tried(opened, on, monkeypatch):
    on("nfs4")
    d = opened()
    monkeypatch.setattr(type(d._storage.files), "can_link", None)
    assert d.add("a", 1) is True


def test_links_that_can_not_be_told_are_an_error(opened, on, monkeypatch):
    on("cifs")
    d = opened()

    def failing(source, target, **how):
        raise OSError(errno.EIO, "passing")

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", failing)
        with pytest.raises(OSError):
            d.add("a", 1)
    assert d.add("a", 1) is True and left(d) == []


@pytest.mark.parametrize("kind", ["fuse.sshfs", "fuse.strange"])
def test_one_of_many_wins_by_claims(nfsdict, opened, on, copies, tmp_path, kind):
    """Four dictionaries, 50 keys: exactly one ``add`` of each key is told that it won."""
    on(kind)
    opened()
    winners = []
    with ThreadPoolExecutor(4) as pool:
        for won in pool.map(lambda process: adds(opened(lazy=True), process), range(4)):
            winners += won
    assert sorted(winners) == list(range(50))
    assert len(opened()) == 50 and left(opened()) == []


def adds(d, process):
    return [number for number in range(50) if d.add(str(number), process)]


@pytest.fixture
def vanishing(nfsdict, monkeypatch):
    """As 9p's client does it: to make a file whose name has just been given up is ENOENT, so many
    times. The names for which it was."""
    module = importlib.import_module("nfsdict.storage.claims")
    met, original = [], module.with_open

    def simulated(path, flags, use):
        if flags & os.O_EXCL and len(met) < simulated.times:
            met.append(Path(path).name)
            raise FileNotFoundError(errno.ENOENT, "given up", path)
        return original(path, flags, use)

    simulated.times = 0
    monkeypatch.setattr(module, "with_open", simulated)
    return simulated, met


@pytest.mark.parametrize("kind", ["9p", "fuse.sshfs"])
def test_a_claim_that_vanishes_while_it_is_looked_up_is_made(opened, on, copies, vanishing, kind):
    on(kind)
    d = opened(lazy=True)
    d["other"] = 0
    simulated, met = vanishing
    simulated.times = 3
    assert d.add("a", 1) is True and d.add("a", 2) is False
    assert len(met) == 3 and dict(opened()) == {"a": 1, "other": 0} and left(d) == []


def test_a_claim_in_no_directory_is_an_error(opened, on, vanishing, tmp_path):
    on("9p")
    claims = opened(lazy=True)._storage.exclusive._claims
    with pytest.raises(FileNotFoundError):
        claims.try_claim(str(tmp_path / "missing" / "claim"))
    simulated, met = vanishing
    simulated.times = 1000
    with pytest.raises(FileNotFoundError):
        claims.try_claim(str(tmp_path / "claim"))
    assert len(met) == 20  # it ends


def test_a_listing_that_took_long_is_not_proven_by_the_time_it_took(nfsdict, tmp_path, monkeypatch):
    """A later change in the tick of the last one may have come while it was under way."""
    module = importlib.import_module("nfsdict.storage.coherence")
    files = importlib.import_module("nfsdict.storage").Storage(str(tmp_path), "", None, False)
    (tmp_path / importlib.import_module("nfsdict.layout").LEASES).mkdir()
    listed, pause, listdir = [], [0.2], os.listdir

    def slow(descriptor):
        names = listdir(descriptor)
        time.sleep(pause.pop() if pause else 0)
        listed.append(names)
        return names

    monkeypatch.setattr(module.os, "listdir", slow)
    files.leases.look()
    files.leases.look()
    assert len(listed) == 2
    files.leases.look()
    assert len(listed) == 2


@pytest.fixture
def listed(nfsdict, on, opened, monkeypatch):
    """A directory of 100 files that is listed twice, while the client's statistics are as given;
    how often that was, and whether listings are believed afterwards."""
    mounted = importlib.import_module("nfsdict.storage.mounted").Mounted
    coherence = importlib.import_module("nfsdict.storage.coherence")
    original, calls = coherence.list_directory, []

    def counted(path, times):
        calls.append(times)
        return original(path, times)

    def listed(directory, told, mount=("nfs4", "vers=4.2"), **options):
        on(*mount)
        rules = opened(lazy=True)._storage.rules
        rules.mounted._lists_attributes = True
        monkeypatch.setattr(coherence, "list_directory", counted)
        monkeypatch.setattr(coherence.time, "sleep", lambda seconds: None)
        coming = iter(told)
        monkeypatch.setattr(mounted, "listings", lambda self: next(coming))
        calls.clear()
        assert len(rules.list_twice(str(directory), **options)[2]) == 100
        assert set(calls) == {2} and next(coming, "all") == "all"
        return len(calls), rules.mounted.lists_attributes()

    return listed


@pytest.fixture
def hundred(tmp_path):
    directory = tmp_path / "hundred"
    directory.mkdir()
    for number in range(100):
        (directory / f"{number:02}").touch()
    return directory


def sent(*counts):
    listings = importlib.import_module("nfsdict.storage.mountstats").Listings
    return [None if count is None else listings(*count) for count in counts]


def test_a_listing_that_the_client_did_not_ask_for_is_repeated(listed, hundred):
    """As another process was just copying names from a page, which then can't be dropped."""
    told = sent((7, 0), (7, 0), (7, 0), (8, 0), (8, 0), (11, 0))
    assert listed(hundred, told) == (3, True)
    assert listed(hundred, sent((5, 0), (7, 0))) == (1, True)
    assert listed(hundred, sent(None, None)) == (1, True)


@pytest.mark.parametrize(
    ("mount", "size"), [(("nfs4", "vers=4.2"), 193), (("nfs", "vers=3"), 146)], ids=["v4.2", "v3"]
)
def test_a_listing_that_brought_too_little_is_repeated(listed, hundred, mount, size):
    """As it was one page of several that couldn't be dropped."""
    whole, short = 200 * size, 150 * size
    told = sent((1, 0), (3, short), (3, short), (5, short + whole))
    assert listed(hundred, told, mount, attributes=True) == (2, True)
    assert listed(hundred, told[:2], mount) == (1, True)


def test_listings_that_are_always_too_small_are_not_believed(listed, hundred):
    tries = importlib.import_module("nfsdict.storage.passing").TRIES
    told = sent(*[(1, 0), (3, 1000)] * tries)
    assert listed(hundred, told, attributes=True) == (tries, False)
