"""Small drawings of a method: accuracy by rank. That of a run, its training loss, is drawn by ``run.js``."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from ...results import RunRecord, VariantFigure

WIDTH, HEIGHT = 520, 150


@dataclass(frozen=True)
class LinePlot:
    """A line in a box of `WIDTH` by `HEIGHT`, y downwards as in SVG.

    Attributes:
        x, y: what the axes show.
        low, high: of y. first, last: of x.
    """

    x: str
    y: str
    points: tuple[tuple[float, float], ...]
    low: float
    high: float
    first: float
    last: float
    width: int = WIDTH
    height: int = HEIGHT


def line_plot(x: str, y: str, pairs: Iterable[tuple[float, float]]) -> LinePlot | None:
    """None where there are fewer than two finite points.

    >>> line_plot("epoch", "loss", [(2, 1.0), (1, 2.0)]).points
    ((0.0, 0.0), (520.0, 150.0))
    """
    pairs = sorted((a, b) for a, b in pairs if math.isfinite(a) and math.isfinite(b))
    if len(pairs) < 2:
        return None
    first, last = pairs[0][0], pairs[-1][0]
    values = [value for _, value in pairs]
    low, high = min(values), max(values)
    points = tuple(
        (round(WIDTH * (a - first) / ((last - first) or 1), 1), round(HEIGHT * (high - b) / ((high - low) or 1), 1))
        for a, b in pairs
    )
    return LinePlot(x, y, points, low, high, first, last)


def variant_plot(figures: Iterable[VariantFigure]) -> LinePlot | None:
    """Test accuracy of the models that one training gave."""
    figures = list(figures)
    return (
        line_plot(figures[0].axis, "test %", [(figure.value, figure.test) for figure in figures]) if figures else None
    )


def chosen_variant(figures: Sequence[VariantFigure]) -> VariantFigure | None:
    """The best on the validation split, the smallest of equals: what equation (11) of the survey chooses."""
    known = [(figure.validation, -figure.value, figure) for figure in figures if figure.validation is not None]
    return max(known, key=lambda item: item[:2])[2] if known else None


def mean_variants(runs: Iterable[RunRecord]) -> list[VariantFigure]:
    """The mean figures of all runs, by variant; only variants that every run has."""
    runs = [run for run in runs if run.quality is not None and run.quality.variants]
    by_variant: dict[tuple[str, int], list[VariantFigure]] = defaultdict(list)
    for run in runs:
        for figure in run.quality.variants if run.quality else ():
            by_variant[figure.axis, figure.value].append(figure)
    return [
        VariantFigure(axis=axis, value=value, validation=_mean_validation(figures), test=fmean(f.test for f in figures))
        for (axis, value), figures in sorted(by_variant.items())
        if len(figures) == len(runs)
    ]


def _mean_validation(figures: Sequence[VariantFigure]) -> float | None:
    values = [figure.validation for figure in figures if figure.validation is not None]
    return fmean(values) if len(values) == len(figures) else None


@dataclass(frozen=True)
class Curves:
    """Several runs' curves in one box, the axes of which several boxes have in common."""

    lines: tuple[tuple[str, str], ...]
    """What each is of, and its points as SVG takes them."""
    low: float
    high: float
    last: float
    width: int
    height: int


SMALL_WIDTH, SMALL_HEIGHT, _POINTS = 320, 140, 40
"""Of a small drawing, and how many points a line of it has at most: a page may have hundreds."""


def loss_curves(runs: Iterable[RunRecord]) -> Curves | None:
    """Training loss by epoch of runs of one task, all in one box; None where no run has two finite points."""
    found = [
        (f"seed {run.spec.seed}", sorted(pairs))
        for run in runs
        if run.quality is not None and len(pairs := _finite(run.quality.curve)) > 1
    ]
    if not found:
        return None
    values = [loss for _, pairs in found for _, loss in pairs]
    epochs = [epoch for _, pairs in found for epoch, _ in pairs]
    low, high, first, last = min(values), max(values), min(epochs), max(epochs)

    def points(pairs: Sequence[tuple[float, float]]) -> str:
        kept = [*pairs[: -1 : max(1, len(pairs) // _POINTS)], pairs[-1]]
        places = (
            (SMALL_WIDTH * (a - first) / ((last - first) or 1), SMALL_HEIGHT * (high - b) / ((high - low) or 1))
            for a, b in kept
        )
        return " ".join(f"{x:.0f},{y:.0f}" for x, y in places)

    return Curves(tuple((label, points(pairs)) for label, pairs in found), low, high, last, SMALL_WIDTH, SMALL_HEIGHT)


def _finite(curve: Sequence[Mapping[str, float]]) -> list[tuple[float, float]]:
    pairs = ((entry["epoch"], entry["train_loss"]) for entry in curve if {"epoch", "train_loss"} <= entry.keys())
    return [(a, b) for a, b in pairs if math.isfinite(a) and math.isfinite(b)]
