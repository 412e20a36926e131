"""Costs against the backbone's size, a small chart for each family of methods."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from ..costs.scaling import CostsBySize, Ladder
from ..formatting import count, size
from .svg import COLOURS, MARKERS, inline, plain_axes, style

_ACROSS = 3
_WIDTH, _LEFT = 2.3, 0.6
"""Inches of a chart, and of the axis left of the first."""

_LINE, _CHARACTER = 0.125, 0.062
"""Inches from one line of labels to the next, and that a character of them takes."""

_LONGEST = 30
"""Characters of a label; the table has the whole name."""


def scaling_chart(ladder: Ladder, quantity: str) -> str:
    """The SVG element: every method in grey in each chart, those of the chart's family in its colour, with names."""
    families = ladder.families
    of_family = {family: [c for c in ladder.configurations if c.method.family == family] for family, _ in families}
    down = math.ceil(len(families) / _ACROSS)
    across = min(_ACROSS, len(families))
    height = max(1.9, _LINE * max(len(members) for members in of_family.values())) + 0.55
    names = 0.35 + _CHARACTER * max(len(_shortened(costs.label)) for costs in ladder.configurations)
    width = _LEFT + across * (_WIDTH + names)
    with style():
        drawing = Figure(figsize=(width, height * down))
        FigureCanvasSVG(drawing)
        grid = drawing.subplots(down, across, sharex=True, sharey=True, squeeze=False)
        drawing.subplots_adjust(
            left=_LEFT / width, right=1 - names / width, wspace=names / _WIDTH,
            top=1 - 0.3 / (height * down), bottom=0.42 / (height * down), hspace=0.24,
        )  # fmt: skip
        panels = list(grid.flat)
        for axes in panels[len(families) :]:
            axes.set_visible(False)
        _axes(panels[0], ladder, quantity, size if quantity == "memory" else count)
        for number, ((family, colour), axes) in enumerate(zip(families, panels, strict=False)):
            plain_axes(axes)
            # the last chart of each column carries the axis, though an unused place may be below it
            axes.tick_params(which="both", labelbottom=number + across >= len(families), labelleft=number % across == 0)
            axes.set_title(family, loc="left", fontsize=9, color=COLOURS[f"family-{colour}"], fontweight="bold")
            for costs in ladder.configurations:
                if costs.method.family != family:
                    axes.plot(
                        *zip(*costs.points[quantity], strict=True), color=COLOURS["rule"], linewidth=0.7, zorder=1
                    )
            for costs in of_family[family]:
                axes.plot(
                    *zip(*costs.points[quantity], strict=True), color=COLOURS[f"family-{colour}"], linewidth=1.1,
                    marker=MARKERS[colour], markersize=3, markeredgewidth=0, zorder=2,
                )  # fmt: skip
        drawing.draw_without_rendering()
        for (family, colour), axes in zip(families, panels, strict=False):
            _label(axes, of_family[family], quantity, colour)
        return inline(drawing)


def _axes(axes: Axes, ladder: Ladder, quantity: str, unit: Callable[[int], str]) -> None:
    """Logarithmic ones, a tick at each backbone; shared by all charts."""
    sizes = [rung.size for rung in ladder.rungs]
    values = [value for costs in ladder.configurations for _, value in costs.points[quantity]]
    axes.set_xscale("log")
    axes.set_yscale("log")
    margin = max(1.05, (max(sizes) / min(sizes)) ** 0.04)
    axes.set_xlim(min(sizes) / margin, max(sizes) * margin)
    axes.set_ylim(min(values) / 1.25, max(values) * 1.25)
    axes.xaxis.set_major_locator(FixedLocator(_apart(sizes)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: count(x).replace(".0", "")))
    axes.xaxis.set_minor_locator(FixedLocator(sizes))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_locator(FixedLocator(_ticks(min(values), max(values))))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: unit(round(y)).replace(".0", "")))
    axes.yaxis.set_minor_locator(NullLocator())


def _apart(sizes: Sequence[int]) -> list[int]:
    """Sizes whose labels do not cover each other on a logarithmic axis, the largest first.

    >>> _apart([10, 100, 900, 1000])
    [1000, 100, 10]
    """
    gap = 0.17 * math.log(max(sizes) / min(sizes))
    kept: list[int] = []
    for each in sorted(set(sizes), reverse=True):
        if not kept or math.log(kept[-1] / each) >= gap:
            kept.append(each)
    return kept


def _shortened(label: str) -> str:
    return label if len(label) <= _LONGEST else f"{label[: _LONGEST - 1]}…"


def _ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 of each decade where there are few, else the decades.

    >>> _ticks(3.0, 60.0)
    [5.0, 10.0, 20.0, 50.0]
    """
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if len(decades) < 5 else (1,)
    return [tick for power in decades for step in steps if low <= (tick := step * 10.0**power) <= high]


def _label(axes: Axes, configurations: Sequence[CostsBySize], quantity: str, colour: str) -> None:
    """Names right of the chart at the height of their lines' ends, moved apart where they would cover each other."""
    box = axes.get_window_extent()
    line = _LINE * axes.figure.dpi
    ends = sorted(
        (float(axes.transData.transform(costs.points[quantity][-1])[1]), costs.label) for costs in configurations
    )
    heights = spread_out([height for height, _ in ends], line, box.y0, box.y1)
    for height, (end, label) in zip(heights, ends, strict=True):
        start, to = ((y - box.y0) / box.height for y in (end, height))
        axes.annotate(
            _shortened(label), (1.0, start), xycoords="axes fraction", xytext=(1.05, to), textcoords="axes fraction",
            fontsize=7.5, color=COLOURS["ink"], va="center", annotation_clip=False,
            arrowprops={
                "arrowstyle": "-", "color": COLOURS[f"family-{colour}"], "linewidth": 0.5, "shrinkA": 1, "shrinkB": 1,
                "relpos": (0, 0.5),
            },
        )  # fmt: skip


def spread_out(heights: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move ascending heights up until they are `gap` apart, and down again where they pass the top.

    >>> spread_out([0.0, 1.0, 10.0], 2.0, 0.0, 20.0)
    [0.0, 2.0, 10.0]
    >>> spread_out([9.0, 10.0], 2.0, 0.0, 10.0)
    [8.0, 10.0]
    """
    placed: list[float] = []
    for height in heights:
        placed.append(max(height, low, *(previous + gap for previous in placed[-1:])))
    ceiling = high
    for index in range(len(placed) - 1, -1, -1):
        placed[index] = min(placed[index], ceiling)
        ceiling = placed[index] - gap
    return placed
