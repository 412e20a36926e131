"""Accuracy against trainable parameters, as SVG that takes its colours from the page."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from matplotlib.transforms import Bbox

from ..formatting import count
from .svg import COLOURS, MARKERS, inline, plain_axes, style


@dataclass(frozen=True)
class Point:
    label: str
    colour: str
    """The family whose colour it has."""
    parameters: int
    mean: float
    std: float | None


def scatter(points: Sequence[Point], metric: str, higher_is_better: bool = True) -> str:
    """The SVG element; the same points give the same text.

    Parameters are on a logarithmic axis; methods that train none stand on a place of their own left of it. The steps
    show the best mean that is reached with as many parameters or fewer.
    """
    direction = 1 if higher_is_better else -1
    positive = sorted(point.parameters for point in points if point.parameters > 0)
    low = positive[0] if positive else 1_000
    high = positive[-1] if positive else 10_000
    zero = low / 10 ** max(0.5, 0.13 * _decades(low, high))
    has_zero = any(point.parameters == 0 for point in points)

    with style():
        drawing = Figure(figsize=(8.2, 4.0), layout="constrained")
        FigureCanvasSVG(drawing)
        axes = drawing.add_subplot()
        axes.set_xscale("log")
        pad = 10 ** (0.06 * _decades(low, high) + 0.08)
        axes.set_xlim((zero if has_zero else low) / pad, high * pad**2)
        means = [point.mean for point in points]
        margin = max(1.0, 0.1 * (max(means) - min(means)))
        axes.set_ylim(min(means) - margin, max(means) + margin)
        _decorate(axes, metric, zero if has_zero else None, low, high)

        places = [(float(point.parameters or zero), point.mean) for point in points]
        steps = [(x, direction * y) for x, y in _front([(x, direction * y) for x, y in places])]
        front = [*steps, (axes.get_xlim()[1], steps[-1][1])]
        if len(front) > 2:
            axes.step(*zip(*front, strict=True), where="post", color=COLOURS["strong-rule"], linewidth=0.9, zorder=1.5)
        for point, (x, y) in zip(points, places, strict=True):
            colour = COLOURS[f"family-{point.colour}"]
            if point.std:
                axes.errorbar(x, y, yerr=point.std, color=colour, linewidth=0.9, alpha=0.6, zorder=2)
            axes.plot(
                x, y, MARKERS[point.colour], color=colour, markersize=6.5, markeredgecolor=COLOURS["paper"],
                markeredgewidth=0.8, zorder=3,
            )  # fmt: skip
        drawing.draw_without_rendering()
        _label(axes, points, places, _steps(front))
        return inline(drawing)


def _decades(low: float, high: float) -> float:
    return max(1.0, math.log10(high / low))


def _front(places: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The places that are higher than all others at or left of them.

    >>> _front([(1, 50), (10, 40), (10, 60), (100, 60)])
    [(1, 50), (10, 60)]
    """
    front: list[tuple[float, float]] = []
    for x, y in sorted(places, key=lambda place: (place[0], -place[1])):
        if not front or y > front[-1][1]:
            front.append((x, y))
    return front


def _decorate(axes: Axes, metric: str, zero: float | None, low: float, high: float) -> None:
    first, last = int(math.log10(low)) + (math.log10(low) % 1 > 0), int(math.log10(high))
    ticks = [10.0**exponent for exponent in range(first, last + 1)] or [low]
    axes.xaxis.set_major_locator(FixedLocator([*([zero] if zero else []), *ticks]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: "0" if x == zero else count(x).replace(".0", "")))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("trainable parameters without head", color=COLOURS["muted"])
    axes.set_ylabel(metric, color=COLOURS["muted"])
    plain_axes(axes)
    if zero is not None:
        axes.axvline((zero * low) ** 0.5, color=COLOURS["rule"], linewidth=0.8, linestyle=(0, (2, 3)))


_OFFSETS = (
    (8, 0),
    (-8, 0),
    (0, 8),
    (0, -8),
    (7, 7),
    (7, -7),
    (-7, 7),
    (-7, -7),
    (0, 17),
    (0, -17),
    (10, 17),
    (10, -17),
)


def _steps(front: Sequence[tuple[float, float]]) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """The ends of the lines that join the front's places: along, then up.

    >>> _steps([(1, 50), (10, 60)])
    [((1, 50), (10, 50)), ((10, 50), (10, 60))]
    """
    pairs = itertools.pairwise(front)
    return [line for (x, y), (x2, y2) in pairs for line in (((x, y), (x2, y)), ((x2, y), (x2, y2)))]


def _label(
    axes: Axes,
    points: Sequence[Point],
    places: Sequence[tuple[float, float]],
    lines: Sequence[tuple[tuple[float, float], tuple[float, float]]],
) -> None:
    """Write each name beside its point, where it covers least of what stands there already."""
    pixels = axes.transData.transform(places)
    taken = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in pixels]
    for line in lines:
        start, end = axes.transData.transform(line)
        taken.append(Bbox([start - 1.5, end + 1.5]))
    frame = axes.get_window_extent()
    for point, place in sorted(zip(points, places, strict=True), key=lambda pair: (-pair[0].mean, pair[0].label)):
        best: tuple[float, Annotation, Bbox] | None = None
        for number, (x, y) in enumerate(_OFFSETS):
            text = axes.annotate(
                point.label, place, xytext=(x, y), textcoords="offset points", fontsize=8.5, color=COLOURS["ink"],
                ha="left" if x > 0 else "right" if x < 0 else "center",
                va="bottom" if y > 0 else "top" if y < 0 else "center", in_layout=False,
            )  # fmt: skip
            box = text.get_window_extent()
            cost = sum(_overlap(box, other) for other in taken) + box.width * box.height - _overlap(box, frame) + number
            if best is not None and best[0] <= cost:
                text.remove()
                continue
            if best is not None:
                best[1].remove()
            best = (cost, text, box)
        assert best is not None
        taken.append(best[2])


def _overlap(one: Bbox, other: Bbox) -> float:
    shared = Bbox.intersection(one, other)
    return 0.0 if shared is None else float(shared.width * shared.height)
