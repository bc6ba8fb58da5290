"""The options of ``NfsDict``, for type checkers: those that ``NfsDict.open`` passes on."""

from __future__ import annotations

from typing import TypedDict

from .progress import ProgressBar
from .serializers import AnySerializer


class Options(TypedDict, total=False):
    """As ``NfsDict.__init__`` has them; there they are explained."""

    serializer: AnySerializer
    lazy: bool
    create: bool
    progress_bar: ProgressBar
    read_only: bool
    durable: bool
    mode: int | None
    workers: int
    cache_bytes: int | None
    refresh_every: float | None
    trust_stamps: bool
