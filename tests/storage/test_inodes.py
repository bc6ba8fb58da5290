"""A damaged inode, of which the system tells but an error, costs its own key and no more."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.aging import age
from support.index_layout import open_
from support.layout import digest, value_file

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or sys.implementation.name != "cpython",
    reason="replaces calls of glibc, as CPython and the compiled core make them",
)

SOURCE = Path(__file__).parents[1] / "faults" / "inode.c"
KEYS = {str(number): number for number in range(9)}
VALUE = f"{digest('3')}.pkl"
REST = {key: value for key, value in KEYS.items() if key != "3"}

PROLOGUE = """
import json, logging, os, sys, time
import nfsdict
logging.basicConfig(level=logging.WARNING, stream=sys.stdout, format="%(message)s")
base, lazy = sys.argv[1], sys.argv[2] == "lazy"

def opened():
    return nfsdict.NfsDict("store", base, lazy=lazy, durable=False)

def readable(d):
    return {key: d[key] for key in d if key != "3"}

def refused(call):
    try:
        call()
    except KeyError:
        raise
    except OSError as error:
        return error.errno
"""


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    library = tmp_path_factory.mktemp("inode") / "inode.so"
    command = ["cc", "-shared", "-fPIC", "-O1", "-Wall", "-o", library, SOURCE, "-ldl"]
    subprocess.run(command, check=True)
    return library


@pytest.fixture(params=["EUCLEAN", "EIO", "EINVAL"])
def run(request, nfsdict, library, tmp_path):
    """Run this where the file of "3" has a damaged inode. What it logs, and prints as JSON."""
    number = str(getattr(errno, request.param))

    def run(script, lazy=False, inode=VALUE):
        done = subprocess.run(
            [sys.executable, "-c", PROLOGUE + script, tmp_path, "lazy" if lazy else "eager"],
            env={
                **os.environ,
                **{"LD_PRELOAD": str(library), "INODE": inode, "NUMBER": number},
            },
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        *logged, last = done.stdout.splitlines()
        return logged, json.loads(last)

    return run


LAZY = pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])


@LAZY
@pytest.mark.parametrize("indexed", [False, True], ids=["no index", "index"])
def test_the_others_are_opened_listed_and_read(nfsdict, tmp_path, run, lazy, indexed):
    """Its own key is listed where an index names it."""
    open_(nfsdict, tmp_path).update(KEYS)
    age(tmp_path)
    with open_(nfsdict, tmp_path):
        pass
    if not indexed:
        for path in tmp_path.glob("store/_*"):
            path.unlink()
    else:
        os.utime(value_file(tmp_path, "3").parent)  # so that it is listed again
    logged, (rest, count, errors) = run(
        """
d = opened()
errors = [refused(lambda: d["3"]), refused(lambda: d.get("3", fresh=True))]
print(json.dumps([readable(d), len(d), errors]))
""",
        lazy,
    )
    assert rest == REST
    assert count == len(KEYS) - (not indexed)
    assert None not in errors
    assert any(digest("3") in line for line in logged) or (lazy and indexed)


@LAZY
def test_what_was_known_stays_known(nfsdict, tmp_path, run, lazy):
    """And isn't taken for changed."""
    open_(nfsdict, tmp_path).update(KEYS)
    _, (before, changed, after) = run(
        """
name = os.environ.pop("INODE")
d = opened()
before = dict(d)
os.environ["INODE"] = name
os.utime(os.path.join(base, "store", name[:2]))
changed = d.refresh()
d.sync()
print(json.dumps([before, sorted(changed), sorted(d)]))
""",
        lazy,
    )
    assert before == KEYS
    assert changed == []
    assert after == sorted(KEYS)


@LAZY
def test_verify_tells_of_it_and_repair_leaves_it(nfsdict, tmp_path, run, lazy):
    open_(nfsdict, tmp_path).update(KEYS)
    temporary = value_file(tmp_path, "3").with_name(".nfsdict-" + digest("3")[:24])
    temporary.write_bytes(b"")
    _, (entries, unreadable, failed, moved, rest) = run(
        """
d = opened()
report, done = d.verify(), d.repair(grace=-1)
print(json.dumps(
    [report.entries, *map(list, (report.unreadable, done.failed, done.quarantined)), readable(d)]
))
""",
        lazy,
    )
    assert entries == len(REST)
    assert unreadable == [str(value_file(tmp_path, "3"))]
    assert failed == [] and moved == []
    assert rest == REST
    assert dict(open_(nfsdict, tmp_path)) == KEYS, "when it was mended"


def test_everything_else_goes_on(nfsdict, tmp_path, run):
    open_(nfsdict, tmp_path).update(KEYS)
    _, (packed, rest, popped, left) = run(
        """
d = opened()
time.sleep = lambda seconds: None
packed = d.pack().packed
d["new"] = 1
d.update(more=2)
rest = readable(opened())
popped = [d.pop("new"), d.pop("more")]
d.clear()
print(json.dumps([packed, rest, popped, len(opened())]))
"""
    )
    assert packed <= len(REST)
    assert rest == REST | {"new": 1, "more": 2}
    assert popped == [1, 2]
    assert left == 0


def test_the_command_counts_it(nfsdict, tmp_path, run):
    open_(nfsdict, tmp_path).update(KEYS)
    _, done = run(
        """
from nfsdict.cli import main
status = main(["stats", "store", "--base-dir", base])
print("\\n" + json.dumps([status]))
"""
    )
    assert done == [0]


@LAZY
def test_a_shard_that_cannot_be_looked_at_is_an_error(nfsdict, tmp_path, run, lazy):
    """Its keys aren't absent."""
    open_(nfsdict, tmp_path).update(KEYS)
    age(tmp_path)
    open_(nfsdict, tmp_path).close()
    _, (single, whole, kept, after) = run(
        """
name = os.environ.pop("INODE")
d = opened()
len(d)
os.environ["INODE"] = name
fresh = nfsdict.NfsDict("store", base, lazy=True)
single = [refused(call) for call in (
    lambda: fresh["3"], lambda: "3" in fresh, lambda: fresh.get("3", fresh=True),
    lambda: fresh.add("3", 0), lambda: fresh.__setitem__("3", 0),
)]
whole = [refused(call) for call in (
    lambda: len(fresh), fresh.refresh, fresh.sync, fresh.verify, fresh.repair, fresh.clear,
    lambda: nfsdict.NfsDict("store", base), d.sync,
)]
kept = sorted(d)
del os.environ["INODE"]
print(json.dumps([single, whole, kept, [dict(d), sorted(d.refresh()), dict(opened())]]))
""",
        lazy,
        inode=digest("3")[:2],
    )
    assert None not in single and None not in whole
    assert kept == sorted(KEYS)
    assert after == [KEYS, [], KEYS]


def test_leases_that_cannot_be_looked_at_end_no_repair_and_any_prune(nfsdict, tmp_path, run):
    d = open_(nfsdict, tmp_path)
    d.update(KEYS)
    with d.lease("3"):
        pass
    value_file(tmp_path, "3").write_bytes(b"junk")
    _, (failed, moved, told) = run(
        """
d = opened()
done = d.repair(grace=-1)
told = []
for dry_run in (False, True):
    try:
        d.prune(max_items=1, dry_run=dry_run)
    except OSError as error:
        told.append([error.errno == int(os.environ["NUMBER"]), str(error)])
print(json.dumps([list(done.failed), list(done.quarantined), told]))
""",
        inode=".nfsdict-leases",
    )
    assert failed == [str(tmp_path / "store" / ".nfsdict-leases")]
    assert moved == [str(value_file(tmp_path, "3"))]
    for same, text in told:
        assert same and "nothing is pruned without leases" in text and failed[0] in text
    assert len(told) == 2
    assert dict(open_(nfsdict, tmp_path)) == REST


def test_packing_over_an_index_that_cannot_be_read_fails_at_once(nfsdict, tmp_path, run):
    open_(nfsdict, tmp_path).update(KEYS)
    age(tmp_path)
    open_(nfsdict, tmp_path).pack()
    _, told = run(
        """
pauses = []
time.sleep = pauses.append
print(json.dumps([refused(opened().pack) == int(os.environ["NUMBER"]), len(pauses)]))
""",
        inode="_index.nfsdict-pkl",
    )
    assert told[0] and told[1] <= 1
    assert dict(open_(nfsdict, tmp_path)) == KEYS
