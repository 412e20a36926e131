"""Expected calibration error and reliability."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peftmark.errors import PeftmarkError
from peftmark.results.statistics import calibration_of


def test_by_hand() -> None:
    confidence = np.array([0.95, 0.97, 0.99, 0.5, 0.52, 0.3])
    correct = np.array([True, True, False, True, False, False])
    result = calibration_of(correct, confidence)
    by_bin = {(part.low, part.high): part for part in result.bins if part.n}
    assert [part.n for part in by_bin.values()] == [1, 2, 3]
    last = result.bins[14]
    assert (last.low, last.high) == (pytest.approx(14 / 15), 1.0)
    assert last.confidence == pytest.approx(0.97) and last.accuracy == pytest.approx(2 / 3)
    assert result.bins[7].n == 2 and result.bins[4].n == 1
    assert result.error == pytest.approx(100 * (3 * (0.97 - 2 / 3) + 2 * 0.01 + 0.3) / 6)
    assert str(result.n) == "1 task, 6 test examples" and "15 bins" in result.method


def test_a_bin_holds_its_upper_end() -> None:
    ends = np.array([0.0, 1 / 15, 2 / 15, 1.0])
    assert [part.n for part in calibration_of(np.ones(4), ends).bins if part.n] == [2, 1, 1]
    empty = calibration_of(np.ones(4), ends).bins[5]
    assert empty.n == 0 and empty.confidence is None and empty.accuracy is None


def test_a_calibrated_model_has_what_chance_makes_of_it() -> None:
    random = np.random.default_rng(0)
    exceeded, errors, chance = 0, [], []
    for _ in range(80):
        confidence = random.uniform(0.2, 1, 200)
        result = calibration_of(random.random(200) < confidence, confidence)
        errors.append(result.error)
        chance.append(result.by_chance)
        exceeded += result.error > result.by_chance_at_most
    assert np.mean(errors) == pytest.approx(np.mean(chance), rel=0.05)
    assert np.mean(chance) > 5  # points, of a perfect model: 200 examples are few
    assert 1 <= exceeded <= 10  # of 80, one in twenty


def test_an_overconfident_model_is_found_out() -> None:
    random = np.random.default_rng(0)
    result = calibration_of(random.random(500) < 0.6, np.full(500, 0.9))
    assert result.error == pytest.approx(30, abs=5) and result.error > 3 * result.by_chance_at_most


@settings(max_examples=30, deadline=None)
@given(
    data=st.lists(st.tuples(st.booleans(), st.floats(0, 1, width=32)), min_size=1, max_size=50), seed=st.integers(0, 9)
)
def test_order_changes_nothing_and_all_examples_are_in_a_bin(data: list[tuple[bool, float]], seed: int) -> None:
    correct, confidence = (np.array(part) for part in zip(*data, strict=True))
    result = calibration_of(correct, confidence)
    order = np.random.default_rng(seed).permutation(len(data))
    assert calibration_of(correct[order], confidence[order]).error == pytest.approx(result.error)
    assert sum(part.n for part in result.bins) == len(data)
    assert all(
        part.low - 1e-9 <= part.confidence <= part.high + 1e-9 for part in result.bins if part.confidence is not None
    )
    assert result.error == pytest.approx(
        100 * sum(part.n * abs(part.accuracy - part.confidence) for part in result.bins if part.n) / len(data)
    )


def test_what_is_no_pair_of_lists_is_one_line() -> None:
    for correct, confidence in (([], []), ([1, 0], [0.5]), ([[1]], [[0.5]])):
        with pytest.raises(PeftmarkError, match="one confidence an example"):
            calibration_of(correct, confidence)
    for confidence in ([1.2], [np.nan], [-0.1]):
        with pytest.raises(PeftmarkError, match="probabilities between 0 and 1"):
            calibration_of([1], confidence)
