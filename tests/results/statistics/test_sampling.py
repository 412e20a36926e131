"""What the choice of test examples adds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from peftmark.errors import PeftmarkError
from peftmark.results.statistics import binomial_variance, is_correct, sampling_variance, wilson


@settings(deadline=None)
@given(right=st.integers(0, 500), examples=st.integers(1, 500))
def test_wilsons_interval_is_scipys(right: int, examples: int) -> None:
    right = min(right, examples)
    found = wilson(100 * right / examples, examples)
    exact = binomtest(right, examples).proportion_ci(0.95, method="wilson")
    assert (found.low, found.high) == pytest.approx((100 * exact.low, 100 * exact.high), abs=1e-9)
    assert found.n.examples == examples and "Wilson" in found.method


def test_the_standard_error_of_an_accuracy() -> None:
    assert math.sqrt(binomial_variance(60.0, 600)) == pytest.approx(2.0)
    assert binomial_variance(100.0, 600) == 0


def test_of_one_seed_it_is_the_binomial_one() -> None:
    correct = np.array([[1] * 60 + [0] * 40])
    assert sampling_variance(correct) == pytest.approx(binomial_variance(60.0, 100) * 100 / 99)


def test_of_seeds_that_agree_it_is_that_of_one() -> None:
    correct = np.array([[1] * 60 + [0] * 40])
    assert sampling_variance(np.repeat(correct, 3, axis=0)) == pytest.approx(sampling_variance(correct))


def test_what_seeds_do_not_agree_on_is_left_to_them() -> None:
    """Crossed random effects of known variance: only the examples' part is left."""
    random = np.random.default_rng(0)
    found = []
    for _ in range(200):
        examples, seeds = random.normal(0, 2, (1, 400)), random.normal(0, 1, (3, 1))
        found.append(sampling_variance((examples + seeds + random.normal(0, 4, (3, 400))) / 100))
    assert np.mean(found) == pytest.approx(4 / 400, rel=0.05)
    noise = [sampling_variance(random.integers(0, 2, (3, 400))) for _ in range(200)]
    assert np.mean(noise) < 0.1 * binomial_variance(50.0, 400)  # and none where examples have none


def test_paired_differences_vary_less_than_accuracies() -> None:
    random = np.random.default_rng(0)
    hard = random.normal(size=500)
    one, other = (hard + random.normal(0, 0.3, 500) > 0 for _ in range(2))
    paired = sampling_variance((one.astype(int) - other)[None])
    assert paired < 0.5 * (sampling_variance(one[None]) + sampling_variance(other[None]))
    disagreed = one != other
    exact = 1e4 * (disagreed.mean() - (one.mean() - other.mean()) ** 2) / 499
    assert paired == pytest.approx(exact)


def test_one_example_is_too_few() -> None:
    with pytest.raises(PeftmarkError, match="1 test example says nothing"):
        sampling_variance(np.ones((3, 1)))


def test_what_is_right_is_asked_of_labels_only() -> None:
    labels = np.array([0, 1, 2])
    assert is_correct({"predicted": np.array([0, 2, 2]), "target": labels}).tolist() == [True, False, True]
    for arrays in (
        {"predicted": labels},
        {"predicted": np.zeros((3, 4)), "target": np.zeros((3, 4))},
        {"predicted": np.zeros(4, int), "target": labels},
        {"predicted": np.ones(3), "target": np.ones(3)},  # a regression's
    ):
        with pytest.raises(PeftmarkError, match="not one label an example"):
            is_correct(arrays)
