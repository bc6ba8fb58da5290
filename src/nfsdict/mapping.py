"""NfsDict: the dictionary. It decides on cache, misses, ordering, and when the index is written."""

from __future__ import annotations

import errno
import os
import time
import weakref
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, overload

from .arguments import (
    base_and_name,
    base_directory,
    checked_cache_bytes,
    checked_mode,
    checked_name,
    checked_seconds,
    checked_workers,
    plain,
)
from .coordination.methods import Coordination
from .core import MISSING, ReadCache, digest
from .dictlike import DictLike
from .errors import BatchError, ReadOnlyError
from .following import Following
from .locks import Locks
from .logs import INFO, Operation, emit, kept_back, log, told
from .once import Once
from .progress import Progress, ProgressBar
from .serializers import AnySerializer, serializer_named
from .upkeep.methods import Upkeep
from .watching import Watching

if TYPE_CHECKING:
    from pathlib import Path

    from _typeshed import SupportsKeysAndGetItem
    from typing_extensions import Self, TypeVar, Unpack

    from .options import Options

    # Without an annotation, values have type Any.
    V = TypeVar("V", default=Any)
else:
    from typing import TypeVar

    V = TypeVar("V")

T = TypeVar("T")


class NfsDict(ReadCache[V], Coordination[V], Following[V], Upkeep, Once[V], DictLike[V]):
    """A persistent dictionary that any number of processes on any number of hosts share.

    Each entry is a file of its own in ``base_dir/name``. Values that were read or written here are
    cached: reading one again makes no system call, and doesn't see what others wrote since (see
    ``refresh`` and ``sync``). A key that isn't cached is looked up on disk, whatever the NFS client
    remembers: it is found if any host had finished writing it. ``len`` and iteration go over the
    keys known here: those found at opening (when lazy: at the first such call), by the last
    ``sync`` or ``refresh``, and by lookups since.

    Args:
        name: the store's directory, as a relative path below ``base_dir``.
        base_dir: the directory that holds stores. A ``~`` at its beginning is a home directory.
            None is what the environment variable ``NFSDICT_BASE_DIR`` says, or without that
            ``platformdirs.user_data_dir("nfsdict")``.
        serializer: ``"pickle"``, ``"json"``, ``"bytes"``, ``"buffers"`` for arrays (see
            ``nfsdict.buffers``), or an object with ``extension``, ``dumps((key, value))`` and
            ``loads(data)``. Unpickling runs code: open pickles only where you trust everybody who
            can write (see ``UntrustedPickleWarning``), or ``signed``.
        lazy: open without listing; keys are listed when first needed, values read when accessed.
        create: make the store if it isn't there. Without it a mistyped name is a FileNotFoundError,
            which names stores that are there. So is a directory that has files and none of a store.
        progress_bar: show how far long calls have come: loading, ``sync``, ``update``, ``clear``,
            ``pack``, ``verify``, ``repair`` and others over the whole store. True shows tqdm's bar
            (the extra ``nfsdict[progress]``) on standard error. A class is used as tqdm's, such as
            ``tqdm.rich.tqdm``. A function is called with a ``ProgressUpdate``, at the beginning and
            after each step (a directory, or some files of it, or some keys), in the thread that
            made the call, under no lock; for a bar of rich it is ``lambda now: bar.update(task,
            completed=now.done, total=now.total)``. What it raises ends the call: an ``update`` has
            written part of its keys then, each whole. Pickles and copies have no function or class.
        read_only: write nothing, not even the index; the store must exist.
        durable: whether a change is on stable storage when the call returns (fsync of the file and
            its directory). Without it a power cut can undo acknowledged changes, or leave empty
            files, which are reported as damaged.
        mode: permission bits for files, such as 0o660, whatever the umask; directories get the
            same, and x where r is. None leaves all to the umask.
        workers: at most this many threads work on many keys together; 1 starts none.
        cache_bytes: at most this many bytes of values are kept in memory, counted by the sizes of
            their files; 0 keeps none, None all. The value loaded first goes first; its key stays
            known. Opening and ``sync`` load values up to this limit.
        refresh_every: a daemon thread does what ``refresh`` does every so many seconds, so that no
            cached read is older than that plus the time of a refresh (the first one lists the keys
            of a lazy dictionary). A refresh that fails is logged, once while others follow that
            fail too, and the next one comes as usual: until one succeeds, values grow older. When
            lazy, and so in a copy or a pickled dictionary, the thread begins with the first use
            that asks the disk; if the system has none then, that is logged, and the next one tries
            again. The thread ends at ``close``, at the interpreter's exit and when the dictionary
            is collected. A forked child has none: make a copy there, which gets one of its own. The
            next ``refresh`` still returns the keys that were found changed; their names are kept
            until then. None starts no thread.
        trust_stamps: the clocks of all hosts that write are kept, so the times that they set may be
            believed, as on NFS. It matters on file systems whose clients stamp files by their own
            clocks (CephFS, GlusterFS, Lustre, GPFS), and on unknown ones. There every opening and
            ``refresh`` else lists every directory; with it, only those that have changed. If a
            clock is behind nevertheless, what its host has changed can be missed.

    Keys are any ``str``. Lookups return the cached object itself: after changing one in place,
    assign it again, or the change isn't saved.

    Threads may share one instance. For each key the order of changes in the cache is that on disk.
    A copy in a forked child works on, but doesn't write the index. A pickled or copied dictionary
    opens the same store anew, lazily. It calls its class with this class's arguments, so a subclass
    that takes others defines ``__reduce__``.

    Raises:
        ValueError: a ``name`` that is empty, absolute, leaves ``base_dir``, has a newline or begins
            with ``~/``; an unknown serializer; a number that is out of its range.
        NotADirectoryError: a file is in the way of the store's directory.
        FileNotFoundError: ``read_only`` or not ``create``, and there is no such store.
        OSError: the system's own error. It is never turned into a KeyError, which means that the
            key has no file.
        CorruptValueError: (a KeyError) the file of the key asked for is damaged.
        WrongSerializerError: the store holds only entries of other serializers. Raised by the
            opening, or when lazy by the first miss or listing. To find out, a store without any
            entry of this serializer is listed whole, once. A write to a lazy one asks nothing: so
            the first entry of a second serializer is put beside the others on purpose.
        TypeError: a key that isn't a ``str``, when writing; when reading or removing, such a key
            counts as missing. ``mode``, ``workers`` or ``cache_bytes`` that isn't an int.
    """

    _warns_of_mount = True

    def __init__(
        self,
        name: str | os.PathLike[str] = "default",
        base_dir: str | os.PathLike[str] | None = None,
        serializer: AnySerializer = "pickle",
        lazy: bool = False,
        *,
        create: bool = True,
        progress_bar: ProgressBar = False,
        read_only: bool = False,
        durable: bool = True,
        mode: int | None = None,
        workers: int = 16,
        cache_bytes: int | None = None,
        refresh_every: float | None = None,
        trust_stamps: bool = False,
    ) -> None:
        begun = time.monotonic()
        from . import parts  # most of the package; who opens nothing needs none of it

        workers = checked_workers(workers)
        cache_bytes = checked_cache_bytes(cache_bytes)
        if refresh_every is not None:
            checked_seconds("refresh_every", refresh_every)
        mode = checked_mode(mode)
        name = checked_name(name)
        base = base_directory(base_dir)
        directory = os.path.join(base, name)
        format = serializer_named(serializer)
        self._arguments = (name, base, serializer, lazy)
        self._options = {
            "create": create,
            # Who shows it in this process can't in another one, and may not be pickled.
            "progress_bar": progress_bar is True,
            "read_only": read_only,
            "durable": durable,
            "mode": mode,
            "workers": workers,
            "cache_bytes": cache_bytes,
            "refresh_every": refresh_every,
            "trust_stamps": trust_stamps,
        }
        self._read_only, self._workers = read_only, workers
        aligned = getattr(format, "aligned", False)
        self._storage = parts.Storage(
            directory, format.extension, mode, durable, aligned, trust_stamps
        )
        self._values = self._storage.values
        self._locks = Locks()
        self._entries = parts.Entries(self._values, format)
        self._kinds = parts.Kinds(self._storage, workers)
        self._state = parts.StoreState(
            parts.Index(),
            self._cache,
            self._locks,
            lazy,
            cache_bytes,
            self._entries.fingerprint,
            self._storage.counters,
        )
        self._writer = parts.IndexWriter(
            self._state.index, self._storage.index, self._locks, writes=not read_only
        )
        self._loads = parts.Loads(directory, self._locks)
        self._progress = Progress(name, progress_bar)
        self._scanner = parts.Scanner(
            self._state,
            self._writer,
            self._storage,
            self._entries,
            self._kinds,
            self._progress,
            self._loads,
            may_probe_clock=not read_only,
            workers=workers,
        )
        self._interrupting = parts.Interrupting(self._state, self._storage, self._entries)
        self._ahead = parts.ReadAhead(self._state, self._storage, self._entries)
        self._one_key = parts.OneKey(
            self._state,
            self._writer,
            self._storage,
            self._entries,
            self._interrupting,
            self._ahead,
        )
        self._taker = parts.Taker(self._state, self._writer, self._storage, self._entries)
        self._draw = parts.Draw(self._scanner, self._cache)
        self._bulk = parts.Bulk(
            self._state,
            self._writer,
            self._storage,
            self._entries,
            self._loads,
            self._progress,
            workers,
        )
        self._watching = Watching(self._scanner, self._state)
        with Operation(self._storage, "open"):
            if read_only or not create:
                try:
                    self._storage.check(any_directory=create)
                except FileNotFoundError:
                    raise parts.no_such_store(base, name) from None
            missing = [] if read_only else self._storage.missing()
            if self._warns_of_mount:
                parts.warn_of_mount(self._storage)
            if not read_only:
                self._storage.create(missing)
                weakref.finalize(self, self._writer.flush)
            parts.warn_of_writers(self._storage, format, mode)
            if lazy:
                self._storage.shards.prefetch()
            else:
                self._scanner.scan(telling=False)
        if refresh_every is not None:
            self._watching.refresh_every(self, refresh_every, None if lazy else begun)

    @classmethod
    def open(cls, path: str | os.PathLike[str], **options: Unpack[Options]) -> Self:
        """The store whose directory has this path: ``NfsDict.open("/shared/project/results")``.

        A ``~`` at its beginning is a home directory; a relative path is one below the current
        directory. The options, and what is raised, are those of ``NfsDict``. A subclass whose
        ``__init__`` doesn't take ``name`` and ``base_dir`` first has an ``open`` of its own.
        """
        base, name = base_and_name(path)
        return cls(name, base, **options)

    # --- one key -------------------------------------------------------------------------------

    # A value that a call replaces in the cache is bound to a name until all locks are released:
    # dropping the last reference may run its ``__del__``, which could wait for those locks.

    @told("get", "fresh")
    def _lookup(self, key: str, fresh: bool, /) -> Any:
        if not isinstance(key, str):
            hash(key)  # as a dict does: TypeError
            return MISSING
        value = self._one_key.find(plain(key), fresh)
        if value is MISSING:
            self._check_serializer()
        return value

    @told("in")
    def _exists(self, key: str, /) -> bool:
        found = self._one_key.exists(plain(key))
        if not found:
            self._check_serializer()
        return found

    def __setitem__(self, key: str, value: V) -> None:
        # What ``told`` does, written out for speed.
        if log.isEnabledFor(INFO):
            with Operation(self._storage, "put", f"{key!r:.200}"):
                self._put(key, value)
            return
        self._put(key, value)
        if kept_back:
            emit()

    def _put(self, key: str, value: V) -> None:
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
                # At first without a call, as after RecursionError there may be no stack for one.
                if not isinstance(error, OSError) and key in self._cache:
                    replaced = replaced, self._cache[key]
                    self._cache[key] = MISSING
                replaced = replaced, self._state.invalidate_if_uncertain(hexdigest, key, error)
                raise
        del replaced

    @told("del")
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
        """As ``dict.update``, writing many files at a time; each key is replaced atomically.

        All are durable on return. If a key is given twice, its last value counts. Values are
        serialized and written in batches of 64 MiB. If the serializer refuses a value, its error is
        raised, naming the key, and nothing of that batch is written; earlier batches are. (Before
        Python 3.11 an error with other arguments than its text doesn't name the key.) If some
        keys can't be written, all others are, and BatchError names those that failed.

        After a load, call ``pack``: the next opening then reads one file. From 2,000 keys
        on, an update puts the bytes of values of 32 KiB at most aside in a temporary file of the
        store until then, as what it has just written proves nothing for 3 s; so ``pack``, and
        ``close`` where it pays, list the directories that were written and read no value again.
        """
        pairs = dict(other)
        pairs.update(kwargs)
        if self._locks.interrupted:
            for key, value in pairs.items():
                self[key] = value
            return
        changed = ((self._changing(key), value) for key, value in pairs.items())
        failed = self._bulk.put_all(changed, len(pairs))
        if failed:
            raise BatchError(failed)

    @told("clear")
    def clear(self) -> None:
        """Remove every entry that is in the store now, whoever wrote it.

        Damaged value files are removed too. Temporary files, entries of other serializers and files
        that aren't nfsdict's stay. If some files can't be removed, all others are, and BatchError
        names those that failed.
        """
        self._writable()
        if self._locks.interrupted:
            self._interrupting.clear()
            return
        self._check_serializer()
        failed = self._bulk.remove_all()
        if failed:
            raise BatchError(failed)

    def _may_exist(self, key: object) -> bool:
        """Whether this key can have an entry to remove: only a ``str`` can.

        TypeError, as from a dict, if the key has no hash."""
        if isinstance(key, str):
            return True
        self._writable()
        hash(key)
        return False

    def _changing(self, key: str) -> str:
        """The key as it goes to disk. ReadOnlyError if this dictionary is read-only."""
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

    def _check_serializer(self) -> None:
        """WrongSerializerError if the store has only entries of other serializers.

        Asks the disk at most once, and not at all if an entry of this serializer is known.
        """
        if not self._kinds.checked:
            self._kinds.check_serializer(any_known=bool(self._cache or len(self._state.index)))

    @told("close")
    def close(self) -> None:
        """Write the index, if that pays; end watches, and the thread of ``refresh_every``.

        After an ``update`` of 2,000 keys or more it lists the directories that were written, and
        packs the values, as ``pack`` does: if 3 s have passed since, or if the load took 30 s or
        more, when it waits for the rest of the 3 s. A lazy dictionary that has listed nothing yet
        leaves that to ``pack``.

        Never raises OSError. Waits for a refresh of those that is under way, but 10 s at most. The
        dictionary stays usable: it can be watched anew, but isn't refreshed by itself any
        more. Without a close no entry is lost, but the next opening may take longer.
        """
        self._watching.end()
        if not self._read_only:
            self._loads.pack(self._scanner.scan, self._state)
            self._writer.flush()

    # --- the dictionary itself -----------------------------------------------------------------

    @property
    def path(self) -> Path:
        """The store's directory."""
        from pathlib import Path

        return Path(self._storage.directory)

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
    """Open the store of a pickled or copied dictionary, lazily: the dictionary may be an argument
    of each of many tasks, or part of a value in its own store."""
    name, base, serializer, _ = arguments
    return kind(name, base, serializer, True, **options)
