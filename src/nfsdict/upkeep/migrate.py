"""Migrate: what other programs have kept, opened as a mapping for ``NfsDict.copy_from``.

Unpickling runs code: migrate only what you trust. Each kind is only read, but for diskcache, whose
package opens its own database for writing.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Callable

from ..errors import NfsDictError, described

Pairs = Iterator[tuple[str, Callable[[], Any]]]
"""Each key, and a function that returns its value."""

# The ends of the names of a folder's files that hold pickles. The first one wins.
_PICKLES = (".pkl", ".pickle")


class Foreign:
    """A ``transfer.Source`` of another kind of store. Gives the value of the key that came last.

    NfsDictError if there is no store of this kind, or it can't be opened; and by ``keys``, if the
    rest of it can't be read.
    """

    def __init__(self, kind: str, path: str) -> None:
        self._pairs = KINDS[kind](Path(path))
        self._load: Callable[[], Any] = lambda: None

    def keys(self) -> Iterator[str]:
        for key, load in self._pairs:
            self._load = load
            yield key

    def __getitem__(self, key: str) -> Any:
        return self._load()


def _shelve(path: Path) -> Pairs:
    """A ``shelve``, of whichever ``dbm``. A key that isn't UTF-8 gets lone surrogates."""
    import dbm  # here, as the names of the kinds are part of each command's parser

    if not dbm.whichdb(str(path)):
        raise NfsDictError(f"{path} is no shelve, or of a dbm that this Python doesn't have")
    try:
        database: Any = dbm.open(str(path), "r")  # noqa: SIM115
    except dbm.error as error:
        raise NfsDictError(f"{path} can't be opened: {error}") from error

    def pairs() -> Pairs:
        with closing(database):
            for key in database.keys():  # noqa: SIM118
                yield key.decode("utf-8", "surrogateescape"), partial(load, key)

    def load(key: bytes) -> Any:
        return pickle.loads(database[key])

    return pairs()


def _sqlitedict(path: Path) -> Pairs:
    """A file of ``SqliteDict``, which needn't be installed. With several tables a key is
    ``table/key``. Values have the encoding that it uses unless told otherwise, which is pickle."""
    import sqlite3

    _check(path.is_file(), path, "file of sqlitedict")

    def pairs() -> Pairs:
        try:
            with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as of:
                named = of.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
                tables = [name for (name,) in named]
                for table in tables:
                    prefix = f"{table}/" if len(tables) > 1 else ""
                    quoted = table.replace('"', '""')
                    for key, value in of.execute(f'SELECT key, value FROM "{quoted}"'):
                        yield f"{prefix}{key}", partial(pickle.loads, value)
        except sqlite3.Error as error:
            raise NfsDictError(f"{path} can't be read: {error}") from error

    return pairs()


def _diskcache(path: Path) -> Pairs:
    """A directory of ``diskcache.Cache``, ``Index`` or ``FanoutCache``, with its ``Disk``.

    A key that isn't text becomes its ``repr``. Expired entries are left out.
    """
    import sqlite3

    shards = len(list(path.glob("[0-9][0-9][0-9]/cache.db")))
    _check(shards > 0 or (path / "cache.db").is_file(), path, "directory of diskcache")
    package = _package("diskcache")

    def load(cache: Any, key: Any, name: str) -> Any:
        if key is not name and name in cache:
            raise NfsDictError(f"the keys {key!r} and {name!r} are one as text")
        return cache[key]

    def pairs() -> Pairs:
        try:
            made = package.FanoutCache(path, shards=shards) if shards else package.Cache(path)
            with closing(made) as cache:
                for key in cache:
                    if key in cache:  # else it has expired
                        name = key if isinstance(key, str) else repr(key)
                        yield name, partial(load, cache, key, name)
        except (sqlite3.Error, package.Timeout) as error:
            raise NfsDictError(f"{path} can't be read: {described(error)}") from error

    return pairs()


def _joblib(path: Path) -> Pairs:
    """The directory of a ``joblib.Memory``: the results of its functions.

    The key is the result's directory as joblib names it, ``module/function/hash``: the dots of the
    module are slashes, and the hash is that of the arguments. ``f.call_and_shelve(…)`` of a cached
    function tells both, as ``func_id`` and ``args_id``.
    """
    directory = path / "joblib" if (path / "joblib").is_dir() else path
    _check(directory.is_dir(), path, "directory of joblib.Memory")
    package = _package("joblib")
    return (
        (file.parent.relative_to(directory).as_posix(), partial(package.load, file))
        for file in directory.rglob("output.pkl")
    )


def _pickles(path: Path) -> Pairs:
    """A folder of pickles, ``*.pkl`` and ``*.pickle``: a file's path in it, without that end, is
    the key, as in ``sub/stem``."""
    _check(path.is_dir(), path, "folder")

    def load(file: Path, key: str) -> Any:
        first = next(one for end in _PICKLES if (one := path / f"{key}{end}").is_file())
        if file != first:
            raise NfsDictError(f"{first} has the same key")
        with file.open("rb") as opened:
            return pickle.load(opened)

    def pairs() -> Pairs:
        for file in path.rglob("*"):
            if file.suffix in _PICKLES and file.is_file():
                key = file.relative_to(path).with_suffix("").as_posix()
                yield key, partial(load, file, key)

    return pairs()


KINDS: dict[str, Callable[[Path], Pairs]] = {
    "shelve": _shelve,
    "diskcache": _diskcache,
    "sqlitedict": _sqlitedict,
    "joblib": _joblib,
    "pickles": _pickles,
}
"""what can be migrated"""


def _check(there: bool, path: Path, kind: str) -> None:
    if not there:
        raise NfsDictError(f"{path} is no {kind}")


def _package(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise NfsDictError(f"this needs {name}: pip install {name}") from None
