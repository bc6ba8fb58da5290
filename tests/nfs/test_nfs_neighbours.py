"""Who else is in the store, on a real NFS: other files, and other users."""

from __future__ import annotations

import json
import os

import pytest

from lab.laboratory import Lab
from support.layout import digest, value_file

BOTH = ("3", "4.2")


# --- other files -----------------------------------------------------------------------------


@pytest.mark.nfs(version=("3", "4.0", "4.1", "4.2"))
def test_what_is_no_value_file_is_no_key_and_stops_nothing(lab: Lab, a, b) -> None:
    here, there = a(), b()
    for number in range(5):
        here[str(number)] = number
    # Still open here when it is deleted here: the client keeps it under another name.
    descriptor = os.open(value_file(lab.a, "0"), os.O_RDONLY)
    del here["0"]
    shard = value_file(lab.a, "0").parent
    [kept] = [path for path in os.listdir(shard) if path.startswith(".nfs")]
    others = {
        shard / ".nfsdict-0123456789abcdef01234567": b"a write under way",
        shard / "tmpabcdefgh": b"one of release 0.2.1",
        shard / "stranger": b"",
        shard / f"{'0' * 64}.pkl": b"in another shard's place",
        shard / f"{digest('0')}.txt": b"",
        lab.a / "store" / ".nfsdict-0123456789abcdef01234567": b"",
        lab.a / "store" / "stranger": b"",
    }
    for path, content in others.items():
        path.write_bytes(content)
    (shard / f"{digest('0')}.pkl").mkdir()
    (lab.a / "store" / "zz").mkdir()
    (lab.a / "store" / "zz" / f"{digest('0')}.pkl").write_bytes(b"")
    four = {str(number): number for number in range(1, 5)}
    for d in (here, there, a(), b(lazy=True)):
        d.sync()
        d.refresh()
        assert dict(d) == four
        assert d.verify().ok
        assert d.repair().quarantined == {}
        assert dict(d) == four
    there.clear()
    for d in (here, there):
        d.sync()
        assert dict(d) == {}
    assert all(path.read_bytes() == content for path, content in others.items())
    assert kept in os.listdir(shard)
    os.close(descriptor)
    there["0x"] = 1
    assert dict(a()) == {"0x": 1}


# --- users -----------------------------------------------------------------------------------

MEMBER = """
    import json, os, sys, nfsdict
    os.umask(0o077)
    d = nfsdict.NfsDict("store", sys.argv[1], mode=0o660)
    mine, others = sys.argv[2:]
    if others:
        assert d[others] == "from " + others
        d[others] = "replaced by " + mine
        assert d.pop(others + " gives") == 1
        assert not d.add(others, 0)
    d[mine] = "from " + mine
    d[mine + " gives"] = 1
    d.close()
"""
OUTSIDER = """
    import sys, nfsdict
    try:
        d = nfsdict.NfsDict("store", sys.argv[1], lazy=True)
    except PermissionError:
        print("not opened")
        raise SystemExit
    calls = [lambda: d["one"], lambda: d.get("one"), lambda: "one" in d, lambda: d.pop("one", 0),
             lambda: d.add("one", 0), lambda: d.__setitem__("one", 0), lambda: len(d),
             lambda: d.get("one", fresh=True), lambda: d.__delitem__("one"), lambda: d.clear()]
    for number, call in enumerate(calls):
        try:
            print("no error", number, call())
        except PermissionError:
            pass
"""
UNREADABLE = """
    import sys, nfsdict
    d = nfsdict.NfsDict("store", sys.argv[1], lazy=True)
    for fresh in (False, True):
        try:
            d.get("three", fresh=fresh)
        except PermissionError:
            print(1, end="")
"""


@pytest.mark.nfs(version=BOTH, root_squash=(False, True))
def test_a_group_shares_a_store_and_others_are_refused(lab: Lab, package, b) -> None:
    store = lab.server / "store"
    store.mkdir()
    os.chown(store, 0, 2000)
    os.chmod(store, 0o2770)
    lab.run(MEMBER, lab.a, "one", "", user=1001, group=1001, groups=[2000])
    lab.run(MEMBER, lab.b, "two", "one", user=1002, group=1002, groups=[2000])
    lab.run(MEMBER, lab.a, "three", "two", user=1003, group=1003, groups=[2000])
    reader = """
        import sys, json, nfsdict
        print(json.dumps(dict(nfsdict.NfsDict("store", sys.argv[1], read_only=True))))
    """
    for base in (lab.a, lab.b):
        told = lab.run(reader, base, user=1001, group=1001, groups=[2000])
        assert json.loads(told) == {
            "one": "replaced by two",
            "two": "replaced by three",
            "three": "from three",
            "three gives": 1,
        }
    assert lab.run(OUTSIDER, lab.a, user=1009, group=1009) == ""
    assert lab.run(OUTSIDER, lab.b, user=1009, group=1009) == ""
    # In reach, and not to be read.
    os.chmod(value_file(lab.server, "three"), 0o600)
    assert lab.run(UNREADABLE, lab.b, user=1001, group=1001, groups=[2000]) == "11"
    if lab.configuration.root_squash:
        with pytest.raises(PermissionError):
            package.NfsDict("store", lab.b, mode=0o660)
        with pytest.raises(PermissionError):
            b(lazy=True, mode=0o660)["one"]
    os.chmod(lab.server, 0o750)  # now outsiders don't even get there
    assert lab.run(OUTSIDER, lab.a, user=1009, group=1009) in ("", "not opened\n")
