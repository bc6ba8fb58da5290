"""The key of a call: the function's name and version, and a digest of its arguments.

The name is module and qualified name, never the source. The arguments are bound to the signature,
with defaults applied, so that ``f(1)``, ``f(1, 2)`` and ``f(x=1, p=2)`` are one call of
``def f(x, p=2)``. The digest is the SHA-256 of their encoding (see ``encoding``).
"""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Callable, Collection
from typing import Any

from .encoding import encode, module_name
from .items import NoEncodingError

_DIGEST = re.compile("[0-9a-f]{64}")


class Calls:
    """The keys of one function's calls.

    Args:
        function: the function, whose signature counts.
        name: what stands for it in its keys; None is its module and qualified name.
        version: which version of it the results are from, without a ``/``; None is 0.
        key: called with the arguments, defaults applied; what it returns identifies the call. None
            takes all arguments.
        ignore: names of parameters that don't matter.

    Raises:
        TypeError: the function has no name that is the same everywhere, no signature, or is a
            method, and nothing was given in place of it.
        ValueError: a name or version that can't be part of a key, an ``ignore`` that is no
            parameter, or ``ignore`` beside ``key``.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        name: str | None,
        version: str | int | None,
        key: Callable[..., object] | None,
        ignore: Collection[str],
    ) -> None:
        self.name = _own_name(function) if name is None else name
        version = "0" if version is None else str(version)
        if not self.name or not version or "/" in version:
            raise ValueError("name and version have characters, and the version has no '/'")
        self.prefix = f"{self.name}/{version}/"
        self._signature = _signature(function, self.name)
        self._key = key
        self._ignored = frozenset([ignore] if isinstance(ignore, str) else ignore)
        self._check(function)

    def _check(self, function: Callable[..., Any]) -> None:
        parameters = self._signature.parameters
        if self._key is not None and self._ignored:
            raise ValueError("key= says what counts, so ignore= has nothing to leave out")
        unknown = self._ignored - parameters.keys()
        if unknown:
            raise ValueError(f"{self.name} has no parameter {', '.join(sorted(unknown))}")
        first = next(iter(parameters), None)
        if self._key is None and _is_method(function, first) and first not in self._ignored:
            raise TypeError(
                f"{self.name} is a method: with ignore=({first!r},) its results are the same for "
                "every object; or else key= gives what they depend on, as "
                f"key=lambda {first}, x: ({first}.name, x)"
            )

    def key_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """The key of the call with these arguments.

        TypeError if they don't fit the signature, or one of them has no encoding.
        """
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        if self._key is not None:
            counting: object = self._key(*bound.args, **bound.kwargs)
            encoded = self._encode("what key= returned", counting)
        else:
            pairs = [
                encode(name) + self._encode(f"argument {name!r}", value)
                for name, value in bound.arguments.items()
                if name not in self._ignored
            ]
            encoded = b"".join(sorted(pairs))
        return self.prefix + hashlib.sha256(encoded).hexdigest()

    def _encode(self, what: str, value: object) -> bytes:
        try:
            return encode(value)
        except NoEncodingError as error:
            raise TypeError(
                f"{what} of {self.name} can't be part of a key: {error}. Leave an argument that "
                "doesn't matter to ignore=, give what counts by key=, or have "
                "nfsdict.register_key tell what identifies values of this type"
            ) from None
        except RecursionError as error:
            raise TypeError(
                f"{what} of {self.name} can't be part of a key: it holds itself, or is nested too "
                "deeply"
            ) from error

    def owns(self, key: str) -> bool:
        """Whether this is the key of some call of this function, in this version."""
        return key.startswith(self.prefix) and bool(_DIGEST.fullmatch(key, len(self.prefix)))


def _own_name(function: Callable[..., Any]) -> str:
    """Module and qualified name. TypeError if they don't tell this function from others."""
    name: str | None = getattr(function, "__qualname__", None)
    if name is None:
        raise TypeError(f"{function!r:.100} has no name: give name=")
    if "<" in name:  # <lambda>, <locals>
        raise TypeError(f"{name} has a name that others can have too: give name=")
    module = module_name(function.__module__, getattr(function, "__globals__", None))
    if module is None:
        raise TypeError(
            f"{name} was defined at a prompt, in a notebook or in a __main__.py, where others can "
            "have its name: give name="
        )
    return f"{module}.{name}"


def _signature(function: Callable[..., Any], name: str) -> inspect.Signature:
    try:
        return inspect.signature(function)
    except ValueError:
        raise TypeError(f"{name} doesn't tell its signature: wrap it in a function") from None


def _is_method(function: Callable[..., Any], first: str | None) -> bool:
    """Whether the function was defined in a class and takes its object, or the class, first."""
    scope = getattr(function, "__qualname__", "").rpartition(".")[0]
    return first in ("self", "cls") and bool(scope) and not scope.endswith("<locals>")
