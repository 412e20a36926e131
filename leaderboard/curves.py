"""A run's training loss as the points of a small drawing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 520, 150


@dataclass(frozen=True)
class Curve:
    """The loss by epoch in a box of `WIDTH` by `HEIGHT`, y downwards as in SVG."""

    points: tuple[tuple[float, float], ...]
    low: float
    high: float
    first: float
    last: float
    width: int = WIDTH
    height: int = HEIGHT


def loss_curve(entries: Sequence[Mapping[str, float]]) -> Curve | None:
    """None where there are fewer than two epochs with a finite loss.

    >>> loss_curve([{"epoch": 1, "train_loss": 2.0}, {"epoch": 2, "train_loss": 1.0}]).points
    ((0.0, 0.0), (520.0, 150.0))
    """
    pairs = [(entry["epoch"], entry["train_loss"]) for entry in entries if {"epoch", "train_loss"} <= entry.keys()]
    pairs = sorted((x, y) for x, y in pairs if math.isfinite(x) and math.isfinite(y))
    if len(pairs) < 2:
        return None
    first, last = pairs[0][0], pairs[-1][0]
    losses = [loss for _, loss in pairs]
    low, high = min(losses), max(losses)
    points = tuple(
        (
            round(WIDTH * (epoch - first) / ((last - first) or 1), 1),
            round(HEIGHT * (high - loss) / ((high - low) or 1), 1),
        )
        for epoch, loss in pairs
    )
    return Curve(points, low, high, first, last)
