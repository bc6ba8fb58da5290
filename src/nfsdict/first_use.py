"""First use: parts of a dictionary that are made, and whose modules are imported, when needed."""

from __future__ import annotations

from typing import Any, Callable, Generic, TypeVar

T = TypeVar("T")


class at_first_use(Generic[T]):  # a decorator, as ``property`` is
    """A decorator of a method that makes a part of an object: an attribute, made when first asked
    for.

    As ``functools.cached_property``, but of threads that ask at once all get the same part, and
    none waits for another one: there is no lock, which a signal handler could wait for in vain.
    """

    def __init__(self, make: Callable[[Any], T]) -> None:
        self._make = make
        self._name = make.__name__
        self.__doc__ = make.__doc__

    def __get__(self, owner: object, kind: type) -> T:
        # In one step. Later this isn't called any more, as the attribute is found before.
        part: T = vars(owner).setdefault(self._name, self._make(owner))
        return part
