"""A trade-off as a figure for a paper: on white, at its printed size, its texts as text, the same file every time."""

from __future__ import annotations

import itertools
import math
import warnings
from contextlib import AbstractContextManager
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from ..accuracy.tradeoffs import Tradeoff
from ..formatting import tick
from .labels import Box, drawable, place_labels
from .svg import MARKERS, light_colours

WIDTHS = {"column": 3.3, "text": 6.9}
"""Inches: of a column of a page with two, and of all of a page's text."""

_HEIGHTS = {"column": 2.5, "text": 3.4}

_NOTHING_OF_TIME = {
    "svg": dict.fromkeys(("Creator", "Date", "Format", "Type")),
    "pdf": dict.fromkeys(("Creator", "CreationDate", "Producer")),
    "png": {"Software": None},
}

_LONGEST = 26
"""Characters of a name."""


def write_figure(chart: Tradeoff, width: str, paths: list[Path], every_name: bool = False) -> None:
    """Draw a trade-off of at least one point and write it as SVG, PDF or PNG, as the paths' endings say.

    Args:
        width: a key of `WIDTHS`.
        every_name: names of all points, not of those on the front alone. A name that has no room is left out.
    """
    with paper_style(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a box is drawn for it
        drawing = draw(chart, width, every_name)
        for path in paths:
            kind = path.suffix[1:]
            drawing.savefig(path, format=kind, metadata=_NOTHING_OF_TIME[kind])


def paper_style() -> AbstractContextManager[None]:
    return mpl.rc_context(
        {
            "font.size": 7.5,
            "axes.linewidth": 0.7,
            "figure.dpi": 300,  # names are placed at the resolution of the PNG
            "pdf.fonttype": 42,
            "svg.fonttype": "none",
            "svg.hashsalt": "peftmark",
            "text.parse_math": False,
        }
    )


def draw(chart: Tradeoff, width: str, every_name: bool) -> Figure:
    colours = light_colours()
    drawing = Figure(figsize=(WIDTHS[width], _HEIGHTS[width]), layout="constrained")
    FigureCanvasAgg(drawing)
    axes = drawing.add_subplot()
    place = _x_axis(axes, chart)
    ys = [point.figure.mean + end * (point.figure.std or 0) for point in chart.points for end in (-1, 1)]
    margin = 0.08 * (max(ys) - min(ys)) or 1.0
    axes.set_ylim(min(ys) - margin, max(ys) + margin)
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.set_xlabel(drawable(chart.measure.axis or chart.measure.title, 90), color=colours["muted"], wrap=True)
    axes.set_ylabel(drawable(chart.figure_words, 50), color=colours["muted"])
    axes.grid(axis="y", color=colours["rule"], linewidth=0.5)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", colors=colours["muted"], length=2.5)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(colours["strong-rule"])

    steps = _steps([(place(point.x), point.figure.mean) for point in chart.points if point.on_front], axes)
    axes.step(*zip(*steps, strict=True), where="post", color=colours["strong-rule"], linewidth=0.9, zorder=1.5)
    for point in chart.points:
        colour = colours[f"family-{point.row.method.colour}"]
        x, y = place(point.x), point.figure.mean
        if point.figure.std:
            axes.errorbar(x, y, yerr=point.figure.std, color=colour, linewidth=0.7, alpha=0.5, zorder=2)
        axes.plot(
            x, y, MARKERS[point.row.method.colour], color=colour, markersize=5.5 if point.on_front else 4.5,
            markeredgecolor="white", markeredgewidth=0.5, zorder=4 if point.on_front else 3,
        )  # fmt: skip
    _legend(drawing, chart, 3 if width == "column" else 9)
    drawing.draw_without_rendering()
    drawing.set_layout_engine("none")  # names are placed for the layout as it is
    _name(axes, chart, [(place(point.x), point.figure.mean) for point in chart.points], steps, every_name)
    return drawing


def _x_axis(axes: Axes, chart: Tradeoff) -> _Place:
    """Set the axis up; on a logarithmic one, zero has a place of its own, left of all others.

    Returns:
        From a value to its place.
    """
    values = [point.x for point in chart.points]
    if not chart.logarithmic:
        margin = 0.06 * (max(values) - min(values)) or 0.1 * abs(values[0]) or 1.0
        axes.set_xlim(min(values) - margin, max(values) + 1.5 * margin)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: tick(x)))
        return _Place(None)
    positive = [value for value in values if value > 0]
    low, high = math.log10(min(positive)), math.log10(max(positive))
    zero = low - max(0.5, 0.13 * (high - low)) if 0 in values else None
    pad = 0.06 * (high - low) + 0.08
    axes.set_xscale("log")
    axes.set_xlim(10 ** ((low if zero is None else zero) - pad), 10 ** (high + 2 * pad))
    decades = range(math.ceil(low), math.floor(high) + 1)
    every = math.ceil(len(decades) / 7)
    at_zero = [] if zero is None else [10**zero]
    axes.xaxis.set_major_locator(FixedLocator([*at_zero, *(10.0**power for power in decades[::every])]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: "0" if [x] == at_zero else tick(x)))
    axes.xaxis.set_minor_locator(NullLocator())
    if zero is not None:
        axes.axvline(10 ** ((zero + low) / 2), color=light_colours()["rule"], linewidth=0.7, linestyle=(0, (2, 3)))
    return _Place(None if zero is None else 10**zero)


class _Place:
    """From a value to where it stands on the axis."""

    def __init__(self, zero: float | None) -> None:
        self.zero = zero

    def __call__(self, x: float) -> float:
        return self.zero if x == 0 and self.zero is not None else x


def _steps(front: list[tuple[float, float]], axes: Axes) -> list[tuple[float, float]]:
    return [*front, (float(axes.get_xlim()[1]), front[-1][1])]


def _legend(drawing: Figure, chart: Tradeoff, columns: int) -> None:
    colours = light_colours()
    handles = [
        Line2D([], [], linestyle="", marker=MARKERS[colour], color=colours[f"family-{colour}"], markersize=4.5,
               label=drawable(name, 24)) for name, colour in chart.families
    ]  # fmt: skip
    drawing.legend(
        handles=handles, loc="outside upper left", ncols=columns, frameon=False, handletextpad=0.1,
        columnspacing=1.0, borderpad=0.1, labelcolor=colours["ink"],
    )  # fmt: skip


def _name(
    axes: Axes, chart: Tradeoff, places: list[tuple[float, float]], steps: list[tuple[float, float]], every: bool
) -> None:
    """Write names beside points, those on the front and better figures first; what would cover anything is left out."""
    sign = 1 if chart.table.scale.higher_is_better else -1
    pixels = [(float(x), float(y)) for x, y in axes.transData.transform(places)]
    point_size = axes.figure.dpi / 72
    half = 2.9 * point_size
    corners = [(float(x), float(y)) for x, y in axes.transData.transform(steps)]
    lines: list[Box] = []
    for (x, y), (x2, y2) in itertools.pairwise(corners):
        lines += [(x, y - 1, x2, y + 1), (x2 - 1, min(y, y2), x2 + 1, max(y, y2))]
    named = [
        (point, place, pixel)
        for point, place, pixel in zip(chart.points, places, pixels, strict=True)
        if every or point.on_front
    ]
    named.sort(key=lambda each: (not each[0].on_front, -sign * each[0].figure.mean, each[0].label))
    texts: list[Annotation] = [
        axes.annotate(
            drawable(point.label, _LONGEST), place, xytext=(0, 0), textcoords="offset points", va="bottom", ha="left",
            fontsize=6.5, color=light_colours()["ink"], in_layout=False, annotation_clip=False, zorder=5,
        )
        for point, place, _ in named
    ]  # fmt: skip
    sizes = [(box.width, box.height) for box in (text.get_window_extent() for text in texts)]
    frame = tuple(float(edge) for edge in axes.get_window_extent().extents)
    anchors = [pixel for _, _, pixel in named]
    boxes = place_labels(anchors, sizes, pixels, half, lines, (frame[0], frame[1], frame[2], frame[3]))
    for text, box, (_, _, pixel) in zip(texts, boxes, named, strict=True):
        if box is None:
            text.remove()
        else:
            text.set_position(((box[0] - pixel[0]) / point_size, (box[1] - pixel[1]) / point_size))
