"""How a quantity is spread over methods: a dot a row, the quartiles as a box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

WIDTH, HEIGHT = 640, 96
_DOTS = 40.0
"""The height that dots are spread over."""


@dataclass(frozen=True)
class Dot:
    x: float
    y: float
    label: str
    value: float
    colour: str
    href: str


@dataclass(frozen=True)
class Strip:
    dots: tuple[Dot, ...]
    low: float
    high: float
    quartiles: tuple[float, float, float]
    at: tuple[float, float, float]
    """Where the quartiles are drawn."""
    chance: float | None
    """Where chance is drawn; None where it is not known, or far from the figures."""
    width: int = WIDTH
    height: int = HEIGHT


def strip(points: Sequence[tuple[float, str, str, str]], chance: float | None) -> Strip | None:
    """
    Args:
        points: value, label, colour (a family's name) and address of each. chance: what guessing gets.

    Returns:
        None of fewer than three points, or where all have one value.
    """
    values = np.array([value for value, *_ in points], dtype=np.float64)
    if len(values) < 3 or values.min() == values.max():
        return None
    low, high = float(values.min()), float(values.max())
    if chance is not None and low > chance >= low - 2 * (high - low):
        low = chance  # near enough to be shown
    first, median, third = (float(value) for value in np.quantile(values, (0.25, 0.5, 0.75)))

    def place(value: float) -> float:
        return round(WIDTH * (value - low) / (high - low), 1)

    order = np.argsort(values, kind="stable")
    dots: list[Dot] = []
    for position, index in enumerate(order):
        value, label, colour, href = points[index]
        y = 8 + _DOTS * ((position * 5) % 8) / 7  # neighbours apart, without chance
        dots.append(Dot(place(value), round(y, 1), label, value, colour, href))
    at = (place(first), place(median), place(third))
    shown = place(chance) if chance is not None and low <= chance <= high else None
    return Strip(tuple(dots), low, high, (first, median, third), at, shown)
