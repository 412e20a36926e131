"""The Bayesian signed-rank test with a region of practical equivalence: worse, as good, or better, with probabilities.

Benavoli, Corani, Demšar & Zaffalon 2017 (arXiv:1606.04316, 4.2): the differences over tasks are drawn from a
distribution with a Dirichlet-process prior, whose base is one pseudo-observation at zero of weight 1/2. Its posterior
gives the tasks and the pseudo-observation weights w ~ Dirichlet(1/2, 1, …, 1); the chance that the mean of two
differences lies left of the region, in it, or right of it is θ = Σ w_i w_j [(z_i + z_j) / 2 in …]; and the probability
of each is how often it has the largest θ. What lies on an end of the region counts half on either side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .basis import SEED, Size, Withheld
from .scores import Figures, Scores

ROPE = 0.5
"""Differences up to half a point are no difference in practice."""

DRAWS = 10_000
"""Of the posterior: a probability is then within 0.01 (two standard errors)."""

PRIOR = 0.5
"""Weight of the pseudo-observation; a task has 1."""

_PAIRS_AT_ONCE, _DRAWS_AT_ONCE = 512, 500
"""So that what is computed of them stays in the processor's cache."""

METHOD = f"Bayesian signed-rank test, equivalent within {ROPE} points (Benavoli et al. 2017, arXiv:1606.04316)"


@dataclass(frozen=True, eq=False)
class SignedRanks:
    """Probabilities over tasks for all pairs of M methods; (M, M), the row's method against the column's."""

    methods: tuple[str, ...]
    better: Figures
    """That the row's is better by more than the region; worse is its transpose."""
    equivalent: Figures
    method: str
    n: Size


def signed_ranks(scores: Scores, rope: float = ROPE) -> SignedRanks | Withheld:
    """Of all pairs, on the cells' means over seeds."""
    method = METHOD if rope == ROPE else METHOD.replace(str(ROPE), str(rope))
    if not scores.complete or not scores.tasks:
        return Withheld(method, "not every method has finished every task", scores.size)
    cells = scores.sign * scores.cells
    count = len(cells)
    rows, columns = np.triu_indices(count, 1)
    better, equivalent = np.zeros((count, count)), np.eye(count)
    for start in range(0, len(rows), _PAIRS_AT_ONCE):
        row, column = rows[start : start + _PAIRS_AT_ONCE], columns[start : start + _PAIRS_AT_ONCE]
        worse, same, more = probabilities(cells[row] - cells[column], rope)
        better[row, column], better[column, row] = more, worse
        equivalent[row, column] = equivalent[column, row] = same
    return SignedRanks(scores.methods, better, equivalent, method, scores.size)


def probabilities(differences: Figures, rope: float = ROPE) -> Figures:
    """(3, P): left of the region, in it, right of it, for differences (P, T) of P pairs over T tasks.

    >>> probabilities(np.array([[3.0, 4.0, 5.0, 3.0, 4.0]])).round(2).ravel().tolist()
    [0.0, 0.0, 1.0]
    """
    pairs, tasks = differences.shape
    random = np.random.default_rng(SEED)
    weights = random.dirichlet([PRIOR, *[1.0] * tasks], size=DRAWS)
    values = np.concatenate([np.zeros((pairs, 1)), differences], axis=1)
    first, second = np.triu_indices(tasks + 1)
    # (draws, pairs of tasks); in single precision, which is half the time and far below the noise of drawing
    products = (weights[:, first] * weights[:, second] * np.where(first == second, 1.0, 2.0)).astype(np.float32)
    means = np.round((values[:, first] + values[:, second]) / 2, 9)
    is_right = np.heaviside(means - rope, 0.5).T.astype(np.float32)
    is_left = np.heaviside(-rope - means, 0.5).T.astype(np.float32)
    shares = np.zeros((3, pairs))
    for some in np.split(products, range(_DRAWS_AT_ONCE, DRAWS, _DRAWS_AT_ONCE)):
        left, right = some @ is_left, some @ is_right
        same = 1 - left - right
        largest = np.maximum(np.maximum(left, right), same) - 1e-6  # equal but for rounding is equal
        won = [theta >= largest for theta in (left, same, right)]
        of = won[0].astype(np.float32) + won[1] + won[2]  # who share the largest share the draw
        shares += [(each / of).sum(axis=0) for each in won]
    return shares / DRAWS
