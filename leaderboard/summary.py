"""The board's statistics: means, spreads and ranks of plain numbers."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Summary:
    """A mean over seeds with its sample standard deviation (n - 1), None where there is one value only.

    Of what several studies of a search chose, `mean` is the median of the `studies`' own means.
    """

    mean: float
    std: float | None
    n: int
    studies: tuple[float, ...] = field(default=(), repr=False)
    """Infinitely bad where a study failed."""

    @property
    def low(self) -> float:
        """Of the studies that did not fail."""
        return min(value for value in self.studies if math.isfinite(value))

    @property
    def high(self) -> float:
        return max(value for value in self.studies if math.isfinite(value))


def summarize(values: Sequence[float]) -> Summary:
    """Mean and spread of at least one value.

    >>> summarize([70.0, 72.0])
    Summary(mean=71.0, std=1.4142135623730951, n=2)
    """
    mean = math.fsum(values) / len(values)
    return Summary(mean=mean, std=_deviation(values, mean) if len(values) > 1 else None, n=len(values))


def _deviation(values: Sequence[float], mean: float) -> float:
    """The sample standard deviation (n - 1). `statistics.stdev` is exact to the last bit, and takes thirty times as
    long: with a hundred thousand runs most of a board's time."""
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def mean_over_tasks(tasks: Sequence[Mapping[int, float]]) -> Summary:
    """The unweighted mean of several tasks' means; each task gives its values by seed.

    The spread is that of the seeds' own means over the tasks, so it exists only where every task has the same
    seeds, two or more. `n` is the smallest number of seeds.

    >>> mean_over_tasks([{0: 60.0, 1: 62.0}, {0: 80.0, 1: 82.0}])
    Summary(mean=71.0, std=1.4142135623730951, n=2)
    """
    means = [summarize(list(task.values())).mean for task in tasks]
    seeds = sorted(tasks[0])
    shared = all(sorted(task) == seeds for task in tasks)
    std = None
    if shared and len(seeds) > 1:
        by_seed = [math.fsum(task[seed] for task in tasks) / len(tasks) for seed in seeds]
        std = _deviation(by_seed, math.fsum(by_seed) / len(by_seed))
    return Summary(mean=math.fsum(means) / len(means), std=std, n=min(len(task) for task in tasks))


def median_of_studies(studies: Sequence[Summary | None], higher_is_better: bool = True) -> Summary | None:
    """What several studies come to; one study is what it is.

    A study that failed, None, is infinitely bad and stays in the median, as in AlgoPerf (Dahl et al. 2023,
    arXiv:2306.07179): it can only make it worse. The spread is that over seeds within studies, the root of their mean
    variance; `n` is the smallest number of seeds.

    Returns:
        None where the median itself is infinitely bad.

    >>> median_of_studies([Summary(70.0, 3.0, 3), Summary(74.0, 4.0, 3), None])
    Summary(mean=70.0, std=3.5355339059327378, n=3)
    """
    if len(studies) == 1:
        return studies[0]
    worst = -math.inf if higher_is_better else math.inf
    values = tuple(worst if study is None else study.mean for study in studies)
    median = statistics.median(values)
    if not math.isfinite(median):
        return None
    done = [study for study in studies if study is not None]
    variances = [study.std**2 for study in done if study.std is not None]
    std = math.sqrt(math.fsum(variances) / len(variances)) if len(variances) == len(done) else None
    return Summary(median, std, min(study.n for study in done), values)


def ranks(values: Sequence[float]) -> list[int]:
    """Competition ranks, the largest first; equal values share a rank.

    >>> ranks([70.0, 90.0, 70.0, 50.0])
    [2, 1, 2, 4]
    """
    rounded = [round(value, 9) for value in values]  # equal but for the order of additions is equal
    return [1 + sum(other > value for other in rounded) for value in rounded]
