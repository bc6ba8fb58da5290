"""NfsDict: the dictionary. Policy is here: cache, misses, ordering, when the index is written."""

from __future__ import annotations

import errno
import os
import time
import weakref
from collections.abc import Iterable, Iterator, MutableMapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, overload

from .arguments import (
    base_directory,
    checked_cache_bytes,
    checked_mode,
    checked_name,
    checked_workers,
    plain,
)
from .bulk import Bulk
from .core import MISSING, ReadCache, digest
from .draw import Draw
from .entries import Entries
from .errors import BatchError, CorruptValueError, ReadOnlyError, failure
from .index.memory import Index
from .index.writer import IndexWriter
from .interrupting import Interrupting
from .kinds import Kinds
from .layout import digest_of
from .locks import Locks
from .one_key import OneKey
from .progress import Progress
from .repack import PackReport, Repack
from .scan import Scanner
from .serializers import AnySerializer, serializer_named
from .state import StoreState
from .storage import Storage
from .taking import Taker
from .trust import warn_of_writers
from .upkeep.repair import RepairReport, repair
from .upkeep.verify import VerifyReport, verify
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
        workers = checked_workers(workers)
        cache_bytes = checked_cache_bytes(cache_bytes)
        mode = checked_mode(mode)
        name = checked_name(name)
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
        self._storage = Storage(directory, format.extension, mode, durable)
        self._values = self._storage.values
        self._locks = Locks()
        self._entries = Entries(self._values, format, self._locks)
        self._kinds = Kinds(self._storage)
        self._state = StoreState(Index(), self._cache, self._locks, lazy, cache_bytes)
        self._writer = IndexWriter(
            self._state.index, self._storage.index, self._locks, writes=not read_only
        )
        self._scanner = Scanner(
            self._state,
            self._writer,
            self._storage,
            self._entries,
            self._kinds,
            Progress(name, progress_bar),
            may_probe_clock=not read_only,
            workers=workers,
        )
        self._interrupting = Interrupting(self._state, self._storage, self._entries)
        self._one_key = OneKey(
            self._state, self._writer, self._storage, self._entries, self._interrupting
        )
        self._taker = Taker(self._state, self._writer, self._storage, self._entries)
        self._draw = Draw(self._scanner, self._cache)
        self._bulk = Bulk(self._state, self._writer, self._storage, self._entries, workers)
        if read_only:
            self._storage.check()
        else:
            self._storage.create()
            weakref.finalize(self, self._writer.flush)
        warn_of_writers(self._storage, format, mode)
        if lazy:
            self._storage.shards.prefetch()
        else:
            self._scanner.scan(telling=False)

    # --- one key -------------------------------------------------------------------------------

    # What a call replaces in the cache is bound to a name until it returns: letting go of a value
    # may run its ``__del__``, which is to find no lock held.

    def _lookup(self, key: str, fresh: bool, /) -> Any:
        if not isinstance(key, str):
            hash(key)  # as a dict does: TypeError
            return MISSING
        value = self._one_key.find(plain(key), fresh)
        if value is MISSING:
            self._check_serializer()
        return value

    def _exists(self, key: str, /) -> bool:
        found = self._one_key.exists(plain(key))
        if not found:
            self._check_serializer()
        return found

    def __setitem__(self, key: str, value: V) -> None:
        if self._read_only or type(key) is not str:
            key = self._changing(key)
        value = self._entries.freeze(value)
        data = self._entries.dumps((key, value))
        hexdigest = digest(key)
        guard = self._locks.guard
        if guard.locked():
            self._interrupting.put(hexdigest, key, data)
            return
        if key not in self._cache:
            self._writer.invalidate_legacy_index()
        replaced = None
        with guard, self._locks.shard(hexdigest):
            generation = self._state.generation
            try:
                signature = self._values.put(hexdigest, data)
                replaced = self._state.record_write(
                    hexdigest, key, value, signature, data, generation
                )
            except BaseException as error:
                replaced = replaced, self._state.invalidate_if_uncertain(hexdigest, key, error)
                raise
        del replaced

    def add(self, key: str, value: V) -> bool:
        """Create the entry if there is none on any host: True. Else change nothing: False.

        Of any number of callers on any hosts exactly one gets True, a lost reply included
        (where the file system refuses hard links: see ``Exclusive.add``). Errors as of a put.
        """
        key = self._changing(key)
        value = self._entries.freeze(value)
        return self._one_key.add(key, value, self._entries.dumps((key, value)))

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
            taking = self._taker.begin(key)
            try:
                value = self._taker.take_entry(taking)
                if value is not MISSING:
                    return value
            except BaseException:
                # Written out: a second signal may come as soon as the first has raised.
                try:
                    self._taker.put_back(taking)
                except BaseException:
                    try:
                        self._taker.put_back(taking)
                    except BaseException:
                        self._taker.put_back(taking)
                raise
            self._check_serializer()
        if default is _RAISE:
            raise KeyError(key)
        return default

    def __delitem__(self, key: str) -> None:
        if not self._may_exist(key):
            raise KeyError(key)
        if not self._one_key.remove(self._changing(key)):
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
        failed = self._bulk.put_all((self._changing(key), value) for key, value in pairs.items())
        if failed:
            raise BatchError(failed)

    def __ior__(self, other: SupportsKeysAndGetItem[str, V] | Iterable[tuple[str, V]]) -> Self:
        self.update(other)
        return self

    def clear(self) -> None:
        """Remove every entry that is in the store now, whoever wrote it.

        Damaged files go as well; temporary files and what isn't nfsdict's stay. BatchError names
        the files that could not be removed; all others are.
        """
        self._writable()
        if self._locks.interrupted:
            self._interrupting.clear()
            return
        failed = self._bulk.remove_all()
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
        return key if type(key) is str else plain(key)

    def _writable(self) -> None:
        if self._read_only:
            raise ReadOnlyError(
                errno.EROFS,
                f"{os.strerror(errno.EROFS)}: opened with read_only=True",
                self._storage.directory,
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
            return self._state.take_changes()

    def wait_for(self, key: str, timeout: float | None = None) -> V:
        """The key's value, once some host has written it.

        Asks the server after pauses of 10 ms at first, growing to 1 s. TimeoutError when it isn't
        there after ``timeout`` seconds; None waits for ever.
        """
        key = plain(key)  # no other is ever written
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
            self._kinds.check_serializer(any_known=bool(self._cache or len(self._state.index)))

    def _list_once(self) -> None:
        if not self._state.index.listed:
            self._scanner.scan()

    def verify(self) -> VerifyReport:
        """Read and check every file of the store, and compare with the index; see ``VerifyReport``.

        Changes nothing on disk. OSError if a directory can't be listed.
        """
        self._check_serializer()
        report = verify(self._storage, self._entries, self._workers)
        shards = {digest_of(path)[:2] for path in report.contradicted}
        if shards and not self._locks.interrupted:
            with self._locks.guard:
                self._state.distrust(shards)
        return report

    def repair(self, grace: float = 3600.0) -> RepairReport:
        """Sweep old temporary files, move damaged value files aside, rebuild the index.

        A temporary file goes when it is older than ``grace`` seconds by the server's clock, so
        that no write under way loses its own. A damaged file keeps its name with ``.damaged-…``
        after it, which no scan takes. Files that could only not be read here stay.
        """
        self._writable()
        self._not_interrupting()
        self._check_serializer()
        self._writer.invalidate_legacy_index()
        done = repair(self._storage, self._entries, self._workers, grace)
        self._writer.discard_index()
        self.sync()
        self.close()
        return done

    def pack(self) -> PackReport:
        """Write the index now, and all small values into one file, as openers do when it pays.

        The next one to open the whole store reads that file, and not one for each key. Every
        directory is listed, so that a file that was written in place is packed anew. Takes 3 s
        more if something was changed within that time, which proves nothing before. OSError if
        it can't be written; EBUSY if other processes go on writing the index.
        """
        self._writable()
        self._not_interrupting()
        return Repack(
            self._scanner,
            self._state,
            self._writer,
            self._storage.index,
            self._entries,
            self._workers,
        )()

    def _not_interrupting(self) -> None:
        if self._locks.interrupted:
            raise failure(errno.EBUSY, self._storage.directory)

    def close(self) -> None:
        """Write the index. The dictionary stays usable, and nothing is lost without a close: the
        next one to open takes longer. Never raises OSError."""
        if not self._read_only:
            self._writer.flush()

    # --- the rest of a mapping -------------------------------------------------------------------

    def __iter__(self) -> Iterator[str]:
        """Over a snapshot of the keys, so that lookups and other threads may change them."""
        return iter(self._scanner.known_keys())

    def __len__(self) -> int:
        self._list_once()
        return self._count()

    def _count(self) -> int:
        if self._locks.interrupted:
            return len(self._cache)
        with self._locks.guard:
            return self._state.count()

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
        taking = None
        try:
            for key in self._draw:
                self._writable()
                taking = self._taker.begin(key)
                try:
                    value = self._taker.take_entry(taking)
                except CorruptValueError:
                    self._taker.put_back(taking)
                    continue
                if value is not MISSING:
                    return key, value  # else somebody else was faster
        except BaseException:
            try:  # as in pop
                self._taker.put_back(taking)
            except BaseException:
                try:
                    self._taker.put_back(taking)
                except BaseException:
                    self._taker.put_back(taking)
            raise
        raise KeyError(f"no entry in {self._storage.directory}")

    @property
    def path(self) -> Path:
        """The store's directory."""
        return Path(self._storage.directory)

    def __repr__(self) -> str:
        keys = f"{self._count()} keys" if self._state.index.listed else "not listed yet"
        return f"NfsDict({self._storage.directory!r}, {keys})"

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
