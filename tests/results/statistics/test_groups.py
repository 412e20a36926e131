"""What ranks the figures carry."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from peftmark.results.statistics import (
    Best,
    Level,
    Pairs,
    Scores,
    Size,
    Withheld,
    groups_of,
    paired_differences,
    rank_ranges,
    within_noise_of_best,
)

MakeScores = Callable[..., Scores]


def pairs_at(means: list[float], half: float, higher_is_better: bool = True) -> Pairs:
    """Differences of methods a, b, … whose intervals are all equally wide."""
    estimate = np.subtract.outer(np.array(means), np.array(means))
    return Pairs(
        tuple("abcdefgh"[: len(means)]), higher_is_better, estimate, estimate - half, estimate + half, "made up", Size()
    )


def test_ranks_are_ranges() -> None:
    assert rank_ranges(pairs_at([90.0, 88.0, 80.0, 89.5], 3.0)) == [(1, 3), (1, 3), (4, 4), (1, 3)]
    assert rank_ranges(pairs_at([90.0, 88.0, 86.0], 2.5)) == [(1, 2), (1, 3), (2, 3)]


def test_groups_are_the_longest_runs_of_what_cannot_be_told_apart() -> None:
    assert groups_of(pairs_at([86.0, 90.0, 88.0, 70.0], 2.5)) == [("b", "c"), ("c", "a"), ("d",)]
    assert groups_of(pairs_at([86.0, 90.0, 88.0], 5.0)) == [("b", "c", "a")]
    assert groups_of(pairs_at([1.0, 3.0, 9.0], 2.5, higher_is_better=False)) == [("a", "b"), ("c",)]


def test_no_group_holds_two_that_are_told_apart(make_scores: MakeScores) -> None:
    pairs = paired_differences(make_scores(methods=12, tasks=10))
    assert isinstance(pairs, Pairs)
    groups = groups_of(pairs)
    assert len(groups) > 2 and {name for group in groups for name in group} == set(pairs.methods)
    for group in groups:
        places = [pairs.methods.index(name) for name in group]
        assert not pairs.told_apart[np.ix_(places, places)].any()


@pytest.mark.parametrize("over", ["tasks", "seeds"])
def test_who_is_far_behind_is_not_within_noise_of_the_best(make_scores: MakeScores, over: Level) -> None:
    scores = make_scores(methods=4, apart=0.0)
    scores.values[2] += 0.2 - scores.values[2].mean() + scores.values[0].mean()
    scores.values[3] -= 25.0
    best = within_noise_of_best(scores, over)
    assert isinstance(best, Best)
    assert "method 03" not in best.methods and {"method 00", "method 02"} <= set(best.methods)
    means = [scores.means[scores.methods.index(name)] for name in best.methods]
    assert means == sorted(means, reverse=True)
    lower = within_noise_of_best(dataclasses.replace(scores, higher_is_better=False), over)
    assert isinstance(lower, Best) and lower.methods == ("method 03",)


def test_methods_that_always_differ_by_the_same_are_told_apart(make_scores: MakeScores) -> None:
    one = make_scores(methods=1)
    apart = dataclasses.replace(one, methods=("a", "b"), values=np.concatenate([one.values, one.values - 0.1]))
    assert within_noise_of_best(apart) == Best(("a",), within_noise_of_best(apart).method, apart.size)
    equal = dataclasses.replace(one, methods=("a", "b"), values=np.concatenate([one.values, one.values]))
    assert within_noise_of_best(equal) == Best(("a", "b"), within_noise_of_best(equal).method, equal.size)


def test_one_method_alone_is_the_best(make_scores: MakeScores) -> None:
    best = within_noise_of_best(make_scores(methods=1))
    assert isinstance(best, Best) and best.methods == ("method 00",)


def test_few_tasks_withhold_it(make_scores: MakeScores) -> None:
    assert isinstance(within_noise_of_best(make_scores(tasks=2)), Withheld)
    assert isinstance(within_noise_of_best(make_scores(tasks=2), over="seeds"), Best)
