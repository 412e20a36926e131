"""Whether a model is right as often as it says: expected calibration error and the reliability curve."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...errors import PeftmarkError
from .basis import LEVEL, SEED, Size
from .scores import Figures

BINS = 15
"""Of equal width, as in Guo et al. 2017 (arXiv:1706.04599)."""

DRAWS = 1_000


@dataclass(frozen=True)
class Bin:
    """The examples whose confidence is above `low` and at most `high`."""

    low: float
    high: float
    n: int
    confidence: float | None
    """Mean; None where there is no example."""
    accuracy: float | None
    """A share of 1, as the confidence is."""


@dataclass(frozen=True)
class Calibration:
    """Of one test split; in percentage points where it says points."""

    error: float
    """Expected calibration error, points."""
    by_chance: float
    """What a perfectly calibrated model with these confidences would have on so few examples: its mean, points."""
    by_chance_at_most: float
    """And what it would not exceed, at `LEVEL`: an error below it is no sign of bad calibration."""
    bins: tuple[Bin, ...]
    method: str
    n: Size


def calibration_of(correct: ArrayLike, confidence: ArrayLike) -> Calibration:
    """The mean distance of accuracy and confidence over bins, weighted by their examples (Guo et al. 2017, equation 3).

    The error of few examples is never zero, so it comes with what chance alone would make of a model that is right
    exactly as often as it says (consistency resampling; Bröcker & Smith 2007, *Weather and Forecasting* 22:651).

    Args:
        correct: (n,), whether the prediction was right.
        confidence: (n,), the probability of the predicted label (``probability_max``).

    Raises:
        PeftmarkError: where they are not of the same examples, there is none, or a confidence is no probability.
    """
    hits, sure = np.asarray(correct, dtype=np.float64), np.asarray(confidence, dtype=np.float64)
    if hits.ndim != 1 or hits.shape != sure.shape or not len(hits):
        raise PeftmarkError(f"calibration needs one confidence an example: there are {hits.shape} and {sure.shape}")
    if not ((sure >= 0) & (sure <= 1)).all():
        raise PeftmarkError("calibration needs probabilities between 0 and 1")
    place = np.clip(np.ceil(sure * BINS).astype(np.int64) - 1, 0, BINS - 1)
    count = np.bincount(place, minlength=BINS)
    sum_sure, sum_hits = (np.bincount(place, values, minlength=BINS) for values in (sure, hits))
    error = 100 * float(np.abs(sum_hits - sum_sure).sum()) / len(hits)
    chance = 100 * np.abs(_hits_by_chance(sure, place) - sum_sure).sum(axis=1) / len(hits)
    bins = tuple(
        Bin(
            b / BINS,
            (b + 1) / BINS,
            int(n),
            float(sum_sure[b] / n) if n else None,
            float(sum_hits[b] / n) if n else None,
        )
        for b, n in enumerate(count)
    )
    method = f"expected calibration error, {BINS} bins of equal width (Guo et al. 2017, arXiv:1706.04599)"
    at_most = float(np.quantile(chance, LEVEL))
    return Calibration(error, float(chance.mean()), at_most, bins, method, Size(tasks=1, examples=len(hits)))


def _hits_by_chance(sure: Figures, place: NDArray[np.int64]) -> Figures:
    """(`DRAWS`, bins): how many examples of each bin a model gets right that is right as often as it says."""
    order = np.argsort(place, kind="stable")
    filled, starts = np.unique(place[order], return_index=True)
    random = np.random.default_rng(SEED)
    hits = np.zeros((DRAWS, BINS))
    for draw in range(DRAWS):  # one at a time: a test set may have 50,000 examples
        hits[draw, filled] = np.add.reduceat(random.random(len(sure)) < sure[order], starts, dtype=np.int64)
    return hits
