"""The index: a hint that is never believed beyond what stamps prove."""

from __future__ import annotations

import collections
import hashlib
import importlib
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

SECOND = 1_000_000_000
MOMENT = 1_000 * SECOND  # the server's time in what is not about real files
LONG_AGO = 10 * SECOND
UNKNOWN = bytes(32)
LOOSE, GONE = 0xFFFFFFFF, 0xFFFFFFFE


def digest(key):
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def sign(mtime, inode=5, size=9, ctime=None):
    return struct.pack("<QQqq", inode, size, mtime, mtime if ctime is None else ctime)


def both(moment):
    """A stamp of these times, in the tests where one time is as good as two; 0: unknown."""
    return importlib.import_module("nfsdict.layout").Stamp(moment, moment)


def one(stamp):
    """The time of such a stamp."""
    mtime, ctime = stamp
    assert mtime == ctime
    return mtime


OLD = sign(LONG_AGO)
OTHER = sign(LONG_AGO, inode=6)
FRESH = sign(MOMENT)
# Three keys of one shard, and one of another.
SHARD = "00"
TWINS = [key for key in map(str, range(20_000)) if digest(key).startswith(SHARD)][:64]
A, B, C = TWINS[:3]
STRANGER = next(key for key in map(str, range(20_000)) if not digest(key).startswith(SHARD))


@pytest.fixture
def index_module(nfsdict):
    return importlib.import_module("nfsdict.index.memory")


@pytest.fixture
def Index(index_module):
    return index_module.Index


@pytest.fixture
def shard_module(nfsdict):
    return importlib.import_module("nfsdict.index.shard")


@pytest.fixture
def IndexEntry(shard_module):
    return shard_module.IndexEntry


@pytest.fixture
def PackShard(nfsdict):
    return importlib.import_module("nfsdict.index.pack").PackShard


def layer(PackShard, stamp, entries):
    """What one pack says of one shard: {key: signature, or None where it is gone}."""
    keys = sorted(entries, key=digest)
    lengths = [GONE if entries[key] is None else LOOSE for key in keys]
    return PackShard(
        both(stamp),
        keys,
        b"".join(entries[key] or UNKNOWN for key in keys),
        struct.pack(f"<{len(keys)}I", *lengths),
        0,
        0,
    )


@pytest.fixture
def loaded(Index, PackShard):
    """An index that was loaded over packs of ``SHARD``, the lowest first: (stamp, entries)."""

    def build(*packs, onto=None):
        index = Index() if onto is None else onto
        index.load_shard(SHARD, [layer(PackShard, *pack) for pack in packs])
        return index

    return build


def all_of(known):
    """What an ``IndexEntry`` has."""
    return known.key, known.signature, known.fingerprint


@pytest.fixture
def listed(Index, IndexEntry):
    """An index of these keys, as if every shard had been listed long after the last change."""

    def build(keys, stamp=LONG_AGO, signature=OLD):
        index = Index()
        shards = collections.defaultdict(dict)
        for key in keys:
            shards[digest(key)[:2]][digest(key)] = IndexEntry(key, signature, None)
        for shard, entries in shards.items():
            index.replace(shard, both(stamp), entries, MOMENT)
        return index

    return build


def content(index, name=SHARD):
    """What it knows of a shard and may be told to others: (stamp, {key: signature})."""
    shard = index.shard(name)
    entries = shard.entries()
    assert all(digest(known.key) == digits for digits, known in entries.items())
    assert shard.keys == sorted(shard.keys, key=digest)
    assert len(shard.signatures) == len(UNKNOWN) * len(shard.keys)
    known = {each.key: each.signature if each.proven else UNKNOWN for each in entries.values()}
    assert set(shard.names()) == set(known) and len(shard.names()) == len(known)
    assert shard.holds_any() == bool(known)
    for key, signature in known.items():
        found = shard.find(digest(key), key)
        assert (found.signature if found.proven else UNKNOWN) == signature
    return one(shard.stamp), known


def said(index, name=SHARD, values=None):
    """What it has to say of a shard: (stamp, {key: signature or None}), or None."""
    outcome = index.begin_update(name, values or {}, [])
    if outcome is None:
        return None
    keys = [statement.key for statement in outcome.records]
    assert keys == sorted(outcome.keys, key=digest)
    return one(outcome.stamp), {said.key: said.signature for said in outcome.records}


# --- taken over from packs ------------------------


def test_of_no_packs_nothing_is_known(Index, loaded):
    index = loaded()
    assert content(index) == (0, {})
    assert not index.listed and len(index) == 0 and index.changes() == 0


def test_one_pack_is_taken_over(loaded):
    index = loaded((LONG_AGO, {A: OLD, B: UNKNOWN}))
    assert content(index) == (LONG_AGO, {A: OLD, B: UNKNOWN})
    assert len(index) == 2 and index.changes() == 0
    assert content(index, digest(STRANGER)[:2]) == (0, {})


def test_higher_packs_overrule_lower_ones(loaded):
    index = loaded(
        (1, {A: OLD, B: OLD, C: OLD}),
        (2, {A: None, B: OTHER}),
        (3, {B: UNKNOWN, TWINS[3]: OLD}),
    )
    assert content(index) == (3, {B: UNKNOWN, C: OLD, TWINS[3]: OLD})
    assert index.changes() == 0


def test_a_key_that_was_gone_is_back(loaded):
    assert content(loaded((1, {A: OLD}), (2, {A: None}), (3, {A: OTHER}))) == (3, {A: OTHER})


def test_a_key_is_gone_in_the_lowest_pack(loaded):
    assert content(loaded((1, {A: None, B: OLD}))) == (1, {B: OLD})
    assert content(loaded((1, {A: None, B: OLD}), (2, {A: OLD}))) == (2, {A: OLD, B: OLD})


def test_a_pack_of_no_key_gives_its_stamp(loaded):
    assert content(loaded((1, {A: OLD}), (0, {}))) == (0, {A: OLD})
    assert content(loaded((1, {A: OLD}), (2, {}))) == (2, {A: OLD})


def test_lengths_that_look_like_a_key_that_is_gone(Index, PackShard):
    keys = sorted([A, B], key=digest)
    lengths = struct.pack("<II", 0xFE000000, LOOSE)
    index = Index()
    index.load_shard(SHARD, [PackShard(both(LONG_AGO), keys, OLD + OTHER, lengths, 0xFE000000, 0)])
    assert content(index) == (LONG_AGO, {keys[0]: OLD, keys[1]: OTHER})


def test_loading_goes_below_what_is_noted(Index, IndexEntry, loaded):
    d, e, f = TWINS[3:6]
    index = Index()
    index.note_read(digest(A), IndexEntry(A, OTHER, 1))
    index.note_read(digest(B), IndexEntry(B, OLD, 1))
    index.note_read(digest(d), IndexEntry(d, OLD, 1))
    index.note_written(digest(e), IndexEntry(e, OLD, 1))
    index.note_gone(digest(e), e)
    loaded((1, {A: OLD, B: OLD, C: OLD, e: OLD}), (LONG_AGO, {f: OLD}), onto=index)
    assert content(index) == (0, {A: UNKNOWN, B: OLD, C: OLD, d: UNKNOWN, f: OLD})
    assert said(index) == (0, {A: UNKNOWN, d: UNKNOWN, e: None})


def test_noted_as_the_packs_say_it_changes_nothing(Index, IndexEntry, loaded):
    index = Index()
    index.note_read(digest(A), IndexEntry(A, OTHER, 1))
    loaded((LONG_AGO, {A: OLD}), (LONG_AGO, {A: OTHER}), onto=index)
    assert content(index) == (LONG_AGO, {A: OTHER})
    assert index.changes() == 0 and said(index) is None


def test_dropped_before_loading(Index, IndexEntry, loaded):
    """A key that isn't there leaves no trace, so the packs are believed as far as stamps go."""
    index = Index()
    index.note_gone(digest(A), A)
    loaded((LONG_AGO, {A: OLD}), onto=index)
    assert content(index) == (LONG_AGO, {A: OLD})


def test_loading_again(loaded):
    """After a survey that failed. What the first packs said is doubted where the new don't."""
    index = loaded((LONG_AGO, {A: OLD}), (LONG_AGO, {B: OLD, A: None}))
    loaded((2 * LONG_AGO, {A: OLD, B: OLD}), onto=index)
    assert content(index)[0] == 0
    index = loaded((LONG_AGO, {A: OLD}), (LONG_AGO, {B: OLD}))
    loaded((LONG_AGO, {A: OLD, B: OLD}), onto=index)
    assert content(index) == (LONG_AGO, {A: OLD, B: OLD})
    loaded((LONG_AGO, {B: OLD}), onto=index)
    assert content(index) == (0, {A: OLD, B: OLD})
    assert said(index) == (0, {A: OLD})


# --- what changed since ------------------------


def test_a_file_read_anew_makes_the_shard_unknown(listed, IndexEntry):
    index = listed([A, STRANGER])
    index.note_read(digest(A), IndexEntry(A, OTHER, 1))
    assert content(index) == (0, {A: UNKNOWN})
    assert content(index, digest(STRANGER)[:2]) == (LONG_AGO, {STRANGER: OLD})


def test_reading_what_is_known_changes_nothing(loaded, IndexEntry):
    index = loaded((1, {A: OLD}), (LONG_AGO, {B: OTHER}))
    for fingerprint in (1, None):
        index.note_read(digest(A), IndexEntry(A, OLD, fingerprint))
        index.note_read(digest(B), IndexEntry(B, OTHER, fingerprint))
    assert content(index) == (LONG_AGO, {A: OLD, B: OTHER})
    assert index.changes() == 0


def test_reading_again_what_is_not_proven(loaded, IndexEntry):
    """The file may be another one under the same signature: the last one read is known."""
    index = loaded((LONG_AGO, {A: UNKNOWN}))
    for fingerprint in (1, 2):
        index.note_read(digest(A), IndexEntry(A, OLD, fingerprint))
        assert all_of(index.shard(SHARD).find(digest(A), A)) == (A, OLD, fingerprint)
    assert content(index) == (0, {A: UNKNOWN})


def test_writing_makes_the_shard_unknown_whatever_the_signature(loaded, IndexEntry):
    index = loaded((LONG_AGO, {A: OLD}))
    index.note_written(digest(A), IndexEntry(A, OLD, 1))
    assert content(index) == said(index) == (0, {A: UNKNOWN})


def test_reading_a_new_key(loaded, IndexEntry):
    index = loaded((LONG_AGO, {A: OLD}))
    index.note_read(digest(B), IndexEntry(B, OLD, 1))
    assert content(index) == (0, {A: OLD, B: UNKNOWN})
    assert said(index) == (0, {B: UNKNOWN})


def test_a_drop(loaded):
    index = loaded((LONG_AGO, {A: OLD, B: OLD}))
    index.note_gone(digest(C), C)
    assert index.changes() == 0 and content(index)[0] == LONG_AGO
    index.note_gone(digest(A), A)
    assert index.shard(digest(A)).find(digest(A), A) is None
    assert content(index) == (0, {B: OLD})
    assert said(index) == (0, {A: None})
    index.note_gone(digest(A), A)
    assert said(index) is None


def test_dropped_and_written_again(loaded, IndexEntry):
    index = loaded((LONG_AGO, {A: OLD}))
    index.note_gone(digest(A), A)
    index.note_read(digest(A), IndexEntry(A, OLD, 1))
    assert content(index) == (0, {A: UNKNOWN})
    index.note_gone(digest(A), A)
    assert content(index) == (0, {})
    assert not index.shard(SHARD).holds_any()


def test_find(listed, IndexEntry):
    keys = [f"key {number}" for number in range(3000)]
    index = listed(keys)
    for key in keys:
        assert all_of(index.shard(digest(key)).find(digest(key), key)) == (key, OLD, None)
    for number in range(300):
        key = f"no key {number}"
        assert index.shard(digest(key)).find(digest(key), key) is None


def test_size_and_proof_of_a_known_file(IndexEntry, shard_module):
    assert IndexEntry(A, sign(LONG_AGO, size=2**40 + 7), None).size == 2**40 + 7
    assert IndexEntry(A, OLD, None).proven
    assert not IndexEntry(A, OLD, 0).proven
    assert not IndexEntry(A, OLD, shard_module.UNREAD).proven
    assert not IndexEntry(A, UNKNOWN, None).proven


# --- listed: racy stamps and signatures ------------------------


@pytest.mark.parametrize(
    ("age", "moment", "kept"),
    [
        (LONG_AGO, MOMENT, True),
        (3 * SECOND + 1, MOMENT, True),
        (3 * SECOND, MOMENT, False),
        (0, MOMENT, False),
        (-LONG_AGO, MOMENT, False),  # the server's clock was set back
        (LONG_AGO, None, False),
    ],
)
def test_racy_proves_nothing(Index, IndexEntry, age, moment, kept):
    taken = MOMENT - age
    index = Index()
    index.replace(SHARD, both(taken), {digest(A): IndexEntry(A, OLD, None)}, moment)
    expected = (taken if kept else 0), {A: OLD if moment else UNKNOWN}
    assert content(index) == said(index) == expected

    index = Index()
    index.replace(SHARD, both(1), {digest(A): IndexEntry(A, sign(taken), None)}, moment)
    expected = (1 if moment else 0), {A: sign(taken) if kept else UNKNOWN}
    assert content(index) == said(index) == expected


@pytest.mark.parametrize("recent", [(MOMENT, LONG_AGO), (LONG_AGO, MOMENT)], ids=["mtime", "ctime"])
def test_a_stamp_proves_something_if_both_its_times_do(Index, IndexEntry, recent):
    """A copying tool sets the mtime back, and the ctime is that of the copying then."""
    Stamp = importlib.import_module("nfsdict.layout").Stamp
    index = Index()
    index.replace(SHARD, Stamp(*recent), {digest(A): IndexEntry(A, OLD, None)}, MOMENT)
    assert content(index) == said(index) == (0, {A: OLD})
    index.replace(SHARD, Stamp(*recent), {digest(A): IndexEntry(A, OLD, None)}, 2 * MOMENT)
    assert index.shard(SHARD).stamp == recent


@pytest.mark.parametrize("recent", [(MOMENT, LONG_AGO), (LONG_AGO, MOMENT)], ids=["mtime", "ctime"])
def test_a_signature_proves_something_if_both_its_times_do(Index, IndexEntry, recent):
    mtime, ctime = recent
    found = sign(mtime, ctime=ctime)
    index = Index()
    index.replace(SHARD, both(LONG_AGO), {digest(A): IndexEntry(A, found, None)}, MOMENT)
    assert content(index) == said(index) == (LONG_AGO, {A: UNKNOWN})
    index.replace(SHARD, both(LONG_AGO), {digest(A): IndexEntry(A, found, None)}, 2 * MOMENT)
    assert content(index) == said(index) == (LONG_AGO, {A: found})


def test_what_shows_that_a_file_is_another(IndexEntry):
    """Of a racy one the ctime may have been taken before rename or link, which set it."""
    touched = sign(LONG_AGO, ctime=MOMENT)
    for fingerprint in (None, 1):
        assert IndexEntry(A, OLD, fingerprint).differs(OTHER)
        assert IndexEntry(A, OLD, fingerprint).differs(sign(MOMENT))
        assert not IndexEntry(A, OLD, fingerprint).differs(OLD)
        assert not IndexEntry(A, UNKNOWN, fingerprint).differs(OLD)
        assert IndexEntry(A, OLD, fingerprint).differs(touched) == (fingerprint is None)


def test_a_racy_signature_is_known_here_and_unknown_to_others(Index, IndexEntry):
    index = Index()
    known = IndexEntry(A, FRESH, 17)
    index.replace(SHARD, both(LONG_AGO), {digest(A): known}, MOMENT)
    assert index.shard(SHARD).find(digest(A), A) == known
    assert said(index) == (LONG_AGO, {A: UNKNOWN})


def test_a_racy_file_that_nobody_read(Index, IndexEntry, shard_module):
    index = Index()
    index.replace(SHARD, both(LONG_AGO), {digest(A): IndexEntry(A, FRESH, None)}, MOMENT)
    assert all_of(index.shard(SHARD).find(digest(A), A)) == (A, FRESH, shard_module.UNREAD)


def test_a_racy_file_becomes_proven(Index, IndexEntry):
    index = Index()
    entries = {digest(A): IndexEntry(A, FRESH, 17)}
    index.replace(SHARD, both(MOMENT), entries, MOMENT)
    assert said(index) == (0, {A: UNKNOWN})
    index.replace(SHARD, both(MOMENT), entries, 2 * MOMENT)
    assert content(index) == said(index) == (MOMENT, {A: FRESH})


def test_what_was_noted_during_a_survey_stays(loaded, IndexEntry):
    for note, kept in [
        (lambda index: index.note_read(digest(A), IndexEntry(A, OTHER, 1)), {A: UNKNOWN}),
        (lambda index: index.note_written(digest(A), IndexEntry(A, OLD, 1)), {A: UNKNOWN}),
        (lambda index: index.note_gone(digest(A), A), {}),
    ]:
        index = loaded((LONG_AGO, {A: OLD}))
        note(index)
        index.replace(SHARD, both(LONG_AGO), {digest(A): IndexEntry(A, OLD, None)}, MOMENT, {A})
        assert content(index) == (0, kept)
        assert said(index) == (0, kept or {A: None})
        index.replace(SHARD, both(LONG_AGO), {digest(A): IndexEntry(A, OLD, None)}, MOMENT, {B})
        assert content(index) == said(index) == (LONG_AGO, {A: OLD})


def test_listed_as_it_was_says_nothing(loaded, IndexEntry):
    index = loaded((1, {A: OLD}), (LONG_AGO, {B: OTHER}))
    entries = {digest(A): IndexEntry(A, OLD, None), digest(B): IndexEntry(B, OTHER, None)}
    index.replace(SHARD, both(LONG_AGO), entries, MOMENT)
    assert content(index) == (LONG_AGO, {A: OLD, B: OTHER})
    assert index.changes() == 0 and said(index) is None


def test_listed_otherwise_says_what_is_different(loaded, IndexEntry):
    d = TWINS[3]
    index = loaded((1, {A: OLD, B: OLD, C: UNKNOWN, d: OLD}))
    entries = {
        digest(A): IndexEntry(A, OTHER, None),
        digest(C): IndexEntry(C, OLD, None),
        digest(d): IndexEntry(d, OLD, None),
    }
    index.replace(SHARD, both(2), entries, MOMENT)
    assert said(index) == (2, {A: OTHER, B: None, C: OLD})


def test_an_older_change_is_not_lost_by_listing(loaded, IndexEntry):
    """It was noted, and the listing finds it just so: the packs still don't say it."""
    index = loaded((1, {A: OLD, B: OLD}))
    index.note_gone(digest(A), A)
    index.replace(SHARD, both(2), {digest(B): IndexEntry(B, OLD, None)}, MOMENT)
    index.replace(SHARD, both(2), {digest(B): IndexEntry(B, OLD, None)}, MOMENT)
    assert said(index) == (2, {A: None})


def test_a_shard_whose_keys_are_all_gone(loaded):
    index = loaded((1, {A: OLD, B: OLD}))
    index.replace(SHARD, both(2), {}, MOMENT)
    assert content(index) == (2, {}) and said(index) == (2, {A: None, B: None})


# --- what the packs on disk don't say ------------------------


def test_what_is_said_is_not_said_again(listed):
    index = listed([A, B, STRANGER])
    assert index.changes() == 5  # three keys, two stamps
    assert said(index) == (LONG_AGO, {A: OLD, B: OLD})
    assert index.changes() == 2 and said(index) is None
    assert said(index, digest(STRANGER)[:2]) == (LONG_AGO, {STRANGER: OLD})
    assert index.changes() == 0


def test_what_was_said_and_got_lost_is_said_again(loaded, IndexEntry):
    index = loaded((1, {A: OLD}))
    index.replace(SHARD, both(2), {digest(B): IndexEntry(B, OLD, None)}, MOMENT)
    assert index.changes() == 3  # two keys, and the stamp
    outcome = index.begin_update(SHARD, {}, [])
    assert index.changes() == 0
    index.note_written(digest(C), IndexEntry(C, OLD, 1))
    index.rollback(outcome)
    assert index.changes() == 3  # the stamp can't be given now
    assert said(index) == (0, {A: None, B: OLD, C: UNKNOWN})


def test_a_lost_stamp_alone(loaded, IndexEntry):
    index = loaded((1, {A: OLD}))
    index.replace(SHARD, both(2), {digest(A): IndexEntry(A, OLD, None)}, MOMENT)
    assert index.changes() == 1
    outcome = index.begin_update(SHARD, {}, [])
    assert (outcome.stamp, outcome.records, outcome.keys) == (both(2), [], set())
    assert index.changes() == 0
    index.rollback(outcome)
    assert index.changes() == 1 and said(index) == (2, {})


def test_a_stamp_that_has_become_unknown_is_withdrawn(loaded, IndexEntry):
    index = loaded((1, {A: OLD}))
    index.note_written(digest(A), IndexEntry(A, OLD, 1))
    assert index.changes() == 1  # by itself it is nothing worth writing
    assert said(index) == (0, {A: UNKNOWN})


def packed(values):
    Packed = importlib.import_module("nfsdict.index.pack").Packed
    return {key: Packed(*value) for key, value in values.items()}


def test_values_are_given_to_those_that_are_proven(Index, IndexEntry):
    """And only if they were read under the signature that the pack gives them."""
    index = Index()
    entries = {
        digest(A): IndexEntry(A, OLD, None),
        digest(B): IndexEntry(B, FRESH, 1),
        digest(C): IndexEntry(C, OTHER, None),
    }
    index.replace(SHARD, both(LONG_AGO), entries, MOMENT)
    values = {A: (b"a", OLD), B: (b"b", FRESH), C: (b"c", OLD), STRANGER: (b"s", OLD)}
    outcome = index.begin_update(SHARD, packed(values), [])
    told = {key: (signature, value) for key, signature, value in outcome.records}
    assert told == {A: (OLD, b"a"), B: (UNKNOWN, None), C: (OTHER, None)}


def test_a_key_that_is_gone_takes_no_value(loaded):
    index = loaded((1, {A: OLD}))
    index.note_gone(digest(A), A)
    [statement] = index.begin_update(SHARD, packed({A: (b"a", OLD)}), []).records
    assert statement == (A, None, None)


def test_values_that_were_read_are_said_once_more(loaded):
    """The packs have signature and stamp, but not the bytes."""
    index = loaded((LONG_AGO, {A: OLD, B: OLD}))
    index.mark_dirty(SHARD, {A: b"a"})
    assert index.changes() == 1
    outcome = index.begin_update(SHARD, packed({A: (b"a", OLD)}), [])
    assert (outcome.stamp, outcome.records) == (both(LONG_AGO), [(A, OLD, b"a")])
    assert said(index) is None


@pytest.mark.parametrize("changed", [1, 4, 5, 64])
def test_a_few_of_many_and_all(Index, IndexEntry, changed):
    """Few are looked up one by one, many together."""
    index = Index()
    entries = {digest(key): IndexEntry(key, OLD, None) for key in TWINS}
    index.replace(SHARD, both(LONG_AGO), entries, MOMENT)
    assert said(index) == (LONG_AGO, dict.fromkeys(TWINS, OLD))
    expected = {}
    for number, key in enumerate(TWINS[:changed]):
        if number % 2:
            index.note_gone(digest(key), key)
            expected[key] = None
        else:
            entries[digest(key)] = IndexEntry(key, OTHER, None)
            index.mark_dirty(SHARD, [key])
            expected[key] = OLD
    assert said(index)[1] == expected


def test_comparing_with_the_packs(loaded, PackShard, IndexEntry):
    d, e = TWINS[3:5]
    index = loaded((1, {A: OLD, B: OLD, C: OLD}))
    index.note_written(digest(d), IndexEntry(d, OLD, 1))
    index.replace(SHARD, both(2), {**index.shard(SHARD).entries()}, MOMENT)
    packs = [(1, {A: OLD, C: OTHER, e: OLD}), (LONG_AGO, {A: None, B: OLD})]
    index.recompute_dirty(SHARD, [layer(PackShard, *pack) for pack in packs])
    # The last of them is known, but for its fingerprint.
    assert said(index) == (2, {A: OLD, C: OLD, d: OLD, e: None})


def test_comparing_with_packs_that_say_the_same(loaded, PackShard):
    packs = [(1, {A: OLD, B: UNKNOWN, C: None}), (LONG_AGO, {A: OTHER})]
    index = loaded(*packs)
    index.recompute_dirty(SHARD, [layer(PackShard, *pack) for pack in packs])
    # What is unproven may have become proven by now, and is worth saying.
    assert index.changes() == 1 and said(index) == (LONG_AGO, {B: UNKNOWN})


def test_comparing_with_no_packs(loaded):
    index = loaded((LONG_AGO, {A: OLD, B: None}), (LONG_AGO, {C: OTHER}))
    index.recompute_dirty(SHARD, [])
    assert index.changes() == 3
    assert said(index) == (LONG_AGO, {A: OLD, C: OTHER})


# Each step: what happens, to which key, and with what mtime; the packs may fail to be written.
steps = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "note_written",
                "note_read",
                "note_gone",
                "list",
                "compare",
                "begin_update",
                "lose",
                "mark_dirty",
                "open",
                "all",
            ]
        ),
        st.sampled_from(TWINS[:40]),
        st.sampled_from([LONG_AGO, LONG_AGO + 1, MOMENT]),
        st.booleans(),
    ),
    max_size=40,
)


@given(steps=steps)
@settings(max_examples=150)
def test_what_is_said_makes_up_what_is_known(nfsdict, steps):
    """Whatever happened, packs that were written on the way give another reader all of it."""
    module = importlib.import_module("nfsdict.index.memory")
    PackShard = importlib.import_module("nfsdict.index.pack").PackShard
    shard_module = importlib.import_module("nfsdict.index.shard")
    IndexEntry, index = shard_module.IndexEntry, module.Index()
    packs = []

    def begin_update():
        count = index.changes()
        outcome = index.begin_update(SHARD, {}, [])
        if outcome is None:
            assert count == 0
            return
        assert count in (len(outcome.keys), len(outcome.keys) + 1)
        entries = {statement.key: statement.signature for statement in outcome.records}
        packs.append(layer(PackShard, one(outcome.stamp), entries))
        assert index.changes() == 0 and index.begin_update(SHARD, {}, []) is None

    def reopened():
        other = module.Index()
        other.load_shard(SHARD, packs)
        return other

    for step, key, mtime, flag in steps:
        name = digest(key)
        if step in ("note_written", "note_read"):
            getattr(index, step)(
                name, IndexEntry(key, sign(mtime), 1 if flag else shard_module.UNREAD)
            )
        elif step == "note_gone":
            index.note_gone(name, key)
        elif step in ("list", "all"):
            entries = {} if step == "all" and flag else index.shard(SHARD).entries()
            some = TWINS[:40] if step == "all" and not flag else [key]
            for each in some if step == "all" or flag else []:
                entries[digest(each)] = IndexEntry(each, sign(mtime), None)
            index.replace(SHARD, both(mtime), entries, MOMENT, {key} if mtime % 2 else ())
        elif step == "compare":
            # A listing that tells what isn't as it was known; another one may have ended meanwhile.
            before = index.shard(SHARD).copy()
            others = [at for at, one in enumerate(before.keys) if one == key or not flag]
            for at in range(len(before.keys)):
                if before.proven_signatures()[32 * at : 32 * (at + 1)] == UNKNOWN:
                    others.append(at)
            entries = before.entries(sorted(set(others)))
            if flag:
                entries.pop(name, None)
            else:
                entries[name] = IndexEntry(key, sign(mtime), None)
            expected = {**before.entries(), **entries}
            if flag:
                expected.pop(name, None)
            if mtime == LONG_AGO + 1:
                index.replace(SHARD, both(mtime), before.entries(), MOMENT)
            kept = shard_module.Kept(before, sorted(set(others)))
            index.replace(SHARD, both(mtime), entries, MOMENT, (), kept)
            found = index.shard(SHARD).entries()
            assert {n: (e.key, e.signature) for n, e in found.items()} == {
                n: (e.key, e.signature) for n, e in expected.items()
            }
        elif step == "mark_dirty" and index.shard(SHARD).find(name, key):
            index.mark_dirty(SHARD, [key])
        elif step == "lose":
            outcome = index.begin_update(SHARD, {}, [])
            if outcome is not None:
                index.rollback(outcome)
        elif step == "begin_update":
            begin_update()
            assert content(reopened()) == content(index)
        elif step == "open":
            begin_update()
            index = reopened()
    begin_update()
    assert content(reopened()) == content(index)
    # And comparing finds nothing more to say but what isn't proven.
    unproven = {key for key, signature in content(index)[1].items() if signature == UNKNOWN}
    index.recompute_dirty(SHARD, packs)
    outcome = index.begin_update(SHARD, {}, [])
    assert (outcome.keys if outcome else set()) == unproven
