"""NfsDict: the dictionary. Policy is here: cache, misses, ordering, when the index is written."""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Iterable, Iterator, MutableMapping, Sequence
from pathlib import Path, PurePath
from types import TracebackType
from typing import Any, TypeVar

from platformdirs import user_data_dir

from .core import MISSING, ReadCache, digest
from .entries import Entries
from .errors import BatchError, CorruptValueError, ReadOnlyError, UncertainWriteError
from .flush import Flush
from .index import UNKNOWN, Index, Known
from .locks import Locks
from .parallel import chunks, in_parallel
from .progress import Progress
from .serializers import Serializer, serializer_named
from .store import SHARDS, Store
from .survey import View, look
from .verify import Repair, Report, repair, verify
from .views import Items, Values

V = TypeVar("V")
Item = tuple[str, str, Any, bytes]
"""To be written: digest, key, value, content."""

log = logging.getLogger("nfsdict")

# An update serializes so many bytes before it writes them: up to here, a value that the serializer
# refuses leaves everything unchanged.
_BATCH_BYTES = 64 << 20


class NfsDict(ReadCache[V], MutableMapping[str, V]):
    """A persistent dictionary that any number of processes on any number of hosts share.

    Each entry is a file of its own in ``base_dir/name``. What was read or written here is cached:
    reading it again makes no system call, and doesn't see what others wrote since (``sync``).
    A key that isn't cached is looked up on disk, past what the NFS client remembers: it is found
    if any host had finished writing it. ``len`` and iteration go over the keys known here: found
    at opening (when lazy: at the first such call), by the last ``sync``, and by lookups since.

    Args:
        name: the store, a relative path below ``base_dir``.
        base_dir: where stores lie; None is ``platformdirs.user_data_dir("nfsdict")``.
        serializer: ``"pickle"``, ``"json"``, ``"bytes"``, or an object with ``extension``,
            ``dumps((key, value))`` and ``loads(data)``. Unpickling runs code: open pickles only
            where you trust everybody who can write.
        lazy: open without listing; keys are listed when first needed, values read when accessed.
        progress_bar: show loading and ``sync`` with tqdm (the extra ``nfsdict[progress]``).
        read_only: write nothing, not even the index; the store must exist.
        durable: whether a change is on stable storage when the call returns (fsync of the file and
            its directory). Without it a power cut can lose what was acknowledged, not tear it.
        mode: permission bits for files, such as 0o660, against the umask; directories get x where
            r is. None leaves all to the umask.
        workers: threads for work on many keys; 1 starts none.

    Keys are any ``str``. Values are handed out as they are cached: changing one in place saves
    nothing, assign it again.

    Threads may share one instance. For each key the order of changes in the cache is that on disk.
    A forked child's copy works on; it doesn't flush the index. Pickling or copying it
    gives one that opens the same store anew.

    Raises:
        ValueError: a ``name`` that is empty, absolute or leaves ``base_dir``; an unknown
            serializer.
        NotADirectoryError: a file is in the way of the store's directory.
        FileNotFoundError: ``read_only``, and there is no such store.
        OSError: what the system said. It is never turned into KeyError: KeyError means that
            the key has no file.
        CorruptValueError: (a KeyError) the file of the key asked for is damaged.
        TypeError: a key that isn't a ``str``.
    """

    def __init__(
        self,
        name: str = "default",
        base_dir: str | os.PathLike[str] | None = None,
        serializer: str | Serializer = "pickle",
        lazy: bool = False,
        *,
        progress_bar: bool = False,
        read_only: bool = False,
        durable: bool = True,
        mode: int | None = None,
        workers: int = 16,
    ) -> None:
        if workers < 1:
            raise ValueError(f"workers must be at least 1, not {workers}")
        if mode is not None and not 0 <= mode <= 0o777:
            raise ValueError(f"mode must be permission bits, 0 to 0o777, not {mode:#o}")
        base = os.path.abspath(user_data_dir("nfsdict") if base_dir is None else base_dir)
        directory = os.path.join(base, _checked_name(name))
        format = serializer_named(serializer)
        self._progress = Progress(name, progress_bar)
        self._arguments = (name, base, serializer, lazy)
        self._options = {
            "progress_bar": progress_bar,
            "read_only": read_only,
            "durable": durable,
            "mode": mode,
            "workers": workers,
        }
        self._lazy, self._read_only, self._workers = lazy, read_only, workers
        self._store = Store(directory, format.extension, mode, durable)
        self._entries = Entries(self._store, format)
        self._locks = Locks()
        self._index = Index()
        # Keys that this process changed or looked up while a survey runs: it knows better then.
        self._touched: set[str] | None = None
        self._flush = Flush(self._index, self._store, self._locks)
        if read_only:
            self._store.check()
        else:
            self._store.create()
            weakref.finalize(self, self._flush)
        if not lazy:
            self._survey()

    # --- one key -------------------------------------------------------------------------------

    def _lookup(self, key: str, fresh: bool, /) -> Any:
        name = digest(key)
        with self._locks.shard(name):
            if not fresh:
                value = self._cache.get(key, MISSING)
                if value is not MISSING:
                    return value  # another thread was faster
            try:
                entry = self._entries.find(key, fresh)
            except CorruptValueError:
                self._drop(name, key)
                raise
            if entry is None:
                self._drop(name, key)
                return MISSING
            with self._locks.known:
                self._cache[entry.key] = entry.value
                self._index.read(name, Known(entry.key, entry.signature, entry.fingerprint))
                self._touch(entry.key)
            return entry.value

    def _exists(self, key: str, /) -> bool:
        name = digest(key)
        with self._locks.shard(name):
            found = self._store.exists(key)
            if found and key not in self._cache:
                self._know(name, _plain(key), MISSING, UNKNOWN, None)
            return found

    def __setitem__(self, key: str, value: V) -> None:
        key = self._changing(key)
        data = self._entries.dump(key, value)
        name = digest(key)
        with self._locks.shard(name):
            if key not in self._cache:
                self._flush.keys_change()
            try:
                signature = self._store.put(name, data)
            except UncertainWriteError:
                self._forget(name, key)
                raise
            self._know(name, key, value, signature, hash(data))

    def __delitem__(self, key: str) -> None:
        key = self._changing(key)
        name = digest(key)
        with self._locks.shard(name):
            known = key in self._cache
            self._flush.keys_change()
            [outcome] = self._store.remove([self._store.path_of(name)])
            if isinstance(outcome, OSError):
                self._forget(name, key)
                raise outcome
            self._drop(name, key)
        # A known key that is gone: somebody else deleted it, or the reply to our own first call
        # was lost. Either way it is deleted now.
        if not outcome and not known:
            raise KeyError(key)

    # --- many keys -----------------------------------------------------------------------------

    def update(self, other: Any = (), /, **kwargs: V) -> None:
        """As ``dict.update``, many files at a time; each key atomic, all durable on return.

        Of a key given twice the last value counts. Values are serialized in batches of 64 MiB;
        one that the serializer refuses raises its error, nothing of its batch is written. If some
        keys can't be written all others are, and BatchError names those.
        """
        pairs = dict(other)
        pairs.update(kwargs)
        failed: dict[str, OSError] = {}
        batch: list[Item] = []
        size = 0
        for key, value in pairs.items():
            key = self._changing(key)
            data = self._entries.dump(key, value)
            batch.append((digest(key), key, value, data))
            size += len(data)
            if size >= _BATCH_BYTES:
                failed.update(self._write_batch(batch))
                batch, size = [], 0
        failed.update(self._write_batch(batch))
        if failed:
            raise BatchError(failed)

    def __ior__(self, other: Any) -> NfsDict[V]:
        self.update(other)
        return self

    def _write_batch(self, batch: list[Item]) -> dict[str, OSError]:
        # In the order of digests, so that a chunk has few directories to make durable.
        batch.sort(key=lambda item: item[0])
        failed: dict[str, OSError] = {}
        for part in in_parallel(self._write_chunk, chunks(batch, self._workers), self._workers):
            failed.update(part)
        return failed

    def _write_chunk(self, items: Sequence[Item]) -> dict[str, OSError]:
        failed: dict[str, OSError] = {}
        with self._locks.shards(item[0] for item in items):
            if not all(item[1] in self._cache for item in items):
                self._flush.keys_change()
            outcomes = self._store.write((name, data) for name, _, _, data in items)
            for (name, key, value, data), outcome in zip(items, outcomes):
                if isinstance(outcome, bytes):
                    self._know(name, key, value, outcome, hash(data))
                    continue
                failed[key] = outcome
                if isinstance(outcome, UncertainWriteError):
                    self._forget(name, key)
        return failed

    def clear(self) -> None:
        """Remove every entry that is in the store now, whoever wrote it.

        Damaged files go as well; temporary files and strangers stay. BatchError names the
        files that could not be removed; all others are.
        """
        self._writable()
        self._flush.keys_change()
        failed: dict[str, OSError] = {}
        for part in in_parallel(self._clear, self._store.shards(), self._workers):
            failed.update(part)
        if failed:
            raise BatchError(failed)

    def _clear(self, shard: str) -> dict[str, OSError]:
        with self._locks.shards([shard]):
            paths = [self._store.path_of(name) for name in self._store.list(shard).signatures]
            outcomes = self._store.remove(paths)
            failed = {
                path: outcome
                for path, outcome in zip(paths, outcomes)
                if isinstance(outcome, OSError)
            }
            with self._locks.known:
                keys = [known.key for known in self._index.shard(shard).entries().values()]
            for key in keys:
                name = digest(key)
                if self._store.path_of(name) in failed:
                    self._forget(name, key)
                else:
                    self._drop(name, key)
        return failed

    # --- what is known here --------------------------------------------------------------------

    def _know(
        self, name: str, key: str, value: Any, signature: bytes, fingerprint: int | None
    ) -> None:
        """The file of this digest is now as given here."""
        with self._locks.known:
            self._cache[key] = value
            self._index.wrote(name, Known(key, signature, fingerprint))
            self._touch(key)

    def _drop(self, name: str, key: str) -> None:
        """The key has no file."""
        with self._locks.known:
            self._cache.pop(key, None)
            self._index.drop(name, key)
            self._touch(key)

    def _forget(self, name: str, key: str) -> None:
        """What the key's file holds isn't known: the next access asks the disk."""
        if key in self._cache:
            self._know(name, key, MISSING, UNKNOWN, None)

    def _touch(self, key: str) -> None:
        if self._touched is not None:
            self._touched.add(key)

    def _changing(self, key: str) -> str:
        """The key as it goes to disk, if this dictionary may change it."""
        self._writable()
        return _plain(key)

    def _writable(self) -> None:
        if self._read_only:
            raise ReadOnlyError(f"{self._store.directory} was opened with read_only=True")

    # --- the whole store -----------------------------------------------------------------------

    def sync(self) -> None:
        """Re-read everything from disk (when lazy: list it, and read values when accessed).

        Afterwards this dictionary has what the store held at the call, or newer.
        OSError if a directory can't be listed; what was known stays.
        """
        self._survey(reread=True)

    def _list_once(self) -> None:
        if not self._index.listed:
            self._survey()

    def _survey(self, reread: bool = False) -> set[str]:
        """Bring cache and index up to date with the store; the keys that others changed."""
        with self._locks.survey:
            if not self._index.listed:
                self._load_index()
            with self._locks.known:
                self._touched = set()
            try:
                return self._look_at_shards(reread)
            finally:
                with self._locks.known:
                    self._touched = None

    def _load_index(self) -> None:
        try:
            data = self._store.read_index()
        except OSError as error:
            log.warning("can't read the index, listing everything: %s", error)
            return
        if data is None:
            return
        with self._locks.known:
            try:
                self._index.load(data)
            except ValueError as error:
                log.info("index ignored: %s", error)

    def _look_at_shards(self, reread: bool) -> set[str]:
        present = set(self._store.shards())
        with self._locks.known:
            stamps = {name: self._index.shard(name).stamp for name in SHARDS}
            kept = {name for name in SHARDS if self._index.shard(name).keys} - present
        believed = [] if reread else [name for name in SHARDS if name in present and stamps[name]]
        seen = zip(believed, in_parallel(self._store.stamp, believed, self._workers))
        clean = {name for name, stamp in seen if stamp == stamps[name]}
        # Asked before anything is listed: what changes from here on bears this time or a later one.
        moment = None if clean == present else self._clock()
        # A clean shard has nothing new; it may have values that nobody has read yet.
        ahead = set() if self._index.listed else clean
        if self._lazy:
            self._list_unread(ahead)
            ahead = set()
        changed: set[str] = set()

        def wanted(key: str, proven: bool) -> bool:
            if reread or self._cache.get(key, MISSING) is MISSING:
                return not self._lazy
            return not proven

        def look_at(name: str) -> View:
            with self._locks.known:
                known = self._index.shard(name).entries()
            stamp = stamps[name] if name in clean else None
            return look(self._store, self._entries, name, stamp, known, wanted)

        todo = sorted(present - clean | ahead | kept)
        views = in_parallel(look_at, todo, self._workers)
        for view in self._progress.over(views, len(todo)):
            with self._locks.known:
                changed |= self._apply(view, moment, reread, view.shard in clean)
        self._index.listed = True
        return changed

    def _clock(self) -> int | None:
        """The server's time; None where nothing may be written, and so nothing can be proven."""
        if self._read_only:
            return None
        try:
            return self._store.clock()
        except OSError as error:
            log.info("can't learn the server's time: %s", error)
            return None

    def _list_unread(self, shards: Iterable[str]) -> None:
        """The keys that the index gives for these clean shards; their values are read later."""
        with self._locks.known:
            looked_up = dict(self._cache)
            for name in sorted(shards):
                self._cache.update(dict.fromkeys(self._index.shard(name).keys, MISSING))
            self._cache.update(looked_up)

    def _apply(self, view: View, moment: int | None, reread: bool, clean: bool) -> set[str]:
        """Take over what a survey found, but for what this process changed meanwhile."""
        touched = self._touched or set()
        for key in view.gone - touched:
            self._cache.pop(key, None)
        for name, known in view.entries.items():
            key = known.key
            if key in touched:
                continue
            if key in view.values:
                self._cache[key] = view.values[key]
            elif reread or key in view.unread:
                self._cache[key] = MISSING
            else:
                self._cache.setdefault(key, MISSING)
            if clean:
                self._index.read(name, known)
        if not clean:
            self._index.replace(view.shard, view.stamp, view.entries, moment, touched)
        return (view.changed | view.gone) - touched

    def verify(self) -> Report:
        """Read and check every file of the store; see ``Report``. Changes nothing.

        OSError if a directory can't be listed.
        """
        return verify(self._store, self._entries, self._workers)

    def repair(self, grace: float = 3600.0) -> Repair:
        """Sweep old temporary files, move damaged value files aside, rebuild the index.

        A temporary file goes when it is older than ``grace`` seconds by the server's clock, so
        that no write under way loses its own. A damaged file keeps its name with ``.damaged-…``
        after it, which no scan takes. Files that could only not be read here stay.
        """
        self._writable()
        self._flush.keys_change()
        done = repair(self._store, self._entries, self._workers, grace)
        self.sync()
        self.close()
        return done

    def close(self) -> None:
        """Write the index. The dictionary stays usable, and nothing is lost without a close: the
        next one to open takes longer. Never raises OSError."""
        if not self._read_only:
            self._flush()

    # --- the rest of a mapping -------------------------------------------------------------------

    def __iter__(self) -> Iterator[str]:
        """Over a snapshot of the keys, so that lookups and other threads may change them."""
        self._list_once()
        return iter(list(self._cache))

    def __len__(self) -> int:
        self._list_once()
        return len(self._cache)

    def values(self) -> Values[V]:
        """Values; a key that turns out to be gone, or damaged (logged), is passed over."""
        return Values(self)

    def items(self) -> Items[V]:
        """Keys with values; as ``values``."""
        return Items(self)

    def popitem(self) -> tuple[str, V]:
        """Remove and return the key known last, with its value. KeyError if there is none."""
        self._list_once()
        for key in reversed(list(self._cache)):
            try:
                return key, self.pop(key)
            except CorruptValueError:
                raise
            except KeyError:
                continue  # somebody else was faster
        raise KeyError(f"no entry in {self._store.directory}")

    @property
    def path(self) -> Path:
        """The store's directory."""
        return Path(self._store.directory)

    def __repr__(self) -> str:
        keys = f"{len(self._cache)} keys" if self._index.listed else "not listed yet"
        return f"NfsDict({self._store.directory!r}, {keys})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (type(self), self._arguments, self._options)

    def __enter__(self) -> NfsDict[V]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _reopen(kind: type[NfsDict[V]], arguments: Any, options: Any) -> NfsDict[V]:
    return kind(*arguments, **options)


def _checked_name(name: str) -> str:
    path = PurePath(name)
    if not path.parts or path.is_absolute() or path.drive or ".." in path.parts or "\0" in name:
        raise ValueError(f"name must be a relative path without '..' or NUL, not {name!r}")
    return name


def _plain(key: str) -> str:
    """The key as an exact ``str``: a subclass would take its module into the file."""
    if type(key) is str:
        return key
    if not isinstance(key, str):
        raise TypeError(f"keys are str, not {type(key).__name__}")
    return str.__str__(key)
