"""The methods of ``NfsDict`` of which one succeeds among all callers: create once, take once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from .core import MISSING
from .errors import CorruptValueError
from .logs import told

if TYPE_CHECKING:
    from .draw import Draw
    from .entries import Entries
    from .one_key import OneKey
    from .storage import Storage
    from .taking import Taker, Taking

V = TypeVar("V")
T = TypeVar("T")

_RAISE: Any = object()


class Once(Generic[V]):
    """Base class of ``NfsDict``, which sets the attributes."""

    _draw: Draw
    _entries: Entries
    _one_key: OneKey
    _storage: Storage
    _taker: Taker

    if TYPE_CHECKING:

        @property
        def _cache(self) -> dict[str, Any]: ...
        def get(self, key: str, default: Any = None, *, fresh: bool = False) -> Any: ...
        def _changing(self, key: str) -> str: ...
        def _check_serializer(self) -> None: ...
        def _may_exist(self, key: object) -> bool: ...
        def _writable(self) -> None: ...

    @told("add")
    def add(self, key: str, value: V) -> bool:
        """Create the entry and return True; if it exists, change nothing and return False.

        Of any number of callers on any hosts exactly one gets True, even if a reply of the server
        is lost. Where the file system refuses hard links, the call can overwrite what another
        process assigns meanwhile, and waits for up to 30 s where another ``add`` of the key was
        killed. One that stood still for 15 s there raises UncertainWriteError, as another may have
        won. Raises what an assignment raises.
        """
        key = self._changing(key)
        value = self._entries.freeze(value)
        return self._one_key.add(key, value, self._entries.dumps((key, value)))

    @overload
    def setdefault(self: Once[T | None], key: str, default: None = None) -> T | None: ...
    @overload
    def setdefault(self, key: str, default: V) -> V: ...

    def setdefault(self, key: str, default: Any = None) -> Any:
        """The entry's value. If there is no entry, create it with ``default``, as ``add`` does.

        A value that was read here before is answered from memory, as by ``d[key]``, also if another
        host has removed its entry since: then nothing is created. ``add`` asks.
        """
        # With ``fresh`` unless cached: the client may still open a file that another host has
        # removed, and this call must create the entry then.
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

        If there is no entry: ``default``, or KeyError without one. The value is read and decoded
        before the entry is removed. If that or the removal fails, the entry stays and the error is
        raised, even with a ``default``. An entry that took its place between the two is decoded
        when it is removed already: if that fails it is put back, unless the key has got a newer one
        meanwhile. After any other exception, such as KeyboardInterrupt or one that a signal
        handler raises, the entry is put back under its key before the exception goes on.

        If the process is killed during the call, or the server is lost (UncertainWriteError), the
        entry can be left under a private name; ``repair`` gives it back. If this process stands
        still for so long that another one's ``repair`` gives the entry back, it gets
        UncertainWriteError. Where the file system has neither hard links nor a rename that replaces
        nothing, or on NFS with ``nordirplus`` if the file that another one has replaced lives on by
        a hard link, giving back, here and in ``repair``, can overwrite what another process assigns
        meanwhile.
        """
        if self._may_exist(key):
            key = self._changing(key)
            taking, undo = self._taker.begin(key)
            try:
                value = self._take(taking)
                if value is not MISSING:
                    return value
            except BaseException:
                if taking.begun:
                    # Nothing can raise before the thread is started; see ``Undo``.
                    try:
                        undo.start()
                    except BaseException:
                        pass
                    undo.wait()
                    undo.finish()
                raise
            self._check_serializer()
        if default is _RAISE:
            raise KeyError(key)
        return default

    @told("pop")
    def _take(self, taking: Taking) -> Any:
        return self._taker.take_entry(taking)

    def popitem(self) -> tuple[str, V]:
        """Remove and return some entry; of all callers on all hosts exactly one gets it.

        The key is drawn at random from those known here, so that workers that call at once don't
        all try for the same. Calls draw from one list of keys until it is used up. Before KeyError
        is raised, as there is no entry, the store is scanned for keys that others added, which the
        next ``refresh`` still reports. A damaged entry (logged) is skipped, and stays. Otherwise as
        ``pop``.
        """
        for key in self._draw:
            self._writable()
            taking, undo = self._taker.begin(key)
            try:
                value = self._take(taking)
                if value is not MISSING:
                    return key, value  # if MISSING, another process was faster
            except BaseException as error:
                if taking.begun:  # as in pop
                    try:
                        undo.start()
                    except BaseException:
                        pass
                    undo.wait()
                    undo.finish()
                if not isinstance(error, CorruptValueError):
                    raise
        raise KeyError(f"no entry in {self._storage.directory}")
