"""JSON lines: the entries of a store as text, ``{"key": …, "value": …}`` in a line for each.

For programs that read and write such lines, as ``jq`` does. Nothing shows that lines are missing at
the end of a text that was cut short between two of them; an archive does. NaN, the infinities and
lone surrogates are treated as the serializer ``"json"`` treats them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from ..errors import ArchiveError
from ..serializers import Json

_JSON = Json()


def line_of(key: str, value: Any) -> bytes:
    """The line for this entry."""
    return _JSON.dumps({"key": key, "value": value}) + b"\n"


def entries_in(lines: Iterable[bytes]) -> Iterator[tuple[str, Any]]:
    """The entries in these lines, empty ones aside. ArchiveError names the first other line."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found = _JSON.loads(line)
        except (ValueError, RecursionError) as error:
            raise ArchiveError(f"line {number}: {error}") from error
        if not isinstance(found, dict) or set(found) != {"key", "value"}:
            raise ArchiveError(f'line {number} is no object of "key" and "value"')
        if not isinstance(found["key"], str):
            raise ArchiveError(f"line {number}: its key is no text")
        yield found["key"], found["value"]
