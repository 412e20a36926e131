"""Two methods example by example, from stored predictions: is one better *on tests like these*, as trained here?

The trained models are fixed, so that a test knows nothing of how results vary over seeds (`these_tasks` does); one of
several seeds at once says that these trainings together differ. Differences are in percentage points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import PeftmarkError
from .basis import DRAWS, LEVEL, SEED, Interval, Size
from .sampling import is_correct

Predicted = Mapping[str, NDArray[Any]]
"""Of one test split: ``target`` and ``predicted``, and what else is stored."""

Differences = Sequence[NDArray[np.int8]]
"""An array (S, n) for each task (or test split): 1 where the first method alone was right, -1 where the second was."""


@dataclass(frozen=True)
class McNemar:
    """An exact test of two models on one test set."""

    only_one: int
    only_other: int
    """How many examples the one alone, and the other alone, got right; only these decide."""
    difference: float
    p: float
    method: str
    n: Size


@dataclass(frozen=True)
class PairedExamples:
    """A mean difference over tasks, by resampling of test examples."""

    interval: Interval
    p: float
    method: str
    """Of the test; the interval's is its own."""
    n: Size


def difference_by_example(one: Sequence[Predicted], other: Sequence[Predicted]) -> NDArray[np.int8]:
    """(S, n) for one task, of two methods' predictions by seed: 1 where only `one` was right, -1 where only `other`.

    Raises:
        PeftmarkError: where they are not of the same examples, seed by seed, or not one label an example.
    """
    if not one or len(one) != len(other):
        raise PeftmarkError(f"{len(one)} and {len(other)} runs cannot be paired: name the same seeds of both methods")
    targets = [arrays["target"] for arrays in (*one, *other) if "target" in arrays]
    if any(not np.array_equal(target, targets[0]) for target in targets):
        raise PeftmarkError("the runs were not tested on the same examples in the same order: their targets differ")
    pairs = zip(one, other, strict=True)
    return np.stack([is_correct(a).astype(np.int8) - is_correct(b).astype(np.int8) for a, b in pairs])


def mcnemar(differences: NDArray[np.int8]) -> McNemar:
    """Of the differences (n,) of one run each: of the examples that one of them got right, is it half for each?

    McNemar 1947, exactly: a binomial test of the examples on which the models disagree.
    """
    from scipy.stats import binomtest

    only_one, only_other = int((differences > 0).sum()), int((differences < 0).sum())
    disagreed = only_one + only_other
    p = float(binomtest(only_one, disagreed).pvalue) if disagreed else 1.0
    n = Size(tasks=1, seeds=1, examples=len(differences))
    return McNemar(only_one, only_other, 100 * float(differences.mean()), p, "McNemar's test (1947), exact", n)


def paired_examples(tasks: Differences) -> PairedExamples:
    """The unweighted mean over tasks of the difference, its interval and a test that it is none.

    An example is drawn with what all seeds made of it: seeds share the test set. The interval is the percentiles of a
    bootstrap over the examples within every task; the test flips the sign of an example's difference, which is as
    likely as not if the methods are equal (a permutation test, stratified by task; Good 2005, *Permutation, Parametric
    and Bootstrap Tests of Hypotheses*), with the observed one among the draws (Phipson & Smyth 2010, arXiv:1603.05766).
    """
    if not tasks:
        raise PeftmarkError("no task to compare on: name runs that kept their predictions")
    random = np.random.default_rng(SEED)
    observed, drawn, flipped = 0.0, np.zeros(DRAWS), np.zeros(DRAWS)
    for differences in tasks:
        seeds, examples = differences.shape
        # few different values: how often each is drawn is all that counts
        values, counts = np.unique(differences.sum(axis=0, dtype=np.int64), return_counts=True)
        weight = 100 / (seeds * examples * len(tasks))
        observed += weight * float(values @ counts)
        drawn += weight * (random.multinomial(examples, counts / examples, size=DRAWS) @ values)
        flipped += weight * ((2 * random.binomial(counts, 0.5, size=(DRAWS, len(counts))) - counts) @ values)
    n = Size(tasks=len(tasks), seeds=min(len(each) for each in tasks), examples=sum(each.shape[1] for each in tasks))
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    as_far = int((np.abs(flipped) >= abs(observed) - 1e-9).sum())
    resampled = "percentile bootstrap of paired test examples within tasks, these trained models fixed"
    interval = Interval(observed, float(low), float(high), resampled, n)
    p = (as_far + 1) / (DRAWS + 1)
    return PairedExamples(interval, p, f"sign-flip test of paired test examples within tasks, {DRAWS:,} draws", n)
