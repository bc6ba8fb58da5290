"""Plots: the report's pictures, in SVG for a page of HTML, drawn by matplotlib.

Their colours are the page's: matplotlib draws in colours that stand for CSS's, and these are put in
their places. Text stays text, in the page's font.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import datetime, timezone
from html import escape
from io import StringIO
from typing import TYPE_CHECKING, Any

from matplotlib import rc_context, rcdefaults, rcParams
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FixedLocator, FuncFormatter, LogLocator, MaxNLocator

from ...doctor.report import duration
from ...layout import SHARDS
from ...wording import binary

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .facts import Facts

_INK, _MUTED, _LINE = "#010101", "#020202", "#030303"
_ACCENT, _SECOND, _ALARM = "#040404", "#050505", "#060606"
_COLOURS = {
    _INK: "currentColor",
    _MUTED: "var(--muted)",
    _LINE: "var(--line)",
    _ACCENT: "var(--accent)",
    _SECOND: "var(--second)",
    _ALARM: "var(--alarm)",
}
# In points, which are a page's pixels at a phone's width.
_WIDTH, _HEIGHT, _ROW, _TEXT = 352, 220, 24, 12
BARS = 40
"""the most bars of the picture over time"""
FAULTS = ("damaged", "unreadable", "contradicted")
PACKS = 8
"""of more packs the largest are drawn"""


def plots(facts: Facts) -> dict[str, str]:
    """The pictures by name, as elements ``svg``; without those for which there is nothing to draw.

    Each says in words what it shows.
    """
    with rc_context():
        rcdefaults()  # not what this user likes elsewhere
        rcParams.update(
            {
                "svg.fonttype": "none",
                "font.sans-serif": ["DejaVu Sans"],  # as wide as any: the page's own takes less
                "font.size": _TEXT,
                "text.color": _INK,
                "axes.edgecolor": _LINE,
                "axes.spines.left": False,
                "axes.spines.right": False,
                "axes.spines.top": False,
                "axes.grid": True,
                "axes.grid.axis": "y",
                "axes.axisbelow": True,
                "grid.color": _LINE,
                "xtick.color": _MUTED,
                "ytick.color": _MUTED,
                "xtick.major.pad": 7,
                "xtick.major.size": 0,
                "xtick.minor.size": 0,
                "ytick.major.size": 0,
                "axes.labelcolor": _MUTED,
            }
        )
        drawn = {}
        if facts.keys_by_size:
            drawn["sizes"] = _sizes(facts)
            drawn["written"] = _written(facts)
            drawn["shards"] = _shards(facts)
        if facts.stats.packs:
            drawn["packs"] = _packs(facts)
        drawn["damage"] = _damage(facts)
        if facts.speed:
            drawn["latency"] = _latency(facts)
        return drawn


def _sizes(facts: Facts) -> str:
    figure = _figure(_HEIGHT)
    first, last = min(facts.keys_by_size), max(facts.keys_by_size)
    digits = range(first, last + 1)
    axes: Sequence[Axes] = figure.subplots(2, sharex=True)
    for one, counts, title in zip(
        axes, (facts.keys_by_size, facts.bytes_by_size), ("keys", "bytes")
    ):
        one.bar(digits, [counts[number] for number in digits], width=0.85, color=_ACCENT)
        one.set_title(title, loc="left", fontsize=_TEXT, color=_MUTED)
    _count_axis(axes[0])
    most = max(facts.bytes_by_size.values())
    unit = 1024 ** (max(most.bit_length() - 1, 0) // 10)
    ticks = MaxNLocator(2, integer=True).tick_values(0, most / unit)
    axes[1].yaxis.set_major_locator(FixedLocator([unit * tick for tick in ticks]))
    axes[1].set_ylim(0, 1.05 * max(most, 1))
    axes[1].yaxis.set_major_formatter(FuncFormatter(lambda size, _: binary(int(size))))
    # A bar of n digits has the sizes from 2**(n - 1): its left edge is that size.
    step = max(1, math.ceil((last - first + 1) / 5))
    edges = range(max(first, 1), last + 2, step)
    axes[1].xaxis.set_major_locator(FixedLocator([edge - 0.5 for edge in edges]))
    axes[1].set_xticklabels([binary(1 << (edge - 1)) for edge in edges])
    return _svg(figure, "sizes", "How many keys have values of which size, and their bytes.")


def _written(facts: Facts) -> str:
    figure = _figure(_HEIGHT)
    axes = figure.subplots()
    bins = facts.written.bins(BARS)
    edges = [date2num(datetime.fromtimestamp(time // 10**9, timezone.utc)) for time, _ in bins]
    widths = [0.85 * (end - start) for start, end in zip(edges, edges[1:])]
    axes.bar(edges[:-1], [count for _, count in bins[:-1]], widths, align="edge", color=_ACCENT)
    locator = AutoDateLocator(minticks=3, maxticks=5)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    _count_axis(axes)
    return _svg(figure, "written", "How many values were written when.")


def _shards(facts: Facts) -> str:
    figure = _figure(_HEIGHT)
    axes = figure.subplots()
    counts = list(facts.keys_by_shard.values())
    axes.margins(y=0.1)
    axes.stairs(counts, range(len(counts) + 1), fill=True, color=_ACCENT)
    axes.set_xlim(0, len(counts))
    axes.set_xticks([0, 64, 128, 192, 255], [SHARDS[at] for at in (0, 64, 128, 192, 255)])
    _count_axis(axes)
    return _svg(figure, "shards", "How many keys are in each of the 256 directories.")


def _packs(facts: Facts) -> str:
    packs = list(facts.stats.packs.values())
    shown = sorted(packs, key=lambda one: one.keys, reverse=True)[:PACKS]
    rows = [("store", facts.stats.packed, facts.stats.keys)]
    rows += [(f"pack {packs.index(one) + 1}", one.values, one.keys) for one in shown]
    figure = _figure(2 * _ROW + _ROW * len(rows))
    axes = figure.subplots()
    names = [name for name, _, _ in rows]
    axes.barh(names, [keys for _, _, keys in rows], height=0.6, color=_SECOND)
    axes.barh(names, [values for _, values, _ in rows], height=0.6, color=_ACCENT)
    _rows(axes)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    return _svg(figure, "packs", "How many keys, and how many of their values, the packs have.")


def _damage(facts: Facts) -> str:
    figure = _figure(_HEIGHT)
    axes = figure.subplots()
    rows = damage(facts)
    counts = [count for _, count in rows]
    colours = [_ALARM if name in FAULTS else _SECOND for name, _ in rows]
    bars = axes.barh([name for name, _ in rows], counts, height=0.6, color=colours)
    axes.bar_label(bars, [f"{count:,}" for count in counts], padding=4)
    _rows(axes)
    axes.set_xlim(0, 1.3 * max(*counts, 1))
    axes.set_xticks([])
    axes.spines.bottom.set_visible(False)
    return _svg(figure, "damage", "How many files are damaged, temporary, or none of nfsdict's.")


def damage(facts: Facts) -> list[tuple[str, int]]:
    """What is wrong or left over, and how many files each; only what was looked for."""
    verified, stats = facts.verified, facts.stats
    rows: list[tuple[str, int]] = []
    if verified is not None:
        counts = (len(verified.damaged), len(verified.unreadable), len(verified.contradicted))
        rows += zip(FAULTS, counts)
    rows += [("put aside", stats.damaged), ("temporary", stats.temporary)]
    return [*rows, ("others", stats.other_files - stats.damaged - stats.temporary)]


def _latency(facts: Facts) -> str:
    figure = _figure(2 * _ROW + 1.2 * _ROW * len(facts.speed))
    axes = figure.subplots()
    names = [one.probe for one in facts.speed]
    for shift, colour, marker, median, high in (
        (0.16, _SECOND, "s", "local_median_s", "local_p95_s"),
        (-0.16, _ACCENT, "o", "median_s", "p95_s"),
    ):
        timed = [one for one in facts.speed if one.figures[median] is not None]
        if not timed:
            continue
        rows = [number + shift for number in range(len(timed))]
        medians = [one.figures[median] for one in timed]
        axes.hlines(rows, medians, [one.figures[high] for one in timed], colour, linewidth=3)
        axes.plot(medians, rows, marker, color=colour, markersize=7)
    axes.set_yticks(range(len(names)), names)
    _rows(axes)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(numticks=6))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: duration(seconds)))
    return _svg(figure, "latency", "How long calls take, here and on a local disk.")


def _figure(height: float) -> Figure:
    return Figure(figsize=(_WIDTH / 72, height / 72), layout="constrained", facecolor="none")


def _rows(axes: Any) -> None:
    """Rows from the top down, with lines for the numbers."""
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x")


def _count_axis(axes: Any) -> None:
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    axes.yaxis.set_major_formatter(EngFormatter(sep=""))


def _svg(figure: Figure, name: str, text: str) -> str:
    """The figure as an element of a page: with ids that no other one has, and the page's colours
    and fonts."""
    for axes in figure.axes:
        axes.set_facecolor("none")
    written = StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(written, format="svg", metadata=nothing)
    _, _, svg = written.getvalue().partition("<svg")
    head, _, body = svg.partition(">")
    [box] = re.findall(r'viewBox="[^"]*"', head)
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", body)
    for colour, of_page in _COLOURS.items():
        body = body.replace(colour, of_page)
    return f'<svg {box} role="img" aria-label="{escape(text)}">{body}'
