"""First use: parts of a dictionary that are made, and whose modules are imported, when needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable

if TYPE_CHECKING:
    at_first_use = property  # for who uses the attribute it is one
else:

    class at_first_use:
        """A decorator of a method that makes a part of an object: an attribute, made when first
        asked for.

        As ``functools.cached_property``, but of threads that ask at once all get the same part, and
        none waits for another one: there is no lock, which a signal handler could wait for in vain.
        """

        def __init__(self, make: Callable[[Any], Any]) -> None:
            self._make = make
            self._name = make.__name__

        def __get__(self, owner: Any, kind: type) -> Any:
            if owner is None:  # asked of the class, as ``inspect.getmembers`` does
                return self
            # In one step. Later this isn't called any more, as the attribute is found before.
            return vars(owner).setdefault(self._name, self._make(owner))
