"""A mean on these tasks, and how far it can be trusted: over seeds, over test examples, and over both.

The tasks are fixed: nothing is said of others. Every task has a variance over seeds of its own, from few seeds; the
variance of the mean over T tasks is their sum / T², and its degrees of freedom are Welch's (1947, *Biometrika* 34:28;
his second formula, (Σv)² / Σ v² / (ν + 2) - 2, which few degrees each do not bias as they do Satterthwaite's of 1946).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ...errors import PeftmarkError
from .basis import LEVEL, Interval, Size, Withheld
from .bootstrap import Pairs, why_withheld
from .scores import Figures, Scores


@dataclass(frozen=True)
class Uncertainty:
    """Of a mean over fixed tasks, or of a difference of two; standard errors, in the figures' unit."""

    estimate: float
    seeds: float | None
    """None of one seed: nothing is known of the others."""
    sampling: float | None
    """Of test examples, beyond what is in `seeds`; None where it is not known."""
    freedom: float
    """Degrees of freedom of both together; infinite where only sampling counts."""
    method: str
    n: Size

    @property
    def together(self) -> float | None:
        """The standard error with both parts; of one seed None, as the larger part may be missing."""
        if self.seeds is None:
            return None
        return math.hypot(self.seeds, self.sampling or 0.0)

    @property
    def interval(self) -> Interval | Withheld:
        """At `LEVEL`, of all that is known."""
        from scipy.special import stdtrit

        error = self.together
        if error is None:
            reason = "one seed says nothing of how results vary over seeds; two are needed"
            return Withheld(self.method, reason, self.n)
        half = float(stdtrit(self.freedom, (1 + LEVEL) / 2)) * error if error else 0.0
        return Interval(self.estimate, self.estimate - half, self.estimate + half, self.method, self.n)


def on_these_tasks(values: Figures, sampling: Figures | None = None, examples: int | None = None) -> Uncertainty:
    """Of the mean over tasks of means over seeds.

    Args:
        values: (T, S), one method's figures or the differences of two by seed; NaN where a task has fewer seeds.
        sampling: (T,), the variance that the test set's sampling adds to each task's mean (`sampling_variance`, or
            `binomial_variance` as a bound); None where it is not known.
        examples: all test sets' together, for `n`.

    Raises:
        PeftmarkError: where a task has no figure.
    """
    counts = (~np.isnan(values)).sum(axis=1)
    if not len(counts) or counts.min() < 1:
        raise PeftmarkError("a task has no figure: cut the scores down to what all finished (`in_common`) first")
    tasks = len(values)
    estimate = float(np.nanmean(values, axis=1).mean())
    added = None if sampling is None else float(sampling.sum()) / tasks**2
    size = Size(tasks=tasks, seeds=int(counts.min()), examples=examples)
    parts = "seeds" if sampling is None else "seeds and sampling of the test sets"
    method = f"Student's t with Welch's degrees of freedom (1947) over {parts}, these tasks fixed"
    error = None if added is None else math.sqrt(added)
    if counts.min() < 2:
        return Uncertainty(estimate, None, error, math.inf, method, size)
    variances = np.nanvar(values, axis=1, ddof=1) / counts / tasks**2
    total = float(variances.sum())
    return Uncertainty(
        estimate, math.sqrt(total), error, _freedom(variances, counts - 1, total + (added or 0.0)), method, size
    )


def paired_on_these_tasks(scores: Scores, sampling: Figures | None = None) -> Pairs | Withheld:
    """Differences of all pairs of methods on these tasks, seed by seed, each as by `on_these_tasks`.

    Args:
        sampling: (M, M, T), what the test sets' sampling adds to the variance of each pair's difference on each task:
            `sampling_variance` of `difference_by_example`; without predictions the sum of both methods'
            `binomial_variance` is a bound, as two methods tend to be right on the same examples. None where it is not
            known: intervals then are over seeds alone.
    """
    from scipy.special import stdtrit

    parts = "seeds" if sampling is None else "seeds and sampling of the test sets"
    method = (
        f"paired differences, Student's t with Welch's degrees of freedom (1947) over {parts}, these tasks fixed; not "
        "adjusted for the number of pairs"
    )
    if (withheld := why_withheld(scores, "seeds", method)) is not None:
        return withheld
    values = scores.paired
    _, tasks, seeds = values.shape
    estimate = values.mean(axis=(1, 2))[:, None] - values.mean(axis=(1, 2))
    deviations = values - values.mean(axis=2, keepdims=True)
    products = np.einsum("ats,bts->abt", deviations, deviations)
    own = np.einsum("aat->at", products)
    variances = np.maximum(own[:, None] + own - 2 * products, 0.0) / ((seeds - 1) * seeds * tasks**2)
    total = variances.sum(axis=2) + (0.0 if sampling is None else sampling.sum(axis=2) / tasks**2)
    squares = (variances**2).sum(axis=2) / (seeds + 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        freedom = np.where(squares > 0, np.maximum(total**2 / squares - 2, seeds - 1), np.inf)
    half = stdtrit(freedom, (1 + LEVEL) / 2) * np.sqrt(total)
    return Pairs(
        scores.methods, scores.higher_is_better, estimate, estimate - half, estimate + half, method, scores.size
    )


def differences(scores: Scores, one: str, other: str) -> Figures:
    """(T, S'): of two methods on the seeds that both have everywhere, `one` less `other`."""
    pair = scores.select((one, other), scores.tasks).paired
    return pair[0] - pair[1]


def _freedom(variances: Figures, degrees: Figures, total: float) -> float:
    squares = float((variances**2 / (degrees + 2)).sum())
    if squares == 0:
        return math.inf
    return max(total**2 / squares - 2, float(degrees.min()))
