"""Means with their intervals, and the ranks that each row may have."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..accuracy.table import Row
from ..statistics.ranking import Ranking
from .svg import COLOURS, MARKERS, inline, plain_axes, style

_LONGEST = 34
"""Characters of a name; the table below has all of it."""


def ranges_chart(ranking: Ranking) -> str:
    """The SVG element: a line a row, the first one on top."""
    rows = sorted(ranking.rows.values(), key=lambda row: row.rank or 0)
    scale = ranking.table.scale
    with style():
        drawing = Figure(figsize=(10.0, 0.7 + 0.2 * len(rows)), layout="constrained")
        FigureCanvasSVG(drawing)
        means, ranks = drawing.subplots(1, 2, sharey=True)
        for axes in (means, ranks):
            plain_axes(axes)
            axes.grid(axis="x", color=COLOURS["rule"], linewidth=0.6)
            axes.set_ylim(len(rows) - 0.4, -0.6)
        means.set_yticks(range(len(rows)), [_short(row.label) for row in rows], fontsize=8.5, color=COLOURS["ink"])
        means.set_xlabel(f"mean, {scale.sign.strip()}, with its 95 % interval on these tasks", color=COLOURS["muted"])
        ranks.set_xlabel("rank, with those that the row may have", color=COLOURS["muted"])
        ranks.xaxis.set_major_locator(MaxNLocator(integer=True))
        for place, row in enumerate(rows):
            assert row.mean is not None and row.rank is not None
            interval = (row.interval.low, row.interval.high) if row.interval else None
            _point(means, row, place, row.mean.mean, interval)
            _point(ranks, row, place, row.rank, row.ranks)
        return inline(drawing)


def _point(axes: Axes, row: Row, place: int, value: float, ends: tuple[float, float] | None) -> None:
    colour = COLOURS[f"family-{row.method.colour}"]
    if ends is not None:
        axes.plot(ends, (place, place), color=colour, linewidth=1.4, solid_capstyle="butt")
    axes.plot([value], [place], color=colour, marker=MARKERS[row.method.colour], markersize=4.5, markeredgewidth=0)


def _short(label: str) -> str:
    return label if len(label) <= _LONGEST else f"{label[: _LONGEST - 1]}…"
