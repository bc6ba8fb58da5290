"""Built-in serializers: what those of this package have in common, and how they tell of damage."""

from __future__ import annotations

from typing import Any

from .content import Content, whole


class Damaged(ValueError):
    """These bytes aren't what ``dumps`` made."""


class Foreign(Damaged):
    """These bytes may be whole, but made by a serializer with another key."""


class BuiltinSerializer:
    """Base of the built-in serializers: only ``Damaged`` means that the bytes are damaged."""

    extension: str

    aligned = False
    """whether ``loads`` gets the content of a large file as a view, at an address as the core's
    ``aligned`` gives"""

    def freeze(self, value: Any, /) -> Any:
        """The value to keep in memory for an assigned value; called before that is written.

        TypeError if ``dumps`` can't take the value, as far as that is seen without serializing it.
        """
        return value

    def changes(self, value: Any, /) -> bool:
        """Whether ``dumps`` takes the value, and ``loads`` gives another one for it, such as a list
        for a tuple. Runs no code of the value's."""
        return False

    def parts(self, obj: Any, /) -> Content:
        """The bytes that ``dumps`` gives, but for a large value as parts, to save a copy."""
        raise NotImplementedError

    def dumps(self, obj: Any, /) -> bytes:
        return whole(self.parts(obj))

    def flaw(self, data: bytes, /) -> str | None:
        """The reason why ``dumps`` can't have made these bytes, or None if there is none.

        Runs no code that they name.
        """
        raise NotImplementedError
