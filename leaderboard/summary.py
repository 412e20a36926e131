"""The board's statistics: means, spreads and ranks of plain numbers."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Summary:
    """A mean over seeds with its sample standard deviation (n - 1), None where there is one value only."""

    mean: float
    std: float | None
    n: int


def summarize(values: Sequence[float]) -> Summary:
    """Mean and spread of at least one value.

    >>> summarize([70.0, 72.0])
    Summary(mean=71.0, std=1.4142135623730951, n=2)
    """
    return Summary(
        mean=math.fsum(values) / len(values),
        std=statistics.stdev(values) if len(values) > 1 else None,
        n=len(values),
    )


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
        std = statistics.stdev(math.fsum(task[seed] for task in tasks) / len(tasks) for seed in seeds)
    return Summary(mean=math.fsum(means) / len(means), std=std, n=min(len(task) for task in tasks))


def ranks(values: Sequence[float]) -> list[int]:
    """Competition ranks, the largest first; equal values share a rank.

    >>> ranks([70.0, 90.0, 70.0, 50.0])
    [2, 1, 2, 4]
    """
    rounded = [round(value, 9) for value in values]  # equal but for the order of additions is equal
    return [1 + sum(other > value for other in rounded) for value in rounded]
