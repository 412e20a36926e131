"""Two methods example by example."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar

from peftmark.errors import PeftmarkError
from peftmark.results.statistics import difference_by_example, mcnemar, paired_examples

TARGET = np.array([0, 1, 2, 0, 1, 2])


def predicted(*labels: int) -> dict[str, np.ndarray]:
    return {"target": TARGET, "predicted": np.array(labels)}


def differences(only_one: int, only_other: int, neither: int) -> np.ndarray:
    return np.array([1] * only_one + [-1] * only_other + [0] * neither, dtype=np.int8)


def test_differences_are_one_where_one_alone_was_right() -> None:
    one, other = predicted(0, 1, 2, 1, 1, 1), predicted(0, 0, 2, 0, 0, 0)
    found = difference_by_example([one, other], [other, other])
    assert found.tolist() == [[0, 1, 0, -1, 1, 0], [0] * 6]


def test_runs_that_cannot_be_paired_are_one_line() -> None:
    one = predicted(0, 1, 2, 1, 1, 1)
    with pytest.raises(PeftmarkError, match="2 and 1 runs cannot be paired"):
        difference_by_example([one, one], [one])
    with pytest.raises(PeftmarkError, match="0 and 0 runs"):
        difference_by_example([], [])
    with pytest.raises(PeftmarkError, match="not tested on the same examples"):
        difference_by_example([one], [{"target": TARGET[::-1], "predicted": TARGET}])
    with pytest.raises(PeftmarkError, match="not tested on the same examples"):
        difference_by_example([one], [{"target": TARGET[:5], "predicted": TARGET[:5]}])
    with pytest.raises(PeftmarkError, match="not one label an example"):
        difference_by_example([one], [{"predicted": TARGET}])
    with pytest.raises(PeftmarkError, match="no task to compare on"):
        paired_examples([])


@pytest.mark.parametrize(("only_one", "only_other"), [(12, 3), (0, 5), (7, 7), (40, 22), (0, 0)])
def test_mcnemars_test_is_statsmodels(only_one: int, only_other: int) -> None:
    result = mcnemar(differences(only_one, only_other, 100))
    expected = statsmodels_mcnemar([[60, only_one], [only_other, 40]], exact=True).pvalue
    assert (result.only_one, result.only_other) == (only_one, only_other)
    assert result.p == pytest.approx(expected)
    assert result.difference == pytest.approx(100 * (only_one - only_other) / (100 + only_one + only_other))
    assert str(result.n) == f"1 task, 1 seed, {100 + only_one + only_other} test examples"


@pytest.mark.parametrize(("only_one", "only_other"), [(12, 3), (30, 22), (0, 5)])
def test_of_one_run_flipping_signs_is_mcnemars_test(only_one: int, only_other: int) -> None:
    result = paired_examples([differences(only_one, only_other, 85)[None]])
    exact = binomtest(only_one, only_one + only_other).pvalue
    assert result.p == pytest.approx(exact, abs=3 * np.sqrt(exact / 5000) + 1 / 5000)


def test_the_interval_of_one_run_is_that_of_a_paired_difference() -> None:
    result = paired_examples([differences(60, 35, 405)[None]])
    error = 100 * np.sqrt((95 - 25**2 / 500) / 500**2)
    assert result.interval.estimate == pytest.approx(5.0)
    assert result.interval.low == pytest.approx(5 - 1.96 * error, abs=0.25)
    assert result.interval.high == pytest.approx(5 + 1.96 * error, abs=0.25)


def test_seeds_that_agree_are_no_more_examples() -> None:
    one = differences(12, 3, 85)[None]
    single, threefold = paired_examples([one]), paired_examples([np.repeat(one, 3, axis=0)])
    assert threefold.p == single.p
    assert threefold.interval.low == pytest.approx(single.interval.low)
    assert str(threefold.n) == "1 task, 3 seeds, 100 test examples"


def test_tasks_count_equally_whatever_their_size() -> None:
    small, large = differences(20, 0, 80)[None], differences(0, 100, 900)[None]
    result = paired_examples([small, large])
    assert result.interval.estimate == pytest.approx((20 - 10) / 2)
    assert str(result.n) == "2 tasks, 1 seed, 1,100 test examples"
    errors = 100 * np.sqrt((20 - 20**2 / 100) / 100**2 + (100 - 100**2 / 1000) / 1000**2) / 2
    assert result.interval.high - result.interval.low == pytest.approx(2 * 1.96 * errors, rel=0.06)


def test_equal_predictions_differ_by_nothing() -> None:
    result = paired_examples([np.zeros((2, 50), np.int8)])
    assert result.p == 1.0
    assert (result.interval.low, result.interval.estimate, result.interval.high) == (0.0, 0.0, 0.0)
