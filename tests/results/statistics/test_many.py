"""One method against each other one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import stats

from peftmark.errors import PeftmarkError
from peftmark.results.statistics import Against, Scores, Withheld, against_each
from peftmark.results.statistics.many import wilcoxon_p

MakeScores = Callable[..., Scores]


def test_p_is_wilcoxons_adjusted_by_holm(make_scores: MakeScores) -> None:
    scores = make_scores(methods=5, tasks=12, apart=1.2)
    result = against_each(scores, "method 02")
    assert isinstance(result, Against)
    assert [other.other for other in result.others] == ["method 00", "method 01", "method 03", "method 04"]
    raw = [stats.wilcoxon(scores.cells[2], scores.cells[row], method="exact").pvalue for row in (0, 1, 3, 4)]
    assert_allclose([other.p for other in result.others], raw)
    ordered = np.argsort(raw)
    steps = np.maximum.accumulate([min(1, (4 - place) * raw[index]) for place, index in enumerate(ordered)])
    assert_allclose([result.others[index].adjusted for index in ordered], steps)
    assert result.others[0].difference == pytest.approx(scores.means[2] - scores.means[0])
    assert str(result.n) == "5 methods, 12 tasks, 3 seeds" and "Holm" in result.method


def exact_by_signs(differences: np.ndarray) -> float:
    """Pratt's statistic under all signs."""
    ranks = stats.rankdata(np.abs(differences)) * (differences != 0)
    observed = abs((ranks * np.sign(differences)).sum())
    count = len(differences)
    signs = 2 * ((np.arange(2**count)[:, None] >> np.arange(count)) & 1) - 1
    return float((np.abs(signs @ ranks) >= observed - 1e-9).mean())


@pytest.mark.parametrize(
    "differences", [[1.0, 1.0, 2.0, -1.0, 3.0, 0.5], [0.0, 1.0, 2.0, 3.0, -0.5, 4.0, 0.0], [2.0, 1.5, -1.0, 3.0, 4.0]]
)
def test_with_ties_and_zeros_it_is_exact_all_the_same(differences: list[float]) -> None:
    assert wilcoxon_p(np.array(differences)) == pytest.approx(exact_by_signs(np.array(differences)))


@settings(deadline=None)
@given(st.lists(st.integers(-4, 4).map(float), min_size=1, max_size=10))
def test_it_is_what_all_signs_give(differences: list[float]) -> None:
    assert wilcoxon_p(np.array(differences)) == pytest.approx(exact_by_signs(np.array(differences)))


@pytest.mark.parametrize("tasks", [5, 12, 19, 40])
def test_without_ties_it_is_scipys(tasks: int) -> None:
    differences = np.random.default_rng(tasks).normal(0.4, 1, tasks)
    assert wilcoxon_p(differences) == pytest.approx(stats.wilcoxon(differences, method="exact").pvalue)


def test_equal_methods_do_not_differ(make_scores: MakeScores) -> None:
    scores = make_scores(methods=2, tasks=8)
    scores.values[1] = scores.values[0]
    result = against_each(scores, "method 00")
    assert isinstance(result, Against)
    assert result.others[0].p == 1 and not result.others[0].differs


def test_where_nothing_could_be_shown_it_is_withheld(make_scores: MakeScores) -> None:
    assert isinstance(against_each(make_scores(methods=2, tasks=6), "method 00"), Against)  # p >= 0.031
    withheld = against_each(make_scores(methods=3, tasks=6), "method 00")
    assert isinstance(withheld, Withheld)
    assert withheld.reason == "6 tasks cannot show it against 2: better on every one would give p = 0.062"
    one = against_each(make_scores(methods=3, tasks=1), "method 00")
    assert isinstance(one, Withheld) and one.reason.startswith("1 task cannot")
    assert isinstance(against_each(make_scores(methods=1), "method 00"), Withheld)


def test_a_method_that_is_not_there_is_one_line(make_scores: MakeScores) -> None:
    with pytest.raises(PeftmarkError, match="lora is not among the compared methods: name one of method 00, method 01"):
        against_each(make_scores(methods=2), "lora")
