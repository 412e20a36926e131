"""How often intervals hold a truth that is known; the whole table is printed by ``python -m
tools.simulated_coverage``."""

from __future__ import annotations

import pytest

from peftmark.results.statistics import bootstrap
from peftmark.tools.simulated_coverage import (
    SHAPES,
    of_the_best,
    on_fixed_tasks,
    over_examples,
    over_other_tasks,
    with_test_sampling,
)


@pytest.mark.parametrize(
    ("tasks", "seeds", "spread"), [(*shape, "normal") for shape in SHAPES] + [(7, 3, "Laplace"), (7, 3, "none")]
)
def test_differences_over_other_tasks(tasks: int, seeds: int, spread: str) -> None:
    held = over_other_tasks(tasks, seeds, spread, 2000)
    assert 93 < held["ours"] < 97
    assert held["percentiles, tasks"] < held["ours"]


@pytest.mark.parametrize("tasks", [7, 19])
def test_differences_that_are_skewed_as_measured_ones_are(tasks: int) -> None:
    assert 92.5 < over_other_tasks(tasks, 3, "skewness 1", 2000)["ours"] < 97


def test_drawing_seeds_within_drawn_tasks_counts_their_noise_twice() -> None:
    held = over_other_tasks(19, 3, "none", 2000)
    assert held["percentiles, tasks then seeds"] > 97.5 and held["ours"] < 96.5


@pytest.mark.parametrize(("tasks", "seeds"), [(1, 3), (7, 3), (19, 3)])
def test_means_on_these_tasks(tasks: int, seeds: int) -> None:
    assert 93 < on_fixed_tasks(tasks, seeds, unequal=False, repetitions=2000)["ours"] < 97


def test_noise_that_differs_between_tasks() -> None:
    held = on_fixed_tasks(7, 3, unequal=True, repetitions=2000)
    assert 92.5 < held["ours"] < 97


def test_means_with_sampling_of_the_test_sets() -> None:
    held = with_test_sampling(5, 3, 200, 400)
    assert 92 < held["ours, from predictions"] < 98
    assert held["ours, binomial bound"] >= held["ours, from predictions"]
    assert held["seeds alone"] < 90


def test_differences_over_test_examples() -> None:
    found = over_examples(2, 2, 200, 400)
    assert 92 < found["ours"] < 98
    assert 2.5 < found["sign-flip test rejects"] < 8


def test_the_best_method_is_in_its_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though all are equal; among those that are not told apart from the winner, one by one, it often is not."""
    monkeypatch.setattr(bootstrap, "DRAWS", 1000)
    found = of_the_best(15, 12, 2, ahead=0.0, repetitions=200)
    assert found["ours"] > 91
    assert found["pairwise with the winner"] < found["ours"] - 5
