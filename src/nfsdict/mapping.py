"""NfsDict: the dictionary. Policy is here: cache, misses, ordering, when the index is written."""

from __future__ import annotations

import errno
import os
import random
import re
import time
import weakref
from collections.abc import Iterable, Iterator, MutableMapping
from pathlib import Path, PurePath
from types import TracebackType
from typing import TYPE_CHECKING, Any, overload

from platformdirs import user_data_dir

from .bulk import Bulk
from .content import fingerprint, size_of
from .core import MISSING, ReadCache, digest
from .entries import Entries
from .errors import BatchError, CorruptValueError, ReadOnlyError
from .index.flush import Flush
from .index.memory import UNREAD, Index
from .index.writer import IndexWriter, Packing
from .interrupting import Interrupting
from .kinds import Kinds
from .locks import Locks
from .progress import Progress
from .scanner import Scanner
from .serializers import AnySerializer, serializer_named
from .state import StoreState
from .storage.nfs import failure
from .storage.store import Store
from .taking import Taking
from .trust import warn_of_writers
from .verify import Repair, Report, repair, verify
from .views import Items, Values

if TYPE_CHECKING:
    from _typeshed import SupportsKeysAndGetItem
    from typing_extensions import Self, TypeVar

    # Without an annotation it is a dictionary of any values.
    V = TypeVar("V", default=Any)
else:
    from typing import TypeVar

    V = TypeVar("V")

T = TypeVar("T")

_RAISE: Any = object()
# Not seeded: what was forked, or has seeded alike, is to draw differently.
_DRAW = random.SystemRandom()
# So many keys that others have taken popitem draws before it looks at the whole store: that costs
# about as much, over NFS, as looking for so many.
_PATIENCE = 32


class NfsDict(ReadCache[V], MutableMapping[str, V]):
    """A persistent dictionary that any number of processes on any number of hosts share.

    Each entry is a file of its own in ``base_dir/name``. What was read or written here is cached:
    reading it again makes no system call, and doesn't see what others wrote since (``sync``).
    A key that isn't cached is looked up on disk, past what the NFS client remembers: it is found
    if any host had finished writing it. ``len`` and iteration go over the keys known here: found
    at opening (when lazy: at the first such call), by the last ``sync`` or ``refresh``, and by
    lookups since.

    Args:
        name: the store, a relative path below ``base_dir``.
        base_dir: where stores lie; None is ``platformdirs.user_data_dir("nfsdict")``. A ``~`` at
            its beginning is a home directory.
        serializer: ``"pickle"``, ``"json"``, ``"bytes"``, or an object with ``extension``,
            ``dumps((key, value))`` and ``loads(data)``. Unpickling runs code: open pickles only
            where you trust everybody who can write (see ``UntrustedPickleWarning``), or ``signed``.
        lazy: open without listing; keys are listed when first needed, values read when accessed.
        progress_bar: show loading and ``sync`` with tqdm (the extra ``nfsdict[progress]``).
        read_only: write nothing, not even the index; the store must exist.
        durable: whether a change is on stable storage when the call returns (fsync of the file and
            its directory). Without it a power cut can lose what was acknowledged, or leave empty
            files, which are found as damage.
        mode: permission bits for files, such as 0o660, against the umask; directories get x where
            r is. None leaves all to the umask.
        workers: threads for work on many keys; 1 starts none.
        cache_bytes: so many bytes of values, as their files have them, are kept in memory at most;
            0 keeps none, None all. The oldest loaded goes first, its key stays listed. Opening and
            ``sync`` load up to it.

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
        WrongSerializerError: the store holds only entries of other serializers. Raised by the
            opening, or when lazy by the first miss or listing.
        TypeError: writing under a key that isn't a ``str``; reading or removing one is as of a key
            that isn't there. A ``mode`` that is no int.
    """

    def __init__(
        self,
        name: str | os.PathLike[str] = "default",
        base_dir: str | os.PathLike[str] | None = None,
        serializer: AnySerializer = "pickle",
        lazy: bool = False,
        *,
        progress_bar: bool = False,
        read_only: bool = False,
        durable: bool = True,
        mode: int | None = None,
        workers: int = 16,
        cache_bytes: int | None = None,
    ) -> None:
        if workers < 1:
            raise ValueError(f"workers must be at least 1, not {workers}")
        if cache_bytes is not None and cache_bytes < 0:
            raise ValueError(f"cache_bytes must be at least 0, not {cache_bytes}")
        mode = _checked_mode(mode)
        name = _checked_name(name)
        base = base_directory(base_dir)
        directory = os.path.join(base, name)
        format = serializer_named(serializer)
        self._arguments = (name, base, serializer, lazy)
        self._options = {
            "progress_bar": progress_bar,
            "read_only": read_only,
            "durable": durable,
            "mode": mode,
            "workers": workers,
            "cache_bytes": cache_bytes,
        }
        self._read_only, self._workers = read_only, workers
        self._store = Store(directory, format.extension, mode, durable)
        self._locks = Locks()
        self._entries = Entries(self._store, format, self._locks)
        self._kinds = Kinds(self._store)
        index = Index()
        self._notes = IndexWriter(
            index, self._store, self._entries, self._locks, writes=not read_only
        )
        self._known = StoreState(index, self._cache, self._locks, lazy, cache_bytes)
        self._scanner = Scanner(
            self._known,
            self._notes,
            self._cache,
            self._store,
            self._kinds,
            self._entries,
            self._locks,
            Progress(name, progress_bar),
            lazy=lazy,
            may_probe_clock=not read_only,
            workers=workers,
        )
        self._interrupting = Interrupting(self._known, self._store, self._entries)
        self._undrawn: list[str] = []  # keys that popitem has still to try
        self._flush = Flush(self._notes, self._store)
        self._bulk = Bulk(
            self._known, self._flush, self._store, self._entries, self._locks, workers
        )
        if read_only:
            self._store.check()
        else:
            self._store.create()
            weakref.finalize(self, self._flush)
        warn_of_writers(self._store, format, mode)
        if lazy:
            self._store.prefetch()
        else:
            self._scanner.scan(telling=False)

    # --- one key -------------------------------------------------------------------------------

    # What a call replaces in the cache is bound to a name until it returns: letting go of a value
    # may run its ``__del__``, which is to find no lock held.

    def _lookup(self, key: str, fresh: bool, /) -> Any:
        if not isinstance(key, str):
            hash(key)  # as a dict does: TypeError
            return MISSING
        value = self._find(key, fresh)
        if value is MISSING:
            self._check_serializer()
        return value

    def _find(self, key: str, fresh: bool) -> Any:
        name = digest(key)
        if self._locks.interrupted:
            return self._interrupting.lookup(key, fresh)
        guard = self._locks.guard
        with guard:
            read = self._known.begin_read(_plain(key))
        try:
            entry = self._entries.find(key, fresh)
            with guard:
                if entry is not None:
                    value, replaced = self._known.record_read(name, read, entry, fresh)
                else:
                    value, replaced = MISSING, self._known.record_miss(name, read)
        except CorruptValueError:
            with guard:
                replaced = self._known.record_miss(name, read)
            raise
        finally:
            with guard:
                self._known.end_read(read)
        del replaced
        return value

    def _exists(self, key: str, /) -> bool:
        name = digest(key)
        if self._locks.interrupted:
            return self._interrupting.exists(name)
        guard = self._locks.guard
        with guard:
            if self._known.knows(key):
                return True
            read = self._known.begin_read(_plain(key))
        try:
            signature = self._store.look(name)
            if signature is not None:
                with guard:
                    self._known.record_seen(name, read, signature, UNREAD)
        finally:
            with guard:
                self._known.end_read(read)
        if signature is None:
            self._check_serializer()
        return signature is not None

    def __setitem__(self, key: str, value: V) -> None:
        if self._read_only or type(key) is not str:
            key = self._changing(key)
        value = self._entries.freeze(value)
        data = self._entries.dumps((key, value))
        name = digest(key)
        guard = self._locks.guard
        if guard.locked():
            self._interrupting.put(name, key, data)
            return
        if key not in self._cache:
            self._flush.keys_change()
        replaced = None
        with guard, self._locks.shard(name):
            generation = self._known.generation
            try:
                signature = self._store.put(name, data)
                replaced = self._known.record_write(
                    name, key, value, signature, fingerprint(data), size_of(data), generation
                )
            except BaseException as error:
                replaced = replaced, self._known.invalidate_if_uncertain(name, key, error)
                raise
        del replaced

    def add(self, key: str, value: V) -> bool:
        """Create the entry if there is none on any host: True. Else change nothing: False.

        Of any number of callers on any hosts exactly one gets True, a lost reply included
        (where the file system refuses hard links: see ``Store.add``). Errors as of ``d[k] = v``.
        """
        key = self._changing(key)
        value = self._entries.freeze(value)
        data = self._entries.dumps((key, value))
        name = digest(key)
        guard = self._locks.guard
        if guard.locked():
            return self._interrupting.add(name, key, data)
        self._flush.keys_change()
        replaced = None
        with guard, self._locks.shard(name):
            if self._known.knows(key) and self._store.look(name):
                return False  # spares writing a file in vain
            generation = self._known.generation
            try:
                signature = self._store.add(name, data)
                if signature is not None:
                    replaced = self._known.record_write(
                        name, key, value, signature, fingerprint(data), size_of(data), generation
                    )
            except BaseException as error:
                replaced = replaced, self._known.invalidate_if_uncertain(name, key, error)
                raise
        del replaced
        return signature is not None

    @overload
    def setdefault(self: NfsDict[T | None], key: str, default: None = None) -> T | None: ...
    @overload
    def setdefault(self, key: str, default: V) -> V: ...

    def setdefault(self, key: str, default: Any = None) -> Any:
        """The entry's value, which is ``default`` if this call created the entry; see ``add``."""
        # Not as the client remembers it: a file that another host has removed isn't there, and then
        # this call sets the value.
        value = self.get(key, MISSING, fresh=self._cache.get(key, MISSING) is MISSING)
        if value is MISSING:
            default = self._entries.freeze(default)
        while value is MISSING:
            if self.add(key, default):
                return default
            value = self.get(key, MISSING, fresh=True)
        return value

    @overload
    def pop(self, key: str) -> V: ...
    @overload
    def pop(self, key: str, default: V) -> V: ...
    @overload
    def pop(self, key: str, default: T) -> V | T: ...

    def pop(self, key: str, default: Any = _RAISE) -> Any:
        """Remove the entry and return its value: of all callers on all hosts exactly one gets it.

        KeyError without a ``default`` if there is none. The value is read and decoded before the
        entry is taken: one that can't be read, or not be removed, stays, and the error is raised,
        also with a default. After any other exception, KeyboardInterrupt or one of a signal
        handler's, the entry is back under its key before that goes on.

        A process killed within the call, or a server lost (UncertainWriteError), can leave the
        entry under a private name; ``repair`` gives it back. A process that stood still for so long
        that somebody's ``repair`` has given the entry back gets UncertainWriteError.
        """
        if self._may_exist(key):
            key = self._changing(key)
            taking = Taking(self._store, self._entries, key, digest(key))
            try:
                value = self._take(taking, key)
                if value is not MISSING:
                    return value
            except BaseException:
                # Written out: a second signal may come as soon as the first has raised.
                try:
                    self._undo(taking, key)
                except BaseException:
                    try:
                        self._undo(taking, key)
                    except BaseException:
                        self._undo(taking, key)
                raise
            self._check_serializer()
        if default is _RAISE:
            raise KeyError(key)
        return default

    def _take(self, taking: Taking, key: str) -> Any:
        """The value of the entry that was taken, or MISSING; see ``pop``, which is to undo it."""
        name = digest(key)
        if self._locks.interrupted:
            found = taking.find()
            taken = found and self._interrupting.take(taking, name, key)
            return taking.finish().value if taken else MISSING
        guard = self._locks.guard
        replaced = None
        with guard:
            read = self._known.begin_read(key)
        try:
            if not taking.find():
                with guard:
                    replaced = self._known.record_miss(name, read)
                return MISSING
        except BaseException:
            with guard:
                replaced = self._known.invalidate(name, key)
            raise
        finally:
            with guard:
                self._known.end_read(read)
        self._flush.keys_change()
        with guard, self._locks.shard(name):
            try:
                taken = taking.take()
                replaced = self._known.record_delete(name, key)
            except BaseException:
                replaced = replaced, self._known.invalidate(name, key)
                raise
        del replaced
        return taking.finish().value if taken else MISSING

    def _undo(self, taking: Taking | None, key: str) -> None:
        """The entry is back, or may be: the cache doesn't know its value."""
        if taking is not None and taking.undo():
            self._known.record_interrupting(digest(key), key, there=True)

    def __delitem__(self, key: str) -> None:
        if not self._may_exist(key):
            raise KeyError(key)
        key = self._changing(key)
        name = digest(key)
        guard = self._locks.guard
        if guard.locked():
            if not self._interrupting.remove(name, key):
                raise KeyError(key)
            return
        self._flush.keys_change()
        replaced = None
        with guard, self._locks.shard(name):
            known = self._known.knows(key)
            try:
                [outcome] = self._store.remove([self._store.path_of(name)])
                if isinstance(outcome, OSError):
                    raise outcome
                replaced = self._known.record_delete(name, key)
            except BaseException:
                replaced = replaced, self._known.invalidate(name, key)
                raise
        del replaced
        # A known key that is gone: somebody else deleted it, or the reply to our own first call
        # was lost. Either way it is deleted now.
        if not outcome and not known:
            self._check_serializer()
            raise KeyError(key)

    # --- many keys -----------------------------------------------------------------------------

    @overload
    def update(self, other: SupportsKeysAndGetItem[str, V], /, **kwargs: V) -> None: ...
    @overload
    def update(self, other: Iterable[tuple[str, V]], /, **kwargs: V) -> None: ...
    @overload
    def update(self, /, **kwargs: V) -> None: ...

    def update(self, other: Any = (), /, **kwargs: V) -> None:
        """As ``dict.update``, many files at a time; each key atomic, all durable on return.

        Of a key given twice the last value counts. Values are serialized in batches of 64 MiB;
        one that the serializer refuses raises its error, which names the key; nothing of its batch
        is written. If some keys can't be written all others are, and BatchError names those.
        """
        pairs = dict(other)
        pairs.update(kwargs)
        if self._locks.interrupted:
            for key, value in pairs.items():
                self[key] = value
            return
        failed = self._bulk.write((self._changing(key), value) for key, value in pairs.items())
        if failed:
            raise BatchError(failed)

    def __ior__(self, other: SupportsKeysAndGetItem[str, V] | Iterable[tuple[str, V]]) -> Self:
        self.update(other)
        return self

    def clear(self) -> None:
        """Remove every entry that is in the store now, whoever wrote it.

        Damaged files go as well; temporary files and strangers stay. BatchError names the
        files that could not be removed; all others are.
        """
        self._writable()
        if self._locks.interrupted:
            self._interrupting.clear()
            return
        failed = self._bulk.clear()
        if failed:
            raise BatchError(failed)

    def _may_exist(self, key: object) -> bool:
        """Whether this key, whose entry is to be removed, can have one: keys are ``str``.

        TypeError, as of a dict, for what has no hash."""
        if isinstance(key, str):
            return True
        self._writable()
        hash(key)
        return False

    def _changing(self, key: str) -> str:
        """The key as it goes to disk, if this dictionary may change it."""
        if self._read_only:
            self._writable()
        return key if type(key) is str else _plain(key)

    def _writable(self) -> None:
        if self._read_only:
            raise ReadOnlyError(
                errno.EROFS,
                f"{os.strerror(errno.EROFS)}: opened with read_only=True",
                self._store.directory,
            )

    # --- the whole store -----------------------------------------------------------------------

    def sync(self) -> None:
        """Re-read everything from disk (when lazy: list it, and read values when accessed).

        Afterwards this dictionary has what the store held at the call, or newer; ``refresh`` tells
        nothing of that. OSError if a directory can't be listed; what was known stays.
        """
        self._scanner.scan(reread=True, telling=False)

    def refresh(self) -> set[str]:
        """Take over what others changed, and return the keys that they added, replaced or removed.

        Costs a revalidation for each shard, and for each that changed a listing and the files that
        are new. Values that were read before are read again if replaced. A lazy dictionary that
        nothing was listed of lists everything, and returns of the keys it knew those that changed.
        """
        self._scanner.scan()
        if self._locks.interrupted:
            return set()
        with self._locks.guard:
            return self._known.take_changes()

    def wait_for(self, key: str, timeout: float | None = None) -> V:
        """The key's value, once some host has written it.

        Asks the server after pauses of 10 ms at first, growing to 1 s. TimeoutError when it isn't
        there after ``timeout`` seconds; None waits for ever.
        """
        key = _plain(key)  # no other is ever written
        end = None if timeout is None else time.monotonic() + timeout
        pause = 0.01
        while True:
            value: Any = self.get(key, MISSING, fresh=True)
            if value is not MISSING:
                return value  # type: ignore[no-any-return]
            left = pause if end is None else end - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"nobody wrote {key!r} within {timeout} s")
            time.sleep(min(pause, left))
            pause = min(1.5 * pause, 1.0)

    def _check_serializer(self) -> None:
        """WrongSerializerError where nothing of this dictionary's serializer is known, nor found,
        but entries of others. Asks the disk once at most."""
        if not self._kinds.checked:
            self._kinds.check(any_known=bool(self._cache or len(self._known.index)))

    def _list_once(self) -> None:
        if not self._known.index.listed:
            self._scanner.scan()

    def verify(self) -> Report:
        """Read and check every file of the store, and compare with the index; see ``Report``.

        Changes nothing on disk. OSError if a directory can't be listed.
        """
        self._check_serializer()
        report = verify(self._store, self._entries, self._workers)
        shards = {self._store.digest_of(path)[:2] for path in report.contradicted}
        if shards and not self._locks.interrupted:
            with self._locks.guard:
                self._known.distrust(shards)
        return report

    def repair(self, grace: float = 3600.0) -> Repair:
        """Sweep old temporary files, move damaged value files aside, rebuild the index.

        A temporary file goes when it is older than ``grace`` seconds by the server's clock, so
        that no write under way loses its own. A damaged file keeps its name with ``.damaged-…``
        after it, which no scan takes. Files that could only not be read here stay.
        """
        self._writable()
        self._not_interrupting()
        self._check_serializer()
        self._flush.keys_change()
        done = repair(self._store, self._entries, self._workers, grace)
        self._notes.remove()
        self.sync()
        self.close()
        return done

    def pack(self) -> Packing:
        """Write the index now, and all small values into one file, as openers do when it pays.

        The next one to open the whole store reads that file, and not one for each key. Every
        directory is listed, so that a file that was written in place is packed anew. Takes 3 s
        more if something was changed within that time, which proves nothing before. OSError if
        it can't be written; EBUSY if other processes go on writing the index.
        """
        self._writable()
        self._not_interrupting()
        return self._scanner.pack()

    def _not_interrupting(self) -> None:
        if self._locks.interrupted:
            raise failure(errno.EBUSY, self._store.directory)

    def close(self) -> None:
        """Write the index. The dictionary stays usable, and nothing is lost without a close: the
        next one to open takes longer. Never raises OSError."""
        if not self._read_only:
            self._flush()

    # --- the rest of a mapping -------------------------------------------------------------------

    def __iter__(self) -> Iterator[str]:
        """Over a snapshot of the keys, so that lookups and other threads may change them."""
        return iter(self._keys())

    def _keys(self) -> list[str]:
        self._list_once()
        if not self._locks.interrupted:
            with self._locks.guard:
                self._known.materialize_keys()
        return list(self._cache)

    def __len__(self) -> int:
        self._list_once()
        return self._count()

    def _count(self) -> int:
        if self._locks.interrupted:
            return len(self._cache)
        with self._locks.guard:
            return self._known.count()

    def values(self) -> Values[V]:
        """Values; a key that turns out to be gone, or damaged (logged), is passed over."""
        return Values(self)

    def items(self) -> Items[V]:
        """Keys with values; as ``values``."""
        return Items(self)

    def popitem(self) -> tuple[str, V]:
        """Remove and return some entry; of all callers on all hosts exactly one gets it.

        It is drawn at random from the keys known here, so that many workers who call at once don't
        all try for the same. Before it says that there is none (KeyError) it takes over what others
        added, as ``refresh`` does, which tells of them later. A damaged entry (logged) is passed
        over, and stays. Else as ``pop``. The keys are gone through once for many calls.
        """
        taking: Taking | None = None
        key = ""
        try:
            for key in self._drawn():
                key = self._changing(key)
                taking = Taking(self._store, self._entries, key, digest(key))
                try:
                    value = self._take(taking, key)
                except CorruptValueError:
                    self._undo(taking, key)
                    continue
                if value is not MISSING:
                    return key, value  # else somebody else was faster
        except BaseException:
            try:  # as in pop
                self._undo(taking, key)
            except BaseException:
                try:
                    self._undo(taking, key)
                except BaseException:
                    self._undo(taking, key)
            raise
        raise KeyError(f"no entry in {self._store.directory}")

    def _drawn(self) -> Iterator[str]:
        """Known keys in random order: of those that are left of earlier calls, of all that are
        known now, and then of all that are there.

        Each costs a lookup, and what is known may be long gone: after a few that others took, what
        is there is found out.
        """
        self._list_once()
        yield from self._draw(_PATIENCE)
        self._undrawn = self._keys()
        yield from self._draw(_PATIENCE)
        most = _PATIENCE
        while True:
            self._scanner.scan()
            self._undrawn = self._keys()
            drawn = 0
            for key in self._draw(most):
                drawn += 1
                yield key
            if drawn < most:
                return
            most *= 2

    def _draw(self, most: int) -> Iterator[str]:
        """So many of the keys that popitem has still to try, at most."""
        undrawn = self._undrawn
        while undrawn and most > 0:
            at = _DRAW.randrange(len(undrawn))
            try:
                undrawn[at], undrawn[-1] = undrawn[-1], undrawn[at]
                key = undrawn.pop()
            except IndexError:
                continue  # another thread drew the last one
            if key in self._cache:
                most -= 1
                yield key

    @property
    def path(self) -> Path:
        """The store's directory."""
        return Path(self._store.directory)

    def __repr__(self) -> str:
        keys = f"{self._count()} keys" if self._known.index.listed else "not listed yet"
        return f"NfsDict({self._store.directory!r}, {keys})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (type(self), self._arguments, self._options)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _reopen(kind: type[NfsDict[V]], arguments: Any, options: Any) -> NfsDict[V]:
    """What is unpickled or copied opens lazily: it may be an argument of each of many tasks, or
    part of a value of its own store."""
    name, base, serializer, _ = arguments
    return kind(name, base, serializer, True, **options)


def base_directory(base_dir: str | os.PathLike[str] | None) -> str:
    """Where stores lie, absolute, ``~`` expanded."""
    base = os.fspath(user_data_dir("nfsdict") if base_dir is None else base_dir)
    if not isinstance(base, str):
        raise TypeError(f"base_dir is a path in text, not {type(base).__name__}")
    return os.path.abspath(os.path.expanduser(base))


def store_directory(
    name: str | os.PathLike[str], base_dir: str | os.PathLike[str] | None = None
) -> str:
    """The directory of the store that ``NfsDict`` opens for these."""
    return os.path.join(base_directory(base_dir), _checked_name(name))


def _checked_name(name: str | os.PathLike[str]) -> str:
    """The name as the path below ``base_dir`` that it stands for, nothing in it that says nothing:
    ``x//y/./`` is ``x/y``."""
    text = os.fspath(name)
    if not isinstance(text, str):
        raise TypeError(f"name is a path in text, not {type(text).__name__}")
    path = PurePath(text)
    if not path.parts or path.is_absolute() or path.drive or ".." in path.parts or "\0" in text:
        raise ValueError(f"name must be a relative path without '..' or NUL, not {text!r}")
    return str(path)


def _checked_mode(mode: int | None) -> int | None:
    if mode is None:
        return None
    if not isinstance(mode, int) or isinstance(mode, bool):
        meant = f", so perhaps 0o{mode}" if re.fullmatch("[0-7]{3}", str(mode)) else ""
        raise TypeError(f"mode is an int of permission bits such as 0o660, not {mode!r}{meant}")
    if not 0 <= mode <= 0o777:
        raise ValueError(f"mode must be permission bits, 0 to 0o777, not {mode} ({mode:#o})")
    return mode


def _plain(key: str) -> str:
    """The key as an exact ``str``: a subclass would take its module into the file."""
    if type(key) is str:
        return key
    if not isinstance(key, str):
        raise TypeError(f"keys are str, not {type(key).__name__}")
    return str.__str__(key)
