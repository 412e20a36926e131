"""The bootstrap over tasks and seeds: against formulae, and what must not change it."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from peftmark.results.statistics import (
    FirstPlaces,
    Pairs,
    Scores,
    Withheld,
    first_places,
    mean_intervals,
    paired_differences,
    scores_of,
)
from peftmark.results.statistics.bootstrap import draws

MakeScores = Callable[..., Scores]


def pairs_of(scores: Scores, **over: str) -> Pairs:
    pairs = paired_differences(scores, **over)  # type: ignore[arg-type]
    assert isinstance(pairs, Pairs)
    return pairs


def test_a_difference_of_normal_figures_has_students_interval(make_scores: MakeScores) -> None:
    """With the correction the bootstrap's interval is about that of a paired t-test, where that holds."""
    ratios = []
    for random in range(60):
        scores = make_scores(methods=2, tasks=7, random=random)
        interval = pairs_of(scores).interval("method 00", "method 01")
        exact = stats.ttest_rel(*scores.cells).confidence_interval(0.95)
        assert interval.estimate == pytest.approx(scores.means[0] - scores.means[1])
        ratios.append((interval.high - interval.low) / (exact.high - exact.low))
    assert 0.96 < np.mean(ratios) < 1.01  # percentiles of seven values alone: 0.76
    assert min(ratios) > 0.85 and max(ratios) < 1.1


def test_draws_vary_as_a_mean_does(make_scores: MakeScores) -> None:
    scores = make_scores(tasks=6)
    over_tasks, over_seeds = draws(scores, "tasks"), draws(scores, "seeds")
    assert_allclose(over_tasks.var(axis=1), scores.cells.var(axis=1, ddof=1) / 6, rtol=0.06)
    assert_allclose(over_seeds.var(axis=1), scores.values.var(axis=2, ddof=1).sum(axis=1) / (3 * 36), rtol=0.06)
    for drawn in (over_tasks, over_seeds):
        assert_allclose(drawn.mean(axis=1), scores.means, atol=4 * math.sqrt(over_tasks.var() / drawn.shape[1]))


def test_methods_are_compared_on_the_same_draws(make_scores: MakeScores) -> None:
    """Two methods a constant apart on every task, whatever tasks are, differ by that constant without noise."""
    scores = make_scores(methods=1)
    both = dataclasses.replace(scores, methods=("a", "b"), values=np.concatenate([scores.values, scores.values - 2.5]))
    for over in ("tasks", "seeds"):
        interval = pairs_of(both, over=over).interval("a", "b")
        assert_allclose([interval.low, interval.estimate, interval.high], 2.5)


def test_pairs_are_antisymmetric_and_made_of_the_same_figures(make_scores: MakeScores) -> None:
    pairs = pairs_of(make_scores(methods=5, apart=3.0))
    assert_allclose(pairs.low, -pairs.high.T)
    assert_allclose(pairs.estimate, -pairs.estimate.T)
    assert (pairs.low <= pairs.estimate).all() and (pairs.estimate <= pairs.high).all()
    assert_array_equal(np.diag(pairs.low), 0)
    assert pairs.better[0, 4] and not pairs.better[4, 0]
    assert_array_equal(pairs.told_apart, pairs.told_apart.T)


def test_smaller_figures_can_be_the_better_ones(make_scores: MakeScores) -> None:
    pairs = pairs_of(make_scores(methods=3, apart=4.0, higher_is_better=False))
    assert pairs.better[2, 0] and not pairs.better[0, 2]
    first = first_places(make_scores(methods=3, apart=4.0, higher_is_better=False))
    assert isinstance(first, FirstPlaces)
    assert first.first == "method 02" and first.shares[2] > 0.9


def test_the_mean_over_other_tasks_is_as_uncertain_as_tasks_differ(make_scores: MakeScores) -> None:
    scores = make_scores(tasks=19)
    over_tasks, over_seeds = mean_intervals(scores), mean_intervals(scores, over="seeds")
    assert isinstance(over_tasks, list) and isinstance(over_seeds, list)
    for mean, wide, narrow in zip(scores.means, over_tasks, over_seeds, strict=True):
        assert wide.estimate == pytest.approx(mean) and narrow.estimate == pytest.approx(mean)
        assert wide.high - wide.low > 10 * (narrow.high - narrow.low)


def test_how_often_the_first_place_changes(make_scores: MakeScores) -> None:
    """Of two methods: as often as the difference's sign does, which Student's t gives about as well."""
    scores = make_scores(methods=2, tasks=19, apart=1.0, random=3)
    first = first_places(scores)
    assert isinstance(first, FirstPlaces)
    difference = scores.cells[0] - scores.cells[1]
    expected = stats.norm.sf(abs(difference.mean()) / (difference.std(ddof=1) / math.sqrt(19)))
    assert first.first == scores.methods[int(np.argmax(scores.means))]
    assert first.changes == pytest.approx(expected, abs=0.02) and first.changes > 0.02
    assert first.shares.sum() == pytest.approx(1)


def test_a_shared_first_place_counts_in_parts(make_scores: MakeScores) -> None:
    one = make_scores(methods=1)
    scores = dataclasses.replace(
        one, methods=("a", "b", "c"), values=np.repeat(one.values, 3, axis=0) - [[[0]], [[0]], [[9]]]
    )
    first = first_places(scores)
    assert isinstance(first, FirstPlaces)
    assert first.first == "a"
    assert_allclose(first.shares, [0.5, 0.5, 0.0])


def test_one_seed_is_enough_over_tasks_and_none_over_seeds(make_scores: MakeScores) -> None:
    scores = make_scores(seeds=1)
    assert isinstance(paired_differences(scores), Pairs)
    withheld = paired_differences(scores, over="seeds")
    assert isinstance(withheld, Withheld)
    assert withheld.reason.startswith("one seed says nothing of how results vary over seeds")
    assert str(withheld.n) == "4 methods, 7 tasks, 1 seed"


@pytest.mark.parametrize("function", [mean_intervals, paired_differences, first_places])
def test_four_tasks_are_too_few_and_five_are_not(make_scores: MakeScores, function: object) -> None:
    assert callable(function)
    withheld = function(make_scores(tasks=4))
    assert isinstance(withheld, Withheld) and withheld.reason == "4 tasks are too few to stand for others; 5 are needed"
    assert not isinstance(function(make_scores(tasks=5)), Withheld)


def test_a_missing_figure_withholds_it(make_scores: MakeScores) -> None:
    scores = make_scores()
    scores.values[1, 2] = np.nan
    withheld = first_places(scores)
    assert isinstance(withheld, Withheld) and withheld.reason == "not every method has finished every task"


def test_results_name_their_method_and_n(make_scores: MakeScores) -> None:
    pairs = pairs_of(make_scores())
    assert "hierarchical bootstrap over tasks" in pairs.method and "not adjusted" in pairs.method
    assert str(pairs.interval("method 00", "method 01").n) == "4 methods, 7 tasks, 3 seeds"


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(range(4)), tasks=st.permutations(range(6)), shift=st.floats(-50, 50))
def test_order_and_a_shift_of_all_change_nothing(
    make_scores: MakeScores, order: list[int], tasks: list[int], shift: float
) -> None:
    scores = make_scores(tasks=6)
    figures = {
        scores.methods[row]: {
            scores.tasks[column]: dict(enumerate((scores.values[row, column] + shift).tolist())) for column in tasks
        }
        for row in order
    }
    for over in ("tasks", "seeds"):
        one, other = pairs_of(scores, over=over), pairs_of(scores_of(figures), over=over)
        assert_allclose(one.low[np.ix_(order, order)], other.low, atol=1e-9)
        assert_allclose(one.high[np.ix_(order, order)], other.high, atol=1e-9)
        first, again = first_places(scores, over), first_places(scores_of(figures), over)  # type: ignore[arg-type]
        assert isinstance(first, FirstPlaces) and isinstance(again, FirstPlaces)
        assert first.first == again.first
        assert_allclose(first.shares[order], again.shares)


def test_sixty_methods_take_less_than_a_second(make_scores: MakeScores) -> None:
    scores = make_scores(methods=60, tasks=20)
    paired_differences(make_scores())  # imports
    start = time.process_time()
    paired_differences(scores)
    first_places(scores)
    assert time.process_time() - start < 1
