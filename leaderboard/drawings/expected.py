"""Expected best validation figures by the number of trials, a small chart for each method."""

from __future__ import annotations

import math

from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..tuning.overview import Tuned
from .svg import COLOURS, MARKERS, inline, plain_axes, style

_ACROSS = 4
_WIDTH, _HEIGHT = 2.1, 1.75
"""Inches of a chart."""

_LONGEST = 28
"""Characters of a title; the table has the whole name."""


def expected_chart(tuned: Tuned) -> str:
    """The SVG element: every method in grey in each chart, the chart's own in its family's colour, with its band."""
    methods = tuned.comparable
    down = math.ceil(len(methods) / _ACROSS)
    with style():
        drawing = Figure(figsize=(0.6 + _WIDTH * _ACROSS, 0.45 + _HEIGHT * down), layout="constrained")
        FigureCanvasSVG(drawing)
        grid = drawing.subplots(down, _ACROSS, sharex=True, sharey=True, squeeze=False)
        panels = list(grid.flat)
        for axes in panels[len(methods) :]:  # few charts are no larger than many
            axes.set_visible(False)
        steps = range(1, len(methods[0].curve) + 1)
        for number, (method, axes) in enumerate(zip(methods, panels, strict=False)):
            plain_axes(axes)
            axes.tick_params(
                which="both", labelbottom=number + _ACROSS >= len(methods), labelleft=number % _ACROSS == 0
            )
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            colour = COLOURS[f"family-{method.method.colour}"]
            title = method.label if len(method.label) <= _LONGEST else f"{method.label[: _LONGEST - 1]}…"
            axes.set_title(title, loc="left", fontsize=8.5, color=colour, fontweight="bold")
            for other in methods:
                if other is not method:
                    axes.plot(steps, other.curve, color=COLOURS["rule"], linewidth=0.7, zorder=1)
            axes.fill_between(steps, *method.band, color=colour, alpha=0.2, linewidth=0, zorder=2)
            axes.plot(
                steps, method.curve, color=colour, linewidth=1.2, marker=MARKERS[method.method.colour], markersize=3,
                markeredgewidth=0, zorder=3,
            )  # fmt: skip
        drawing.supxlabel("trials", fontsize=9, color=COLOURS["muted"])
        drawing.supylabel(f"expected best, {tuned.scale.sign.strip()}", fontsize=9, color=COLOURS["muted"])
        return inline(drawing)
