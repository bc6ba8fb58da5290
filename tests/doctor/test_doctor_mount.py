"""What the doctor says of a mount, by the text in which Linux tells of it."""

from __future__ import annotations

import importlib

import pytest

LINE = "36 25 0:32 {root} /mnt/shared rw,relatime shared:1 - {type} {source} {options}\n"


@pytest.fixture
def mount(package, monkeypatch):
    """The findings for a directory whose mount has this type, source and options."""
    module = importlib.import_module("nfsdict.doctor.mount")
    mounts = importlib.import_module("nfsdict.storage.mounts")
    mountinfo = importlib.import_module("nfsdict.storage.mountinfo")

    def mount(kind: str, options: str, source: str = "server:/export", root: str = "/"):
        line = LINE.format(type=kind, source=source, options=options, root=root)
        text = line if kind else ""
        found = mountinfo.find_mount(text, "36", 0)
        monkeypatch.setattr(mounts, "mount_of", lambda path: found)
        return module.mount("/mnt/shared")[1]

    return mount


def verdicts(findings) -> dict[str, str]:
    return {finding.probe: finding.verdict for finding in findings}


@pytest.mark.parametrize(
    ("kind", "options", "worst"),
    [
        ("ext4", "rw", "OK"),
        ("tmpfs", "rw,size=1g", "OK"),
        ("nfs4", "rw,vers=4.2,hard", "OK"),
        ("nfs", "rw,vers=3,soft,nolock,local_lock=all", "OK"),
        ("nfs4", "rw,vers=4.2,nordirplus", "WARN"),
        ("nfs", "rw,vers=3,nordirplus", "FAIL"),
        ("nfs4", "rw,vers=4.2,noac", "WARN"),
        ("nfs4", "rw,vers=4.2,lookupcache=none", "WARN"),
        ("nfs4", "rw,vers=4.2,acregmin=600,acregmax=600", "OK"),
        ("nfs4", "rw,vers=4.2,softerr,softreval", "FAIL"),
        ("nfs4", "rw,vers=4.2,softerr", "OK"),
        ("nfs4", "rw,vers=4.2,nocto,nordirplus", "FAIL"),
        ("cifs", "rw,vers=3.1.1,cache=strict,actimeo=1", "FAIL"),
        ("cifs", "rw,vers=3.1.1,cache=loose,actimeo=0,closetimeo=0", "FAIL"),
        ("cifs", "rw,vers=3.1.1,cache=strict,actimeo=0,closetimeo=0", "WARN"),
        ("cifs", "rw,vers=3.1.1,cache=strict,actimeo=0,closetimeo=0,nolease", "OK"),
        ("fuse.sshfs", "rw,user_id=0,group_id=0", "WARN"),
        ("fuse.glusterfs", "rw,user_id=0,group_id=0", "WARN"),
        ("9p", "rw,trans=tcp", "OK"),
        ("9p", "rw,trans=tcp,cache=loose", "FAIL"),
        ("9p", "rw,loose,trans=tcp", "FAIL"),
        ("9p", "rw,mmap,trans=tcp", "FAIL"),
        ("9p", "rw,fscache,trans=tcp", "FAIL"),
        ("9p", "rw,trans=tcp,cache=0x0", "OK"),
        ("ceph", "rw,name=admin", "WARN"),
        ("lustre", "rw", "WARN"),
        ("fuse.something", "rw", "WARN"),
        ("ext4", "ro", "WARN"),
        ("ext4", "rw,nobarrier", "WARN"),
        ("ext4", "rw,barrier=0", "WARN"),
        ("overlay", "rw,upperdir=/u,workdir=/w", "OK"),
        ("overlay", "rw,upperdir=/u,workdir=/w,volatile", "FAIL"),
        ("overlay", "rw,upperdir=/u,workdir=/w,fsync=volatile", "FAIL"),
        ("overlay", "rw,upperdir=/u,workdir=/w,fsync=strict", "OK"),
        ("f2fs", "rw,fsync_mode=nobarrier", "WARN"),
        ("f2fs", "rw,fsync_mode=posix", "OK"),
        ("cifs", "rw,cache=ro,actimeo=0,closetimeo=0,nolease", "FAIL"),
        ("cifs", "rw,cache=singleclient,actimeo=0,closetimeo=0,nolease", "FAIL"),
        ("cifs", "rw,cache=none,actimeo=0,closetimeo=0,nolease", "OK"),
        ("", "", "WARN"),
    ],
)
def test_what_options_break(mount, kind, options, worst):
    found = mount(kind, options)
    order = ["OK", "WARN", "FAIL"]
    assert max((one.verdict for one in found), key=order.index) == worst
    assert all(one.breaks and one.advice for one in found if one.verdict != "OK")
    assert len({one.probe for one in found}) == len(found)


def test_what_costs_calls_is_named_as_it_stands_there(mount):
    noac = mount("nfs4", "rw,vers=4.2,noac,acregmin=0,acdirmax=0")
    assert "noac" in verdicts(noac)
    [found] = [one for one in mount("nfs4", "rw,vers=4.2,acdirmax=0") if one.verdict != "OK"]
    assert found.probe == "acdirmax=0" and "mount it with actimeo=60" in found.advice


def test_what_fuse_does_not_show_is_not_said_to_be_so(mount):
    [found] = [one for one in mount("fuse.sshfs", "rw") if one.verdict != "OK"]
    assert found.seen == "whether it is mounted so isn't shown."
    [found] = [one for one in mount("9p", "rw,cache=loose") if one.verdict != "OK"]
    assert found.seen == "it is mounted so."


def test_what_does_not_matter_is_told(mount):
    found = verdicts(mount("nfs", "rw,vers=3,soft,nolock,local_lock=all"))
    assert {"soft", "nolock", "local_lock"} <= found.keys()
    found.update(verdicts(mount("nfs4", "rw,vers=4.2,acregmin=600,acregmax=600")))
    assert "acregmin" in found
    assert set(found.values()) == {"OK"}


def test_the_line_that_mends_it(mount):
    """It keeps what was chosen, and leaves out what was agreed upon when it was mounted."""
    options = "rw,vers=4.1,rsize=1048576,nocto,nordirplus,sec=krb5,addr=10.0.0.1"
    [found] = [one for one in mount("nfs4", options) if one.verdict == "FAIL"]
    line = "server:/export /mnt/shared nfs vers=4.1,sec=krb5,cto,rdirplus 0 0"
    assert found.advice.endswith(f"in /etc/fstab: {line}")
    [found] = [one for one in mount("nfs4", "ro,vers=4.2") if one.verdict == "WARN"]
    assert "/mnt/shared nfs vers=4.2,rw 0 0" in found.advice


@pytest.mark.parametrize(
    ("kind", "options", "source", "line"),
    [
        (
            "nfs4",
            "vers=4.2,nocto,nordirplus,sec=sys,xprtsec=mtls,addr=10.0.0.1",
            "server:/export",
            "server:/export /mnt/shared nfs vers=4.2,sec=sys,xprtsec=mtls,cto,rdirplus 0 0",
        ),
        (
            "cifs",
            "vers=3.1.1,cache=strict,domain=D,file_mode=0660,dir_mode=0770,seal,actimeo=1",
            "//server/My\\040Share",
            "//server/My\\040Share /mnt/shared cifs vers=3.1.1,domain=D,file_mode=0660,"
            "dir_mode=0770,seal,actimeo=0,closetimeo=0,nolease 0 0",
        ),
        (
            "fuse.glusterfs",
            "user_id=0",
            "server:/files",
            "server:/files /mnt/shared glusterfs entry-timeout=0,attribute-timeout=0 0 0",
        ),
    ],
)
def test_the_line_keeps_what_is_secret_and_what_is_escaped(mount, kind, options, source, line):
    [*_, found] = [one for one in mount(kind, options, source) if one.verdict != "OK"]
    assert found.advice.endswith(f"in /etc/fstab: {line}")


def test_what_is_bound_has_the_options_of_the_whole(mount):
    """So the line for it would name what can't be mounted so."""
    [found] = mount("9p", "rw,cache=loose", "10.0.0.1", "/my\\040part")[1:]
    assert found.advice == (
        "mount 10.0.0.1 as a whole with cache=none: /mnt/shared is /my part of it, bound there; "
        "it may have options of its own."
    )
    assert "/etc/fstab" not in found.advice


@pytest.mark.parametrize(
    ("kind", "options", "source", "root", "line"),
    [
        (
            "cifs",
            "rw,cache=strict,actimeo=1",
            "//server/share/part",
            "/part",
            "//server/share/part /mnt/shared cifs actimeo=0,closetimeo=0,nolease 0 0",
        ),
        (
            "fuse.sshfs",
            "rw,nosuid,user_id=0,default_permissions,allow_other",
            "host:/home",
            "/",
            "host:/home /mnt/shared fuse.sshfs nosuid,default_permissions,allow_other,"
            "dir_cache=no,attr_timeout=0,entry_timeout=0 0 0",
        ),
        (
            "9p",
            "rw,loose,access=client,trans=virtio",
            "share",
            "/",
            "share /mnt/shared 9p access=client,trans=virtio,cache=none 0 0",
        ),
    ],
)
def test_a_line_that_mounts_the_same(mount, kind, options, source, root, line):
    [found, *_] = [one for one in mount(kind, options, source, root) if one.verdict != "OK"]
    assert found.advice.endswith(f"in /etc/fstab: {line}")


@pytest.mark.parametrize(
    ("kind", "options", "command"),
    [
        ("overlay", "ro,lowerdir=/l", "mount -o remount,rw /mnt/shared"),
        ("ext4", "rw,nobarrier", "mount -o remount,barrier /mnt/shared"),
        ("tmpfs", "ro", "mount -o remount,rw /mnt/shared"),
    ],
)
def test_what_has_options_that_are_not_shown_is_mounted_anew_as_it_is(
    mount, kind, options, command
):
    """A line for it would lack them, or give an empty file system."""
    [found] = [one for one in mount(kind, options) if one.verdict != "OK"]
    assert found.advice.endswith(f": {command}") and "fstab" not in found.advice


def test_a_mount_that_is_read_only_itself(package, mount, monkeypatch):
    """As a bind mount can be: the file system isn't."""
    mountinfo = importlib.import_module("nfsdict.storage.mountinfo")
    mounts = importlib.import_module("nfsdict.storage.mounts")
    line = "36 25 0:32 /part /mnt/shared ro,relatime - nfs4 server:/export rw,vers=4.2\n"
    monkeypatch.setattr(mounts, "mount_of", lambda path: mountinfo.find_mount(line, "36", 0))
    _, found = importlib.import_module("nfsdict.doctor.mount").mount("/mnt/shared")[1]
    assert found.advice == "mount it with rw: mount -o remount,bind,rw /mnt/shared"


def test_type_server_version_and_options_are_told(mount):
    [found] = mount("nfs4", "rw,vers=4.2,hard")
    for word in ("nfs4", "4.2", "server:/export", "/mnt/shared", "hard"):
        assert word in found.seen
    assert found.figures["options"] == ["rw", "relatime", "rw", "vers=4.2", "hard"]
