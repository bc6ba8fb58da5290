"""What a store's directory is mounted as decides which rules hold; an error is no answer."""

from __future__ import annotations

import builtins
import errno
import importlib
import os
import shutil
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")

INFO = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
40 27 0:44 / /mnt/with\\040space rw,nosuid shared:1 - nfs4 server:/ex\\040port rw,vers=4.2,nocto
41 27 0:45 / /mnt/b rw - cifs //server/x rw,vers=3.1.1,actimeo=1,closetimeo=1
42 27 0:45 / /mnt/c ro - cifs //server/x
"""


@pytest.fixture
def mountinfo(nfsdict):
    return importlib.import_module("nfsdict.storage.mountinfo")


@pytest.fixture
def mounts(nfsdict):
    return importlib.import_module("nfsdict.storage.mounts")


@pytest.fixture
def mounted(nfsdict):
    return importlib.import_module("nfsdict.storage.mounted")


@pytest.fixture
def store(nfsdict, tmp_path):
    store = importlib.import_module("nfsdict.storage").Storage(
        str(tmp_path / "s"), ".pkl", None, True
    )
    store.create(store.missing())
    return store


# --- which mount it is -------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("df") is None, reason="df tells the same")
def test_it_is_what_df_says(mountinfo, tmp_path):
    for path in (tmp_path, "/proc", "/dev", "/"):
        done = subprocess.run(
            ["df", "--output=fstype,target", path], capture_output=True, text=True, check=True
        )
        told, point = done.stdout.split()[-2:]
        mount = mountinfo.mount_of(str(path))
        assert (mount.type == told or told == "-") and mount.point == point


def test_a_device_that_no_mount_has(mountinfo, tmp_path):
    """As each subvolume of btrfs has one."""
    descriptor = os.open(tmp_path, os.O_RDONLY)
    found = mountinfo._mount_of(1 << 19, f"/proc/self/fdinfo/{descriptor}")
    os.close(descriptor)
    assert found == mountinfo.mount_of(str(tmp_path)) != mountinfo.Mount("")


def test_a_line_says_type_options_source_and_place(mountinfo):
    mount = mountinfo.find_mount(INFO, "40", 0)
    assert mount == (
        "nfs4",
        ("rw", "nosuid", "rw", "vers=4.2", "nocto"),
        "server:/ex port",
        "/mnt/with space",
        "/",
    )
    assert mount.option("nocto") == "" and mount.option("vers") == "4.2"
    assert mount.option("ver") is mount.option("cto") is None


def test_it_is_found_by_its_number_and_else_by_its_device(mountinfo):
    device = os.makedev(0, 45)
    assert mountinfo.find_mount(INFO, "42", device).point == "/mnt/c"
    assert mountinfo.find_mount(INFO, "99", device).point == "/mnt/b"
    assert mountinfo.find_mount(INFO, "", os.makedev(0, 99)) == mountinfo.Mount("")
    assert mountinfo.find_mount("", "42", device) == mountinfo.Mount("")


@pytest.mark.parametrize("odd", ["\v", "\r", "\x1c", "\x85", "\u2028"])
def test_a_mount_point_with_what_other_programs_take_for_the_end_of_a_line(
    mountinfo, tmp_path, monkeypatch, odd
):
    """The system escapes a newline, and none of these."""
    point = f"/mnt/b{odd}x"
    text = f"50 27 0:50 / {point} rw - tmpfs t rw\nwhat nobody understands\n{INFO}"
    assert mountinfo.find_mount(text, "42", 0).point == "/mnt/c"
    assert mountinfo.find_mount(text, "50", 0).point == point
    (tmp_path / "mountinfo").write_bytes(text.encode())
    assert mountinfo.read_lines(str(tmp_path / "mountinfo")) == text
    mountstats = importlib.import_module("nfsdict.storage.mountstats")
    told = f"device s:/e mounted on {point} with fstype nfs\n\tcaps:\tcaps=0xff,x=1\n"
    assert mountstats.capabilities_in(told, point) == 255


STATS = """\
device proc mounted on /proc with fstype proc
device 127.0.0.1:/mnt/export mounted on /mnt/a\\040b with fstype nfs statvers=1.1
\topts:\trw,vers=3
\tcaps:\tcaps=0x3fbf,wtmult=512,dtsize=1048576,bsize=0,namlen=255
device 127.0.0.1:/ mounted on /mnt/b with fstype nfs4 statvers=1.1
\tcaps:\tcaps=0x3fbe,wtmult=512
device tmp mounted on /mnt/c with fstype tmpfs
"""


def test_the_capabilities_are_those_of_the_mount(nfsdict):
    mountstats = importlib.import_module("nfsdict.storage.mountstats")
    found = [mountstats.capabilities_in(STATS, point) for point in ("/mnt/a b", "/mnt/b", "/mnt/c")]
    assert found == [0x3FBF, 0x3FBE, 0]


def test_no_such_directory_is_an_error(mountinfo, tmp_path):
    with pytest.raises(FileNotFoundError):
        mountinfo.mount_of(str(tmp_path / "nothing"))


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO])
def test_an_error_that_passes_is_not_remembered(mounts, mounted, store, monkeypatch, number):
    """Until it is known, the most careful rules hold, and directories are synced."""
    original = builtins.open

    def failing(path, *arguments, **options):
        if str(path).startswith("/proc/"):
            raise OSError(number, "passing")
        return original(path, *arguments, **options)

    def forget():
        store.rules.mounted = mounted.Mounted(store.directory, False)
        store.values._synced = None

    forget()
    with monkeypatch.context() as patch:
        patch.setattr(builtins, "open", failing)
        assert store.rules.kind == mounts.UNKNOWN
        assert not store.rules.mounted.synchronous(store.directory)
        assert store.files.syncs()
        assert isinstance(store.values.put("ab" * 32, b"one"), bytes)
    monkeypatch.setattr(mounted, "mount_of", lambda path: mounted.Mount("tmpfs"))
    assert store.rules.kind == mounts.KINDS["tmpfs"]
    assert isinstance(store.values.put("ab" * 32, b"two"), bytes)
    assert not store.files.syncs()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOENT, errno.EACCES])
def test_what_listings_bring_is_asked_again_after_an_error_that_passes(
    mounted, store, monkeypatch, number
):
    mountstats = importlib.import_module("nfsdict.storage.mountstats")
    nfs = mounted.Mount("nfs", ("vers=3",), "127.0.0.1:/mnt/export", "/mnt/a b")
    monkeypatch.setattr(mounted, "mount_of", lambda path: nfs)

    def failing():
        raise OSError(number, "passing, or no /proc")

    rules = mounted.Mounted(store.directory, False)
    with monkeypatch.context() as patch:
        patch.setattr(mountstats, "_mountstats", failing)
        assert not rules.lists_attributes()
    monkeypatch.setattr(mountstats, "_mountstats", lambda: STATS)
    assert rules.lists_attributes() == (number == errno.EMFILE)
    assert mounted.Mounted(store.directory, False).lists_attributes()


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES])
def test_where_there_is_no_proc_nothing_is_told(mountinfo, mounts, tmp_path, monkeypatch, number):
    def none(path, *arguments, **options):
        raise OSError(number, "no /proc")

    with monkeypatch.context() as patch:
        patch.setattr(builtins, "open", none)
        assert mountinfo.mount_of(str(tmp_path)) == mountinfo.Mount("")
    assert mounts.kind_of(mountinfo.Mount("")) == mounts.UNKNOWN


def test_it_is_asked_for_once(mounted, store, monkeypatch):
    asked = []
    monkeypatch.setattr(
        mounted, "mount_of", lambda path: asked.append(path) or mounted.Mount("ext4")
    )
    store.rules.mounted = mounted.Mounted(store.directory, False)
    store.values._synced = None
    for number in range(3):
        store.values.put("ab" * 32, b"%d" % number)
        assert store.rules.kind.trusted
    assert len(asked) == 1


# --- what its options do -----------------------------------------------------------------------

MENDS = "actimeo=0,closetimeo=0,nolease"
BREAK = [
    ("nfs4", "rw,nocto,nordirplus", "cto,rdirplus"),
    ("nfs", "rw,vers=3,rdirplus=none,nocto", "cto,rdirplus"),
    ("cifs", "rw,vers=3.1.1", MENDS),
    ("cifs", "rw,vers=3.1.1,actimeo=1,closetimeo=1", MENDS),
    ("cifs", "actimeo=0,closetimeo=1", MENDS),
    ("cifs", "acdirmax=60,acregmax=0,closetimeo=0", MENDS),
    ("smb3", "cache=loose,actimeo=0,closetimeo=0", f"cache=strict,{MENDS}"),
    ("9p", "rw,trans=tcp,cache=loose", "cache=none"),
    ("9p", "rw,cache=5", "cache=none"),
    ("fuse.sshfs", "rw,user_id=0", "dir_cache=no,attr_timeout=0,entry_timeout=0"),
    ("fuse.glusterfs", "rw", None),
    ("overlay", "rw,lowerdir=/l,upperdir=/u,workdir=/w,volatile", ""),
]
HOLD = [
    ("nfs4", "rw,vers=4.2,hard"),
    ("nfs4", "rw,nocto"),
    ("nfs", "nordirplus"),
    ("nfs", "soft,nolock,noac,lookupcache=none,local_lock=all,actimeo=600"),
    ("cifs", "rw,cache=strict,actimeo=0,closetimeo=0"),
    ("cifs", "rw,actimeo=0"),
    ("cifs", "rw,cache=strict,actimeo=0,closetimeo=0,nolease"),
    ("9p", "rw,trans=tcp"),
    ("9p", "rw,cache=none"),
    ("9p", "rw,cache=0"),
    ("ceph", "rw,noshare"),
    ("ext4", "rw,discard"),
    ("overlay", "rw,lowerdir=/l,upperdir=/u,workdir=/w"),
    ("fuse.strange", "rw"),
    ("", ""),
]


def mount(mountinfo, kind, options):
    return mountinfo.Mount(kind, tuple(filter(None, options.split(","))))


@pytest.mark.parametrize(("kind", "options", "mend"), BREAK)
def test_options_that_break_a_promise(mountinfo, mounts, kind, options, mend):
    found = mounts.findings(mount(mountinfo, kind, options))
    assert found[0].breaks and found[0].effect and found[0].option
    assert mend is None or found[0].mount_with == mend
    # What may show what isn't there isn't moved aside.
    kind_of = mounts.kind_of(mount(mountinfo, kind, options))
    assert not (kind_of.caches_content and kind_of.rereads)


@pytest.mark.parametrize(("kind", "options"), HOLD)
def test_options_that_break_none(mountinfo, mounts, kind, options):
    assert not any(one.breaks for one in mounts.findings(mount(mountinfo, kind, options)))


def test_what_costs_only_time_is_told(mountinfo, mounts):
    def told(kind, options):
        found = mounts.findings(mount(mountinfo, kind, options))
        assert all(one.effect for one in found)
        return [one.option for one in found]

    assert told("nfs4", "rw,nocto") == ["nocto"]
    assert told("nfs4", "ro,nordirplus,soft,nolock,noac") == [
        "nordirplus",
        "soft",
        "nolock",
        "noac",
        "ro",
    ]
    assert told("ceph", "rw") == ["ceph"] and told("lustre", "rw") == ["lustre"]
    assert told("fuse.strange", "rw") == ["fuse.strange"]
    assert told("ext4", "rw") == []


@pytest.mark.parametrize("kind", ["fuse", "fuse.strange", "virtiofs", "nfs3d", ""])
def test_the_unknown_gets_the_careful_rules(mountinfo, mounts, kind):
    assert mounts.kind_of(mountinfo.Mount(kind)) == mounts.UNKNOWN
    assert not mounts.UNKNOWN.trusted and mounts.UNKNOWN.syncs
    assert mounts.UNKNOWN.stamps is mounts.Stamps.NONE


def test_whose_clocks_are_kept_is_for_the_caller_to_say(mountinfo, mounts):
    def stamps(kind, trust):
        return mounts.kind_of(mountinfo.Mount(kind), trust).stamps

    server, files = mounts.Stamps.SERVER, mounts.Stamps.FILES
    for kind in ("ceph", "fuse.glusterfs", "lustre", "gpfs", "fuse.strange"):
        assert stamps(kind, False) not in (server, files)
        assert stamps(kind, True) is server
    for kind in ("fuse.sshfs", "vfat"):
        assert stamps(kind, False) is stamps(kind, True) is files


# --- the warning at opening ----------------------------------------------------------------------


@pytest.fixture
def on(mountinfo, mounted, monkeypatch):
    """Say what the store is mounted as."""

    def on(kind, options=""):
        one = mount(mountinfo, kind, options)
        monkeypatch.setattr(mounted, "mount_of", lambda path: os.stat(path) and one)

    return on


def test_an_unsafe_mount_is_warned_of_once(nfsdict, opened, on, recwarn):
    on("cifs", "actimeo=1,closetimeo=0")
    opened()["a"] = 1
    assert opened()["a"] == 1
    [warning] = recwarn
    assert (
        warning.category is nfsdict.UnsafeMountWarning
        and warning.filename == opened.__code__.co_filename
    )
    assert MENDS in str(warning.message) and "simplefilter" in str(warning.message)


def test_the_warning_says_where_no_option_mends_it(opened, on, recwarn):
    on("overlay", "volatile")
    opened()
    [warning] = recwarn
    assert "volatile: a power cut" in str(warning.message)
    assert "Keep stores on another file system." in str(warning.message)


@pytest.mark.filterwarnings("error::UserWarning")
def test_it_can_be_an_error_each_time(nfsdict, opened, on, tmp_path):
    on("9p", "cache=loose")
    for _ in range(2):
        with pytest.raises(nfsdict.UnsafeMountWarning):
            opened()
    on("9p", "cache=none")
    assert dict(opened()) == {}


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("create", [False, True])
@pytest.mark.parametrize("durable", [False, True])
def test_as_an_error_it_comes_before_anything_is_made(
    nfsdict, opened, on, tmp_path, create, durable
):
    on("overlay", "volatile")
    (tmp_path / "there").mkdir()
    for name in ("new", "there/new/below"):
        with pytest.raises(nfsdict.UnsafeMountWarning if create else FileNotFoundError):
            opened(name=name, create=create, durable=durable)
    assert os.listdir(tmp_path) == ["there"] and os.listdir(tmp_path / "there") == []


def test_a_new_store_looks_for_its_mount_no_more_often(opened, on, tmp_path, mounted, monkeypatch):
    """For a file system may ask its server for each directory of a path that is opened."""
    on("ext4")
    looked = []
    original = mounted.mount_of
    monkeypatch.setattr(mounted, "mount_of", lambda path: looked.append(path) or original(path))
    opened(name="a/b")
    assert looked == [str(tmp_path)]


@pytest.mark.parametrize("kind", ["fuse.sshfs", "fuse.glusterfs"])
def test_the_warning_says_that_options_of_fuse_are_not_shown(opened, on, recwarn, kind):
    on(kind)
    opened()
    [warning] = recwarn
    assert "not safe with the options that are the default" in str(warning.message)
    assert "whether it is mounted so can't be seen" in str(warning.message)


def test_a_safe_mount_is_not_warned_of(opened, on, recwarn):
    for kind, options in HOLD:
        on(kind, options)
        opened()["a"] = 1
    assert list(recwarn) == []
