"""A settled store: others have opened it since it was changed, and its pack is believed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Callable

# How long after a change its time can still come again, as the index sees it (git's "racy").
SETTLED = 3.5


def settle(
    here: Callable[[], AbstractContextManager[Any]],
    there: Callable[[], AbstractContextManager[Any]],
    entries: Mapping[str, Any],
) -> None:
    """Write these entries on one client, pack them on the other, and open them on the first."""
    with there() as d:
        d.update(entries)
    time.sleep(SETTLED)
    with here() as d:
        d.pack()
    with there() as d:
        assert dict(d) == entries
