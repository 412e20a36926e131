"""Standard errors and intervals on these tasks: against textbook formulae."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from peftmark.errors import PeftmarkError
from peftmark.results.statistics import (
    Interval,
    Pairs,
    Scores,
    Withheld,
    differences,
    groups_of,
    on_these_tasks,
    paired_differences,
    paired_on_these_tasks,
)

MakeScores = Callable[..., Scores]

VALUES = np.array([[50.0, 52.0, 54.0], [90.0, 90.5, 89.5], [30.0, 33.0, 30.0]])


def test_one_task_has_students_interval() -> None:
    result = on_these_tasks(VALUES[:1])
    exact = stats.ttest_1samp(VALUES[0], 0).confidence_interval(0.95)
    assert isinstance(result.interval, Interval)
    assert_allclose([result.interval.low, result.interval.high], exact)
    assert result.freedom == pytest.approx(2)


def test_noise_of_seeds_is_pooled_over_tasks() -> None:
    result = on_these_tasks(VALUES)
    v = np.array([4.0, 0.25, 3.0]) / 3 / 9
    assert result.estimate == pytest.approx((52 + 90 + 31) / 3)
    assert result.seeds == pytest.approx(math.sqrt(v.sum()))
    assert result.freedom == pytest.approx(v.sum() ** 2 / (v**2 / 4).sum() - 2)
    assert result.sampling is None and result.together == result.seeds


def test_equal_noise_has_about_the_freedom_of_all_tasks_together() -> None:
    """T (S - 1), which Satterthwaite's own formula halves."""
    random = np.random.default_rng(0)
    found = [on_these_tasks(random.normal(size=(30, 3))).freedom for _ in range(200)]
    assert np.median(found) == pytest.approx(60, rel=0.08)


def test_sampling_of_the_test_sets_is_added() -> None:
    alone, both = on_these_tasks(VALUES), on_these_tasks(VALUES, np.array([4.0, 1.0, 4.0]), examples=1500)
    assert both.sampling == pytest.approx(1.0)
    assert both.seeds == alone.seeds
    assert both.together == pytest.approx(math.hypot(1.0, alone.seeds or 0.0))
    assert both.freedom > alone.freedom  # what sampling adds is known well
    assert isinstance(both.interval, Interval) and isinstance(alone.interval, Interval)
    assert both.interval.high > alone.interval.high
    assert "seeds and sampling of the test sets" in both.method and "sampling" not in alone.method
    assert str(both.n) == "3 tasks, 3 seeds, 1,500 test examples"


def test_one_seed_has_the_sampling_part_alone() -> None:
    result = on_these_tasks(VALUES[:, :1], np.array([4.0, 1.0, 4.0]))
    assert result.seeds is None and result.sampling == pytest.approx(1.0) and result.together is None
    assert isinstance(result.interval, Withheld)
    assert result.interval.reason == "one seed says nothing of how results vary over seeds; two are needed"


def test_a_task_may_have_fewer_seeds() -> None:
    values = VALUES.copy()
    values[2, 2] = np.nan
    result = on_these_tasks(values)
    assert result.estimate == pytest.approx((52 + 90 + 31.5) / 3)
    assert result.seeds == pytest.approx(math.sqrt((4 / 3 + 0.25 / 3 + 4.5 / 2) / 9))
    assert result.n.seeds == 2
    values[2, 1:] = np.nan
    assert on_these_tasks(values).seeds is None


def test_figures_without_any_noise_have_no_width() -> None:
    result = on_these_tasks(np.full((3, 3), 42.6))
    assert isinstance(result.interval, Interval)
    assert result.interval.low == result.interval.high == result.estimate


def test_a_task_without_a_figure_is_one_line() -> None:
    with pytest.raises(PeftmarkError, match="a task has no figure"):
        on_these_tasks(np.array([[1.0, 2.0], [np.nan, np.nan]]))
    with pytest.raises(PeftmarkError, match="a task has no figure"):
        on_these_tasks(np.zeros((0, 3)))


def test_two_methods_are_compared_seed_by_seed(make_scores: MakeScores) -> None:
    scores = make_scores(methods=3)
    scores.values[0, 2, 1] = np.nan  # then no task has this seed, of either
    found = differences(scores, "method 00", "method 02")
    assert_allclose(found, (scores.values[0] - scores.values[2])[:, [0, 2]])
    assert differences(scores, "method 01", "method 02").shape == (7, 3)


@pytest.mark.parametrize("known", [False, True])
def test_all_pairs_are_what_each_pair_is(make_scores: MakeScores, known: bool) -> None:
    scores = make_scores(methods=4, apart=2.0)
    sampling = np.random.default_rng(0).uniform(1, 4, (4, 4, 7)) if known else None
    pairs = paired_on_these_tasks(scores, sampling)
    assert isinstance(pairs, Pairs)
    for a, b in ((0, 1), (3, 1), (2, 0)):
        one, other = scores.methods[a], scores.methods[b]
        each = on_these_tasks(differences(scores, one, other), None if sampling is None else sampling[a, b]).interval
        assert isinstance(each, Interval)
        found = pairs.interval(one, other)
        assert (found.estimate, found.low, found.high) == pytest.approx((each.estimate, each.low, each.high))
    assert_allclose(np.diag(pairs.high), 0 if sampling is None else np.diag(pairs.high))
    assert ("sampling of the test sets" in pairs.method) is known


def test_more_can_be_told_apart_on_these_tasks_than_on_others(make_scores: MakeScores) -> None:
    scores = make_scores(methods=6, tasks=7, apart=2.0)
    over_tasks, over_seeds = paired_differences(scores), paired_on_these_tasks(scores)
    assert isinstance(over_tasks, Pairs) and isinstance(over_seeds, Pairs)
    assert over_seeds.told_apart.sum() > over_tasks.told_apart.sum()
    assert len(groups_of(over_seeds)) >= len(groups_of(over_tasks))


def test_methods_that_seeds_do_not_change_have_no_width(make_scores: MakeScores) -> None:
    scores = make_scores(methods=2, of_seeds=0.0)
    pairs = paired_on_these_tasks(scores)
    assert isinstance(pairs, Pairs)
    assert_allclose(pairs.low, pairs.estimate, atol=1e-9)


def test_one_seed_withholds_pairs(make_scores: MakeScores) -> None:
    withheld = paired_on_these_tasks(make_scores(seeds=1))
    assert isinstance(withheld, Withheld) and withheld.reason.startswith("one seed says nothing")
