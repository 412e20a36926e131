"""Expected bests, bands and trials needed, against values worked out by hand and by drawing."""

from __future__ import annotations

import itertools
from fractions import Fraction
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftmark.leaderboard.tuning.sensitivity import (
    band,
    changed_pairs,
    expected_best,
    trials_needed,
    with_failures,
)

figures = st.lists(st.floats(0, 100), min_size=1, max_size=15)


def test_expected_best_by_hand() -> None:
    # of 10, 20, 40: with two draws of nine pairs, 10 is the best in 1, 20 in 3, 40 in 5
    assert expected_best(np.array([40.0, 10.0, 20.0]), 3).tolist() == pytest.approx(
        [70 / 3, (10 + 3 * 20 + 5 * 40) / 9, (10 + 7 * 20 + 19 * 40) / 27]
    )


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_expected_best_is_that_of_all_draws_with_replacement(steps: int) -> None:
    values = [3.0, 1.0, 4.0, 1.0, 5.0]
    draws = [max(draw) for draw in itertools.product(values, repeat=steps)]
    assert expected_best(np.array(values), steps)[-1] == pytest.approx(fmean(draws))


@given(figures)
def test_one_trial_is_the_mean_and_more_only_raise_it_to_the_maximum(values: list[float]) -> None:
    curve = expected_best(np.array(values), 20)
    assert curve[0] == pytest.approx(fmean(values), abs=1e-9)
    assert (np.diff(curve) >= -1e-9).all()
    assert curve.max() <= max(values) + 1e-9


@given(figures, st.randoms())
def test_order_is_nothing_and_a_shift_shifts(values: list[float], random) -> None:
    shuffled = random.sample(values, len(values))
    assert expected_best(np.array(shuffled), 5) == pytest.approx(expected_best(np.array(values), 5))
    assert expected_best(np.array(values) + 7, 5) == pytest.approx(expected_best(np.array(values), 5) + 7)


def test_tasks_are_rows() -> None:
    values = np.array([[10.0, 20.0], [50.0, 50.0]])
    assert expected_best(values, 2).tolist() == [[15.0, 17.5], [50.0, 50.0]]


def test_band_holds_the_curve_and_is_the_same_each_time() -> None:
    values = np.array([[10.0, 20.0, 60.0, 30.0, 35.0, 22.0], [12.0, 25.0, 61.0, 20.0, 30.0, 22.0]])
    low, high = band(values, 3)
    curve = expected_best(values, 3).mean(axis=0)
    assert (low < curve).all() and (curve < high).all() and (high <= 60.5).all()
    assert all((one == other).all() for one, other in zip(band(values, 3), (low, high), strict=True))
    # the mean of six: its bootstrap deviation is that of the values / sqrt(6)
    deviation = values.mean(axis=0).std() / 6**0.5
    assert (high[0] - low[0]) / (2 * 1.96 * deviation) == pytest.approx(1.0, abs=0.1)


def test_a_trial_is_drawn_for_all_tasks_at_once() -> None:
    rising = np.arange(10.0)
    low, high = band(np.array([rising, -rising]), 1)  # what one task gains the other loses
    assert abs(low[0]) < 1e-12 and abs(high[0]) < 1e-12


def test_equal_figures_have_no_band() -> None:
    low, high = band(np.full((2, 5), 50.0), 2)
    assert low.tolist() == pytest.approx([50.0, 50.0]) and high.tolist() == pytest.approx([50.0, 50.0])


@given(st.lists(st.integers(0, 6), min_size=1, max_size=6))
def test_trials_needed_is_the_mean_over_all_orders(values: list[int]) -> None:
    first = [
        next(place for place, value in enumerate(order, 1) if value >= max(values) - 1)
        for order in itertools.permutations(values)
    ]
    assert trials_needed(values) == pytest.approx(float(Fraction(sum(first), len(first))))


def test_a_failed_trial_counts_as_the_worst_or_as_chance() -> None:
    assert with_failures([70.0, None, 30.0], 10.0) == [70.0, 10.0, 30.0]
    assert with_failures([70.0, None, 5.0], 10.0) == [70.0, 5.0, 5.0]
    assert with_failures([70.0, None, 30.0], None) == [70.0, 30.0, 30.0]
    assert with_failures([None, None], 10.0) == [10.0, 10.0]
    assert with_failures([None], None) is None


def test_pairs_in_opposite_orders() -> None:
    assert changed_pairs([3.0, 2.0, 1.0], [1.0, 2.0, 3.0]) == (3, 3)
    assert changed_pairs([3.0, 3.0, 1.0], [1.0, 2.0, 0.0]) == (0, 3)  # a tie is in no order
    inf = float("inf")
    assert changed_pairs([-inf, -inf, 1.0], [3.0, 2.0, 1.0]) == (2, 3)
