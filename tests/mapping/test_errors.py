"""What the errors say: which key, which directory, which errno."""

from __future__ import annotations

import copy
import errno
import importlib
import pickle
import threading

import pytest

CHANGES = {
    "[]=": lambda d: d.__setitem__("key", 1),
    "del": lambda d: d.__delitem__("key"),
    "del 5": lambda d: d.__delitem__(5),
    "pop": lambda d: d.pop("key"),
    "add": lambda d: d.add("key", 1),
    "setdefault": lambda d: d.setdefault("absent", 1),
    "popitem": lambda d: d.popitem(),
    "update": lambda d: d.update(key=1),
    "clear": lambda d: d.clear(),
    "repair": lambda d: d.repair(),
    "pack": lambda d: d.pack(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_read_only_error_is_of_the_directory(nfsdict, opened, change):
    path = opened()
    path["key"] = 0
    with pytest.raises(nfsdict.ReadOnlyError) as caught:
        CHANGES[change](opened(read_only=True))
    error = caught.value
    assert (error.errno, error.filename) == (errno.EROFS, str(path.path))
    assert "read_only=True" in error.strerror and str(path.path) in str(error)
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) and again.errno == errno.EROFS


@pytest.mark.parametrize(
    ("serializer", "value", "kind"),
    [
        ("json", float("nan"), ValueError),
        ("json", {1, 2}, TypeError),
        ("bytes", "text", TypeError),
        ("pickle", threading.Lock(), Exception),  # PyPy says it otherwise
        ("pickle", lambda: 0, Exception),
        ("pickle", type("Local", (), {"__qualname__": "f.<locals>.Local"})(), Exception),
    ],
)
def test_update_names_the_key_whose_value_was_refused(opened, serializer, value, kind):
    d = opened(serializer=serializer)
    good = b"" if serializer == "bytes" else 1
    with pytest.raises(kind) as single:
        d["refused"] = value
    with pytest.raises(kind) as caught:
        d.update({"good": good, "refused": value, "also good": good})
    assert type(caught.value) is type(single.value)
    assert str(single.value) in str(caught.value)
    assert "the value of 'refused'" in str(caught.value)
    assert len(d) == len(opened(serializer=serializer)) == 0


def test_an_error_that_makes_its_own_text_keeps_it(nfsdict, opened):
    class BuiltinSerializer(Exception):
        def __init__(self, number):
            super().__init__(number)

    class Text(Exception):
        def __str__(self):
            return self.args[0].upper()

    class Kept(Exception):
        def __init__(self, text):
            super().__init__(text)
            self.text = text

        def __str__(self):
            return self.text

    class Refuses:
        def __init__(self, error):
            self.error = error

        def __reduce__(self):
            raise self.error

    d = opened()
    for error in (
        BuiltinSerializer(5),
        Text("text"),
        Kept("text"),
        Exception(),
        Exception("two", "arguments"),
        KeyError(1),
    ):
        args = error.args
        with pytest.raises(type(error)) as caught:
            d.update(refused=Refuses(error))
        assert caught.value is error and error.args == args
        if hasattr(error, "add_note"):
            assert error.__notes__ == ["the value of 'refused'"]


LOOKUPS = {
    "[]": lambda d: d["key"],
    "get": lambda d: d.get("key"),
    "fresh": lambda d: d.get("key", fresh=True),
    "pop": lambda d: d.pop("key"),
    "setdefault": lambda d: d.setdefault("key", 1),
    "wait_for": lambda d: d.wait_for("key", timeout=0),
}


@pytest.mark.parametrize("lookup", LOOKUPS)
def test_a_corrupt_value_error_names_the_key(nfsdict, opened, lookup):
    d = opened()
    d["key"] = 1
    [path] = d.path.glob("??/*.pkl")
    path.write_bytes(b"junk")
    for opening in (opened(lazy=True), opened()):
        with pytest.raises(nfsdict.CorruptValueError) as caught:
            LOOKUPS[lookup](opening)
        error = caught.value
        assert (error.key, error.path) == ("key", str(path))
        assert "'key'" in str(error) and str(path) in str(error)
        for again in (copy.copy(error), pickle.loads(pickle.dumps(error))):
            assert (again.key, again.path, str(again)) == (error.key, error.path, str(error))


def test_without_a_key_it_names_the_path(nfsdict):
    error = nfsdict.CorruptValueError("/path", "reason")
    assert error.key is None and not error.foreign
    assert str(error) == "damaged value file: /path: reason"


class Ending(Exception):
    """Its text ends the program, as its class has it."""

    def __str__(self):
        raise self.args[0]

    __repr__ = __str__


class Raises:
    def __init__(self, kind):
        self.kind = kind

    def __reduce__(self):
        return _raise, (self.kind,)


def _raise(kind):
    raise Ending(kind)


@pytest.mark.parametrize("kind", [SystemExit, GeneratorExit, LookupError, Ending])
def test_an_errors_own_text_ends_no_work(opened, kind):
    d = opened()
    d.update({"good": 1, "ends": Raises(kind)})
    assert "(no text" in repr(d.verify())
    assert "good" in opened() and not d.repair().quarantined


def test_an_interrupt_of_a_text_goes_on(nfsdict):
    with pytest.raises(KeyboardInterrupt):
        importlib.import_module("nfsdict.errors").described(Ending(KeyboardInterrupt))
