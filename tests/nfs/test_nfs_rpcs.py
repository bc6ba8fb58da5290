"""What each operation costs in calls to the server, counted on a real one. They repeat exactly."""

from __future__ import annotations

import importlib
import time

import pytest

from lab.laboratory import Lab
from support.settling import SETTLED

BOTH = ("3", "4.2")
ALL = ("3", "4.0", "4.1", "4.2")


@pytest.fixture
def keys(package) -> list[str]:
    """Keys that lie in one shard."""
    digest = importlib.import_module("nfsdict.core").digest
    return [key for key in map(str, range(10_000)) if digest(key)[:2] == "00"]


@pytest.fixture
def d(package, lab: Lab, keys):
    """A's dictionary, one shard in it with two keys. What is there is older than a tick."""
    d = package.NfsDict("store", lab.a)
    d[keys[0]] = "zero"
    d[keys[1]] = "one"
    time.sleep(SETTLED)
    return d


@pytest.mark.nfs(version=BOTH)
def test_a_put_takes_4(lab: Lab, d, keys) -> None:
    v3 = lab.configuration.version == "3"
    names = ("LOOKUP", "CREATE") if v3 else ("OPEN", "CLOSE")
    for key in (keys[2], keys[2], keys[0]):
        with lab.rpcs("a") as rpcs:
            d[key] = "value"
        assert rpcs == dict.fromkeys((*names, "WRITE", "RENAME"), 1)


@pytest.mark.nfs(version=BOTH)
def test_a_delete_takes_1(lab: Lab, d, keys) -> None:
    for key in keys[:2]:
        with lab.rpcs("a") as rpcs:
            del d[key]
        assert rpcs == {"REMOVE": 1}


@pytest.mark.parametrize("read", ["get", "in", "[]"])
@pytest.mark.nfs(version=BOTH)
def test_a_miss_takes_2_and_then_1(lab: Lab, d, keys, read) -> None:
    def miss() -> None:
        if read == "get":
            assert d.get(keys[5]) is None
        elif read == "in":
            assert keys[5] not in d
        else:
            with pytest.raises(KeyError):
                d[keys[5]]

    # The client learns what it may do in the shard (one ACCESS), and which names are there.
    with lab.rpcs("a") as rpcs:
        assert d.get(keys[4]) is None
    assert rpcs.total <= 4
    with lab.rpcs("a") as rpcs:
        miss()
    asked = "OPEN" if lab.configuration.version == "4.2" and read != "in" else "LOOKUP"
    assert rpcs == {asked: 1, "GETATTR": 1}
    for _ in range(3):
        with lab.rpcs("a") as rpcs:
            miss()
        assert rpcs == {"GETATTR": 1}


@pytest.mark.nfs(version="3")
def test_a_miss_just_after_a_change_lists_twice_and_once_more_later(lab: Lab, d, keys) -> None:
    d[keys[2]] = "value"
    with lab.rpcs("a") as rpcs:
        assert d.get(keys[5]) is None
    assert rpcs == {"LOOKUP": 1, "GETATTR": 1, "READDIRPLUS": 2}
    time.sleep(SETTLED)
    totals = []
    for _ in range(3):
        with lab.rpcs("a") as rpcs:
            assert d.get(keys[5]) is None
        totals.append(rpcs.total)
    assert totals == [2, 1, 1]


@pytest.mark.nfs(version=BOTH)
def test_a_first_miss_in_an_emptied_store_takes_5_a_shard_and_20(lab: Lab, package) -> None:
    """Whether another serializer has entries there only a listing of each shard tells; once."""
    there = package.NfsDict("emptied", lab.b, durable=False)
    there.update({str(number): number for number in range(300)})
    there.clear()
    shards = len(list(there.path.glob("??")))
    time.sleep(SETTLED)
    d = package.NfsDict("emptied", lab.a, lazy=True)
    with lab.rpcs("a") as rpcs:
        assert d.get("absent") is None
    assert 2 * shards < rpcs.total <= 5 * shards + 20
    time.sleep(SETTLED)  # the youngest shard is the only clock that it has seen so far
    with lab.rpcs("a") as rpcs:
        assert d.get("absent") is None
    assert rpcs.total <= 2


@pytest.mark.nfs(version=BOTH)
def test_a_cached_read_takes_none(lab: Lab, d, keys) -> None:
    with lab.rpcs("a") as rpcs:
        for _ in range(10):
            assert d[keys[0]] == d.get(keys[0]) == "zero"
            assert keys[0] in d
        assert len(d) == len(list(d)) == 2
    assert rpcs == {}


@pytest.mark.nfs(version=BOTH, delegations=(True, False))
def test_a_fresh_get_takes_at_most_4_or_5(lab: Lab, package, d, keys) -> None:
    most = 5 if lab.configuration.version == "3" else 4
    there = package.NfsDict("store", lab.b)
    for number in range(2):
        with lab.rpcs("a") as rpcs:
            d.get(keys[0], fresh=True)
        assert rpcs.total <= most
        there[keys[0]] = number
        time.sleep(SETTLED)
        with lab.rpcs("a") as rpcs:
            assert d.get(keys[0], fresh=True) == number
        # Of a shard that changed the client asks anew what it may do there, and for the name.
        assert rpcs.total <= most + 2, rpcs


@pytest.mark.parametrize("shards", [1, 40, 256])
@pytest.mark.nfs(version=ALL)
def test_a_refresh_with_nothing_changed_takes_4(lab: Lab, package, keys, shards) -> None:
    """One for the parent, as another directory may have the root's name by now; and the root is
    opened and listed twice, as another process of the host may be listing it just now."""
    digest = importlib.import_module("nfsdict.core").digest
    chosen = {digest(key)[:2]: key for key in map(str, range(10_000))}
    there = package.NfsDict("store", lab.b)
    there.update({chosen[f"{number:02x}"]: number for number in range(shards)})
    time.sleep(SETTLED)
    here = package.NfsDict("store", lab.a)
    assert len(here) == shards
    time.sleep(SETTLED)  # the root was changed by ``here`` when it learnt the time
    assert here.refresh() == set()
    for _ in range(3):
        with lab.rpcs("a") as rpcs:
            assert here.refresh() == set()
        assert rpcs.total <= 4, rpcs
    there[chosen["00"]] = "new"
    with lab.rpcs("a") as rpcs:
        assert here.refresh() == {chosen["00"]}
    assert rpcs.total <= 20, rpcs


@pytest.mark.nfs(version=BOTH)
def test_an_add_takes_at_most_6(lab: Lab, package, d, keys) -> None:
    with lab.rpcs("a") as rpcs:
        assert d.add(keys[2], "value")
    assert rpcs.total <= 6, rpcs
    with lab.rpcs("a") as rpcs:
        assert not d.add(keys[0], "value")
    # A known key is looked at first, by two listings, as the shard has just changed.
    assert rpcs.total <= (3 if lab.configuration.version == "3" else 4), rpcs
    package.NfsDict("store", lab.b)[keys[3]] = "value"
    time.sleep(SETTLED)
    assert keys[5] not in d  # the client learns that the shard has changed
    with lab.rpcs("a") as rpcs:
        assert not d.add(keys[3], "value")
    # A lost one looks at what is there, by two listings, as the shard has just changed.
    assert rpcs.total <= 10, rpcs


@pytest.mark.nfs(version=BOTH)
def test_a_pop_takes_at_most_20(lab: Lab, package, d, keys) -> None:
    """A fresh read, a rename, the directory listed, the file read again, a removal. By version 4.2
    with opens, closes, and delegations that are returned."""
    package.NfsDict("store", lab.b).update({keys[2]: "two", keys[3]: "three"})
    time.sleep(SETTLED)
    for key, value in ((keys[0], "zero"), (keys[2], "two")):
        with lab.rpcs("a") as rpcs:
            assert d.pop(key) == value
        assert rpcs["RENAME"] == rpcs["REMOVE"] == 1, rpcs
        assert rpcs.total <= 20, rpcs
    assert {d.popitem()[0], d.popitem()[0]} == {keys[1], keys[3]}
    with lab.rpcs("a") as rpcs:
        assert d.pop(keys[0], None) is None
    assert rpcs.total <= 8, rpcs


# --- opening, and many keys at once ------------------------------------------------------------

MANY = {f"experiment/{number % 16}/{number:06d}": f"{number:100d}" for number in range(2000)}


def make_settled(package, lab: Lab, entries: dict[str, str]) -> None:
    """A store of these entries. It was made on the server, packed, and no client knows of it
    yet."""
    with package.NfsDict("store", lab.server, lazy=True, durable=False) as d:
        d.update(entries)
    time.sleep(SETTLED)
    packing = package.NfsDict("store", lab.server, durable=False).pack()
    assert packing == (len(entries), 0, 0)
    lab.remount("a", "")


@pytest.fixture
def settled(package, lab: Lab) -> dict[str, str]:
    """What the settled store holds."""
    make_settled(package, lab, MANY)
    return MANY


@pytest.mark.nfs(version=BOTH)
@pytest.mark.parametrize(("keys", "most"), [(2000, 20), (20_000, 45)])
def test_a_settled_store_opens_with_20_or_45_calls(package, lab: Lab, keys, most) -> None:
    entries = {f"experiment/{number % 16}/{number:06d}": f"{number:100d}" for number in range(keys)}
    make_settled(package, lab, entries)
    with lab.rpcs("a") as rpcs:
        d = package.NfsDict("store", lab.a)
    assert rpcs.total <= most, rpcs
    assert dict(d) == entries


@pytest.mark.nfs(version=ALL)
def test_a_sync_takes_2_calls_a_shard_and_20(package, lab: Lab, settled) -> None:
    """What is the same is read from the pack."""
    d = package.NfsDict("store", lab.a)
    d.sync()
    with lab.rpcs("a") as rpcs:
        d.sync()
    assert rpcs.total <= 2 * 256 + 20, rpcs
    assert dict(d) == settled


@pytest.mark.nfs(version=BOTH)
def test_a_store_without_index_opens_with_4_calls_a_key(package, lab: Lab, settled) -> None:
    for hint in lab.server.glob("store/_*"):
        hint.unlink()
    with lab.rpcs("a") as rpcs:
        d = package.NfsDict("store", lab.a)
    assert rpcs.total <= 4 * len(settled)
    assert dict(d) == settled
    lab.remount("a", "")
    with lab.rpcs("a") as rpcs:
        package.NfsDict("store", lab.a)
    assert rpcs.total <= 20, "the first one has packed what it read"


@pytest.mark.nfs(version=BOTH)
def test_a_lazy_opening_takes_6_calls_and_a_first_read_4(package, lab: Lab, settled) -> None:
    """And one more for each directory above the parent: here, what is mounted."""
    with lab.rpcs("a") as rpcs:
        d = package.NfsDict("store", lab.a, lazy=True)
    assert rpcs.total <= 7
    for key, value in list(settled.items())[:2]:
        with lab.rpcs("a") as rpcs:
            assert d[key] == value
        assert rpcs.total <= 4


@pytest.mark.nfs(version=BOTH)
def test_an_update_takes_4_calls_a_key_and_4_a_new_shard(package, lab: Lab) -> None:
    d = package.NfsDict("new", lab.a)
    with lab.rpcs("a") as rpcs:
        d.update(MANY)
    assert rpcs.total <= 4 * len(MANY) + 4 * 256
    with lab.rpcs("a") as rpcs:
        d.update(MANY)
    # And the server's time is asked for, when the files are written and when they have names.
    assert 4 * len(MANY) <= rpcs.total <= 4 * len(MANY) + 20


def assert_opens_with_20(package, lab: Lab) -> None:
    """The store that was loaded, on the next host."""
    lab.remount("b", "")
    with lab.rpcs("b") as rpcs:
        there = package.NfsDict("new", lab.b)
    assert rpcs.total <= 20, rpcs
    assert dict(there) == MANY


@pytest.mark.nfs(version=BOTH)
@pytest.mark.parametrize("lazy", [False, True])
def test_a_load_is_packed_with_a_listing_of_each_shard(package, lab: Lab, lazy) -> None:
    """No file is read again, and the next host opens with 20 calls."""
    d = package.NfsDict("new", lab.a, lazy=lazy)
    with lab.rpcs("a") as rpcs:
        d.update(MANY)
    assert rpcs.total <= 4.5 * len(MANY), rpcs
    with lab.rpcs("a") as rpcs:
        assert d.pack() == (len(MANY), 0, 0)
    assert rpcs.total <= 700, rpcs
    assert_opens_with_20(package, lab)


@pytest.mark.nfs(version=BOTH)
def test_closing_some_time_after_a_load_packs_it(package, lab: Lab) -> None:
    with package.NfsDict("new", lab.a) as d:
        d.update(MANY)
        time.sleep(SETTLED)
        with lab.rpcs("a") as rpcs:
            d.close()
        assert rpcs.total <= 700, rpcs
        with lab.rpcs("a") as rpcs:
            d.close()
        assert rpcs.total <= 2, rpcs
    assert_opens_with_20(package, lab)


@pytest.mark.nfs(version=BOTH)
def test_closing_after_one_put_writes_nothing(package, lab: Lab, settled) -> None:
    d = package.NfsDict("store", lab.a)
    d["one more"] = "value"
    with lab.rpcs("a") as rpcs:
        d.close()
    # Release 0.2.1's index is looked for once more, and that is all.
    assert rpcs.total <= 2 and "WRITE" not in rpcs
