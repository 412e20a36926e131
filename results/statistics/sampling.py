"""What the choice of test examples adds: the variance of an accuracy because its test set is a sample.

Accuracies and their differences are in percent, variances in squared percentage points.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...errors import PeftmarkError
from .basis import LEVEL, Interval, Size


def binomial_variance(accuracy: float, examples: int) -> float:
    """Of one accuracy on n examples: p (1 - p) / n.

    For a mean over seeds on one test set it is an upper bound: what seeds do not agree on averages out in part, and is
    in the spread over seeds already. `sampling_variance` has the figure, from predictions.

    >>> round(math.sqrt(binomial_variance(80.0, 500)), 2)
    1.79
    """
    share = accuracy / 100
    return 1e4 * share * (1 - share) / examples


def wilson(accuracy: float, examples: int) -> Interval:
    """The interval of one accuracy on n examples (Wilson 1927), which also holds near 0 and 100 %."""
    from scipy.special import ndtri

    share, z = accuracy / 100, float(ndtri((1 + LEVEL) / 2))
    centre = (share + z**2 / (2 * examples)) / (1 + z**2 / examples)
    half = z / (1 + z**2 / examples) * math.sqrt(share * (1 - share) / examples + (z / (2 * examples)) ** 2)
    low, high = max(centre - half, 0.0), min(centre + half, 1.0)
    method = "Wilson's interval (1927) of an accuracy, for the sampling of test examples"
    return Interval(accuracy, 100 * low, 100 * high, method, Size(tasks=1, examples=examples))


def sampling_variance(correct: ArrayLike) -> float:
    """What sampling of the test set adds to the variance of a mean over seeds, from what was right.

    Seeds and examples are crossed: var = seeds / S + examples / n + both / (S n). The spread over seeds on one test set
    holds the first and the last part; this is the second, by the mean squares of a two-way layout without replication
    (Searle, Casella & McCulloch 1992, *Variance Components*, 4). With one seed it is all of an accuracy's variance.

    Args:
        correct: (S, n), each 0 or 1; for a difference of two methods on the same seeds and examples -1, 0 or 1.

    Raises:
        PeftmarkError: for fewer than two examples.
    """
    values = 100 * np.asarray(correct, dtype=np.float64)
    seeds, examples = values.shape
    if examples < 2:
        raise PeftmarkError(f"{examples} test example says nothing of how results vary over examples: give two or more")
    of_examples = seeds * float(values.mean(axis=0).var(ddof=1))
    rest = 0.0
    if seeds > 1:
        residual = values - values.mean(axis=0) - values.mean(axis=1, keepdims=True) + values.mean()
        rest = float((residual**2).sum()) / ((seeds - 1) * (examples - 1))
    return max(of_examples - rest, 0.0) / (seeds * examples)


def is_correct(arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.bool_]:
    """Which examples of a split were right, of a task with one label an example.

    Raises:
        PeftmarkError: for what another kind of task stored.
    """
    predicted, target = arrays.get("predicted"), arrays.get("target")
    if predicted is None or target is None or not _are_labels(predicted, target):
        raise PeftmarkError("these predictions are not one label an example: compare figures over seeds instead")
    return np.asarray(predicted == target)


def _are_labels(predicted: NDArray[Any], target: NDArray[Any]) -> bool:
    kinds = predicted.dtype.kind + target.dtype.kind
    return predicted.ndim == 1 and predicted.shape == target.shape and "f" not in kinds  # a regression's are floats
