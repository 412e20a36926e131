"""The Bayesian signed-rank test: against closed forms and a plain loop over its definition."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from peftmark.results.statistics import Scores, SignedRanks, Withheld, signed_ranks
from peftmark.results.statistics.signed_rank import probabilities

MakeScores = Callable[..., Scores]


def by_definition(differences: list[float], rope: float, draws: int = 4000) -> list[float]:
    """Of arXiv:1606.04316, 4.2: every pair of observations votes with the product of its weights."""
    z = [0.0, *differences]
    won = np.zeros(3)
    for w in np.random.default_rng(7).dirichlet([0.5] + [1.0] * len(differences), size=draws):
        theta = np.zeros(3)
        for i, j in np.ndindex(len(z), len(z)):
            middle = (z[i] + z[j]) / 2
            if abs(middle) == rope:
                theta[1] += w[i] * w[j] / 2
                theta[0 if middle < 0 else 2] += w[i] * w[j] / 2
            else:
                theta[0 if middle < -rope else 2 if middle > rope else 1] += w[i] * w[j]
        won[int(np.argmax(theta))] += 1
    return list(won / draws)


@pytest.mark.parametrize(
    ("difference", "right"),
    [
        (5.0, math.sqrt(math.sqrt(0.5))),  # the pseudo-observation alone is in the region: w0² < 1/2, w0 ~ Beta(1/2, 1)
        (0.8, math.sqrt(1 - math.sqrt(0.5))),  # so is half the difference: w1² > 1/2
        (0.3, 0.0),
    ],
)
def test_one_task_has_a_closed_form(difference: float, right: float) -> None:
    found = probabilities(np.array([[difference], [-difference]]))[:, :]
    assert_allclose(found[:, 0], [0, 1 - right, right], atol=0.012)
    assert_allclose(found[:, 1], found[::-1, 0], atol=0.012)


@pytest.mark.parametrize(
    "differences",
    [[1.2, -0.3, 0.8, 2.0, -1.5], [0.1, 0.4, -0.2, 0.3, 0.6, 0.9], [-1.0, -2.0, 0.5, -0.5], [1.0, 1.0, -1.0]],
)
def test_it_is_what_its_definition_says(differences: list[float]) -> None:
    expected = by_definition(differences, 0.5)
    assert_allclose(probabilities(np.array([differences]))[:, 0], expected, atol=0.03)


def test_a_clear_case_and_an_equal_one() -> None:
    clear, equal, open_ = probabilities(np.array([[4.0] * 12, [0.1] * 12, [-0.9, 0.9] * 6])).T
    assert clear[2] > 0.999 and equal[1] > 0.999
    assert clear.sum() == pytest.approx(1) and 0.05 < open_[0] < 0.95 and open_[0] == pytest.approx(open_[2], abs=0.3)


def test_a_wider_region_makes_more_equivalent() -> None:
    differences = np.random.default_rng(0).normal(0.8, 1.0, (1, 9))
    same = [probabilities(differences, rope)[1, 0] for rope in (0.0, 0.25, 0.5, 1.0, 3.0)]
    assert same == sorted(same) and same[0] < 0.01 and same[-1] > 0.99


@settings(max_examples=20, deadline=None)
@given(
    values=st.lists(st.integers(-40, 40).map(lambda n: n / 8), min_size=1, max_size=8),
    order=st.randoms(use_true_random=False),
)
def test_probabilities_add_up_and_mirror(values: list[float], order: object) -> None:
    found = probabilities(np.array([values, [-value for value in values]]))
    assert_allclose(found.sum(axis=0), 1)
    assert_allclose(found[:, 0], found[::-1, 1], atol=1e-6)


def test_all_pairs_are_the_pairs(make_scores: MakeScores) -> None:
    scores = make_scores(methods=5, tasks=9)
    result = signed_ranks(scores)
    assert isinstance(result, SignedRanks)
    for a, b in ((0, 1), (3, 1), (4, 2)):
        worse, same, better = probabilities((scores.cells[a] - scores.cells[b])[None])[:, 0]
        assert_allclose(
            [result.better[a, b], result.equivalent[a, b], result.better[b, a]], [better, same, worse], atol=1e-9
        )
    assert_array_equal(np.diag(result.equivalent), 1)
    assert_allclose(result.better + result.better.T + result.equivalent, 1)
    assert "0.5 points" in result.method and "1606.04316" in result.method
    assert str(result.n) == "5 methods, 9 tasks, 3 seeds"


def test_smaller_figures_can_be_the_better_ones(make_scores: MakeScores) -> None:
    result = signed_ranks(make_scores(methods=2, apart=8.0, higher_is_better=False))
    assert isinstance(result, SignedRanks) and result.better[1, 0] > 0.9


def test_another_region_is_named(make_scores: MakeScores) -> None:
    result = signed_ranks(make_scores(), rope=1.0)
    assert isinstance(result, SignedRanks) and "within 1.0 points" in result.method


def test_a_missing_figure_withholds_it(make_scores: MakeScores) -> None:
    scores = make_scores()
    scores.values[1, 2] = np.nan
    assert isinstance(signed_ranks(scores), Withheld)
