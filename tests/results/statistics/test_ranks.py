"""Ranks over tasks: against scipy, scikit-posthocs and the example of Demšar 2006."""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scikit_posthocs import posthoc_nemenyi_friedman
from scipy import stats

from peftmark.results.statistics import Friedman, Nemenyi, Scores, Withheld, friedman, nemenyi, win_matrix

MakeScores = Callable[..., Scores]

AUC = """
0.763 0.768 0.771 0.798
0.599 0.591 0.590 0.569
0.954 0.971 0.968 0.967
0.628 0.661 0.654 0.657
0.882 0.888 0.886 0.898
0.936 0.931 0.916 0.931
0.661 0.668 0.609 0.685
0.583 0.583 0.563 0.625
0.775 0.838 0.866 0.875
1.000 1.000 1.000 1.000
0.940 0.962 0.965 0.962
0.619 0.666 0.614 0.669
0.972 0.981 0.9752 0.9748
0.957 0.978 0.946 0.970
"""
"""Of C4.5 and three of its settings on 14 data sets: table 6 of Demšar 2006, which ranks two figures apart that it
prints as equal (0.975)."""


def scores_at(cells: np.ndarray, higher_is_better: bool = True) -> Scores:
    methods, tasks = (range(n) for n in cells.shape)
    return Scores(tuple(map(str, methods)), tuple(map(str, tasks)), (0,), cells[:, :, None], higher_is_better)


DEMSAR = dataclasses.replace(
    scores_at(np.loadtxt(io.StringIO(AUC)).T), methods=("C4.5", "C4.5+m", "C4.5+cf", "C4.5+m+cf")
)


def test_demsars_example() -> None:
    """Its mean ranks, critical difference and, without the correction for ties, Friedman's chi-square."""
    result = nemenyi(DEMSAR)
    assert isinstance(result, Nemenyi)
    assert result.methods == ("C4.5+m+cf", "C4.5+m", "C4.5+cf", "C4.5")
    assert_allclose(result.mean_ranks, [1.964, 2.000, 2.893, 3.143], atol=6e-4)
    q = 2.569  # its table 5a
    assert result.critical_difference == pytest.approx(q * math.sqrt(4 * 5 / (6 * 14)), abs=5e-4)
    assert 12 * 14 / (4 * 5) * ((result.mean_ranks**2).sum() - 25) == pytest.approx(9.28, abs=0.005)
    assert result.groups == (("C4.5+m+cf", "C4.5+m", "C4.5+cf", "C4.5"),)  # 3.143 - 1.964 is less than 1.25


def test_the_critical_difference_tells_apart() -> None:
    cells = np.array([[50.0, 50.0, 30.0]] * 40) + np.random.default_rng(0).normal(size=(40, 3))
    result = nemenyi(scores_at(cells.T))
    assert isinstance(result, Nemenyi)
    assert len(result.groups) == 1 and set(result.groups[0]) == {"0", "1"}
    assert result.methods[-1] == "2" and result.p[0, 2] < 0.001


def test_nemenyis_p_is_scikit_posthocs(make_scores: MakeScores) -> None:
    scores = make_scores(methods=6, tasks=19)
    result = nemenyi(scores)
    assert isinstance(result, Nemenyi)
    expected = posthoc_nemenyi_friedman(scores.cells.T).to_numpy()
    order = [scores.methods.index(name) for name in result.methods]
    assert_allclose(result.p, 1 - (1 - expected[np.ix_(order, order)]), atol=1e-9)
    apart = np.abs(np.subtract.outer(result.mean_ranks, result.mean_ranks)) > result.critical_difference
    assert_array_equal(apart, result.p < 0.05)


def test_friedmans_statistic_is_scipys(make_scores: MakeScores) -> None:
    for scores in (make_scores(methods=5, tasks=7), make_scores(methods=8, tasks=19), DEMSAR):
        result = friedman(scores)
        assert isinstance(result, Friedman)
        assert result.statistic == pytest.approx(stats.friedmanchisquare(*scores.cells).statistic)


def test_many_tasks_and_methods_have_the_f_of_iman_and_davenport(make_scores: MakeScores) -> None:
    scores = make_scores(methods=8, tasks=19, apart=0.3)
    result = friedman(scores)
    assert isinstance(result, Friedman)
    chi2 = stats.friedmanchisquare(*scores.cells).statistic
    assert result.p == pytest.approx(stats.f.sf(18 * chi2 / (19 * 7 - chi2), 7, 7 * 18))
    assert "Iman & Davenport" in result.method


def test_few_have_that_of_permutations(make_scores: MakeScores) -> None:
    """Three methods on three tasks in one order: of 216 equally likely rankings, 6 are as far."""
    result = friedman(scores_at(np.array([[3.0, 5.0, 9.0], [2.0, 4.0, 8.0], [1.0, 3.0, 7.0]])))
    assert isinstance(result, Friedman)
    assert result.p == pytest.approx(6 / 216, abs=0.007)
    assert "permutations" in result.method


def test_methods_without_a_difference_are_not_told_apart() -> None:
    result = friedman(scores_at(np.ones((7, 12))))
    assert isinstance(result, Friedman) and result.p == 1 and result.statistic == 0


def test_one_order_on_all_tasks_is_no_error() -> None:
    result = friedman(scores_at(np.arange(7.0)[:, None] + np.zeros((1, 12))))
    assert isinstance(result, Friedman) and result.p < 1e-12


def test_results_without_ground_are_withheld(make_scores: MakeScores) -> None:
    assert not isinstance(nemenyi(make_scores(tasks=11)), Withheld)
    few = nemenyi(make_scores(tasks=10))
    assert isinstance(few, Withheld) and few.reason.startswith("10 tasks are too few") and "Demšar 2006" in few.reason
    two = friedman(make_scores(methods=2))
    assert isinstance(two, Withheld) and two.reason.startswith("it compares three methods or more")
    one = friedman(make_scores(tasks=1))
    assert isinstance(one, Withheld) and one.reason == "ranks on one task are no sample of ranks"
    missing = make_scores(tasks=12)
    missing.values[0, 0] = np.nan
    for result in (nemenyi(missing), friedman(missing)):
        assert isinstance(result, Withheld) and result.reason == "not every method has finished every task"


def test_wins_and_ties_are_counted_over_tasks() -> None:
    cells = np.array([[50.0, 60.0, 70.0, 80.0], [50.0, 61.0, 69.0, 79.0], [10.0, 10.0, 99.0, 80.0]])
    wins = win_matrix(scores_at(cells))
    assert wins.wins.tolist() == [[0, 2, 2], [1, 0, 2], [1, 2, 0]]
    assert wins.ties.tolist() == [[4, 1, 1], [1, 4, 0], [1, 0, 4]]
    fewer = win_matrix(scores_at(cells, higher_is_better=False))
    assert_array_equal(fewer.wins, wins.wins.T)


def test_equal_but_for_rounding_is_a_tie() -> None:
    wins = win_matrix(scores_at(np.array([[0.1 + 0.2], [0.3]])))
    assert wins.ties[0, 1] == 1 and wins.wins.sum() == 0


def test_the_best_rank_is_that_of_the_smallest_where_smaller_is_better(make_scores: MakeScores) -> None:
    scores = make_scores(tasks=12, apart=4.0, higher_is_better=False)
    result = nemenyi(scores)
    assert isinstance(result, Nemenyi) and result.methods[0] == "method 03"
