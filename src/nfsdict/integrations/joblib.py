"""joblib: the results of ``joblib.Memory`` in a dictionary.

Importing this module registers the backend ``"nfsdict"``. Each result is an entry, with another one
for what joblib tells of its call, and one for the code of each function. A result appears whole or
not at all, also over NFS, where joblib's own store renames files beside directories that others
remove.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from ..buffers import buffers
from ..errors import described
from ..mapping import NfsDict

try:
    from joblib import register_store_backend
    from joblib._store_backends import (
        CacheItemInfo,
        CacheWarning,
        StoreBackendBase,
        StoreBackendMixin,
    )
except ImportError:
    raise ImportError(
        "nfsdict.integrations.joblib needs joblib 1.4 or newer: pip install 'nfsdict[joblib]'"
    ) from None

# The names that joblib's own store gives to files.
_OUTPUT, _METADATA, _CODE = "output.pkl", "metadata.json", "func_code.py"


class NfsDictStoreBackend(StoreBackendMixin, StoreBackendBase):  # type: ignore[misc]
    """What ``joblib.Memory`` keeps its results in::

        import nfsdict.integrations.joblib

        memory = joblib.Memory("/shared/project/cache", backend="nfsdict")

    The store is the directory ``joblib`` in there. Opening it lists nothing, and no result is kept
    in memory: each call reads its own one, as with joblib's store. Arrays are read with one read,
    and are read-only, as with joblib's ``mmap_mode="r"``; on the first call a function's result is
    handed out as it returned it. Other objects are made anew for each caller.

    ``Memory.clear`` and ``MemorizedFunc.clear`` remove what any host has written. ``reduce_size``
    removes the results that were written first: when one was read isn't known.

    ``mapping`` is the dictionary.

    Options of ``Memory``:

    - ``compress``: anything true compresses by zlib.
    - ``mmap_mode``: None, ``"r"`` and ``"c"`` are as described; ``"r+"`` and ``"w+"`` are refused,
      as a result in the store is not changed in place.
    - ``backend_options``: options of ``NfsDict``, such as ``{"durable": False}``. A ``serializer``
      there comes before ``compress``, as ``signed(buffers(), key=…)``; a ``cache_bytes`` keeps
      results in memory, which are then the same object for all who ask.

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
        serializer = buffers("zlib" if self.compress else None)
        defaults = {"serializer": serializer, "lazy": True, "cache_bytes": 0}
        self.mapping = NfsDict(name, base_dir, **{**defaults, **options})

    # --- results ---------------------------------------------------------------------------------

    def contains_item(self, call_id: Sequence[str]) -> bool:
        """Whether there is a result of this call, as far as is known here, or by the server."""
        return _key(call_id, _OUTPUT) in self.mapping

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
            self.mapping.pop(_key(call_id, name), None)

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

    # --- functions -------------------------------------------------------------------------------

    def contains_path(self, call_id: Sequence[str]) -> bool:
        """Whether anything of this function is kept."""
        return next(self._keys(call_id), None) is not None

    def clear_path(self, call_id: Sequence[str]) -> None:
        """Remove all that is kept of this function, whoever wrote it."""
        for key in self._keys(call_id):
            self.mapping.pop(key, None)

    def _keys(self, call_id: Sequence[str]) -> Iterator[str]:
        prefix = _key(call_id, "")
        return (info.key for info in self.mapping.infos(prefix))

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
        sizes: dict[str, int] = {}
        written: dict[str, datetime] = {}
        for info in self.mapping.infos():
            item, _, name = info.key.rpartition("/")
            sizes[item] = sizes.get(item, 0) + info.size
            if name == _OUTPUT:
                written[item] = info.modified.astimezone().replace(tzinfo=None)
        return [
            CacheItemInfo(self._path([item]), sizes[item], moment)
            for item, moment in written.items()
        ]

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
    return "/".join([*call_id, name])


register_store_backend("nfsdict", NfsDictStoreBackend)
