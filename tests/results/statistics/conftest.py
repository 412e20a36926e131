"""Scores made up for the statistics' tests."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from peftmark.results.statistics import Scores

MakeScores = Callable[..., Scores]


@pytest.fixture
def make_scores() -> MakeScores:
    """Of a normal draw: tasks that differ by tens of points, methods by some, with noise of tasks and of seeds."""

    def make(
        methods: int = 4,
        tasks: int = 7,
        seeds: int = 3,
        *,
        apart: float = 1.0,
        of_tasks: float = 3.0,
        of_seeds: float = 1.5,
        random: int = 0,
        higher_is_better: bool = True,
    ) -> Scores:
        draw = np.random.default_rng(random)
        values = 60 + draw.normal(0, 15, (1, tasks, 1)) - apart * np.arange(methods)[:, None, None]
        values = values + draw.normal(0, of_tasks, (methods, tasks, 1))
        values = values + draw.normal(0, of_seeds, (methods, tasks, seeds))
        names = tuple(f"method {number:02}" for number in range(methods))
        return Scores(names, tuple(f"task {n:02}" for n in range(tasks)), tuple(range(seeds)), values, higher_is_better)

    return make
