"""Page: the facts and the plots as one page of HTML that needs nothing else."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ... import __version__
from ...doctor.report import duration
from ...wording import binary, printable
from .facts import Facts
from .plots import BARS, FAULTS, damage, plots

_LISTED = 20  # paths in one table; of more it is told how many


def page(facts: Facts) -> bytes:
    """The page, in UTF-8. Whatever a key or a path has in it is text there, and no markup."""
    environment = Environment(
        loader=PackageLoader("nfsdict.upkeep.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        binary=binary, number=_number, duration=duration, moment=_moment, text=printable
    )
    template = environment.get_template("page.html.jinja")
    drawn = {name: Markup(svg) for name, svg in plots(facts).items()}
    html = template.render(
        facts=facts,
        stats=facts.stats,
        plots=drawn,
        bins=facts.written.bins(BARS),
        damage=damage(facts),
        faults=FAULTS,
        listed=_LISTED,
        version=__version__,
    )
    return html.encode("utf-8", "backslashreplace")


def _number(number: int) -> str:
    return f"{number:,}"


def _moment(time: Any) -> str:
    """A time in UTC: a ``datetime``, one in ISO 8601, or ns since 1970."""
    if isinstance(time, str):
        time = datetime.fromisoformat(time)
    if isinstance(time, int):
        time = datetime.fromtimestamp(time // 10**9, timezone.utc)
    return f"{time:%Y-%m-%d %H:%M:%S}"
