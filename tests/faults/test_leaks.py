"""No operation of a dictionary keeps memory, descriptors or threads, nor does one that fails."""

from __future__ import annotations

import contextlib
import copy
import importlib
import itertools
import logging
import pickle

import pytest

from support.growth import growth, settled
from support.layout import digest, value_file
from support.proof import FACTOR

MANY = {f"many {number}": number for number in range(20)}
DAMAGED, BARRED = "damaged", "barred"
new = map("new {}".format, itertools.count())


@pytest.fixture(scope="module", autouse=True)
def nothing_else():
    with settled():
        yield


def assert_no_growth(call, count):
    assert growth(call, count * FACTOR) == {}


def refused(error, call, *arguments, **options):
    """Do what raises."""
    try:
        call(*arguments, **options)
    except error:
        return
    raise AssertionError(f"{error} was not raised")


class Unpicklable:
    def __reduce__(self):
        raise ZeroDivisionError


class World:
    """A store of a few keys, one of them damaged, and one whose file's place is taken."""

    def __init__(self, package, base):
        self.package = package
        self.base = base
        d = self.open()
        d.update({"k": 1, DAMAGED: 2, **MANY})
        d.close()
        self.damaged = value_file(base, DAMAGED)
        self.damaged.write_bytes(b"no pickle")
        value_file(base, BARRED).mkdir(parents=True)
        self.readers = self.open(read_only=True)
        self.lazy = self.open(lazy=True)
        self.d = self.open()

    def open(self, **options):
        return self.package.NfsDict("store", self.base, **{"durable": False, **options})

    def by_another(self):
        """A change that has to be found."""
        path = value_file(self.base, "other's")
        path.parent.mkdir(exist_ok=True)
        other = path.with_suffix(".tmp")
        other.write_bytes(pickle.dumps(("other's", 1)))
        other.rename(path)
        return path


# --- one key ---------------------------------------------------------------------------------


def put_and_delete(d, key="n"):
    d[key] = 1
    del d[key]


def add_and_pop(d, key="n"):
    assert d.add(key, 1) and not d.add(key, 1)
    assert d.pop(key) == 1 and d.pop(key, None) is None


def damaged(w):
    error = w.package.CorruptValueError
    refused(error, w.d.__getitem__, DAMAGED)
    refused(error, w.d.get, DAMAGED, fresh=True)
    refused(error, w.d.pop, DAMAGED)


def barred(w):
    for d in (w.d, w.lazy):
        refused(OSError, d.__getitem__, BARRED)
        refused(OSError, d.__setitem__, BARRED, 1)
        refused(OSError, d.__delitem__, BARRED)
        refused(OSError, d.pop, BARRED, None)


def read_only(w):
    d = w.readers
    for call in (d.__setitem__, d.add, d.setdefault):
        refused(w.package.ReadOnlyError, call, "gone", 1)
    for call in (d.__delitem__, d.pop, d.clear, d.repair, d.pack):
        refused(
            w.package.ReadOnlyError, call, *(["gone"] if call in (d.__delitem__, d.pop) else [])
        )


def no_key(w):
    d = w.d
    for call in (d.__getitem__, d.__delitem__, d.pop):
        refused(TypeError, call, [])
        refused(KeyError, call, 1)
    refused(TypeError, d.get, [])
    d.get(1)
    refused(TypeError, d.__setitem__, 1, 1)
    refused(TypeError, d.add, 1, 1)


ONE_KEY = {
    "hit": lambda w: (w.d["k"], w.d.get("k"), "k" in w.d),
    "lazy": lambda w: (w.lazy["k"], w.lazy.get("k"), "k" in w.lazy),
    "fresh": lambda w: w.d.get("k", fresh=True),
    "miss": lambda w: (refused(KeyError, w.d.__getitem__, "gone"), w.d.get("gone"), "gone" in w.d),
    "fresh miss": lambda w: w.d.get("gone", fresh=True),
    "miss of ever new keys": lambda w: (w.d.get(next(new)), next(new) in w.lazy),
    "put": lambda w: w.d.__setitem__("k", [1]),
    "put and delete": lambda w: put_and_delete(w.d),
    "delete what isn't there": lambda w: refused(KeyError, w.d.__delitem__, "gone"),
    "add and pop": lambda w: (add_and_pop(w.d), add_and_pop(w.lazy)),
    "setdefault": lambda w: (w.d.setdefault("n", 1), w.d.setdefault("n", 2), w.d.pop("n")),
    "pop what isn't there": lambda w: refused(KeyError, w.d.pop, "gone"),
    "wait in vain": lambda w: refused(TimeoutError, w.d.wait_for, "gone", 0),
    "dumps fails": lambda w: refused(ZeroDivisionError, w.d.__setitem__, "k", Unpicklable()),
    "damaged": damaged,
    "barred": barred,
    "read only": read_only,
    "no key": no_key,
}


@pytest.fixture
def world(nfsdict, tmp_path, caplog):
    caplog.set_level(logging.CRITICAL, "nfsdict")  # pytest keeps all records
    return World(nfsdict, tmp_path)


@pytest.mark.parametrize("operation", ONE_KEY)
def test_one_key(world, operation):
    assert_no_growth(lambda: ONE_KEY[operation](world), 100)


# --- many keys, and the whole store ----------------------------------------------------------


def update_in_vain(w):
    refused(w.package.BatchError, w.d.update, {**MANY, BARRED: 1})
    refused(ZeroDivisionError, w.d.update, {**MANY, "k": Unpicklable()})


def popitem(w):
    key, value = w.d.popitem()
    w.d[key] = value


def clear(w):
    """A directory in a file's place stays, and no error tells of it."""
    with contextlib.suppress(w.package.BatchError):
        w.d.clear()
    w.d.update({"k": 1, **MANY})


def refresh(w):
    path = w.by_another()
    w.d.refresh()
    path.unlink()
    w.d.refresh()


def iterate(w):
    list(w.d)
    len(w.d)
    list(w.d.items())
    list(w.d.values())
    assert w.d == w.d and w.d != {}


def repair(w):
    """What is damaged is moved aside, what is left over is swept."""
    (w.damaged.parent / f".nfsdict-{0:024}").touch()
    w.d.repair(grace=-1)
    # The same file again: of each that is damaged is remembered that it was logged.
    [aside] = w.damaged.parent.glob("*.damaged-*")
    aside.rename(w.damaged)


def use_new_keys(w):
    """What is noted of them when they are gone is forgotten in the end."""
    for key in itertools.islice(new, 5):
        put_and_delete(w.d, key)
        add_and_pop(w.d, key)
    w.d.refresh()
    w.d.close()


def reopen(w, **options):
    d = w.open(**options)
    len(d)
    d.get("k")
    d.close()


def open_with_a_damaged_index(w):
    for path in w.base.glob("store/_*"):
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    reopen(w)


def open_in_vain(w):
    package = w.package
    refused(ValueError, package.NfsDict, "..", w.base)
    refused(ValueError, package.NfsDict, "s", w.base, workers=0)
    refused(ValueError, package.NfsDict, "s", w.base, "no serializer")
    refused(FileNotFoundError, package.NfsDict, "gone", w.base, read_only=True)
    (w.base / "file").touch()
    refused(NotADirectoryError, package.NfsDict, "file", w.base)


def other_serializers(w):
    for serializer in ("json", "bytes", w.package.signed("json", key=bytes(16))):
        name = f"others {type(serializer).__name__} {str(serializer)[:5]}"
        d = w.package.NfsDict(name, w.base, serializer, durable=False)
        d["k"] = b"value" if serializer == "bytes" else "value"
        refused(TypeError, d.__setitem__, "k", object())
        d.sync()
        [file] = w.base.glob(f"{name}/??/{digest('k')}{d._storage.extension}")
        file.write_bytes(b"nfsb")
        refused(w.package.CorruptValueError, d.get, "k", fresh=True)


WHOLE = {
    "update": lambda w: w.d.update(MANY),
    "update in vain": update_in_vain,
    "popitem": popitem,
    "clear": clear,
    "sync": lambda w: (w.d.sync(), w.lazy.sync()),
    "refresh": refresh,
    "iterate": iterate,
    "close": lambda w: (w.d.__setitem__("k", 1), w.d.close()),
    "verify": lambda w: w.d.verify(),
    "repair": repair,
    "pack": lambda w: (w.d.__setitem__("k", 1), w.d.pack()),
    "open": reopen,
    "open, one worker": lambda w: reopen(w, workers=1),
    "open lazy": lambda w: reopen(w, lazy=True),
    "open read only": lambda w: reopen(w, read_only=True),
    "open with a damaged index": open_with_a_damaged_index,
    "open in vain": open_in_vain,
    "new keys": use_new_keys,
    "copy": lambda w: copy.copy(w.d),
    "pickle": lambda w: pickle.loads(pickle.dumps(w.d)),
    "other serializers": other_serializers,
}


# What Python keeps for next time, such as empty tuples, takes some hundred openings to fill.
REOPENING = ("copy", "pickle", "open lazy", "other serializers")


@pytest.mark.parametrize("operation", WHOLE)
def test_the_whole_store(world, monkeypatch, operation):
    repack = importlib.import_module("nfsdict.repack")
    monkeypatch.setattr(repack.time, "sleep", lambda seconds: None)
    # Each listing of a store may bring its threads: also of one as small as this.
    parallel = importlib.import_module("nfsdict.parallel")
    monkeypatch.setattr(parallel, "_WAITED", -1)
    assert_no_growth(lambda: WHOLE[operation](world), 40 if operation in REOPENING else 10)
