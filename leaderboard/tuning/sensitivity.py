"""How much a method depends on its tuning: statistics of the validation figures of a search's trials.

Of figures of which the larger is the better: where the smaller is, their negatives are what is asked for. Figures of
several searches stand in rows, one a task, whose columns are the trials, the same points in each row.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Figures = NDArray[np.float64]

DRAWS = 1000
COVERAGE = 0.95
"""Of the bootstrap: how many draws, and how many of them a band holds."""

NEAR = 1.0
"""How close to its best is close enough, in points."""


def with_failures(values: Sequence[float | None], chance: float | None) -> list[float] | None:
    """Figures in which a trial that failed, None, counts: as the worst of the others, or as chance where that is worse.

    Returns:
        None where all failed and chance is not known.

    >>> with_failures([70.0, None, 30.0], 10.0), with_failures([70.0, None, 30.0], None), with_failures([None], None)
    ([70.0, 10.0, 30.0], [70.0, 30.0, 30.0], None)
    """
    known = [value for value in (*values, chance) if value is not None]
    return [min(known) if value is None else value for value in values] if known else None


def expected_best(values: Figures, steps: int) -> Figures:
    """Expected best figure after n = 1 … `steps` trials, by the biased estimator of Dodge et al. 2019
    (arXiv:1909.03004, equation 1): Σ v_i [(i/N)^n − ((i−1)/N)^n] over the N figures in ascending order.

    It draws trials with replacement. Of the estimators it leads to the fewest wrong conclusions (Dodge et al. 2021,
    arXiv:2110.00613), for n well below N.

    Args:
        values: (…, N).

    Returns:
        (…, steps).

    >>> expected_best(np.array([1.0, 2.0]), 2).tolist()
    [1.5, 1.75]
    """
    count = values.shape[-1]
    up_to = (np.arange(count + 1)[:, None] / count) ** np.arange(1, steps + 1)
    return np.asarray(np.sort(values, axis=-1) @ np.diff(up_to, axis=0))


def band(values: Figures, steps: int) -> tuple[Figures, Figures]:
    """Where the mean over tasks of `expected_best` lies if the trials are drawn anew from themselves: a percentile
    bootstrap, with fixed draws. A trial is drawn for all tasks at once.

    Args:
        values: (tasks, N).
    """
    count = values.shape[-1]
    drawn = np.random.default_rng(0).integers(count, size=(DRAWS, count))
    curves = expected_best(values[:, drawn], steps).mean(axis=0)
    low, high = np.quantile(curves, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2], axis=0)
    return low, high


def trials_needed(values: Sequence[float], near: float = NEAR) -> float:
    """How many trials it takes on average, in a random order, until one is within `near` of the best of all.

    With m of N that close, the first of them is expected at (N + 1) / (m + 1).

    >>> trials_needed([70.0, 69.5, 50.0, 60.0, 10.0])
    2.0
    """
    close = sum(value >= max(values) - near for value in values)
    return (len(values) + 1) / (close + 1)


def changed_pairs(one: Sequence[float], other: Sequence[float]) -> tuple[int, int]:
    """How many pairs two figures of each of some methods put in opposite orders, and how many pairs there are.

    A tie is in no opposite order; infinities are figures as any.

    >>> changed_pairs([3.0, 2.0, 1.0], [2.0, 3.0, 1.0])
    (1, 3)
    """
    pairs = [(a, b) for a in range(len(one)) for b in range(a)]
    return sum((one[a] - one[b]) * (other[a] - other[b]) < 0 for a, b in pairs), len(pairs)
