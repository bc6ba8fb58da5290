"""joblib: the results of ``joblib.Memory`` in a dictionary.

Importing this module registers the backend ``"nfsdict"``. Each result is an entry, with another one
for what joblib tells of its call, and one for the code of each function. A result appears whole or
not at all, also over NFS, where joblib's own store renames files beside directories that others
remove.
"""

from __future__ import annotations

import errno
import os
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

from ..buffers import Buffers, WritableBuffers
from ..core import digest
from ..errors import CorruptValueError, described
from ..mapping import NfsDict
from ..parallel import in_parallel

try:
    from joblib import register_store_backend
    from joblib._store_backends import (
        CacheItemInfo,
        CacheWarning,
        StoreBackendBase,
        StoreBackendMixin,
    )
    from joblib.disk import memstr_to_bytes
except ImportError:
    raise ImportError(
        "nfsdict.integrations.joblib needs joblib 1.4 or newer: pip install 'nfsdict[joblib]'"
    ) from None

# The names that joblib's own store gives to files. Keys begin with them, then comes the call.
_OUTPUT, _METADATA, _CODE = "output.pkl", "metadata.json", "func_code.py"


class NfsDictStoreBackend(StoreBackendMixin, StoreBackendBase):  # type: ignore[misc]
    """What ``joblib.Memory`` keeps its results in::

        import nfsdict.integrations.joblib

        memory = joblib.Memory("/shared/project/cache", backend="nfsdict")

    The store is the directory ``joblib`` in there. Opening it lists nothing, and no result is kept
    in memory: each call reads its own one, as with joblib's store, and may change it.

    ``Memory.clear`` and ``MemorizedFunc.clear`` remove what any host has written. ``reduce_size``
    removes the results that were written first, by ``NfsDict.prune``: joblib's own store goes by
    when one was read last, which isn't known here. Its ``age_limit`` is about when a result was
    written, by the server's clock, and its ``bytes_limit`` about the results alone: some 250 bytes
    for each call, and the functions' code, aren't counted.

    ``mapping`` is the dictionary.

    Options of ``Memory``:

    - ``compress``: anything true compresses by zlib.
    - ``mmap_mode``: no file is mapped. With ``"r"`` arrays are read-only, which spares a copy of
      their memory; ``"c"`` is as None; ``"r+"`` and ``"w+"`` are refused, as a result in the store
      is not changed in place.
    - ``backend_options``: options of ``NfsDict``, such as ``{"durable": False}``; with one of the
      two above there, joblib raises TypeError, as they are arguments of ``Memory`` itself. A
      ``serializer`` comes before ``compress``, as ``signed(buffers(), key=…)``; a ``cache_bytes``
      keeps results in memory, which are then the same object for all who ask: use
      ``mmap_mode="r"``.

    A result that can't be written is a ``CacheWarning``, and the call succeeds. One that can't be
    read is computed again by joblib, with a warning. Raises what ``NfsDict`` raises, beside that.
    """

    mapping: NfsDict[Any]

    def configure(
        self, location: str, verbose: int = 1, backend_options: dict[str, Any] | None = None
    ) -> None:
        """Open the store. Called by joblib."""
        options = dict(backend_options or {})
        self.compress = options.pop("compress", False)
        self.mmap_mode = options.pop("mmap_mode", None)
        if self.mmap_mode not in (None, "r", "c"):
            raise ValueError(
                f"mmap_mode is None, 'r' or 'c' with this backend, not {self.mmap_mode!r}"
            )
        self.verbose = verbose
        self.location = location
        base_dir, name = os.path.split(os.path.abspath(location))
        kind = Buffers if self.mmap_mode == "r" else WritableBuffers
        serializer = kind("zlib" if self.compress else None)
        defaults = {"serializer": serializer, "lazy": True, "cache_bytes": 0}
        self.mapping = NfsDict(name, base_dir, **{**defaults, **options})

    # --- results ---------------------------------------------------------------------------------

    def contains_item(self, call_id: Sequence[str]) -> bool:
        """Whether there is a result of this call now, by the server's word: ``reduce_size`` and
        ``clear`` of another process are seen."""
        return self._has_result("/".join(call_id))

    def load_item(
        self,
        call_id: Sequence[str],
        verbose: int = 1,
        timestamp: float | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> Any:
        """The result of this call; KeyError if there is none, or a damaged one."""
        if verbose > 1:
            print(f"[Memory]: Loading {'/'.join(call_id)} from {self.location}")
        return self.mapping[_key(call_id, _OUTPUT)]

    def dump_item(self, call_id: Sequence[str], item: Any, verbose: int = 1) -> None:
        """Write the result of this call."""
        if verbose > 10:
            print(f"Persisting {'/'.join(call_id)} in {self.location}")
        self._write(_key(call_id, _OUTPUT), item)

    def clear_item(self, call_id: Sequence[str]) -> None:
        """Remove the result of this call, if there is one."""
        for name in (_OUTPUT, _METADATA):
            self._remove(_key(call_id, name))

    def get_item_info(self, call_id: Sequence[str]) -> dict[str, str]:
        """Where the store is, and what stands there for this call."""
        return {"location": self._path(call_id)}

    def get_metadata(self, call_id: Sequence[str]) -> dict[str, Any]:
        """What joblib has told of this call; empty if there is nothing that can be read."""
        try:
            return self.mapping[_key(call_id, _METADATA)]  # type: ignore[no-any-return]
        except KeyError:
            return {}

    def store_metadata(self, call_id: Sequence[str], metadata: dict[str, Any]) -> None:
        """Write what joblib tells of this call."""
        self._write(_key(call_id, _METADATA), metadata)

    def _write(self, key: str, value: Any) -> None:
        try:
            self.mapping[key] = value
        except Exception as error:
            warnings.warn(f"Unable to cache: {described(error)}", CacheWarning, stacklevel=4)

    def _remove(self, key: str) -> None:
        try:
            del self.mapping[key]
        except KeyError:
            pass

    # --- functions -------------------------------------------------------------------------------

    def contains_path(self, call_id: Sequence[str]) -> bool:
        """Whether anything of this function is kept."""
        return next(self._keys(call_id), None) is not None

    def clear_path(self, call_id: Sequence[str]) -> None:
        """Remove all that is kept of this function, whoever wrote it."""
        for key in self._keys(call_id):
            self._remove(key)

    def _keys(self, call_id: Sequence[str]) -> Iterator[str]:
        function = "/".join([*call_id, ""])
        for info in self.mapping.infos():
            if f"{_call_of(info.key)}/".startswith(function):
                yield info.key

    def store_cached_func_code(self, call_id: Sequence[str], func_code: str | None = None) -> None:
        """Write the code of this function, if there is any."""
        if func_code is not None:
            self.mapping[_key(call_id, _CODE)] = func_code

    def get_cached_func_code(self, call_id: Sequence[str]) -> str:
        """The code that the function had. FileNotFoundError, for which joblib looks, if it isn't
        known."""
        try:
            return self.mapping[_key(call_id, _CODE)]  # type: ignore[no-any-return]
        except KeyError as error:
            raise FileNotFoundError(str(error)) from error

    def get_cached_func_info(self, call_id: Sequence[str]) -> dict[str, str]:
        """Where the store is, and what stands there for this function."""
        return {"location": self._path(call_id)}

    # --- the whole store -------------------------------------------------------------------------

    def clear(self) -> None:
        """Remove everything, whoever wrote it."""
        self.mapping.clear()

    def get_items(self) -> list[CacheItemInfo]:
        """The results, each with its size and when it was written."""
        return [
            CacheItemInfo(
                self._path([_call_of(info.key)]),
                info.size,
                info.modified.astimezone().replace(tzinfo=None),
            )
            for info in self.mapping.infos(f"{_OUTPUT}/")
        ]

    def enforce_store_limits(
        self,
        bytes_limit: int | str | None,
        items_limit: int | None = None,
        age_limit: timedelta | None = None,
    ) -> None:
        """Remove the results that were written first, until the limits are kept.

        Called by ``Memory.reduce_size``. One process does so at a time: meanwhile another one's
        call removes nothing, which is a CacheWarning, as is a result that can't be removed. If some
        of what goes was written in the last 3 s, it waits until that is older: 3.3 s at most. What
        is told of a call goes after its result; what is left of it where this was killed in
        between, the next call removes. ValueError or TypeError for what is no limit; else raises as
        ``NfsDict.prune``.
        """
        if age_limit is not None and age_limit < timedelta(0):
            raise ValueError("age_limit has to be a positive timedelta")
        try:
            report = self.mapping.prune(
                max_bytes=memstr_to_bytes(bytes_limit)
                if isinstance(bytes_limit, str)
                else bytes_limit,
                max_items=items_limit,
                max_age=None if age_limit is None else age_limit.total_seconds(),
                prefix=f"{_OUTPUT}/",
            )
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            warnings.warn(f"Not reduced: {described(error)}", CacheWarning, stacklevel=3)
            return
        for path, why in report.failed.items():
            warnings.warn(f"Unable to remove {path}: {why}", CacheWarning, stacklevel=3)
        self._clear_metadata_without_result()

    def _clear_metadata_without_result(self) -> None:
        calls: defaultdict[str, set[str]] = defaultdict(set)
        for info in self.mapping.infos():
            calls[info.key.partition("/")[0]].add(_call_of(info.key))

        def clear(call: str) -> None:
            key = _key([call], _METADATA)
            try:
                metadata = self.mapping.pop(key, None)
            except CorruptValueError:  # stays for ``repair``
                return
            # Another process may have written result and metadata since those were listed.
            if metadata is not None and self._has_result(call):
                self.mapping.add(key, metadata)

        for _ in in_parallel(clear, calls[_METADATA] - calls[_OUTPUT], self.mapping._workers):
            pass

    def _has_result(self, call: str) -> bool:
        """Whether there is one now, by the server's word. It isn't read."""
        return self.mapping._storage.values.look(digest(_key([call], _OUTPUT))) is not None

    def clear_location(self, location: str) -> None:
        """Remove the result that ``get_items`` has given this path."""
        self.clear_item([os.path.relpath(location, self.location)])

    def _path(self, call_id: Sequence[str]) -> str:
        return os.path.join(self.location, *call_id)

    def create_location(self, location: str) -> None:
        """Nothing: an entry needs no place."""

    # What joblib's mixin would call, had it any method left here that looks at files.

    def _item_exists(self, location: str) -> bool:
        raise NotImplementedError

    def _open_item(self, f: str, mode: str) -> Any:
        raise NotImplementedError

    def _move_item(self, src: str, dst: str) -> None:
        raise NotImplementedError


def _key(call_id: Sequence[str], name: str) -> str:
    return "/".join([name, *call_id])


def _call_of(key: str) -> str:
    return key.partition("/")[2]


register_store_backend("nfsdict", NfsDictStoreBackend)
