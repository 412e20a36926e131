"""``python -m tools.simulated_coverage``: how often the statistics' 95 % intervals hold a truth that is known.

Figures are drawn from distributions made up for the purpose, thousands of times, and each interval is asked whether it
holds what it is about: the mean over *all tasks of a kind*, of which few are drawn, or the mean over *these tasks*,
over all seeds and test examples. Ways of making an interval that are not ours stand beside it. Two standard errors of a
share are one point at 2,000 repetitions (``--repetitions``); it takes minutes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from scipy import stats

from peftmark.results.statistics import (
    Best,
    Interval,
    Pairs,
    Scores,
    binomial_variance,
    mean_intervals,
    on_these_tasks,
    paired_differences,
    paired_examples,
    sampling_variance,
    within_noise_of_best,
)

Figures = NDArray[np.float64]
Ends = tuple[float, float]

SHAPES = ((5, 3), (6, 3), (7, 3), (8, 1), (19, 1), (19, 3))
"""Tasks and seeds."""

SPREADS: Mapping[str, Callable[[np.random.Generator, tuple[int, ...]], Figures]] = {
    "normal": lambda random, shape: random.normal(size=shape),
    "Laplace": lambda random, shape: random.laplace(size=shape) / math.sqrt(2),
    "skewness 1": lambda random, shape: (random.gamma(4, size=shape) - 4) / 2,
    "skewness 2": lambda random, shape: random.exponential(size=shape) - 1,
    "none": lambda random, shape: np.zeros(shape),
}
"""How a method's differences from another are distributed over tasks: mean 0, deviation 1. The eight methods of the
suite `embedded` have a median deviation of 5 points and a sample skewness between -1.5 and 1.1."""

TASK_DEVIATION, SEED_DEVIATION = 5.0, 1.5


def over_other_tasks(tasks: int, seeds: int, spread: str, repetitions: int) -> dict[str, float]:
    """Percent of intervals for a difference of two methods that hold its mean over all tasks, which is 0.

    The interval of a difference is that of the mean of differences, and every repetition is a row of its own.
    """
    random = np.random.default_rng(0)
    effects = TASK_DEVIATION * SPREADS[spread](random, (repetitions, tasks, 1))
    differences = effects + math.sqrt(2) * random.normal(0, SEED_DEVIATION, (repetitions, tasks, seeds))
    ours = mean_intervals(_scores(differences))
    assert isinstance(ours, list)
    cells = differences.mean(axis=2)
    student = stats.ttest_1samp(cells, 0, axis=1).confidence_interval(0.95)
    intervals = {
        "ours": np.array([_ends(interval) for interval in ours]).T,
        "Student's t": np.stack(student),
        "percentiles, tasks": _percentiles(cells[:, :, None], random),
    }
    if seeds > 1:
        intervals["percentiles, tasks then seeds"] = _percentiles(differences, random)
    return {name: 100 * float(((low <= 0) & (high >= 0)).mean()) for name, (low, high) in intervals.items()}


def on_fixed_tasks(tasks: int, seeds: int, unequal: bool, repetitions: int) -> dict[str, float]:
    """Percent of intervals that hold the mean over these tasks and all seeds, which is 0."""
    random = np.random.default_rng(0)
    deviations = np.geomspace(0.4, 4.4, tasks)[:, None] if unequal else np.full((tasks, 1), SEED_DEVIATION)
    held: dict[str, int] = {}
    for _ in range(repetitions):
        values = deviations * random.normal(size=(tasks, seeds))
        variances = values.var(axis=1, ddof=1) / seeds / tasks**2
        satterthwaite = (seeds - 1) * variances.sum() ** 2 / (variances**2).sum()
        half = stats.t.ppf(0.975, satterthwaite) * math.sqrt(variances.sum())
        intervals = {
            "ours": _ends(on_these_tasks(values).interval),
            "Satterthwaite's freedom": (values.mean() - half, values.mean() + half),
            "t of the seeds' means": tuple(stats.ttest_1samp(values.mean(axis=0), 0).confidence_interval(0.95)),
        }
        _count(held, intervals, 0.0)
    return {name: 100 * count / repetitions for name, count in held.items()}


def with_test_sampling(tasks: int, seeds: int, examples: int, repetitions: int) -> dict[str, float]:
    """Percent of intervals that hold the mean accuracy on these tasks over all seeds and test examples.

    An example is right where ease of the task, of the example, of the seed and chance add up to more than 0, all
    normal: the accuracy over all examples and seeds is then known.
    """
    random = np.random.default_rng(0)
    ease = np.linspace(-0.5, 2.5, tasks)
    of_examples, of_seeds = 1.5, 0.08
    truth = 100 * float(stats.norm.cdf(ease / math.sqrt(1 + of_examples**2 + of_seeds**2)).mean())
    held: dict[str, int] = {}
    for _ in range(repetitions):
        right = (
            ease[:, None, None]
            + random.normal(0, of_examples, (tasks, 1, examples))
            + random.normal(0, of_seeds, (tasks, seeds, 1))
            + random.normal(size=(tasks, seeds, examples))
        ) > 0
        values = 100 * right.mean(axis=2)
        found = np.array([sampling_variance(task) for task in right])
        bound = np.array([binomial_variance(float(value), examples) for value in values.mean(axis=1)])
        intervals = {
            "ours, from predictions": _ends(on_these_tasks(values, found).interval),
            "ours, binomial bound": _ends(on_these_tasks(values, bound).interval),
            "seeds alone": _ends(on_these_tasks(values).interval),
        }
        _count(held, intervals, truth)
    return {name: 100 * count / repetitions for name, count in held.items()}


def over_examples(tasks: int, seeds: int, examples: int, repetitions: int) -> dict[str, float]:
    """Percent of intervals that hold the difference of two sets of models over all examples, and of tests that reject
    that there is none where there is none."""
    random = np.random.default_rng(0)
    held = rejected = 0
    for _ in range(repetitions):
        hard = random.normal(0, 1.5, (tasks, 1, examples))
        one, other = (0.8 + hard + random.normal(size=(tasks, seeds, examples)) > 0 for _ in range(2))
        result = paired_examples(list(one.astype(np.int8) - other.astype(np.int8)))
        held += result.interval.holds_zero
        rejected += result.p <= 0.05
    return {"ours": 100 * held / repetitions, "sign-flip test rejects": 100 * rejected / repetitions}


def of_the_best(methods: int, tasks: int, seeds: int, ahead: float, repetitions: int) -> dict[str, float]:
    """Percent of sets that hold the best of some methods, and their mean size; the others are equal to each other, and
    as good as the best where it is 0 points ahead, which is the worst case."""
    random = np.random.default_rng(0)
    held = size = pairwise = 0
    for _ in range(repetitions):
        values = random.normal(60, 15, (1, tasks, 1)) + random.normal(0, 3, (methods, tasks, 1))
        values = values + random.normal(0, SEED_DEVIATION, (methods, tasks, seeds))
        values[0] += ahead
        scores = _scores(values)
        best, pairs = within_noise_of_best(scores), paired_differences(scores)
        assert isinstance(best, Best) and isinstance(pairs, Pairs)
        held += "0" in best.methods
        size += len(best.methods)
        pairwise += not pairs.better[int(np.argmax(scores.means)), 0]
    shares = {"ours": 100 * held, "pairwise with the winner": 100 * pairwise, "methods in ours": size}
    return {name: count / repetitions for name, count in shares.items()}


def _scores(values: Figures) -> Scores:
    methods, tasks, seeds = (range(n) for n in values.shape)
    return Scores(tuple(map(str, methods)), tuple(map(str, tasks)), tuple(seeds), values)


def _ends(interval: Any) -> Ends:
    assert isinstance(interval, Interval)
    return interval.low, interval.high


def _percentiles(values: Figures, random: np.random.Generator, draws: int = 500) -> Figures:
    """(2, N) of the plain two-level bootstrap of (N, T, S): tasks are drawn, then seeds within each."""
    _, tasks, seeds = values.shape
    means = np.empty((draws, len(values)))
    for draw in range(draws):
        drawn = random.integers(tasks, size=(tasks, 1))
        means[draw] = values[:, drawn, random.integers(seeds, size=(tasks, seeds))].mean(axis=(1, 2))
    ends: Figures = np.quantile(means, [0.025, 0.975], axis=0)
    return ends


def _count(held: dict[str, int], intervals: Mapping[str, Ends], truth: float) -> None:
    for name, (low, high) in intervals.items():
        held[name] = held.get(name, 0) + (low <= truth <= high)


def _print(title: str, rows: Iterable[tuple[str, Mapping[str, float]]]) -> None:
    click.echo(f"\n{title}")
    header: list[str] = []
    for name, figures in rows:
        if not header:
            header = list(figures)
            click.echo("".join(f"{cell:>{max(len(cell), 6) + 3}}" for cell in (" " * 36, *header)))
        cells = (f"{figures[cell]:.1f}" if cell in figures else "-" for cell in header)
        columns = zip(cells, header, strict=True)
        click.echo(f"{name:<39}" + "".join(f"{cell:>{max(len(head), 6) + 3}}" for cell, head in columns))


@click.command()
@click.option("--repetitions", default=2000, show_default=True)
def main(repetitions: int) -> None:
    """Percent of 95 % intervals that hold the truth."""
    _print(
        "A difference over other tasks of the kind: tasks are a sample",
        (
            (f"{tasks} tasks x {seeds}, {spread}", over_other_tasks(tasks, seeds, spread, repetitions))
            for (tasks, seeds), spread in itertools.product(sorted(SHAPES, key=lambda s: (s[0], -s[1])), SPREADS)
        ),
    )
    _print(
        "A mean on these tasks: seeds are a sample",
        (
            (f"{t} tasks x {s}, {'unequal' if unequal else 'equal'} noise", on_fixed_tasks(t, s, unequal, repetitions))
            for (t, s), unequal in itertools.product(((1, 3), (2, 3), (7, 2), (7, 3), (19, 3)), (False, True))
        ),
    )
    _print(
        "A mean accuracy on these tasks: seeds and test examples are a sample",
        (
            (f"{t} tasks x {s}, {n} examples", with_test_sampling(t, s, n, repetitions // 2))
            for t, s, n in ((2, 3, 200), (7, 2, 500), (7, 3, 200), (7, 3, 500), (19, 3, 500))
        ),
    )
    _print(
        "A difference on these tasks as trained: test examples are a sample",
        (
            (f"{t} tasks x {s}, {n} examples", over_examples(t, s, n, repetitions // 4))
            for t, s, n in ((1, 1, 200), (1, 3, 500), (7, 3, 200))
        ),
    )
    _print(
        "The set that holds the best method",
        (
            (f"{m} methods, {t} x {s}, {ahead:g} ahead", of_the_best(m, t, s, ahead, repetitions // 4))
            for (m, t, s), ahead in itertools.product(
                ((8, 5, 3), (8, 6, 3), (8, 7, 3), (16, 8, 1), (20, 19, 1), (20, 19, 3)), (0.0, 1.0)
            )
        ),
    )


if __name__ == "__main__":
    main()
